//! What readers see of the registry: snapshots, and when not to believe it.
//!
//! Invariants:
//! * A node is fresh only if its deadline lies ahead by Redis TIME *and* its heartbeats have been seen to
//!   advance within its TTL on this reader's monotonic clock. No wall clock of any machine counts.
//! * A registry that cannot be read, that is empty, or that lost over half of its nodes in one read removes
//!   nobody: nodes seen fresh before are held, without an age limit, until it has recovered and one more
//!   TTL has passed.
//! * A lease ends by its deadline or by the goodbye of its holder; a deleted record ends none.
//! * One bad record costs only itself: it is refused, counted and named.
//! * At most [`limits::NODES_MAX`] nodes; in a flood those already known stay.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits;
use crate::record::{Departure, NodeRecord, NodeState, RecordError};

/// What a transport read, not yet believed.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Redis TIME of the read, Unix in milliseconds.
    pub server_time_ms: u64,
    /// The registry's change counter.
    pub version: u64,
    /// Records with a deadline.
    pub entries: Vec<Entry>,
    /// Departures: id and JSON.
    pub departed: Vec<(String, Vec<u8>)>,
    /// Entries that the transport refused to transfer (too large, no deadline, over the limit).
    pub refused: u64,
}

/// One record with its deadline, not yet parsed.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The id it is stored under.
    pub id: String,
    /// Redis TIME at which its lease ends.
    pub deadline_ms: u64,
    /// The record.
    pub json: Vec<u8>,
}

/// Whether the registry can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryState {
    /// The last read worked.
    Ok,
    /// The last read failed, an earlier one worked less than a TTL ago.
    Stale,
    /// Nothing could be read for a TTL, or never.
    Unreachable,
}

impl RegistryState {
    /// The word of `/api/topology`.
    pub fn as_str(self) -> &'static str {
        match self {
            RegistryState::Ok => "ok",
            RegistryState::Stale => "stale",
            RegistryState::Unreachable => "unreachable",
        }
    }
}

/// Why what the registry says about missing nodes is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It cannot be read.
    Unreadable,
    /// It has no live node although there were some.
    Empty,
    /// Over half of the nodes vanished in one read and have not come back.
    OverHalfVanished,
    /// It has just come back: removals are held for one TTL.
    Returning,
}

/// One node of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its last record.
    pub record: NodeRecord,
    /// Redis TIME at which its lease ends or ended.
    pub deadline_ms: u64,
    /// Age of its last heartbeat at the time of the read, milliseconds.
    pub heartbeat_age_ms: u64,
    /// Whether its lease is alive. While the registry cannot be read: whether it was.
    pub fresh: bool,
    /// Not fresh (any more), but kept as last known good: the registry itself is in doubt, or the record
    /// was deleted by somebody before its lease ended.
    pub held: bool,
}

impl NodeView {
    /// Whether the registry has nothing against new connections to the node (health is another question):
    /// fresh or held, and ready.
    pub fn routable(&self) -> bool {
        (self.fresh || self.held) && self.record.state == NodeState::Ready
    }
}

/// A refused record, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The id it is stored under, cut to [`limits::ID_BYTES_MAX`].
    pub id: String,
    /// Why.
    pub reason: RecordError,
}

/// The registry at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whether the registry can be read.
    pub state: RegistryState,
    /// Age of what is shown, when this snapshot was made. [`Snapshot::age_at`] for any other moment.
    pub age: Duration,
    /// When the last successful read was made; `None` before the first.
    pub read_at: Option<Instant>,
    /// Why the last read failed.
    pub error: Option<String>,
    /// Redis TIME of the last successful read, Unix in milliseconds.
    pub server_time_ms: u64,
    /// The registry's change counter.
    pub version: u64,
    /// Nodes by id, those included that expired less than [`limits::LISTED_AFTER_END`] ago.
    pub nodes: BTreeMap<String, NodeView>,
    /// Nodes that left by themselves less than [`limits::LISTED_AFTER_END`] ago and have not come back.
    pub departed: BTreeMap<String, Departure>,
    /// Records refused in the last successful read.
    pub rejected: u64,
    /// Some of them by name, at most [`limits::REJECTED_NAMED_MAX`].
    pub rejected_named: Vec<Rejected>,
    /// Lease length that this process is configured with.
    pub ttl: Duration,
    /// Why missing nodes are held, if they are.
    pub doubt: Option<Doubt>,
}

impl Snapshot {
    /// A snapshot before anything was read.
    pub fn unread(ttl: Duration) -> Snapshot {
        Snapshot {
            state: RegistryState::Unreachable,
            age: Duration::ZERO,
            read_at: None,
            error: None,
            server_time_ms: 0,
            version: 0,
            nodes: BTreeMap::new(),
            departed: BTreeMap::new(),
            rejected: 0,
            rejected_named: Vec::new(),
            ttl,
            doubt: None,
        }
    }

    /// Age of what is shown at `now`; `None` before the first successful read.
    pub fn age_at(&self, now: Instant) -> Option<Duration> {
        self.read_at
            .map(|read_at| now.saturating_duration_since(read_at))
    }
}

/// When a node's heartbeat was last seen to advance.
struct Progress {
    generation: u64,
    seq: u64,
    /// Monotonic time of the read that showed it first.
    since: Instant,
    /// Whether this reader saw it advance at least once.
    advanced: bool,
}

/// Turns readings into snapshots.
pub struct Membership {
    current: Snapshot,
    progress: HashMap<String, Progress>,
    /// Nodes (fresh or held) when the doubt began.
    doubted: usize,
    /// The doubt that an unreadable registry hides.
    doubt_before: Option<Doubt>,
    returning_until: Option<Instant>,
}

impl Membership {
    /// Membership for readers configured with `ttl`.
    pub fn new(ttl: Duration) -> Membership {
        Membership {
            current: Snapshot::unread(ttl),
            progress: HashMap::new(),
            doubted: 0,
            doubt_before: None,
            returning_until: None,
        }
    }

    /// The last snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.current
    }

    /// Takes a successful read, made at `now`.
    pub fn on_read(&mut self, reading: Reading, now: Instant) -> Arc<Snapshot> {
        let outage = match (self.current.state, self.current.read_at) {
            (RegistryState::Ok, _) | (_, None) => None,
            (_, Some(read_at)) => Some(now.saturating_duration_since(read_at)),
        };
        let mut rejected = reading.refused;
        let mut named = Vec::new();
        let mut parsed = Vec::with_capacity(reading.entries.len().min(limits::NODES_MAX));
        for entry in reading.entries {
            match NodeRecord::parse(&entry.id, &entry.json) {
                Ok(record) => parsed.push((record, entry.deadline_ms)),
                Err(reason) => {
                    rejected += 1;
                    if named.len() < limits::REJECTED_NAMED_MAX {
                        let id = entry.id.chars().take(limits::ID_BYTES_MAX).collect();
                        named.push(Rejected { id, reason });
                    }
                }
            }
        }
        self.note_progress(&parsed, outage.is_some(), now);
        rejected += self.cut_to_limit(&mut parsed, reading.server_time_ms);
        let departed = departures(reading.departed, &parsed, reading.server_time_ms);
        let mut nodes = self.views(parsed, reading.server_time_ms, now);
        let fresh = nodes.values().filter(|view| view.fresh).count();
        self.hold_missing(
            &mut nodes,
            &departed,
            fresh,
            outage,
            reading.server_time_ms,
            now,
        );

        self.current = Snapshot {
            state: RegistryState::Ok,
            age: Duration::ZERO,
            read_at: Some(now),
            error: None,
            server_time_ms: reading.server_time_ms,
            version: reading.version,
            nodes,
            departed,
            rejected,
            rejected_named: named,
            ttl: self.current.ttl,
            doubt: self.current.doubt,
        };
        self.check_invariants();
        Arc::new(self.current.clone())
    }

    /// Takes a failed read.
    pub fn on_failure(&mut self, error: &str, now: Instant) -> Arc<Snapshot> {
        let age = self.current.age_at(now);
        if self.current.state == RegistryState::Ok {
            self.doubted = self
                .current
                .nodes
                .values()
                .filter(|v| v.fresh || v.held)
                .count();
        }
        self.current.state = match age {
            Some(age) if age < self.current.ttl => RegistryState::Stale,
            _ => RegistryState::Unreachable,
        };
        self.current.age = age.unwrap_or_default();
        self.current.error = Some(error.to_owned());
        if self.current.doubt != Some(Doubt::Unreadable) {
            self.doubt_before = self.current.doubt;
        }
        self.current.doubt = Some(Doubt::Unreadable);
        Arc::new(self.current.clone())
    }

    /// How long after the last read the next lease ends, if nobody renews it: a reader that reads then
    /// sees a death when it happens and not up to a poll later.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.current
            .nodes
            .values()
            .filter(|view| view.fresh)
            .map(|view| view.deadline_ms.saturating_sub(self.current.server_time_ms))
            .min()
            .map(Duration::from_millis)
    }

    /// Keeps at most [`limits::NODES_MAX`] records: first those that this reader saw advance, then those it
    /// knows, then by id; lapsed leases last. Returns how many it dropped.
    fn cut_to_limit(&self, parsed: &mut Vec<(NodeRecord, u64)>, server_time_ms: u64) -> u64 {
        let over = parsed.len().saturating_sub(limits::NODES_MAX);
        if over > 0 {
            parsed.sort_by_cached_key(|(record, deadline_ms)| {
                let rank = match self.progress.get(&record.id) {
                    _ if *deadline_ms <= server_time_ms => 3,
                    Some(progress) if progress.advanced => 0,
                    _ if self.current.nodes.contains_key(&record.id) => 1,
                    _ => 2,
                };
                (rank, record.id.clone())
            });
            parsed.truncate(limits::NODES_MAX);
        }
        over as u64
    }

    fn note_progress(&mut self, parsed: &[(NodeRecord, u64)], after_outage: bool, now: Instant) {
        // Of those that are too many as well (there are at most as many as one read gives): only so can a
        // reader that starts in a flood find out who lives.
        let mut known = std::mem::take(&mut self.progress);
        for (record, _) in parsed {
            let seen = (record.generation, record.seq);
            let progress = match known.remove(&record.id) {
                Some(mut old) => {
                    if (old.generation, old.seq) != seen {
                        (old.generation, old.seq) = seen;
                        old.since = now;
                        old.advanced = true;
                    } else if after_outage {
                        // Nobody could renew, or nobody could see it.
                        old.since = now;
                    }
                    old
                }
                None => Progress {
                    generation: seen.0,
                    seq: seen.1,
                    since: now,
                    advanced: false,
                },
            };
            self.progress.insert(record.id.clone(), progress);
        }
        known.retain(|id, _| self.current.nodes.contains_key(id));
        self.progress.extend(known);
    }

    fn views(
        &self,
        parsed: Vec<(NodeRecord, u64)>,
        server_time_ms: u64,
        now: Instant,
    ) -> BTreeMap<String, NodeView> {
        let listed_ms = limits::LISTED_AFTER_END.as_millis() as u64;
        parsed
            .into_iter()
            .filter(|(_, deadline_ms)| deadline_ms.saturating_add(listed_ms) > server_time_ms)
            .map(|(record, deadline_ms)| {
                let view = NodeView {
                    deadline_ms,
                    heartbeat_age_ms: server_time_ms
                        .saturating_sub(deadline_ms.saturating_sub(record.ttl_ms)),
                    fresh: deadline_ms > server_time_ms && self.advances(&record, now),
                    held: false,
                    record,
                };
                (view.record.id.clone(), view)
            })
            .collect()
    }

    /// Whether the node's heartbeats were seen to advance within its TTL.
    fn advances(&self, record: &NodeRecord, now: Instant) -> bool {
        let ttl = Duration::from_millis(record.ttl_ms);
        self.progress
            .get(&record.id)
            .is_some_and(|progress| now.saturating_duration_since(progress.since) <= ttl)
    }

    /// Decides whether missing nodes are held, and adds them.
    fn hold_missing(
        &mut self,
        nodes: &mut BTreeMap<String, NodeView>,
        departed: &BTreeMap<String, Departure>,
        fresh: usize,
        outage: Option<Duration>,
        server_time_ms: u64,
        now: Instant,
    ) {
        let listed_ms = limits::LISTED_AFTER_END.as_millis() as u64;
        // Who was good, has not said goodbye, and is not fresh now.
        let good = |view: &NodeView| {
            (view.fresh || view.held)
                && departed
                    .get(&view.record.id)
                    .is_none_or(|left| left.generation < view.record.generation)
        };
        let prior = self.current.nodes.values().filter(|v| good(v)).count();
        let missing: Vec<&NodeView> = self
            .current
            .nodes
            .values()
            .filter(|v| good(v) && !nodes.get(&v.record.id).is_some_and(|n| n.fresh))
            .collect();
        let ttl = self.current.ttl;
        let enough = |of: usize| fresh > 0 && fresh * 2 >= of;

        // A read or two that failed are no outage: nobody missed a heartbeat over it.
        let believed = match (self.current.doubt, outage) {
            (Some(Doubt::Unreadable), Some(outage)) if outage <= ttl / 3 => self.doubt_before,
            (Some(Doubt::Unreadable), None) => None,
            (doubt, _) => doubt,
        };
        let doubt = match believed {
            None if missing.is_empty() => None,
            None if fresh == 0 => Some(Doubt::Empty),
            None => (missing.len() * 2 > prior).then_some(Doubt::OverHalfVanished),
            Some(_) if fresh == 0 && !missing.is_empty() => Some(Doubt::Empty),
            // It was lost again before it was whole.
            Some(Doubt::Returning) if missing.len() * 2 > prior => Some(Doubt::OverHalfVanished),
            Some(Doubt::Returning) => match self.returning_until {
                Some(until) if now >= until => None,
                _ => Some(Doubt::Returning),
            },
            Some(_) if missing.is_empty() || enough(self.doubted) => Some(Doubt::Returning),
            Some(_) => Some(Doubt::OverHalfVanished),
        };
        if matches!(believed, None | Some(Doubt::Returning)) && doubt.is_some() {
            self.doubted = prior;
        }
        if doubt == Some(Doubt::Returning) {
            if believed != Some(Doubt::Returning) {
                self.returning_until = None;
            }
            self.returning_until.get_or_insert(now + ttl);
        } else {
            self.returning_until = None;
        }

        for view in missing {
            // Deleted by somebody although its lease goes on: its next heartbeat brings it back.
            let goes_on = !nodes.contains_key(&view.record.id)
                && view.deadline_ms > server_time_ms
                && self.advances(&view.record, now);
            // Listed and expired: it goes when its listing ends, unless nothing else is left.
            let ended = fresh > 0 && view.deadline_ms.saturating_add(listed_ms) <= server_time_ms;
            if (goes_on || (doubt.is_some() && !ended)) && nodes.len() < limits::NODES_MAX {
                let kept = nodes
                    .entry(view.record.id.clone())
                    .or_insert_with(|| NodeView {
                        heartbeat_age_ms: server_time_ms
                            .saturating_sub(view.deadline_ms.saturating_sub(view.record.ttl_ms)),
                        ..view.clone()
                    });
                kept.fresh = false;
                kept.held = true;
            }
        }
        self.current.doubt = doubt;
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            assert!(self.current.nodes.len() <= limits::NODES_MAX);
            assert!(self.current.nodes.values().all(|v| !(v.held && v.fresh)));
        }
    }
}

fn departures(
    raw: Vec<(String, Vec<u8>)>,
    parsed: &[(NodeRecord, u64)],
    server_time_ms: u64,
) -> BTreeMap<String, Departure> {
    let listed_ms = limits::LISTED_AFTER_END.as_millis() as u64;
    let mut departed: BTreeMap<String, Departure> = raw
        .into_iter()
        .take(limits::DEPARTED_MAX)
        .filter(|(id, _)| crate::record::valid_id(id))
        .filter_map(|(id, json)| Some((id, Departure::parse(&json)?)))
        .filter(|(_, left)| left.at_ms.saturating_add(listed_ms) > server_time_ms)
        .collect();
    for (record, _) in parsed {
        if departed
            .get(&record.id)
            .is_some_and(|left| left.generation < record.generation)
        {
            departed.remove(&record.id);
        }
    }
    departed
}
