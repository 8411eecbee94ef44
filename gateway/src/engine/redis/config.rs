//! Where Redis is and how it is used.

use std::time::Duration;

use flux_registry::RedisDeployment;

/// How the engine uses Redis.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// Which servers there are, and who we are to them.
    pub deployment: RedisDeployment,
    /// Before every name in Redis (`engine.redis.prefix`).
    pub prefix: String,
    /// Longest time for a connection to be made (`engine.redis.connect_timeout`).
    pub connect_timeout: Duration,
    /// Longest time for an answer (`engine.redis.io_timeout`).
    pub io_timeout: Duration,
    /// A channel in which nothing was heard for so long has its position compared with Redis
    /// (`client.channel_position_check_delay`).
    pub position_check_delay: Duration,
}

impl RedisConfig {
    /// One server, and Centrifugo's defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self::with(RedisDeployment::single(url))
    }

    /// Centrifugo's defaults.
    pub fn with(deployment: RedisDeployment) -> Self {
        Self {
            deployment,
            prefix: "centrifugo".to_owned(),
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(4),
            position_check_delay: Duration::from_secs(40),
        }
    }
}

/// The address is none.
#[derive(Debug, thiserror::Error)]
#[error("config key `redis`: {0}")]
pub struct RedisConfigError(pub(super) String);
