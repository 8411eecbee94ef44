//! Centrifugo's `engine`: how shards and nodes are joined.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flux_registry::{ClientCertificate, RedisDeployment, RedisSettings, RedisTls};
use serde::{Deserialize, Deserializer, Serialize};

use super::Config;

/// How shards and nodes are joined.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// By what.
    #[serde(rename = "type")]
    pub kind: EngineKind,
    /// The Redis that joins them.
    pub redis: RedisEngineConfig,
}

/// By what shards and nodes are joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// The shards of this node alone.
    #[default]
    Memory,
    /// All nodes that share the Redis.
    Redis,
}

/// The Redis that joins nodes.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisEngineConfig {
    /// URLs or host:port; several of them divide the channels among them.
    #[serde(deserialize_with = "one_or_more")]
    pub address: Vec<String>,
    /// Some servers of a cluster.
    #[serde(deserialize_with = "one_or_more")]
    pub cluster_address: Vec<String>,
    /// The sentinels.
    #[serde(deserialize_with = "one_or_more")]
    pub sentinel_address: Vec<String>,
    /// What the sentinels call the master.
    pub sentinel_master_name: String,
    /// Who we are to the sentinels.
    pub sentinel_user: String,
    /// And its password.
    pub sentinel_password: String,
    /// TLS towards the sentinels.
    pub sentinel_tls: TlsConfig,
    /// What names in Redis begin with.
    pub prefix: String,
    /// Longest wait for a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest wait for an answer.
    #[serde(with = "humantime_serde")]
    pub io_timeout: Duration,
    /// Database.
    pub db: i64,
    /// Who we are.
    pub user: String,
    /// And its password.
    pub password: String,
    /// TLS towards the servers.
    pub tls: TlsConfig,
}

/// TLS as a client. The PEM keys hold the text itself, its base64, or the name of a file.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Also where an address does not ask for it.
    pub enabled: bool,
    /// Certificates to trust instead of the public authorities.
    pub server_ca_pem: String,
    /// Our own certificate.
    pub cert_pem: String,
    /// And its key.
    pub key_pem: String,
}

/// Centrifugo's default, which stands for nobody having said anything.
const ADDRESS_DEFAULT: &str = "redis://127.0.0.1:6379";

impl Default for RedisEngineConfig {
    fn default() -> Self {
        Self {
            address: vec![ADDRESS_DEFAULT.to_owned()],
            cluster_address: Vec::new(),
            sentinel_address: Vec::new(),
            sentinel_master_name: String::new(),
            sentinel_user: String::new(),
            sentinel_password: String::new(),
            sentinel_tls: TlsConfig::default(),
            prefix: "centrifugo".to_owned(),
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(4),
            db: 0,
            user: String::new(),
            password: String::new(),
            tls: TlsConfig::default(),
        }
    }
}

impl std::fmt::Debug for RedisEngineConfig {
    /// Without what may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisEngineConfig")
            .field("prefix", &self.prefix)
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig")
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// A list, or one entry without the brackets; commas may separate entries.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        List(Vec<String>),
        Text(String),
    }
    let list = match Written::deserialize(deserializer)? {
        Written::List(list) => list,
        Written::Text(text) => vec![text],
    };
    let split = list.iter().flat_map(|entry| entry.split(','));
    Ok(split
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect())
}

impl Config {
    /// The Redis that joins this node with others; none: it stands alone.
    ///
    /// # Errors
    /// One line with the key and the remedy.
    pub fn redis_deployment(&self) -> Result<Option<RedisDeployment>, String> {
        if !self.redis.is_empty() {
            if self.engine.redis.names_a_place() {
                return Err(
                    "config key `redis`: it stands beside `engine.redis`; give one of them"
                        .to_owned(),
                );
            }
            return RedisDeployment::from_short(&self.redis, &self.redis_ca_file)
                .map(Some)
                .map_err(|error| error.to_string());
        }
        if self.engine.kind != EngineKind::Redis {
            return Ok(None);
        }
        let settings = self.engine.redis.settings()?;
        settings.deployment().map_err(|error| error.to_string())
    }
}

impl RedisEngineConfig {
    /// Whether somebody has said where Redis is.
    fn names_a_place(&self) -> bool {
        !self.cluster_address.is_empty()
            || !self.sentinel_address.is_empty()
            || !self.has_default_address()
    }

    fn has_default_address(&self) -> bool {
        self.address == [ADDRESS_DEFAULT]
    }

    fn settings(&self) -> Result<RedisSettings, String> {
        // The default address is not one of two that were given.
        let is_elsewhere = !self.cluster_address.is_empty() || !self.sentinel_address.is_empty();
        let address = if is_elsewhere && self.has_default_address() {
            Vec::new()
        } else {
            self.address.clone()
        };
        Ok(RedisSettings {
            address,
            cluster_address: self.cluster_address.clone(),
            sentinel_address: self.sentinel_address.clone(),
            sentinel_master_name: self.sentinel_master_name.clone(),
            sentinel_user: self.sentinel_user.clone(),
            sentinel_password: self.sentinel_password.clone(),
            sentinel_tls: self.sentinel_tls.read("engine.redis.sentinel_tls")?,
            user: self.user.clone(),
            password: self.password.clone(),
            db: self.db,
            tls: self.tls.read("engine.redis.tls")?,
        })
    }
}

impl TlsConfig {
    /// Reads what the PEM keys name. They count only with `enabled`, as in Centrifugo.
    fn read(&self, key: &str) -> Result<RedisTls, String> {
        if !self.enabled {
            return Ok(RedisTls::default());
        }
        let part = |name: &str, text: &str| {
            pem(text).map_err(|why| format!("config key `{key}.{name}`: {why}"))
        };
        let certificate = part("cert_pem", &self.cert_pem)?;
        let private = part("key_pem", &self.key_pem)?;
        let client_certificate = match (certificate, private) {
            (None, None) => None,
            (Some(certificate_pem), Some(key_pem)) => Some(ClientCertificate {
                certificate_pem,
                key_pem,
            }),
            _ => {
                return Err(format!(
                    "config key `{key}`: cert_pem and key_pem belong together; give both or neither"
                ));
            }
        };
        Ok(RedisTls {
            enabled: true,
            ca_pem: part("server_ca_pem", &self.server_ca_pem)?,
            client_certificate,
        })
    }
}

/// The PEM that a text is, encodes or names. The text is not repeated in an error: it may be a key.
fn pem(text: &str) -> Result<Option<Vec<u8>>, String> {
    const BEGIN: &str = "-----BEGIN";
    if text.is_empty() {
        return Ok(None);
    }
    if text.contains(BEGIN) {
        return Ok(Some(text.as_bytes().to_vec()));
    }
    if let Ok(decoded) = BASE64.decode(text)
        && decoded.starts_with(BEGIN.as_bytes())
    {
        return Ok(Some(decoded));
    }
    match std::fs::read(text) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => Err(format!(
            "neither PEM text, nor base64 of it, nor a file that can be read ({error}); give one of them"
        )),
    }
}
