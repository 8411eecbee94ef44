//! Registry x probe: who takes new connections, and whose flows are cut.
//!
//! | registry says | probe | new connections | existing flows |
//! |---|---|---|---|
//! | fresh, ready | ok | yes | keep |
//! | fresh, ready | fails | no | keep |
//! | absent, others fresh | ok | no | keep |
//! | absent | fails | no | cut now |
//! | in doubt (unreachable, empty, over half vanished, just back) | ok | yes, last known good | keep |
//! | draining or starting | any | no | keep |
//!
//! What "in doubt" means is decided once, in `flux_registry`'s membership (`fresh` and `held`).
//!
//! Invariants:
//! - health never changes the ring, only who is skipped on it;
//! - a node leaves the table only absent *and* failing, and then its flows are cut, once;
//! - slow start applies to nodes that come while others carry the load, never to the first ones.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use flux_registry::{
    Member, NodeRecord, NodeState, Placement, PlacementConfig, Ring, Snapshot, Standing, key_hash,
};
use serde::Serialize;

use super::{Node, Route, Routes};
use crate::health::{FlowFailure, Health, Probe, Verdict};

/// Nodes known at once: all that a snapshot may list, and as many that are absent and still alive.
const ENTRIES_MAX: usize = 2 * flux_registry::limits::NODES_MAX;

/// All nodes and what is known of them.
pub struct Table {
    config: PlacementConfig,
    entries: BTreeMap<Arc<str>, Entry>,
    ring: Ring,
    /// Since when some node has been carrying load: nodes that come first in this window are part of
    /// the start, not returning.
    carrying_since: Option<Instant>,
    ever_known: bool,
    /// Until when nodes known from before a restart are not given up, once the registry names others.
    seeds_held_until: Option<Instant>,
    dirty: bool,
    cut: Vec<Arc<Node>>,
}

struct Entry {
    node: Arc<Node>,
    record: NodeRecord,
    presence: Presence,
    /// Known from before a restart; the registry has not named it since.
    seeded: bool,
    health: Health,
    standing: Standing,
    ever_eligible: bool,
    returned: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Fresh,
    Held,
    Absent,
}

/// A probe to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Whose.
    pub id: Arc<str>,
    /// Its admin address.
    pub admin: SocketAddr,
}

/// What shards have to be told.
#[derive(Default)]
pub struct Changes {
    /// New routes, if any standing, address or weight changed.
    pub routes: Option<Routes>,
    /// Nodes whose flows are to be cut.
    pub cut: Vec<Arc<Node>>,
}

/// One line of `/api/nodes`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeStatus {
    /// Its id.
    pub id: String,
    /// Where its clients connect.
    pub addr: SocketAddr,
    /// `READY`, `DRAINING`, `STARTING` as the registry has it, `ABSENT` if it does not.
    pub state: &'static str,
    /// Whether it takes new connections.
    pub eligible: bool,
    /// Why not, or what limits it; empty if nothing does.
    pub reason: String,
    /// `ok`, `failing` or `unknown`.
    pub probe: &'static str,
    /// Its weight on the ring.
    pub weight: u32,
    /// Flows of this balancer to it.
    pub flows: u64,
    /// Its share of the keys, 0 to 1.
    pub ring_share: f64,
}

/// The answer of `/api/ring`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Placed {
    /// As asked.
    pub key: String,
    /// Where a new connection with the key goes now.
    pub node: Option<String>,
    /// The ring's order for the key, owner first, unfiltered.
    pub candidates: Vec<String>,
}

impl Table {
    /// No nodes.
    pub fn new(config: PlacementConfig) -> Table {
        Table {
            config,
            entries: BTreeMap::new(),
            ring: Ring::default(),
            carrying_since: None,
            ever_known: false,
            seeds_held_until: None,
            dirty: false,
            cut: Vec::new(),
        }
    }

    /// Whether any node was ever known.
    pub fn ever_known(&self) -> bool {
        self.ever_known
    }

    /// Takes in a node known from before a restart, to be used until the registry tells otherwise.
    pub fn seed(&mut self, record: NodeRecord, now: Instant) {
        if self.entries.len() < ENTRIES_MAX && !self.entries.contains_key(record.id.as_str()) {
            self.insert(record, Presence::Held, true, now);
        }
    }

    /// Takes in what the registry says now.
    pub fn on_snapshot(&mut self, snapshot: &Snapshot, now: Instant) {
        let mut room = ENTRIES_MAX.saturating_sub(self.entries.len());
        for (id, view) in &snapshot.nodes {
            let presence = match (view.fresh, view.held) {
                (true, _) => Presence::Fresh,
                (false, true) => Presence::Held,
                (false, false) => Presence::Absent,
            };
            match self.entries.get_mut(id.as_str()) {
                Some(entry) => self.dirty |= entry.update(&view.record, presence, now),
                None if presence == Presence::Absent || room == 0 => {}
                None => {
                    room -= 1;
                    self.insert(view.record.clone(), presence, false, now);
                }
            }
        }
        if snapshot.nodes.values().any(|view| view.fresh) {
            self.seeds_held_until.get_or_insert(now + snapshot.ttl);
        }
        let seeds_are_held = self.seeds_held_until.is_none_or(|until| now < until);
        for (id, entry) in &mut self.entries {
            let kept = entry.seeded && seeds_are_held;
            if !kept && !snapshot.nodes.contains_key(&**id) {
                entry.presence = Presence::Absent;
            }
        }
        self.settle(now);
    }

    fn insert(&mut self, record: NodeRecord, presence: Presence, seeded: bool, now: Instant) {
        let id: Arc<str> = Arc::from(record.id.as_str());
        let node = Node::new(id.clone());
        node.report(record.connections);
        let entry = Entry {
            node,
            record,
            presence,
            seeded,
            health: Health::new(now),
            standing: Standing::Out,
            ever_eligible: false,
            returned: None,
        };
        self.entries.insert(id, entry);
        self.ever_known = true;
        self.dirty = true;
    }

    /// The probes that are due, at most `room`; each counts as begun.
    pub fn due_probes(&mut self, room: usize, now: Instant) -> Vec<ProbeTarget> {
        let mut due = Vec::new();
        for (id, entry) in &mut self.entries {
            if entry.health.probe_due() > now || due.len() >= room {
                continue;
            }
            entry.health.probe_begins(now);
            match entry.record.admin {
                Some(admin) => due.push(ProbeTarget {
                    id: id.clone(),
                    admin,
                }),
                // Nothing to ask: the registry's word and the flows' experience have to do.
                None => entry.health.on_probe(Probe::Passed, now),
            }
        }
        self.settle(now);
        due
    }

    /// When the next probe is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.entries
            .values()
            .map(|entry| entry.health.probe_due())
            .min()
    }

    /// A probe has ended. One of an address that the node has left meanwhile says nothing.
    pub fn on_probe(&mut self, target: &ProbeTarget, probe: Probe, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&target.id)
            && entry.record.admin == Some(target.admin)
        {
            entry.health.on_probe(probe, now);
            self.settle(now);
        }
    }

    /// A flow failed on its way to a node.
    pub fn on_flow_failed(&mut self, node: &Arc<Node>, failure: FlowFailure, now: Instant) {
        if let Some(entry) = self.entry_of(node) {
            entry.health.on_flow_failed(failure, now);
            self.settle(now);
        }
    }

    /// A flow got its first byte after others had failed.
    pub fn on_flow_answered(&mut self, node: &Arc<Node>) {
        if let Some(entry) = self.entry_of(node) {
            entry.health.on_flow_answered();
        }
    }

    fn entry_of(&mut self, node: &Arc<Node>) -> Option<&mut Entry> {
        self.entries
            .get_mut(node.id())
            .filter(|entry| Arc::ptr_eq(&entry.node, node))
    }

    /// Applies the table above to every node.
    fn settle(&mut self, now: Instant) {
        let Table {
            entries,
            cut,
            dirty,
            ..
        } = self;
        entries.retain(|_, entry| {
            let gone =
                entry.presence == Presence::Absent && entry.health.verdict() == Verdict::Down;
            if gone {
                cut.push(entry.node.clone());
                *dirty = true;
            }
            !gone
        });
        self.renew_ring();
        let carrying = self
            .entries
            .values()
            .any(|entry| entry.carries(&self.config, now));
        if !carrying {
            self.carrying_since = None;
        }
        for entry in self.entries.values_mut() {
            let standing = entry.due_standing();
            if standing == entry.standing {
                continue;
            }
            entry.standing = standing;
            self.dirty = true;
            if standing == Standing::Eligible {
                let since = *self.carrying_since.get_or_insert(now);
                let part_of_start = !entry.ever_eligible
                    && now.saturating_duration_since(since) < self.config.slow_start;
                entry.returned = (carrying && !part_of_start).then_some(now);
                entry.ever_eligible = true;
            }
        }
    }

    /// Builds the ring again if its members or their weights have changed.
    fn renew_ring(&mut self) {
        let on_ring = || {
            self.entries
                .iter()
                .filter(|(_, entry)| entry.record.weight > 0)
        };
        let same = on_ring().count() == self.ring.len()
            && on_ring().enumerate().all(|(index, (id, entry))| {
                self.ring.ids().get(index) == Some(id)
                    && self.ring.weight(index) == entry.record.weight
            });
        if !same {
            self.ring = Ring::new(
                self.entries
                    .iter()
                    .map(|(id, entry)| (&**id, entry.record.weight)),
            );
        }
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        let routes = std::mem::take(&mut self.dirty).then(|| self.routes());
        Changes {
            routes,
            cut: std::mem::take(&mut self.cut),
        }
    }

    fn routes(&self) -> Routes {
        let members = self.entries.iter().map(|(id, entry)| Member {
            id: id.clone(),
            weight: entry.record.weight,
            standing: entry.standing,
            load: entry.node.load(),
            capacity: entry.record.capacity,
            returned: entry.returned,
        });
        let placement = Placement::with_ring(self.ring.clone(), members.collect(), self.config);
        let routes = self.ring.ids().iter().filter_map(|id| {
            let entry = self.entries.get(id)?;
            Some(Route {
                node: entry.node.clone(),
                addr: entry.record.addr,
            })
        });
        Routes::new(placement, routes.collect())
    }

    /// Where `key` goes now.
    pub fn place(&self, key: &str, now: Instant) -> Placed {
        let hash = key_hash(key.as_bytes());
        let mut routes = self.routes();
        let choice = routes.choose(hash, now);
        Placed {
            key: key.to_owned(),
            node: choice
                .and_then(|choice| routes.route(choice.member))
                .map(|route| route.node.id().to_string()),
            candidates: routes
                .placement()
                .candidates(hash)
                .map(|id| id.to_string())
                .collect(),
        }
    }

    /// Whether so few nodes are eligible that probes are not believed.
    pub fn panicking(&self) -> bool {
        self.routes().placement().panicking()
    }

    /// Every node, by id.
    pub fn statuses(&self, now: Instant) -> Vec<NodeStatus> {
        let shares: BTreeMap<_, _> = self.ring.shares().into_iter().collect();
        let of = |(id, entry): (&Arc<str>, &Entry)| NodeStatus {
            id: id.to_string(),
            addr: entry.record.addr,
            state: entry.state(),
            eligible: entry.standing == Standing::Eligible,
            reason: entry.reason(&self.config, now),
            probe: match entry.health.verdict() {
                Verdict::Up => "ok",
                Verdict::Down => "failing",
                Verdict::Unknown => "unknown",
            },
            weight: entry.record.weight,
            flows: entry.node.flows(),
            ring_share: shares.get(id).copied().unwrap_or_default(),
        };
        self.entries.iter().map(of).collect()
    }

    /// Every node's counters.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.entries.values().map(|entry| &entry.node)
    }

    /// Every node's last record, to be kept over a restart.
    pub fn records(&self) -> impl Iterator<Item = &NodeRecord> {
        self.entries.values().map(|entry| &entry.record)
    }
}

impl Entry {
    /// Takes in its record; true if that changes where or how much it is routed to.
    fn update(&mut self, record: &NodeRecord, presence: Presence, now: Instant) -> bool {
        self.presence = presence;
        self.seeded = false;
        let beat = |record: &NodeRecord| (record.generation, record.seq);
        if beat(record) == beat(&self.record) {
            return false;
        }
        self.node.report(record.connections);
        let routed = |record: &NodeRecord| (record.addr, record.weight, record.capacity);
        let changed = routed(record) != routed(&self.record);
        let moved = record.admin != self.record.admin;
        let restarted =
            record.generation != self.record.generation && self.health.failed_its_flows();
        if moved || restarted {
            // Another network or another process: what the old one answered, or not, says nothing of it.
            self.health = Health::new(now);
        }
        self.record = record.clone();
        changed
    }

    fn due_standing(&self) -> Standing {
        let present = self.presence != Presence::Absent;
        let willing = present && self.record.state == NodeState::Ready && self.record.weight > 0;
        match (willing, self.health.verdict()) {
            (false, _) => Standing::Out,
            (true, Verdict::Up) => Standing::Eligible,
            (true, Verdict::Down | Verdict::Unknown) => Standing::Doubtful,
        }
    }

    /// Whether it has its whole share of the load.
    fn carries(&self, config: &PlacementConfig, now: Instant) -> bool {
        self.standing == Standing::Eligible && !self.starts_slowly(config, now)
    }

    fn starts_slowly(&self, config: &PlacementConfig, now: Instant) -> bool {
        self.returned
            .is_some_and(|at| now.saturating_duration_since(at) < config.slow_start)
    }

    fn state(&self) -> &'static str {
        match (self.presence, self.record.state) {
            (Presence::Absent, _) => "ABSENT",
            (_, NodeState::Starting) => "STARTING",
            (_, NodeState::Ready) => "READY",
            (_, NodeState::Draining) => "DRAINING",
        }
    }

    fn reason(&self, config: &PlacementConfig, now: Instant) -> String {
        match (self.presence, self.record.state) {
            (Presence::Absent, _) => {
                "not in the registry, still answering: keeps its flows".to_owned()
            }
            (_, NodeState::Starting) => "starting".to_owned(),
            (_, NodeState::Draining) => "draining".to_owned(),
            _ if self.record.weight == 0 => "weight 0".to_owned(),
            _ if !self.health.reason().is_empty() => self.health.reason().to_owned(),
            _ if self.starts_slowly(config, now) => "slow start".to_owned(),
            (Presence::Held, _) => "last known good".to_owned(),
            _ => String::new(),
        }
    }
}
