//! One node's evidence in, its state and the reason for it out.
//!
//! | registry | record | probe | state |
//! |---|---|---|---|
//! | ok | fresh | answers or not known | what the record says, or `/ready` where that is newer |
//! | ok | fresh | silent, balancer's too or none to ask | DEAD |
//! | ok | fresh | silent, balancer's good | as the record says; the reason names it |
//! | ok | expired | any | DEAD, except for one TTL after the registry's return and while it is in doubt |
//! | ok | absent, had drained | any | DEAD, in order |
//! | ok | absent, last heartbeat within the TTL | not silent | as it was (a flushed registry is whole again within a beat) |
//! | ok | absent otherwise | any | DEAD |
//! | stale, unreachable | - | answers | what `/ready` says |
//! | stale, unreachable | - | not known | as it was |
//! | stale, unreachable | - | silent | DEAD |

use std::time::Duration;

use crate::document::{RegistryState, State};
use crate::observe::{Departure, Member, RecordState};
use crate::probe::{Probe, Verdict};

/// Where the node's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In the registry, heartbeat within the TTL.
    Fresh,
    /// In the registry, heartbeat older than the TTL.
    Late,
    /// Not in the registry.
    Absent,
}

/// Everything that the judgement rests on.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Trust in `presence`.
    pub registry: RegistryState,
    /// Where the record is.
    pub presence: Presence,
    /// The newest record seen.
    pub member: &'a Member,
    /// Time since the last heartbeat.
    pub silence: Duration,
    /// Time since the registry came back from an outage that we saw.
    pub registry_back: Option<Duration>,
    /// Heartbeat age at which a node is out.
    pub ttl: Duration,
    /// Our probe.
    pub probe: &'a Probe,
    /// The balancers' probe, where one answers.
    pub balancer_probe: Option<bool>,
    /// How it left, where the registry remembers.
    pub departure: Option<&'a Departure>,
    /// The state so far; `None` for a node seen for the first time.
    pub previous: Option<State>,
    /// It was DEAD in order so far.
    pub was_orderly: bool,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// State in one word.
    pub state: State,
    /// Why; empty when all is well.
    pub reason: String,
    /// DEAD because it was told to leave and did.
    pub orderly: bool,
}

impl Judgement {
    fn of(state: State, reason: impl Into<String>) -> Self {
        Self {
            state,
            reason: reason.into(),
            orderly: false,
        }
    }
}

/// Judges one node.
#[must_use]
pub fn judge(evidence: &Evidence<'_>) -> Judgement {
    if evidence.registry != RegistryState::Ok {
        return without_registry(evidence);
    }
    match evidence.presence {
        Presence::Fresh => fresh(evidence),
        Presence::Late => late(evidence),
        Presence::Absent => absent(evidence),
    }
}

/// Neither we nor a balancer can reach it.
fn unreachable(evidence: &Evidence<'_>) -> bool {
    evidence.probe.verdict() == Verdict::Silent && evidence.balancer_probe != Some(true)
}

fn fresh(evidence: &Evidence<'_>) -> Judgement {
    let silent = evidence.probe.verdict() == Verdict::Silent;
    match evidence.member.state {
        RecordState::Starting => Judgement::of(State::Starting, "starting, no clients yet"),
        RecordState::Draining if unreachable(evidence) => Judgement::of(
            State::Dead,
            format!("probe failing during its drain: {}", evidence.probe.error()),
        ),
        RecordState::Draining => Judgement::of(State::Draining, "draining, no new clients"),
        RecordState::Ready if silent && evidence.balancer_probe == Some(true) => Judgement::of(
            State::Ready,
            format!(
                "the dashboard cannot reach it ({}), the balancer can",
                evidence.probe.error()
            ),
        ),
        RecordState::Ready if silent => Judgement::of(
            State::Dead,
            format!(
                "probe failing: {} (last heartbeat {} ago)",
                evidence.probe.error(),
                span(evidence.silence)
            ),
        ),
        RecordState::Ready => by_answer(evidence, State::Ready, ""),
    }
}

fn late(evidence: &Evidence<'_>) -> Judgement {
    if let Some(held) = held(evidence) {
        return held;
    }
    let answers = evidence.probe.verdict() == Verdict::Answers;
    let tail = if evidence.probe.says("fenced") {
        ", it answers: fenced"
    } else if answers {
        ", though it answers: it cannot reach the registry"
    } else {
        ""
    };
    gone(evidence, tail)
}

fn absent(evidence: &Evidence<'_>) -> Judgement {
    if let Some(departure) = evidence.departure {
        return Judgement {
            state: State::Dead,
            reason: departure.reason.clone(),
            orderly: departure.orderly,
        };
    }
    // A record that vanishes during the drain is the end of it, unless the node
    // still answers: then the registry was flushed.
    let drained = evidence.previous == Some(State::Draining)
        && evidence.silence < evidence.ttl
        && !evidence.probe.answered_last();
    if drained || evidence.was_orderly {
        return Judgement {
            state: State::Dead,
            reason: "left after its drain".to_owned(),
            orderly: true,
        };
    }
    if evidence.silence < evidence.ttl
        && evidence.previous.is_some_and(|state| state != State::Dead)
        && !unreachable(evidence)
    {
        let words = format!(
            "missing from the registry, last heartbeat {} ago",
            span(evidence.silence)
        );
        let as_it_was = evidence.previous.unwrap_or(State::Ready);
        return by_answer(evidence, as_it_was, &words);
    }
    if let Some(held) = held(evidence) {
        return held;
    }
    gone(evidence, "")
}

/// Out of the registry: by its silence, or before that by its probe.
fn gone(evidence: &Evidence<'_>, tail: &str) -> Judgement {
    if unreachable(evidence) && evidence.silence < evidence.ttl {
        return Judgement::of(
            State::Dead,
            format!(
                "probe failing: {}, and gone from the registry",
                evidence.probe.error()
            ),
        );
    }
    Judgement::of(
        State::Dead,
        format!("no heartbeat for {}{tail}", span(evidence.silence)),
    )
}

/// After an outage of the registry nobody is out before one TTL has given
/// everybody the time to report again; nor while the registry itself is in doubt.
fn held(evidence: &Evidence<'_>) -> Option<Judgement> {
    let returning = evidence.registry_back.filter(|back| *back < evidence.ttl);
    if (returning.is_none() && !evidence.member.held)
        || evidence.was_orderly
        || evidence.previous == Some(State::Dead)
        || unreachable(evidence)
    {
        return None;
    }
    let words = match returning {
        Some(back) => format!(
            "not reported since the registry came back {} ago",
            span(back)
        ),
        None => format!(
            "not reported for {}, kept while the registry is in doubt",
            span(evidence.silence)
        ),
    };
    let as_it_was = evidence.previous.unwrap_or(State::Ready);
    Some(by_answer(evidence, as_it_was, &words))
}

fn without_registry(evidence: &Evidence<'_>) -> Judgement {
    if evidence.was_orderly && evidence.probe.verdict() != Verdict::Answers {
        return Judgement {
            state: State::Dead,
            reason: "left after its drain".to_owned(),
            orderly: true,
        };
    }
    match evidence.probe.verdict() {
        Verdict::Answers => by_answer(evidence, State::Ready, ""),
        Verdict::Silent if evidence.balancer_probe == Some(true) => Judgement::of(
            evidence.previous.unwrap_or(State::Ready),
            format!(
                "the dashboard cannot reach it ({}), the balancer can",
                evidence.probe.error()
            ),
        ),
        Verdict::Silent => Judgement::of(
            State::Dead,
            format!("probe failing: {}", evidence.probe.error()),
        ),
        Verdict::Unknown => Judgement::of(
            evidence.previous.unwrap_or(State::Starting),
            "last known state, the registry cannot be asked",
        ),
    }
}

/// What `/ready` says, for a node that is a member; `unasked` is its state
/// while there is no answer, `otherwise` the reason when all is well.
fn by_answer(evidence: &Evidence<'_>, unasked: State, otherwise: &str) -> Judgement {
    let Some(answer) = evidence.probe.answer() else {
        return Judgement::of(unasked, otherwise);
    };
    if answer.ready {
        return Judgement::of(State::Ready, otherwise);
    }
    if evidence.probe.says("fenced") {
        return Judgement::of(State::Dead, answer.reasons.join(", "));
    }
    if evidence.probe.says("draining") {
        return Judgement::of(State::Draining, "draining, no new clients");
    }
    if evidence.probe.says("starting") {
        return Judgement::of(State::Starting, "starting, no clients yet");
    }
    Judgement::of(
        State::Dead,
        format!("probe failing: not ready, {}", answer.reasons.join(", ")),
    )
}

/// A duration as people say it: `15.2 s`, `2 min 5 s`, `3 h 4 min`.
#[must_use]
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", (duration.as_millis() / 100) as f64 / 10.0),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
