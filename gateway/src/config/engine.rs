//! Centrifugo's `engine`: how shards and nodes are joined.

use std::time::Duration;

use flux_registry::{RedisDeployment, RedisSettings};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Config, TlsConfig};

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
