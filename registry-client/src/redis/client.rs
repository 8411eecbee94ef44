//! How Redis is reached: URL, credentials, TLS, names to addresses, and our own address on that way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::io::AsyncDNSResolver;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisError, TlsCertificates,
};
use tokio::sync::watch;

use crate::error::ConfigError;

/// Where Redis is and who we are to it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RedisLogin {
    /// `redis://[user[:password]@]host[:port][/db]`, `rediss://` for TLS, `redis+unix:///path`.
    pub url: String,
    /// Overrides the URL's user.
    pub username: Option<String>,
    /// Overrides the URL's password.
    pub password: Option<String>,
    /// Overrides the URL's database.
    pub database: Option<i64>,
    /// PEM certificates to trust instead of the public authorities (`rediss://` only).
    pub ca_pem: Option<Vec<u8>>,
    /// What we show a server that asks who we are (`rediss://` only).
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate of our own, and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM, the own certificate first.
    pub certificate_pem: Vec<u8>,
    /// PEM.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCertificate")
    }
}

/// Without its secrets: the URL may hold a password too.
impl std::fmt::Debug for RedisLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = self.url.as_str().into_connection_info();
        f.debug_struct("RedisLogin")
            .field("address", &address.map(|info| info.addr().to_string()).ok())
            .field("username", &self.username)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl RedisLogin {
    /// A login from a URL alone.
    pub fn from_url(url: impl Into<String>) -> RedisLogin {
        RedisLogin {
            url: url.into(),
            ..RedisLogin::default()
        }
    }

    /// A login from a URL and a file of PEM certificates to trust instead of the public
    /// authorities; an empty name is none.
    ///
    /// # Errors
    /// Key `redis_ca_file` when the file cannot be read.
    pub fn with_ca_file(url: impl Into<String>, ca_file: &str) -> Result<RedisLogin, ConfigError> {
        let mut login = RedisLogin::from_url(url);
        if !ca_file.is_empty() {
            let pem = std::fs::read(ca_file).map_err(|error| ConfigError {
                key: "redis_ca_file",
                message: format!(
                    "{ca_file} cannot be read: {error}; name a file of PEM certificates"
                ),
            })?;
            login.ca_pem = Some(pem);
        }
        Ok(login)
    }
}

/// Names the cryptography that TLS uses in this process: several providers may be compiled in, and
/// rustls, and what stands on it, asks for one. Whoever was first wins.
fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// TLS that trusts nobody: for an HTTP client that speaks to admin pages without TLS. Left to itself it
/// would look for the machine's certificates, and fail where there are none, as in an image that has
/// nothing but the programs.
#[must_use]
pub fn tls_without_authorities() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has what the default versions of TLS need")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// A client for `login`. Nothing is connected yet. The error says what is wrong with the login, without
/// its password.
pub fn redis_client(login: &RedisLogin, protocol: ProtocolVersion) -> Result<Client, String> {
    install_crypto();
    let info = login
        .url
        .as_str()
        .into_connection_info()
        .map_err(|error| format!("not a Redis URL: {error}; use redis://[user:password@]host:port[/db], or rediss:// for TLS"))?;
    let mut settings = info.redis_settings().clone().set_protocol(protocol);
    if let Some(username) = &login.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &login.password {
        settings = settings.set_password(password);
    }
    if let Some(database) = login.database {
        settings = settings.set_db(database);
    }
    // A peer that vanished without a word is found even where no command is under way.
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(
            TcpKeepalive::new()
                .with_time(Duration::from_secs(5))
                .with_interval(Duration::from_secs(1))
                .with_retries(3),
        )
        .set_user_timeout(Duration::from_secs(5));
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
    if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
        return Err("`#insecure` TLS is not supported: give the server's CA certificate".into());
    }
    if login.ca_pem.is_none() && login.client_certificate.is_none() {
        return Client::open(info).map_err(|error| error.to_string());
    }
    let client_tls = login
        .client_certificate
        .as_ref()
        .map(|own| ClientTlsConfig {
            client_cert: own.certificate_pem.clone(),
            client_key: own.key_pem.clone(),
        });
    let certificates = TlsCertificates {
        client_tls,
        root_cert: login.ca_pem.clone(),
    };
    Client::build_with_tls(info, certificates).map_err(|error| error.to_string())
}

/// Our own address on the way to `peer`: the one that the kernel gives a socket that reaches it. Nothing
/// is sent. An error means that there is no way to `peer` now.
pub fn local_ip_towards(peer: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

type Lookup = Option<Result<Vec<SocketAddr>, String>>;

/// Names to addresses, so that it is known which address was taken: one at a time, the next after a failure.
///
/// A lookup runs on a thread of its own, at most one at a time: without network the system's resolver takes
/// many seconds, and neither a timeout of ours nor the end of the process waits for it. Until it ends the
/// addresses of the last lookup serve.
#[derive(Clone, Default)]
pub(crate) struct Resolver {
    shared: Arc<Mutex<Resolved>>,
    wait_max: Duration,
}

#[derive(Default)]
struct Resolved {
    known: Vec<SocketAddr>,
    pending: Option<watch::Receiver<Lookup>>,
    turn: usize,
    peer: Option<SocketAddr>,
}

impl Resolver {
    pub(crate) fn new(wait_max: Duration) -> Resolver {
        Resolver {
            shared: Arc::default(),
            wait_max,
        }
    }

    /// The address that the last connection went to.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.lock().peer
    }

    /// Looks up the host of `client` and, unless the name is needed for TLS, gives a client of the address:
    /// for connections that the crate makes with a resolver of its own, which nobody could abandon.
    pub(crate) async fn resolved(&self, client: &Client) -> Result<Client, String> {
        let info = client.get_connection_info();
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Ok(client.clone());
        };
        let found = self.addresses(host, *port).await?;
        let peer = found[self.lock().turn % found.len()];
        let addr = ConnectionAddr::Tcp(peer.ip().to_string(), peer.port());
        Client::open(info.clone().set_addr(addr)).map_err(|error| error.to_string())
    }

    /// The last address did not do: take the next one.
    pub(crate) fn failed(&self) {
        let mut resolved = self.lock();
        resolved.turn = resolved.turn.wrapping_add(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Resolved> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lookup(&self, host: &str, port: u16) -> watch::Receiver<Lookup> {
        let mut resolved = self.lock();
        if let Some(pending) = &resolved.pending {
            return pending.clone();
        }
        let (answer, pending) = watch::channel(None);
        resolved.pending = Some(pending.clone());
        let host = host.to_owned();
        let spawned = std::thread::Builder::new()
            .name("resolve".into())
            .spawn(move || {
                let found = (host.as_str(), port)
                    .to_socket_addrs()
                    .map(|addresses| addresses.collect())
                    .map_err(|error| format!("{host}: {error}"));
                let _ = answer.send(Some(found));
            });
        if spawned.is_err() {
            // The sender is gone: the waiter sees that and the next try starts anew.
            resolved.pending = None;
        }
        pending
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let mut pending = self.lookup(host, port);
        let answer = tokio::time::timeout(self.wait_max, pending.wait_for(Option::is_some)).await;
        let found = match answer {
            Err(_) => Err(format!("{host}: no answer from the resolver yet")),
            Ok(Err(_)) => Err(format!("{host}: the resolver could not be started")),
            Ok(Ok(found)) => found.clone().unwrap_or_else(|| Err(String::new())),
        };
        let mut resolved = self.lock();
        if answer_ended(&resolved) {
            resolved.pending = None;
        }
        match found {
            Ok(found) if !found.is_empty() => resolved.known = found,
            Ok(_) if resolved.known.is_empty() => return Err(format!("{host}: no address")),
            Err(error) if resolved.known.is_empty() => return Err(error),
            _ => {}
        }
        Ok(resolved.known.clone())
    }
}

/// Whether the pending lookup has an answer or never will.
fn answer_ended(resolved: &Resolved) -> bool {
    resolved
        .pending
        .as_ref()
        .is_none_or(|pending| pending.borrow().is_some() || pending.has_changed().is_err())
}

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> redis::RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = self
                .addresses(host, port)
                .await
                .map_err(|error| RedisError::from((ErrorKind::Io, "name lookup failed", error)))?;
            let mut resolved = self.lock();
            let peer = found[resolved.turn % found.len()];
            resolved.peer = Some(peer);
            let one: Box<dyn Iterator<Item = SocketAddr> + Send + 'a> =
                Box::new(std::iter::once(peer));
            Ok(one)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_address_is_the_one_on_the_way_to_the_peer() {
        let peer = "127.0.0.1:6379".parse().expect("address");
        let own = local_ip_towards(peer).expect("loopback has a way to itself");
        assert_eq!(own, IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn a_bad_login_is_refused_without_its_password() {
        for url in ["", "http://:secret@host", "redis://:secret@host:port"] {
            let error = redis_client(&RedisLogin::from_url(url), ProtocolVersion::RESP2)
                .expect_err("refused");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
