//! The settings as people write them, checked and made into a deployment. Nothing here connects.

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::client::{ClientCertificate, RedisLogin};
use super::deployment::{RedisDeployment, SentinelDeployment};
use crate::error::ConfigError;
use crate::limits::{REDIS_ENDPOINTS_MAX, TEXT_BYTES_MAX};

/// The settings below `engine.redis`, named as Centrifugo names them. Empty text and empty lists are
/// settings that were not made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisSettings {
    /// `address`: URLs (`redis://`, `rediss://`, `redis+unix://`) or `host:port`; several of them divide
    /// the channels among them.
    pub address: Vec<String>,
    /// `cluster_address`: some servers of a cluster.
    pub cluster_address: Vec<String>,
    /// `sentinel_address`: the sentinels.
    pub sentinel_address: Vec<String>,
    /// `sentinel_master_name`: needed with `sentinel_address`.
    pub sentinel_master_name: String,
    /// `sentinel_user`: who we are to the sentinels.
    pub sentinel_user: String,
    /// `sentinel_password`.
    pub sentinel_password: String,
    /// `sentinel_tls`.
    pub sentinel_tls: RedisTls,
    /// `user`: overrides that of a URL.
    pub user: String,
    /// `password`: overrides that of a URL.
    pub password: String,
    /// `db`: overrides that of a URL. A cluster has only 0.
    pub db: i64,
    /// `tls`: for addresses that say nothing of it themselves.
    pub tls: RedisTls,
}

/// TLS towards Redis; the files' contents, as whoever reads the configuration reads files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// `enabled`: also where the address is `host:port` or `redis://`.
    pub enabled: bool,
    /// `server_ca_pem_file`: certificates to trust instead of the public authorities.
    pub ca_pem: Option<Vec<u8>>,
    /// `cert_pem_file` and `key_pem_file`: who we are.
    pub client_certificate: Option<ClientCertificate>,
}

/// Key of the addresses of servers.
const ADDRESS: &str = "engine.redis.address";
const CLUSTER: &str = "engine.redis.cluster_address";
const SENTINEL: &str = "engine.redis.sentinel_address";

impl RedisSettings {
    /// The settings that the short way means: one address, or several with commas between them.
    pub fn from_url(url: impl Into<String>) -> RedisSettings {
        let url = url.into();
        let parts: Vec<String> = url.split(',').map(|part| part.trim().to_owned()).collect();
        let no_tls = RedisTls::default();
        // A comma may also stand in a password.
        let is_list = parts
            .iter()
            .all(|part| login(ADDRESS, part, &no_tls).is_ok());
        RedisSettings {
            address: if is_list { parts } else { vec![url] },
            ..RedisSettings::default()
        }
    }

    /// The settings that one address of the form `redis+sentinel://` or `redis+cluster://` means beside the
    /// others.
    fn unfolded(&self) -> Result<Option<RedisSettings>, ConfigError> {
        let [address] = &self.address[..] else {
            return Ok(None);
        };
        let Some((scheme, rest)) = address.split_once("://") else {
            return Ok(None);
        };
        let Some((plain, kind)) = scheme.split_once('+').filter(|(_, kind)| *kind != "unix") else {
            return Ok(None);
        };
        let unknown = || {
            let message = "an address is of an unknown kind; use redis://, rediss://, redis+unix://, \
                           redis+sentinel:// or redis+cluster://";
            refused(ADDRESS, message.into())
        };
        if !matches!(plain, "redis" | "rediss") {
            return Err(unknown());
        }
        let (first, query) = rest.split_once('?').unwrap_or((rest, ""));
        let first = login(ADDRESS, &format!("{plain}://{first}"), &self.tls)?;
        let mut unfolded = self.clone();
        unfolded.address.clear();
        unfolded.db = if self.db == 0 {
            first.database.unwrap_or(0)
        } else {
            self.db
        };
        for (setting, of_url) in [
            (&mut unfolded.user, &first.username),
            (&mut unfolded.password, &first.password),
        ] {
            if let (true, Some(of_url)) = (setting.is_empty(), of_url) {
                setting.clone_from(of_url);
            }
        }
        let mut addresses = vec![first.url];
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if value.contains('%') {
                let message =
                    format!("`{name}` in an address is encoded; give it as a key of its own");
                return Err(refused(ADDRESS, message));
            }
            match (kind, name) {
                (_, "addr") => addresses.push(format!("{plain}://{value}")),
                ("sentinel", "sentinel_master_name") => {
                    unfolded.sentinel_master_name = value.into();
                }
                ("sentinel", "sentinel_user") => unfolded.sentinel_user = value.into(),
                ("sentinel", "sentinel_password") => unfolded.sentinel_password = value.into(),
                _ => {
                    let message = format!(
                        "`{name}` in an address is not supported; give it as a key of its own"
                    );
                    return Err(refused(ADDRESS, message));
                }
            }
        }
        unfolded.tls.enabled |= plain == "rediss";
        match kind {
            "sentinel" => {
                unfolded.sentinel_address = addresses;
                unfolded.sentinel_tls.enabled |= plain == "rediss";
            }
            "cluster" => unfolded.cluster_address = addresses,
            _ => return Err(unknown()),
        }
        Ok(Some(unfolded))
    }

    /// The deployment that these settings mean; none when they name no address at all.
    ///
    /// # Errors
    /// [`ConfigError`] with the key as a person wrote it. No message repeats a password.
    pub fn deployment(&self) -> Result<Option<RedisDeployment>, ConfigError> {
        if let Some(unfolded) = self.unfolded()? {
            return unfolded.deployment();
        }
        let kinds = [
            (ADDRESS, &self.address),
            (CLUSTER, &self.cluster_address),
            (SENTINEL, &self.sentinel_address),
        ];
        let mut given = kinds.iter().filter(|(_, list)| !list.is_empty());
        let Some(&(key, addresses)) = given.next() else {
            return Ok(None);
        };
        if let Some((other, _)) = given.next() {
            let message = format!("it stands beside {key}; give one of them");
            return Err(refused(other, message));
        }
        if addresses.len() > REDIS_ENDPOINTS_MAX {
            let message = format!(
                "{} addresses; at most {REDIS_ENDPOINTS_MAX}",
                addresses.len()
            );
            return Err(refused(key, message));
        }
        if key != SENTINEL && !self.sentinel_master_name.is_empty() {
            let message = format!("without {SENTINEL} it means nothing; give that or neither");
            return Err(refused("engine.redis.sentinel_master_name", message));
        }
        let deployment = match key {
            CLUSTER => {
                if self.db != 0 {
                    let message = format!("{} is not allowed: a cluster has only 0", self.db);
                    return Err(refused("engine.redis.db", message));
                }
                let seeds = self.logins(key, addresses)?;
                if seeds.iter().any(|seed| seed.database.is_some()) {
                    let message = "an address names a database; a cluster has only 0";
                    return Err(refused(key, message.into()));
                }
                RedisDeployment::Cluster(seeds)
            }
            SENTINEL => RedisDeployment::Sentinel(self.sentinels(addresses)?),
            _ => {
                let mut logins = self.logins(key, addresses)?;
                match logins.len() {
                    1 => RedisDeployment::Single(logins.remove(0)),
                    _ => RedisDeployment::Sharded(logins),
                }
            }
        };
        Ok(Some(deployment))
    }

    fn sentinels(&self, addresses: &[String]) -> Result<SentinelDeployment, ConfigError> {
        let master_name = self.sentinel_master_name.clone();
        let is_name = !master_name.is_empty()
            && master_name.len() <= TEXT_BYTES_MAX
            && master_name.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_name {
            let message =
                "needed with sentinel addresses: what they call the master, without spaces";
            return Err(refused("engine.redis.sentinel_master_name", message.into()));
        }
        let sentinels = addresses
            .iter()
            .map(|address| {
                login(SENTINEL, address, &self.sentinel_tls).map(|login| RedisLogin {
                    username: text(&self.sentinel_user).or(login.username),
                    password: text(&self.sentinel_password).or(login.password),
                    database: None,
                    ..login
                })
            })
            .collect::<Result<_, _>>()?;
        let scheme = if self.tls.enabled { "rediss" } else { "redis" };
        let master = self.complete(RedisLogin {
            url: format!("{scheme}://{master_name}.invalid"),
            ..with_tls(RedisLogin::default(), &self.tls)
        });
        Ok(SentinelDeployment {
            sentinels,
            master_name,
            master,
        })
    }

    fn logins(
        &self,
        key: &'static str,
        addresses: &[String],
    ) -> Result<Vec<RedisLogin>, ConfigError> {
        let logins: Vec<RedisLogin> = addresses
            .iter()
            .map(|address| login(key, address, &self.tls).map(|login| self.complete(login)))
            .collect::<Result<_, _>>()?;
        for (at, one) in logins.iter().enumerate() {
            // The same server twice would be two owners of one set of channels.
            if logins[..at].contains(one) {
                return Err(refused(key, "an address stands in it twice".into()));
            }
        }
        Ok(logins)
    }

    fn complete(&self, login: RedisLogin) -> RedisLogin {
        RedisLogin {
            username: text(&self.user).or(login.username),
            password: text(&self.password).or(login.password),
            database: (self.db != 0).then_some(self.db).or(login.database),
            ..login
        }
    }
}

fn refused(key: &'static str, message: String) -> ConfigError {
    ConfigError { key, message }
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn with_tls(login: RedisLogin, tls: &RedisTls) -> RedisLogin {
    RedisLogin {
        ca_pem: tls.ca_pem.clone(),
        client_certificate: tls.client_certificate.clone(),
        ..login
    }
}

/// A login from an address as people write it: credentials and database leave the URL for the fields, so
/// that what is left can be shown.
fn login(key: &'static str, address: &str, tls: &RedisTls) -> Result<RedisLogin, ConfigError> {
    const ALLOWED: &str = "use host:port, redis://[user:password@]host:port[/db] or rediss://";
    let url = match address.split_once("://") {
        Some(("tcp", rest)) => format!("redis://{rest}"),
        Some(_) => address.to_owned(),
        // A URL without a port has a default; an address of this form has none in Centrifugo either.
        None if host_and_port(address) => format!("redis://{address}"),
        None => return Err(refused(key, format!("an address is not one; {ALLOWED}"))),
    };
    let info = url
        .as_str()
        .into_connection_info()
        .map_err(|error| refused(key, format!("an address is not one: {error}; {ALLOWED}")))?;
    let settings = info.redis_settings();
    let url = match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            let message = "`#insecure` TLS is not supported: give the server's CA certificate";
            return Err(refused(key, message.into()));
        }
        ConnectionAddr::Tcp(host, port) if !tls.enabled => {
            format!("redis://{}:{port}", bracketed(host))
        }
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            format!("rediss://{}:{port}", bracketed(host))
        }
        ConnectionAddr::Unix(path) if key == ADDRESS => format!("redis+unix://{}", path.display()),
        _ => {
            return Err(refused(
                key,
                format!("an address is of a kind not supported here; {ALLOWED}"),
            ));
        }
    };
    let login = RedisLogin {
        url,
        username: settings.username().map(str::to_owned),
        password: settings.password().map(str::to_owned),
        database: Some(settings.db()).filter(|&database| database != 0),
        ..RedisLogin::default()
    };
    Ok(with_tls(login, tls))
}

fn host_and_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

impl RedisDeployment {
    /// The deployment of the short settings `redis` and `redis_ca_file`: one address, several with commas
    /// between them, `redis+sentinel://sentinel:port?sentinel_master_name=NAME[&addr=sentinel:port..]` or
    /// `redis+cluster://server:port[?addr=server:port..]`, and a file of certificates to trust instead of
    /// the public authorities (empty: none).
    ///
    /// # Errors
    /// [`ConfigError`] with the key.
    pub fn from_short(redis: &str, ca_file: &str) -> Result<RedisDeployment, ConfigError> {
        let mut settings = RedisSettings::from_url(redis);
        if !ca_file.is_empty() {
            let pem = std::fs::read(ca_file).map_err(|error| {
                let message =
                    format!("{ca_file} cannot be read: {error}; name a file of PEM certificates");
                refused("redis_ca_file", message)
            })?;
            settings.tls.ca_pem = Some(pem.clone());
            settings.sentinel_tls.ca_pem = Some(pem);
        }
        let short = |error: ConfigError| refused("redis", error.message);
        let deployment = settings.deployment().map_err(short)?;
        deployment.ok_or_else(|| refused("redis", "empty; give the address of a Redis".into()))
    }
}

#[cfg(test)]
mod tests;
