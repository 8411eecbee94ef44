//! Observations in, the topology document and the timeline out. Pure: no
//! socket, no clock, no randomness.
//!
//! Invariants:
//! - a node is in at most one state, and each change of it is one timeline entry;
//! - ages are counted on the clock that only runs forward;
//! - a node that is DEAD stays listed for ten minutes, then is forgotten;
//! - at most [`NODES_MAX`] nodes are kept.

mod judge;
mod known;

use std::collections::BTreeMap;
use std::time::Duration;

pub use judge::{Evidence, Judgement, Presence, judge, span};

use known::Known;

use crate::document::{Balancer, Document, Registry, RegistryState, State};
use crate::limits::{DEPARTED_LISTED, NODES_MAX, REASON_CHARS_MAX};
use crate::observe::{BalancerView, Departure, Member, Moment, Observation};
use crate::probe::Verdict;
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
                (State::Starting, false) => (Kind::Joined, "still starting".to_owned()),
                (State::Ready, false) => (Kind::Joined, "takes clients".to_owned()),
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
                    "generation {} took the id from {}, which had not left",
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

fn balancer(view: &BalancerView) -> Balancer {
    let up = view.answers();
    let (state, reason) = match view.verdict {
        Verdict::Unknown => ("unknown", "not asked yet".to_owned()),
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
