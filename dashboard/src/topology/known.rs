//! What is remembered of one node, and how it is shown.

use std::time::Duration;

use super::judge::{Evidence, Judgement, Presence, span};
use super::{clip, ms};
use crate::document::{Detail, Drain, Node, Shard, State};
use crate::observe::{BalancerView, Load, Member, Moment, Observation, RecordState};
use crate::probe::{Probe, Verdict};
use crate::timeline::{Kind, Timeline};

#[derive(Debug)]
pub(super) struct Known {
    pub(super) member: Member,
    /// Heartbeat age and when it was read, on the clock that runs forward.
    pub(super) heartbeat: (Duration, Duration),
    pub(super) state: State,
    pub(super) reason: String,
    pub(super) orderly: bool,
    pub(super) since: Moment,
    drain: Option<DrainSeen>,
}

#[derive(Clone, Copy, Debug)]
struct DrainSeen {
    from: u64,
    started_ms: u64,
    deadline_ms: u64,
    ends: Duration,
}

impl Known {
    pub(super) fn new(member: &Member, now: Moment) -> Self {
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

    pub(super) fn set(&mut self, judgement: Judgement) {
        self.state = judgement.state;
        self.reason = judgement.reason;
        self.orderly = judgement.orderly;
    }

    fn silence(&self, now: Moment) -> Duration {
        let (age, read) = self.heartbeat;
        age + now.up.saturating_sub(read)
    }

    pub(super) fn evidence<'a>(
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

    pub(super) fn change(
        &mut self,
        id: &str,
        judgement: Judgement,
        timeline: &mut Timeline,
        now: Moment,
    ) {
        let Judgement {
            state: is,
            reason,
            orderly,
        } = judgement;
        let was = std::mem::replace(&mut self.state, is);
        let reason = clip(&reason);
        self.reason.clone_from(&reason);
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
            (State::Dead, _) => (Kind::Healed, format!("back after {}", span(lasted))),
            (State::Starting, State::Ready) => (Kind::Ready, "takes clients".to_owned()),
            (_, State::Ready) => (Kind::Healed, "takes clients again".to_owned()),
            (_, State::Starting) => (Kind::Joined, "starting".to_owned()),
        };
        timeline.push(now.unix_ms, kind, id, clip(&text));
    }

    pub(super) fn follow_drain(&mut self, probe: Option<&Probe>, clock: Option<u64>, now: Moment) {
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
        if self.state == State::Dead && (self.orderly || answer.is_none()) {
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

    pub(super) fn node(&self, id: &str, seen: &Observation, now: Moment) -> Node {
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
        // The balancers' word is up to a probe old; a state that we know to be newer goes before it.
        let routable =
            self.state == State::Ready && if words.is_empty() { probe_ok } else { eligible };
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

/// Time until `deadline_ms`; never more than the whole drain, should the clocks
/// disagree.
fn left(started_ms: u64, deadline_ms: u64, clock: u64) -> Duration {
    let whole = deadline_ms.saturating_sub(started_ms);
    Duration::from_millis(deadline_ms.saturating_sub(clock).min(whole))
}
