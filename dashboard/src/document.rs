//! The topology document: what `/api/topology` and `/api/events` send.
//!
//! The fields that stand in the published interface keep their names, units
//! and meaning. Everything else is an addition that a reader may ignore.

use serde::{Deserialize, Serialize};

/// The whole picture at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Name of the cluster.
    pub cluster: String,
    /// When this was put together, Unix milliseconds, dashboard's clock.
    pub at_ms: u64,
    /// How well the registry can be read.
    pub registry: Registry,
    /// The balancers that were configured, in that order.
    pub balancers: Vec<Balancer>,
    /// Every node that is a member or was one in the last ten minutes, by id.
    pub nodes: Vec<Node>,
    /// Number of the newest timeline entry (addition); 0 while there is none.
    pub timeline_last: u64,
}

/// How well the registry can be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// `ok`, `stale` or `unreachable`.
    pub state: RegistryState,
    /// Age of the newest snapshot in milliseconds.
    pub age_ms: u64,
    /// Records that were refused because they are not records (addition).
    pub rejected: u64,
}

/// Trust in what the registry said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryState {
    /// Read within the last polls.
    Ok,
    /// The last reads failed; what is known is a few seconds old.
    Stale,
    /// Nothing could be read for longer than that.
    Unreachable,
}

/// One balancer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balancer {
    /// The id it gives itself; its address before it has answered once.
    pub id: String,
    /// `ok`, `degraded`, `failing` (answers, not ready), `unreachable`, or
    /// `unknown` in the first moment.
    pub state: String,
    /// Connections that it relays now.
    pub flows: u64,
    /// Connections accepted per second.
    pub accepts_per_s: f64,
    /// Why it is not `ok` (addition).
    pub reason: String,
    /// Where it is asked (addition).
    pub admin: String,
}

/// A node's state as people speak of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Registered, not yet taking clients.
    Starting,
    /// Takes clients.
    Ready,
    /// Leaving in order: no new clients, the present ones are moved.
    Draining,
    /// Not a member, or nobody can reach it.
    Dead,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Stable id.
    pub id: String,
    /// State in one word.
    pub state: State,
    /// Why it is not READY, or what is odd about it; empty when all is well.
    pub reason: String,
    /// Whether new clients are sent to it.
    pub routable: bool,
    /// Generation of the process that holds the id.
    pub generation: u64,
    /// Where clients are sent, `ip:port`.
    pub addr: String,
    /// Time since its last heartbeat.
    pub heartbeat_age_ms: u64,
    /// Heartbeat age at which it is no longer a member.
    pub ttl_ms: u64,
    /// `ok` or `failing`: its `/ready`, asked once a second.
    pub probe: String,
    /// Client connections.
    pub connections: u64,
    /// Channels with at least one subscriber here.
    pub channels: u64,
    /// Messages per second, in and out.
    pub messages_per_s: f64,
    /// Share of the keys that belong to it, 0 to 1.
    pub ring_share: f64,
    /// Connections of each shard.
    pub shards: Vec<Shard>,
    /// Null unless it drains.
    pub drain: Option<Drain>,
    /// When the state began, Unix milliseconds (addition).
    pub since_ms: u64,
    /// DEAD because it was told to leave and did so (addition).
    pub orderly: bool,
    /// What else is known, for the detail panel (addition).
    pub detail: Detail,
}

/// One shard's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Index in the node.
    pub shard: usize,
    /// Client connections.
    pub connections: u64,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Clients still connected.
    pub remaining: u64,
    /// When it began, Unix milliseconds, registry's clock.
    pub started_ms: u64,
    /// When it ends at the latest, Unix milliseconds, registry's clock.
    pub deadline_ms: u64,
    /// Clients when the drain was first seen (addition).
    pub from: u64,
    /// Time left, clocks already reconciled (addition).
    pub left_ms: u64,
}

/// Fields that only the detail panel shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// `host:port` of its admin HTTP, empty when its record names none.
    pub admin: String,
    /// State word of its record.
    pub record_state: String,
    /// Random mark of the process that holds the id.
    pub nonce: String,
    /// Heartbeats counted by the node itself.
    pub seq: u64,
    /// Version of the program.
    pub build: String,
    /// Failure zone.
    pub zone: String,
    /// Weight in the ring.
    pub weight: u32,
    /// Connections that it takes at most; 0 when it does not say.
    pub capacity: u64,
    /// When the process started, Unix milliseconds, node's clock.
    pub started_ms: u64,
    /// Last answer of its `/ready`, in words.
    pub probe: String,
    /// What it says about itself that is not right but no reason to leave.
    pub degraded: Vec<String>,
    /// Flows that the balancers hold to it.
    pub flows: Option<u64>,
    /// The balancers' word on it.
    pub balancer: String,
}
