//! What Centrifugo does not have: the registry, and when publications leave.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::Rate;

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
    /// Longest wait of a publication on a busy shard, so that several leave in one send. Zero: each
    /// leaves at once, however busy the shard.
    #[serde(with = "humantime_serde")]
    pub latency_budget: Duration,
    /// Longest time that a send may stay unfinished before the client counts as a slow consumer.
    #[serde(with = "humantime_serde")]
    pub lag_max: Duration,
}

/// How fast one client may speak.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RatesConfig {
    /// Commands, pongs not counted.
    pub commands: RateConfig,
    /// Publishes; they count as commands too.
    pub publishes: RateConfig,
}

/// A bucket of tokens: error 111 where it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateConfig {
    /// Tokens that come back in a second; 0: as many as the client likes.
    pub per_second: u32,
    /// Tokens that fit into it; 0: as many as come back in a second.
    pub burst: u32,
}

impl RateConfig {
    /// As sessions take it.
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        (self.per_second > 0).then_some(Rate {
            per_second: self.per_second,
            burst: match self.burst {
                0 => self.per_second,
                burst => burst,
            },
        })
    }
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
            latency_budget: crate::limits::FANOUT_LATENCY_BUDGET,
            lag_max: Duration::from_secs(10),
        }
    }
}
