//! Whether one node answers: active probes of its `/ready` and what its own flows tell.
//!
//! Pure: outcomes and `now` go in, a verdict comes out.
//!
//! Invariants:
//! - only probes bring a node up; flows and probes both can bring it down;
//! - a node that a probe finds failing is probed faster until the verdict stands, so a killed one is
//!   down within 3 s and a frozen one (each probe runs into its timeout) within 4 s;
//! - a node whose probes pass while its flows fail stays down longer each time, up to a bound.

use std::time::{Duration, Instant};

/// Time between probes of a node whose verdict stands.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between probes while a node is on its way down.
pub const PROBE_INTERVAL_DOUBTFUL: Duration = Duration::from_millis(500);
/// A probe without an answer by then has failed.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(800);
/// Failed probes in a row that bring a node down.
pub const FALL: u32 = 3;
/// Passed probes in a row that bring a node up again.
pub const RISE: u32 = 2;
/// Failed flows in a row, with none answered between, that bring a node down.
pub const FLOW_FALL: u32 = 3;
/// ... over at least so long: in a storm of connections a node drops some of them, and taking it out
/// for that would only give the others more.
pub const FLOW_FALL_SPAN: Duration = Duration::from_secs(1);
/// How long a node that failed its flows stays down at least, the first time.
pub const FLOW_HOLD_MIN: Duration = Duration::from_secs(2);
/// The same after many times.
pub const FLOW_HOLD_MAX: Duration = Duration::from_secs(30);

// A frozen node: up to one interval until the next probe begins, then each probe takes its timeout.
const _: () =
    assert!(PROBE_INTERVAL.as_millis() + (FALL as u128) * PROBE_TIMEOUT.as_millis() < 4_000);
// A killed one refuses at once.
const _: () = assert!(
    PROBE_INTERVAL.as_millis() + (FALL as u128 - 1) * PROBE_INTERVAL_DOUBTFUL.as_millis() < 3_000
);

/// What stands of a node's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No probe has come back yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not, or says itself that it takes no clients.
    Down,
}

/// How one probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// 200.
    Passed,
    /// Anything else, in words: `connection refused`, `no answer within 800 ms`, `503: draining`.
    Failed(String),
}

/// How a flow's way to a node failed before its first byte came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowFailure {
    /// The connection was refused or unreachable.
    Refused,
    /// No connection within the connect timeout.
    ConnectTimeout,
    /// The node closed or reset the connection instead of answering.
    Reset,
    /// Connected, and silent after a whole request head.
    Silent,
}

impl FlowFailure {
    /// All of them, for metrics that exist before they happen.
    pub const ALL: [FlowFailure; 4] = [
        FlowFailure::Refused,
        FlowFailure::ConnectTimeout,
        FlowFailure::Reset,
        FlowFailure::Silent,
    ];

    /// The name in metrics and reasons.
    pub fn as_str(self) -> &'static str {
        match self {
            FlowFailure::Refused => "refused",
            FlowFailure::ConnectTimeout => "connect_timeout",
            FlowFailure::Reset => "reset",
            FlowFailure::Silent => "silent",
        }
    }
}

/// The health of one node.
#[derive(Debug, Clone)]
pub struct Health {
    verdict: Verdict,
    reason: String,
    passed: u32,
    failed: u32,
    flows_failed: u32,
    /// When the first of them failed.
    flows_failed_since: Option<Instant>,
    /// Set while flows, not probes, are why the node is down.
    held_until: Option<Instant>,
    hold: Duration,
    probe_due: Instant,
}

impl Health {
    /// A node that nothing is known of; its first probe is due at once, and its result counts alone.
    pub fn new(now: Instant) -> Health {
        Health {
            verdict: Verdict::Unknown,
            reason: "not probed yet".to_owned(),
            passed: 0,
            failed: 0,
            flows_failed: 0,
            flows_failed_since: None,
            held_until: None,
            hold: FLOW_HOLD_MIN,
            probe_due: now,
        }
    }

    /// What stands now.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Why it is not up, for a person; empty when it is.
    pub fn reason(&self) -> &str {
        if self.verdict == Verdict::Up {
            ""
        } else {
            &self.reason
        }
    }

    /// Whether flows, rather than probes, brought the node down.
    pub fn failed_its_flows(&self) -> bool {
        self.held_until.is_some()
    }

    /// When the next probe should begin.
    pub fn probe_due(&self) -> Instant {
        self.probe_due
    }

    /// A probe begins at `now`; the next one is due after the interval, however long this one takes.
    pub fn probe_begins(&mut self, now: Instant) {
        let doubtful = self.verdict == Verdict::Up && self.failed > 0;
        self.probe_due = now
            + if doubtful {
                PROBE_INTERVAL_DOUBTFUL
            } else {
                PROBE_INTERVAL
            };
    }

    /// A probe has ended.
    pub fn on_probe(&mut self, probe: Probe, now: Instant) {
        match probe {
            Probe::Passed => self.on_pass(now),
            Probe::Failed(reason) => self.on_fail(reason, now),
        }
    }

    fn on_pass(&mut self, now: Instant) {
        self.failed = 0;
        self.passed = self.passed.saturating_add(1);
        let enough = match self.verdict {
            Verdict::Up => {
                // Long healthy: an old suspicion no longer makes the next one worse.
                if self.passed >= 60 {
                    self.hold = FLOW_HOLD_MIN;
                }
                return;
            }
            Verdict::Unknown => 1,
            Verdict::Down => RISE,
        };
        if self.passed >= enough && self.held_until.is_none_or(|until| now >= until) {
            self.verdict = Verdict::Up;
            self.held_until = None;
            self.on_flow_answered();
            self.passed = 0;
        }
    }

    fn on_fail(&mut self, reason: String, now: Instant) {
        self.passed = 0;
        self.failed = self.failed.saturating_add(1);
        self.reason = reason;
        match self.verdict {
            Verdict::Up if self.failed < FALL => {
                self.probe_due = self.probe_due.min(now + PROBE_INTERVAL_DOUBTFUL);
            }
            _ => self.verdict = Verdict::Down,
        }
    }

    /// A flow failed before its first byte came back; asks for a probe at once.
    pub fn on_flow_failed(&mut self, failure: FlowFailure, now: Instant) {
        self.flows_failed = self.flows_failed.saturating_add(1);
        let since = *self.flows_failed_since.get_or_insert(now);
        if self.verdict != Verdict::Up {
            return;
        }
        if self.flows_failed == 1 {
            self.probe_due = self.probe_due.min(now);
        }
        let long = now.saturating_duration_since(since) >= FLOW_FALL_SPAN;
        if self.flows_failed >= FLOW_FALL && long {
            self.verdict = Verdict::Down;
            self.reason = format!(
                "{} connections in a row failed ({})",
                self.flows_failed,
                failure.as_str()
            );
            self.passed = 0;
            self.held_until = Some(now + self.hold);
            self.hold = (self.hold * 2).min(FLOW_HOLD_MAX);
        }
    }

    /// A flow got its first byte.
    pub fn on_flow_answered(&mut self) {
        self.flows_failed = 0;
        self.flows_failed_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(now: Instant) -> Health {
        let mut health = Health::new(now);
        health.probe_begins(now);
        health.on_probe(Probe::Passed, now);
        assert_eq!(health.verdict(), Verdict::Up);
        health
    }

    /// Runs probes by the schedule from `health.probe_due()` on; each takes `takes`. Returns the time of the verdict.
    fn run_until(health: &mut Health, verdict: Verdict, takes: Duration, probe: &Probe) -> Instant {
        let mut now = health.probe_due();
        for _ in 0..100 {
            now = now.max(health.probe_due());
            health.probe_begins(now);
            now += takes;
            health.on_probe(probe.clone(), now);
            if health.verdict() == verdict {
                return now;
            }
        }
        panic!("never {verdict:?}");
    }

    fn failed() -> Probe {
        Probe::Failed("refused".to_owned())
    }

    #[test]
    fn a_killed_node_is_down_within_3_s() {
        let start = Instant::now();
        // Worst case: killed right after a probe began and passed.
        let mut health = up(start);
        let down = run_until(&mut health, Verdict::Down, Duration::ZERO, &failed());
        assert!(down - start < Duration::from_secs(3), "{:?}", down - start);
        assert_eq!(health.reason(), "refused");
    }

    #[test]
    fn a_frozen_node_is_down_within_4_s() {
        let start = Instant::now();
        let mut health = up(start);
        let down = run_until(&mut health, Verdict::Down, PROBE_TIMEOUT, &failed());
        assert!(down - start < Duration::from_secs(4), "{:?}", down - start);
    }

    #[test]
    fn one_lost_probe_is_no_verdict() {
        let now = Instant::now();
        let mut health = up(now);
        for _ in 0..10 {
            health.on_probe(failed(), now);
            health.on_probe(failed(), now);
            health.on_probe(Probe::Passed, now);
            assert_eq!(health.verdict(), Verdict::Up);
        }
    }

    #[test]
    fn a_failing_node_needs_two_passes_to_return() {
        let now = Instant::now();
        let mut health = up(now);
        for _ in 0..FALL {
            health.on_probe(failed(), now);
        }
        health.on_probe(Probe::Passed, now);
        health.on_probe(failed(), now);
        health.on_probe(Probe::Passed, now);
        assert_eq!(health.verdict(), Verdict::Down);
        health.on_probe(Probe::Passed, now);
        assert_eq!(health.verdict(), Verdict::Up);
    }

    #[test]
    fn the_first_probe_counts_alone() {
        let now = Instant::now();
        let mut health = Health::new(now);
        assert_eq!(health.verdict(), Verdict::Unknown);
        health.on_probe(failed(), now);
        assert_eq!(health.verdict(), Verdict::Down);
    }

    #[test]
    fn failed_flows_bring_a_node_down_and_hold_it_longer_each_time() {
        let mut now = Instant::now();
        let mut health = up(now);
        let mut held = Vec::new();
        for _ in 0..6 {
            for _ in 0..FLOW_FALL {
                assert_eq!(health.verdict(), Verdict::Up);
                now += FLOW_FALL_SPAN / 2;
                health.on_flow_failed(FlowFailure::Refused, now);
            }
            assert_eq!(health.verdict(), Verdict::Down);
            let began = now;
            while health.verdict() == Verdict::Down {
                now += Duration::from_millis(500);
                health.on_probe(Probe::Passed, now);
            }
            held.push((now - began).as_secs());
        }
        assert_eq!(held, [2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn answered_flows_between_failed_ones_clear_them() {
        let now = Instant::now();
        let mut health = up(now);
        for _ in 0..20 {
            health.on_flow_failed(FlowFailure::Reset, now);
            health.on_flow_failed(FlowFailure::Silent, now);
            health.on_flow_answered();
        }
        assert_eq!(health.verdict(), Verdict::Up);
    }

    #[test]
    fn a_burst_of_failed_flows_is_no_verdict() {
        let now = Instant::now();
        let mut health = up(now);
        for _ in 0..1000 {
            health.on_flow_failed(FlowFailure::ConnectTimeout, now);
        }
        assert_eq!(health.verdict(), Verdict::Up);
    }

    #[test]
    fn a_failed_flow_asks_for_a_probe_at_once() {
        let now = Instant::now();
        let mut health = up(now);
        assert!(health.probe_due() > now);
        health.on_flow_failed(FlowFailure::Refused, now);
        assert_eq!(health.probe_due(), now);
    }
}
