//! What Redis there is: the settings as people write them, checked and made into one of four forms.
//! Nothing here connects.

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::client::{ClientCertificate, RedisLogin};
use crate::error::ConfigError;
use crate::limits::{REDIS_ENDPOINTS_MAX, TEXT_BYTES_MAX};

/// How Redis is deployed. Every login is complete: address, credentials, TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisDeployment {
    /// One server.
    Single(RedisLogin),
    /// Several servers that know nothing of each other: channels are divided among them, the registry is
    /// on the first.
    Sharded(Vec<RedisLogin>),
    /// A master that changes, and sentinels that know which server it is.
    Sentinel(SentinelDeployment),
    /// A Redis Cluster, known by some of its servers.
    Cluster(Vec<RedisLogin>),
}

/// See [`RedisDeployment::Sentinel`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelDeployment {
    /// The sentinels, asked one after the other.
    pub sentinels: Vec<RedisLogin>,
    /// What the sentinels call the master.
    pub master_name: String,
    /// How to speak to the master; the address in it means nothing.
    pub master: RedisLogin,
}

impl RedisDeployment {
    /// One server, by URL or `host:port`.
    pub fn single(url: impl Into<String>) -> RedisDeployment {
        RedisDeployment::Single(RedisLogin::from_url(url))
    }

    /// Whether names that belong together have to be in one slot.
    pub fn is_cluster(&self) -> bool {
        matches!(self, RedisDeployment::Cluster(_))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(addresses: &[&str]) -> Vec<String> {
        addresses
            .iter()
            .map(|&address| address.to_owned())
            .collect()
    }

    fn servers(addresses: &[&str]) -> RedisSettings {
        RedisSettings {
            address: list(addresses),
            ..RedisSettings::default()
        }
    }

    fn deployment(settings: &RedisSettings) -> RedisDeployment {
        settings.deployment().expect("valid").expect("a deployment")
    }

    fn key(settings: &RedisSettings) -> &'static str {
        settings.deployment().expect_err("refused").key
    }

    #[test]
    fn nothing_set_is_no_redis() {
        assert_eq!(RedisSettings::default().deployment(), Ok(None));
    }

    #[test]
    fn one_address_is_a_server_and_several_are_shards() {
        for (address, url) in [
            ("h:6380", "redis://h:6380"),
            ("redis://h", "redis://h:6379"),
            ("tcp://h:1", "redis://h:1"),
            ("redis://[::1]:7", "redis://[::1]:7"),
            ("rediss://h:6380/", "rediss://h:6380"),
            (
                "redis+unix:///run/redis.sock",
                "redis+unix:///run/redis.sock",
            ),
        ] {
            let RedisDeployment::Single(login) = deployment(&servers(&[address])) else {
                panic!("{address}");
            };
            assert_eq!(login, RedisLogin::from_url(url));
        }
        let RedisDeployment::Sharded(logins) = deployment(&servers(&["a:1", "redis://b:2"])) else {
            panic!("two of them");
        };
        let urls: Vec<&str> = logins.iter().map(|login| login.url.as_str()).collect();
        assert_eq!(urls, ["redis://a:1", "redis://b:2"]);
    }

    #[test]
    fn credentials_leave_the_url_and_settings_override_them() {
        let mut settings = servers(&["redis://u:p%40@h:1/3"]);
        let RedisDeployment::Single(login) = deployment(&settings) else {
            panic!("one server");
        };
        assert_eq!(login.url, "redis://h:1");
        assert_eq!(login.username.as_deref(), Some("u"));
        assert_eq!(login.password.as_deref(), Some("p@"));
        assert_eq!(login.database, Some(3));
        settings.user = "v".into();
        settings.password = "q".into();
        settings.db = 4;
        settings.tls = RedisTls {
            enabled: true,
            ca_pem: Some(b"pem".to_vec()),
            client_certificate: None,
        };
        let RedisDeployment::Single(login) = deployment(&settings) else {
            panic!("one server");
        };
        assert_eq!(login.url, "rediss://h:1");
        assert_eq!(login.username.as_deref(), Some("v"));
        assert_eq!(login.password.as_deref(), Some("q"));
        assert_eq!(login.database, Some(4));
        assert_eq!(login.ca_pem.as_deref(), Some(&b"pem"[..]));
    }

    #[test]
    fn sentinels_have_credentials_of_their_own() {
        let mut settings = RedisSettings {
            sentinel_address: list(&["s1:26379", "redis://s2:26379"]),
            sentinel_master_name: "main".into(),
            sentinel_password: "sp".into(),
            user: "u".into(),
            password: "p".into(),
            db: 2,
            ..RedisSettings::default()
        };
        settings.tls.enabled = true;
        let RedisDeployment::Sentinel(found) = deployment(&settings) else {
            panic!("sentinels");
        };
        assert_eq!(found.master_name, "main");
        assert_eq!(found.sentinels.len(), 2);
        assert_eq!(found.sentinels[0].url, "redis://s1:26379");
        assert_eq!(found.sentinels[0].username, None);
        assert_eq!(found.sentinels[0].password.as_deref(), Some("sp"));
        assert_eq!(found.master.username.as_deref(), Some("u"));
        assert_eq!(found.master.database, Some(2));
        assert!(found.master.url.starts_with("rediss://"));
        settings.sentinel_master_name.clear();
        assert_eq!(key(&settings), "engine.redis.sentinel_master_name");
    }

    #[test]
    fn the_short_way_says_all_of_it() {
        let short = |text: &str| RedisDeployment::from_short(text, "");
        assert_eq!(
            short("redis://h"),
            Ok(RedisDeployment::single("redis://h:6379"))
        );
        let Ok(RedisDeployment::Sharded(logins)) = short("h:1, rediss://u:p@g:2") else {
            panic!("two servers");
        };
        assert_eq!(logins[1].url, "rediss://g:2");
        let Ok(RedisDeployment::Single(login)) = short("redis://:a,b@h:1") else {
            panic!("a comma in a password");
        };
        assert_eq!(login.password.as_deref(), Some("a,b"));
        let text =
            "redis+sentinel://u:p@s1:1/2?sentinel_master_name=m&addr=s2:2&sentinel_password=sp";
        let Ok(RedisDeployment::Sentinel(found)) = short(text) else {
            panic!("sentinels");
        };
        let urls: Vec<&str> = found
            .sentinels
            .iter()
            .map(|login| login.url.as_str())
            .collect();
        assert_eq!(urls, ["redis://s1:1", "redis://s2:2"]);
        assert_eq!(found.master_name, "m");
        assert_eq!(found.sentinels[1].password.as_deref(), Some("sp"));
        assert_eq!(found.sentinels[0].username, None);
        assert_eq!(found.master.password.as_deref(), Some("p"));
        assert_eq!(found.master.database, Some(2));
        let Ok(RedisDeployment::Cluster(seeds)) = short("rediss+cluster://:p@a:1?addr=b:2") else {
            panic!("a cluster");
        };
        assert_eq!(seeds.len(), 2);
        assert_eq!(seeds[1].url, "rediss://b:2");
        assert_eq!(seeds[1].password.as_deref(), Some("p"));
        for wrong in [
            "",
            "redis+cluster://a:1/1",
            "redis+cluster://a:1?x=1",
            "redis+sentinel://a:1",
            "redis+sentinel://a:1?sentinel_master_name=%61",
            "redis+other://a:1",
            "http+cluster://a:1",
        ] {
            assert_eq!(short(wrong).expect_err(wrong).key, "redis");
        }
        let unread = RedisDeployment::from_short("redis://h", "/no/such/file");
        assert_eq!(unread.expect_err("no file").key, "redis_ca_file");
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key_and_without_passwords() {
        let cluster = RedisSettings {
            cluster_address: list(&["a:1", "b:1"]),
            ..RedisSettings::default()
        };
        assert!(deployment(&cluster).is_cluster());
        let mut both = cluster.clone();
        both.address = list(&["c:1"]);
        assert_eq!(key(&both), CLUSTER);
        let mut database = cluster.clone();
        database.db = 1;
        assert_eq!(key(&database), "engine.redis.db");
        database.db = 0;
        database.cluster_address = list(&["redis://a:1/1"]);
        assert_eq!(key(&database), CLUSTER);
        let mut socket = cluster.clone();
        socket.cluster_address = list(&["redis+unix:///x"]);
        assert_eq!(key(&socket), CLUSTER);
        let mut named = cluster;
        named.sentinel_master_name = "main".into();
        assert_eq!(key(&named), "engine.redis.sentinel_master_name");
        let many: Vec<String> = (0..=REDIS_ENDPOINTS_MAX)
            .map(|n| format!("h{n}:1"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for addresses in [
            &many[..],
            &[""],
            &["h"],
            &[":1"],
            &["h:port"],
            &["http://:s3cret@h"],
            &["redis://:s3cret@h:port"],
            &["rediss://:s3cret@h/#insecure"],
            &["a:1", "a:1"],
            &["a:1", "redis://a:1"],
        ] {
            let error = servers(addresses).deployment().expect_err("refused");
            assert_eq!(error.key, ADDRESS);
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_address_makes_it_panic(address in "\\PC{0,40}", scheme in "(redis|rediss|unix|tcp|redis\\+sentinel|redis\\+cluster|)(://|)") {
            let _ = servers(&[&address]).deployment();
            let _ = servers(&[&format!("{scheme}{address}")]).deployment();
        }
    }
}
