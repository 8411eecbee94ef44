//! What the pure part is given: everything seen at one moment, as plain data.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::document::{RegistryState, Shard};
use crate::probe::{Probe, Verdict};

/// A moment on two clocks: one that only runs forward, one for people.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Time since this dashboard started; never jumps.
    pub up: Duration,
    /// Wall clock, Unix milliseconds; only ever shown, never compared.
    pub unix_ms: u64,
}

/// Everything seen at one moment.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Trust in `members` and `departed`.
    pub registry: RegistryState,
    /// Age of the newest snapshot.
    pub registry_age: Duration,
    /// The registry's clock now, Unix milliseconds, once it was read.
    pub registry_unix_ms: Option<u64>,
    /// Records refused in the newest snapshot.
    pub rejected: u64,
    /// The registry's records.
    pub members: BTreeMap<String, Member>,
    /// Nodes that are gone, as the registry remembers them.
    pub departed: BTreeMap<String, Departure>,
    /// Result of probing, by node id.
    pub probes: BTreeMap<String, Probe>,
    /// Balancers in the order of the configuration.
    pub balancers: Vec<BalancerView>,
    /// Ring shares by node id, for when no balancer tells.
    pub shares: BTreeMap<String, f64>,
}

impl Default for Observation {
    fn default() -> Self {
        Self {
            registry: RegistryState::Unreachable,
            registry_age: Duration::ZERO,
            registry_unix_ms: None,
            rejected: 0,
            members: BTreeMap::new(),
            departed: BTreeMap::new(),
            probes: BTreeMap::new(),
            balancers: Vec::new(),
            shares: BTreeMap::new(),
        }
    }
}

/// State word of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordState {
    /// Not yet taking clients.
    Starting,
    /// Takes clients.
    #[default]
    Ready,
    /// Leaving in order.
    Draining,
}

impl RecordState {
    /// The word in the record.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// One record with its age.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    /// Which process holds the id.
    pub generation: u64,
    /// Random mark of that process.
    pub nonce: String,
    /// What the node says of itself.
    pub state: RecordState,
    /// Client address.
    pub addr: String,
    /// Admin address, empty when unknown.
    pub admin: String,
    /// Whether the heartbeat is younger than the TTL, by the registry's clock.
    pub fresh: bool,
    /// Not fresh, but kept because the registry itself is in doubt.
    pub held: bool,
    /// Time since the last heartbeat.
    pub heartbeat_age: Duration,
    /// Heartbeat age at which it is out.
    pub ttl: Duration,
    /// Weight in the ring.
    pub weight: u32,
    /// Failure zone.
    pub zone: String,
    /// Program version.
    pub build: String,
    /// Heartbeat counter.
    pub seq: u64,
    /// Most connections it takes; 0 unknown.
    pub capacity: u64,
    /// Process start, Unix milliseconds.
    pub started_ms: u64,
    /// Load as of the last heartbeat.
    pub load: Load,
    /// Drain start and deadline, Unix milliseconds of the registry's clock.
    pub drain: Option<(u64, u64)>,
    /// Clients still to move, as of the last heartbeat.
    pub drain_remaining: Option<u64>,
}

/// What a node carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Client connections.
    pub connections: u64,
    /// Channels with subscribers.
    pub channels: u64,
    /// Messages per second.
    pub messages_per_s: f64,
    /// Per shard.
    pub shards: Vec<Shard>,
}

/// What a node says of its load between two heartbeats; replaces what it names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadNow {
    /// Client connections.
    pub connections: Option<u64>,
    /// Channels with subscribers.
    pub channels: Option<u64>,
    /// Messages per second.
    pub messages_per_s: Option<f64>,
    /// Per shard.
    pub shards: Option<Vec<Shard>>,
}

impl LoadNow {
    /// `load` with what is known better.
    #[must_use]
    pub fn over(&self, load: &Load) -> Load {
        Load {
            connections: self.connections.unwrap_or(load.connections),
            channels: self.channels.unwrap_or(load.channels),
            messages_per_s: self.messages_per_s.unwrap_or(load.messages_per_s),
            shards: self.shards.clone().unwrap_or_else(|| load.shards.clone()),
        }
    }
}

/// How a node left.
#[derive(Clone, Debug, PartialEq)]
pub struct Departure {
    /// In words, for a person.
    pub reason: String,
    /// Told to leave and did.
    pub orderly: bool,
    /// How long ago.
    pub age: Duration,
    /// Generation that left.
    pub generation: u64,
    /// Where its clients connected.
    pub addr: String,
}

/// One balancer as it was last heard.
#[derive(Clone, Debug, PartialEq)]
pub struct BalancerView {
    /// Id, or its address before the first answer.
    pub id: String,
    /// Admin address.
    pub admin: String,
    /// Whether it answers.
    pub verdict: Verdict,
    /// Why the last question was not answered.
    pub error: String,
    /// Reasons of its `/ready`, when not ready.
    pub reasons: Vec<String>,
    /// Degraded marks of its `/ready`.
    pub degraded: Vec<String>,
    /// Open flows.
    pub flows: u64,
    /// Accepts per second.
    pub accepts_per_s: f64,
    /// Its table, by node id.
    pub nodes: BTreeMap<String, BalancerNode>,
}

impl BalancerView {
    /// A balancer that was not asked yet, known by its address.
    #[must_use]
    pub fn new(admin: &str) -> Self {
        Self {
            id: admin.to_owned(),
            admin: admin.to_owned(),
            verdict: Verdict::Unknown,
            error: String::new(),
            reasons: Vec::new(),
            degraded: Vec::new(),
            flows: 0,
            accepts_per_s: 0.0,
            nodes: BTreeMap::new(),
        }
    }

    /// Whether what it said last still counts.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.verdict == Verdict::Answers
    }
}

/// A balancer's word on a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BalancerNode {
    /// Gets new connections.
    pub eligible: bool,
    /// Why not.
    pub reason: String,
    /// The balancer's own probe is good; `None` before it knows.
    pub probe_ok: Option<bool>,
    /// Flows to it.
    pub flows: u64,
    /// Its share of the ring.
    pub ring_share: f64,
}
