//! Observations in, the topology document and the timeline out. Pure: no
//! socket, no clock, no randomness.
//!
//! Invariants:
//! - a node is in at most one state, and each change of it is one timeline entry;
//! - ages are counted on the clock that only runs forward;
//! - a node that is DEAD stays listed for ten minutes, then is forgotten;
//! - at most [`NODES_MAX`] nodes are kept.

mod judge;

use std::collections::BTreeMap;
use std::time::Duration;

pub use judge::{Evidence, Judgement, Presence, judge, span};

use crate::document::{
    Balancer, Detail, Document, Drain, Node, Registry, RegistryState, Shard, State,
};
use crate::limits::{DEPARTED_LISTED, NODES_MAX, REASON_CHARS_MAX};
use crate::observe::{BalancerView, Departure, Load, Member, Moment, Observation, RecordState};
use crate::probe::{Probe, Verdict};
use crate::timeline::{Kind, Timeline};

/// What is remembered between two observations.
#[derive(Debug)]
pub struct Topology {
    cluster: String,
    nodes: BTreeMap<String, Known>,
    timeline: Timeline,
    registry: Option<RegistryState>,
    registry_back: Option<Duration>,
    registry_seen: bool,
    balancers: BTreeMap<String, bool>,
}

#[derive(Debug)]
struct Known {
    member: Member,
    /// Heartbeat age and when it was read, on the clock that runs forward.
    heartbeat: (Duration, Duration),
    state: State,
    reason: String,
    orderly: bool,
    since: Moment,
    drain: Option<DrainSeen>,
}

#[derive(Clone, Copy, Debug)]
struct DrainSeen {
    from: u64,
    started_ms: u64,
    deadline_ms: u64,
    ends: Duration,
}

impl Topology {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            nodes: BTreeMap::new(),
            timeline: Timeline::default(),
            registry: None,
            registry_back: None,
            registry_seen: false,
            balancers: BTreeMap::new(),
        }
    }

    /// The timeline so far.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Takes what was seen and says what the cluster looks like now.
    pub fn observe(&mut self, seen: &Observation, now: Moment) -> Document {
        self.registry_events(seen, now);
        self.balancer_events(seen, now);
        let first = seen.registry == RegistryState::Ok && !self.registry_seen;
        if seen.registry == RegistryState::Ok {
            self.registry_seen = true;
            for (id, member) in seen.members.iter().take(NODES_MAX) {
                self.member(id, member, seen, first, now);
            }
            for (id, departure) in seen.departed.iter().take(NODES_MAX) {
                self.departed(id, departure, seen, now);
            }
        }
        let back = self.registry_back.map(|since| now.up.saturating_sub(since));
        for (id, known) in &mut self.nodes {
            let judgement = judge(&known.evidence(id, seen, back, now));
            known.change(id, judgement, &mut self.timeline, now);
            known.follow_drain(seen.probes.get(id), seen.registry_unix_ms, now);
        }
        self.nodes.retain(|_, known| {
            known.state != State::Dead || now.up.saturating_sub(known.since.up) < DEPARTED_LISTED
        });
        let document = self.document(seen, now);
        self.check_invariants(&document);
        document
    }

    fn registry_events(&mut self, seen: &Observation, now: Moment) {
        let (was, is) = (self.registry, seen.registry);
        self.registry = Some(is);
        let (kind, text) = match (was, is) {
            (Some(RegistryState::Unreachable), RegistryState::Ok | RegistryState::Stale)
            | (Some(RegistryState::Stale), RegistryState::Ok) => {
                if self.registry_seen {
                    self.registry_back = Some(now.up);
                }
                if was == Some(RegistryState::Stale) || is == RegistryState::Stale {
                    return;
                }
                (Kind::RegistryBack, "can be read again")
            }
            (None | Some(RegistryState::Ok | RegistryState::Stale), RegistryState::Unreachable) => {
                (
                    Kind::RegistryLost,
                    "cannot be read, what is shown comes from probes",
                )
            }
            _ => return,
        };
        self.timeline
            .push(now.unix_ms, kind, "registry", text.to_owned());
    }

    fn balancer_events(&mut self, seen: &Observation, now: Moment) {
        for view in &seen.balancers {
            if view.verdict == Verdict::Unknown {
                continue;
            }
            let up = view.answers();
            let was = self.balancers.insert(view.admin.clone(), up);
            let (kind, text) = match (was, up) {
                (Some(true) | None, false) => (
                    Kind::BalancerLost,
                    format!("does not answer: {}", clip(&view.error)),
                ),
                (Some(false), true) => (Kind::BalancerBack, "answers again".to_owned()),
                (Some(true) | None, true) | (Some(false), false) => continue,
            };
            self.timeline.push(now.unix_ms, kind, &view.id, text);
        }
    }

    fn member(&mut self, id: &str, member: &Member, seen: &Observation, first: bool, now: Moment) {
        let Some(known) = self.nodes.get_mut(id) else {
            if self.nodes.len() >= NODES_MAX {
                return;
            }
            let mut known = Known::new(member, now);
            let judgement = judge(&Evidence {
                previous: None,
                ..known.evidence(id, seen, None, now)
            });
            let (kind, text) = match (judgement.state, first) {
                (State::Dead, _) => (Kind::Dead, judgement.reason.clone()),
                (State::Draining, _) => (Kind::Draining, "draining when first seen".to_owned()),
                (_, true) => (
                    Kind::Joined,
                    "was here when the dashboard started".to_owned(),
                ),
                (State::Starting, false) => (Kind::Joined, "joined, still starting".to_owned()),
                (State::Ready, false) => (Kind::Joined, "joined, takes clients".to_owned()),
            };
            self.timeline.push(now.unix_ms, kind, id, clip(&text));
            known.set(judgement);
            self.nodes.insert(id.to_owned(), known);
            return;
        };
        let replaced = member.generation > known.member.generation;
        if replaced && matches!(known.state, State::Ready | State::Starting) {
            self.timeline.push(
                now.unix_ms,
                Kind::Fenced,
                id,
                format!(
                    "fenced: generation {} took the id from {}, which had not left",
                    member.generation, known.member.generation
                ),
            );
        }
        if replaced && known.state == State::Dead {
            let after = span(now.up.saturating_sub(known.since.up));
            self.timeline.push(
                now.unix_ms,
                Kind::Joined,
                id,
                format!("back as a new process after {after}"),
            );
            *known = Known::new(member, now);
            known.set(Judgement {
                state: State::Starting,
                reason: String::new(),
                orderly: false,
            });
        }
        known.member = member.clone();
        known.heartbeat = (member.heartbeat_age, now.up);
    }

    /// A node that had left before this dashboard first looked.
    fn departed(&mut self, id: &str, departure: &Departure, seen: &Observation, now: Moment) {
        let gone = self.nodes.contains_key(id) || seen.members.contains_key(id);
        if gone || self.nodes.len() >= NODES_MAX || departure.age >= DEPARTED_LISTED {
            return;
        }
        let member = Member {
            generation: departure.generation,
            heartbeat_age: departure.age,
            addr: departure.addr.clone(),
            ttl: Duration::from_secs(15),
            ..Member::default()
        };
        let mut known = Known::new(&member, now);
        known.since = Moment {
            up: now.up.saturating_sub(departure.age),
            unix_ms: now.unix_ms.saturating_sub(departure.age.as_millis() as u64),
        };
        known.set(Judgement {
            state: State::Dead,
            reason: clip(&departure.reason),
            orderly: departure.orderly,
        });
        self.nodes.insert(id.to_owned(), known);
    }

    fn document(&self, seen: &Observation, now: Moment) -> Document {
        Document {
            cluster: self.cluster.clone(),
            at_ms: now.unix_ms,
            registry: Registry {
                state: seen.registry,
                age_ms: ms(seen.registry_age),
                rejected: seen.rejected,
            },
            balancers: seen.balancers.iter().map(balancer).collect(),
            nodes: self
                .nodes
                .iter()
                .map(|(id, known)| known.node(id, seen, now))
                .collect(),
            timeline_last: self.timeline.last(),
        }
    }

    fn check_invariants(&self, document: &Document) {
        debug_assert!(self.nodes.len() <= NODES_MAX);
        for node in &document.nodes {
            debug_assert_eq!(node.drain.is_some(), node.state == State::Draining);
            debug_assert!(!node.orderly || node.state == State::Dead);
            debug_assert!(
                node.state == State::Ready || !node.reason.is_empty(),
                "{node:?}"
            );
        }
    }
}

impl Known {
    fn new(member: &Member, now: Moment) -> Self {
        Self {
            member: member.clone(),
            heartbeat: (member.heartbeat_age, now.up),
            state: State::Starting,
            reason: String::new(),
            orderly: false,
            since: now,
            drain: None,
        }
    }

    fn set(&mut self, judgement: Judgement) {
        self.state = judgement.state;
        self.reason = judgement.reason;
        self.orderly = judgement.orderly;
    }

    fn silence(&self, now: Moment) -> Duration {
        let (age, read) = self.heartbeat;
        age + now.up.saturating_sub(read)
    }

    fn evidence<'a>(
        &'a self,
        id: &str,
        seen: &'a Observation,
        registry_back: Option<Duration>,
        now: Moment,
    ) -> Evidence<'a> {
        static NEVER_ASKED: std::sync::LazyLock<Probe> = std::sync::LazyLock::new(Probe::default);
        let presence = match seen.members.get(id) {
            Some(member) if member.fresh => Presence::Fresh,
            Some(_) => Presence::Late,
            None => Presence::Absent,
        };
        let departure = seen
            .departed
            .get(id)
            .filter(|d| d.generation >= self.member.generation);
        Evidence {
            registry: seen.registry,
            presence,
            member: &self.member,
            silence: self.silence(now),
            registry_back,
            ttl: self.member.ttl,
            probe: seen.probes.get(id).unwrap_or(&NEVER_ASKED),
            balancer_probe: balancer_probe(id, &seen.balancers),
            departure,
            previous: Some(self.state),
            was_orderly: self.orderly,
        }
    }

    fn change(&mut self, id: &str, judgement: Judgement, timeline: &mut Timeline, now: Moment) {
        let Judgement {
            state: is,
            reason,
            orderly,
        } = judgement;
        let was = std::mem::replace(&mut self.state, is);
        let reason = clip(&reason);
        let was_reason = std::mem::replace(&mut self.reason, reason.clone());
        let lasted = now.up.saturating_sub(self.since.up);
        self.orderly = orderly;
        if was == is {
            return;
        }
        self.since = now;
        let load = self.member.load.connections;
        let (kind, text) = match (was, is) {
            (_, State::Dead) if self.orderly => (Kind::Left, reason),
            (_, State::Dead) => (Kind::Dead, reason),
            (_, State::Draining) => (Kind::Draining, format!("drains, {load} clients to move")),
            (State::Dead, _) => (
                Kind::Healed,
                format!("back after {} ({was_reason})", span(lasted)),
            ),
            (State::Starting, State::Ready) => (Kind::Ready, "takes clients".to_owned()),
            (_, State::Ready) => (Kind::Healed, "takes clients again".to_owned()),
            (_, State::Starting) => (Kind::Joined, "starting".to_owned()),
        };
        timeline.push(now.unix_ms, kind, id, clip(&text));
    }

    fn follow_drain(&mut self, probe: Option<&Probe>, clock: Option<u64>, now: Moment) {
        let clock = clock.unwrap_or(now.unix_ms);
        if self.state != State::Draining {
            self.drain = None;
            return;
        }
        let remaining = self.remaining(probe);
        let record = (self.member.state == RecordState::Draining)
            .then_some(self.member.drain)
            .flatten();
        match (&mut self.drain, record) {
            (Some(seen), Some((started_ms, deadline_ms))) if seen.deadline_ms != deadline_ms => {
                // The node has said when it ends (or changed it: a second SIGTERM).
                seen.started_ms = started_ms;
                seen.deadline_ms = deadline_ms;
                seen.ends = now.up + left(started_ms, deadline_ms, clock);
            }
            (Some(_), _) => {}
            (none, record) => {
                let (started_ms, deadline_ms) = record.unwrap_or((clock, clock));
                *none = Some(DrainSeen {
                    from: remaining,
                    started_ms,
                    deadline_ms,
                    ends: now.up + left(started_ms, deadline_ms, clock),
                });
            }
        }
        if let Some(seen) = &mut self.drain {
            seen.from = seen.from.max(remaining);
        }
    }

    fn remaining(&self, probe: Option<&Probe>) -> u64 {
        let newest = probe.and_then(Probe::answer);
        newest
            .and_then(|answer| answer.load.connections)
            .or(self.member.drain_remaining)
            .unwrap_or(self.member.load.connections)
    }

    fn load(&self, probe: Option<&Probe>) -> Load {
        let answer = probe.and_then(Probe::answer);
        if self.state == State::Dead && answer.is_none() {
            // Nobody can say what it carries; its clients have gone elsewhere.
            let shards = self.member.load.shards.iter();
            return Load {
                shards: shards
                    .map(|s| Shard {
                        connections: 0,
                        ..*s
                    })
                    .collect(),
                ..Load::default()
            };
        }
        match answer {
            Some(answer) => answer.load.over(&self.member.load),
            None => self.member.load.clone(),
        }
    }

    fn node(&self, id: &str, seen: &Observation, now: Moment) -> Node {
        let probe = seen.probes.get(id);
        let load = self.load(probe);
        let member = &self.member;
        let words: Vec<_> = seen
            .balancers
            .iter()
            .filter(|b| b.answers())
            .map(|b| b.nodes.get(id))
            .collect();
        let eligible = words.iter().flatten().any(|n| n.eligible);
        let excluded = words.iter().flatten().find(|n| !n.eligible);
        let probe_ok = !probe_failing(probe);
        let routable = if words.is_empty() {
            self.state == State::Ready && probe_ok
        } else {
            eligible
        };
        let share = words.iter().flatten().map(|n| n.ring_share).next();
        let reason = match (excluded, self.reason.is_empty()) {
            (Some(word), true) if self.state == State::Ready && !eligible => {
                clip(&format!("no new clients: {}", word.reason))
            }
            _ => self.reason.clone(),
        };
        Node {
            id: id.to_owned(),
            state: self.state,
            reason,
            routable,
            generation: member.generation,
            addr: member.addr.clone(),
            heartbeat_age_ms: ms(self.silence(now)),
            ttl_ms: ms(member.ttl),
            probe: if probe_ok { "ok" } else { "failing" }.to_owned(),
            connections: load.connections,
            channels: load.channels,
            messages_per_s: load.messages_per_s,
            ring_share: share
                .or_else(|| seen.shares.get(id).copied())
                .unwrap_or(0.0),
            shards: load.shards,
            drain: self.drain.map(|d| Drain {
                remaining: self.remaining(probe),
                started_ms: d.started_ms,
                deadline_ms: d.deadline_ms,
                from: d.from,
                left_ms: ms(d.ends.saturating_sub(now.up)),
            }),
            since_ms: self.since.unix_ms,
            orderly: self.orderly,
            detail: Detail {
                admin: member.admin.clone(),
                record_state: member.state.word().to_owned(),
                nonce: member.nonce.clone(),
                seq: member.seq,
                build: member.build.clone(),
                zone: member.zone.clone(),
                weight: member.weight,
                capacity: member.capacity,
                started_ms: member.started_ms,
                probe: clip(&probe.map_or_else(|| "not asked yet".to_owned(), Probe::words)),
                degraded: probe
                    .and_then(Probe::answer)
                    .map(|a| a.degraded.clone())
                    .unwrap_or_default(),
                flows: (!words.is_empty()).then(|| words.iter().flatten().map(|n| n.flows).sum()),
                balancer: match (words.is_empty(), excluded) {
                    (true, _) => "no balancer answers".to_owned(),
                    (false, _) if eligible => "eligible".to_owned(),
                    (false, Some(word)) => clip(&format!("not eligible: {}", word.reason)),
                    (false, None) => "does not know it".to_owned(),
                },
            },
        }
    }
}

/// A node that drains or starts answers 503 as it should.
fn probe_failing(probe: Option<&Probe>) -> bool {
    let Some(probe) = probe else { return false };
    match (probe.verdict(), probe.answer()) {
        (Verdict::Silent, _) => true,
        (_, Some(answer)) => !answer.ready && !probe.says("draining") && !probe.says("starting"),
        (_, None) => false,
    }
}

fn balancer_probe(id: &str, balancers: &[BalancerView]) -> Option<bool> {
    balancers
        .iter()
        .filter(|b| b.answers())
        .filter_map(|b| b.nodes.get(id))
        .filter_map(|n| n.probe_ok)
        .reduce(|a, b| a || b)
}

fn balancer(view: &BalancerView) -> Balancer {
    let up = view.answers();
    let (state, reason) = match view.verdict {
        Verdict::Unknown => ("unreachable", "no answer yet".to_owned()),
        Verdict::Silent => ("unreachable", view.error.clone()),
        Verdict::Answers if !view.reasons.is_empty() => ("failing", view.reasons.join(", ")),
        Verdict::Answers if !view.degraded.is_empty() => ("degraded", view.degraded.join(", ")),
        Verdict::Answers => ("ok", String::new()),
    };
    Balancer {
        id: view.id.clone(),
        state: state.to_owned(),
        flows: if up { view.flows } else { 0 },
        accepts_per_s: if up { view.accepts_per_s } else { 0.0 },
        reason: clip(&reason),
        admin: view.admin.clone(),
    }
}

/// Time until `deadline_ms`; never more than the whole drain, should the clocks
/// disagree.
fn left(started_ms: u64, deadline_ms: u64, clock: u64) -> Duration {
    let whole = deadline_ms.saturating_sub(started_ms);
    Duration::from_millis(deadline_ms.saturating_sub(clock).min(whole))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
