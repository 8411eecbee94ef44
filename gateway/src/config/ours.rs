//! What Centrifugo does not have: the registry, and when publications leave.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The node's place in the registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// What the registry's keys begin with; `{gateway}` on Redis Cluster.
    pub prefix: String,
    /// Time between two heartbeats.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long a record lives without a heartbeat.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// Share of new clients relative to other nodes; 0: none.
    pub weight: u32,
    /// Where the node stands; shown, not yet used for routing.
    pub zone: String,
}

/// When publications leave.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FanoutConfig {
    /// Longest wait of a publication on a busy shard, so that several leave in one send.
    #[serde(with = "humantime_serde")]
    pub latency_budget: Duration,
    /// Longest time that a send may stay unfinished before the client counts as a slow consumer.
    #[serde(with = "humantime_serde")]
    pub lag_max: Duration,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            prefix: "gateway".to_owned(),
            heartbeat: Duration::from_secs(5),
            ttl: Duration::from_secs(15),
            weight: 1,
            zone: String::new(),
        }
    }
}

impl Default for FanoutConfig {
    fn default() -> Self {
        Self {
            latency_budget: Duration::from_millis(10),
            lag_max: Duration::from_secs(10),
        }
    }
}
