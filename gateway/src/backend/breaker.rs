//! When a failing endpoint is left alone (pure).
//!
//! ```text
//! closed --N failures in a row--> open --pause over--> probing --success--> closed
//!                                   ^------failure, pause doubled----'
//! ```
//!
//! Invariants
//! - While open nothing is sent; while probing exactly one question is.
//! - What was sent before the breaker opened neither opens it again nor closes it.

use std::time::{Duration, Instant};

use super::BreakerConfig;

/// The breaker of one endpoint.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { pause: Duration },
}

/// Leave to send one question; its outcome is to be reported with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an outcome that is not reported leaves the breaker as it is"]
pub struct Leave {
    is_probe: bool,
}

/// What an outcome has changed, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The endpoint is left alone from now on, for this long.
    Opened(Duration),
    /// The endpoint is used again.
    Closed,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: State::Closed { failures: 0 },
        }
    }

    /// Whether nothing is sent at `now`.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => false,
            State::Open { until, .. } => now < until,
            State::Probing { .. } => true,
        }
    }

    /// Leave to send at `now`, or none.
    pub fn admit(&mut self, now: Instant) -> Option<Leave> {
        match self.state {
            State::Closed { .. } => Some(Leave { is_probe: false }),
            State::Open { until, pause } if now >= until => {
                self.state = State::Probing { pause };
                Some(Leave { is_probe: true })
            }
            State::Open { .. } | State::Probing { .. } => None,
        }
    }

    /// The endpoint has answered.
    pub fn succeeded(&mut self, leave: Leave) -> Change {
        match self.state {
            State::Closed { .. } => {
                self.state = State::Closed { failures: 0 };
                Change::None
            }
            State::Probing { .. } if leave.is_probe => {
                self.state = State::Closed { failures: 0 };
                Change::Closed
            }
            State::Open { .. } | State::Probing { .. } => Change::None,
        }
    }

    /// The endpoint has failed.
    pub fn failed(&mut self, leave: Leave, now: Instant) -> Change {
        let pause = match self.state {
            _ if self.config.failures == 0 => return Change::None,
            State::Closed { failures } if failures + 1 < self.config.failures => {
                let failures = failures + 1;
                self.state = State::Closed { failures };
                return Change::None;
            }
            State::Closed { .. } => self.config.pause,
            State::Probing { pause } if leave.is_probe => {
                pause.saturating_mul(2).min(self.config.pause_max)
            }
            State::Open { .. } | State::Probing { .. } => return Change::None,
        };
        let until = now + pause;
        self.state = State::Open { until, pause };
        Change::Opened(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker(failures: u32) -> Breaker {
        Breaker::new(BreakerConfig {
            failures,
            pause: SECOND,
            pause_max: SECOND * 3,
        })
    }

    fn fail(breaker: &mut Breaker, now: Instant) -> Change {
        let leave = breaker.admit(now).expect("it is not open");
        breaker.failed(leave, now)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_a_success_between_them_counts_them_anew() {
        let now = Instant::now();
        let mut breaker = breaker(3);
        for _ in 0..2 {
            assert_eq!(fail(&mut breaker, now), Change::None);
            assert_eq!(fail(&mut breaker, now), Change::None);
            let leave = breaker.admit(now).expect("closed");
            assert_eq!(breaker.succeeded(leave), Change::None);
        }
        fail(&mut breaker, now);
        fail(&mut breaker, now);
        assert_eq!(fail(&mut breaker, now), Change::Opened(SECOND));
        assert!(breaker.is_open(now) && breaker.admit(now).is_none());
    }

    #[test]
    fn one_probe_goes_out_after_the_pause_and_decides() {
        let now = Instant::now();
        let mut breaker = breaker(1);
        fail(&mut breaker, now);
        let mut at = now + SECOND;
        for pause in [SECOND * 2, SECOND * 3, SECOND * 3] {
            let probe = breaker.admit(at).expect("the pause is over");
            assert_eq!(breaker.admit(at), None, "only one");
            assert_eq!(breaker.failed(probe, at), Change::Opened(pause));
            assert_eq!(breaker.admit(at + pause - Duration::from_millis(1)), None);
            at += pause;
        }
        let probe = breaker.admit(at).expect("the pause is over");
        assert_eq!(breaker.succeeded(probe), Change::Closed);
        assert_eq!(
            fail(&mut breaker, at),
            Change::Opened(SECOND),
            "as at first"
        );
    }

    #[test]
    fn what_was_sent_before_it_opened_changes_nothing_afterwards() {
        let now = Instant::now();
        let mut breaker = breaker(1);
        let (early, another) = (breaker.admit(now), breaker.admit(now));
        fail(&mut breaker, now);
        let early = early.expect("closed");
        assert_eq!(breaker.failed(early, now + SECOND), Change::None);
        let probe = breaker.admit(now + SECOND).expect("the pause is over");
        assert_eq!(breaker.succeeded(another.expect("closed")), Change::None);
        assert!(breaker.is_open(now + SECOND), "the probe decides");
        assert_eq!(breaker.succeeded(probe), Change::Closed);
    }

    #[test]
    fn one_that_is_switched_off_never_opens() {
        let now = Instant::now();
        let mut breaker = breaker(0);
        for _ in 0..1_000 {
            assert_eq!(fail(&mut breaker, now), Change::None);
        }
    }

    proptest! {
        #[test]
        fn it_is_never_open_for_good_and_probes_are_one_at_a_time(
            steps in prop::collection::vec((0_u8..3, 0_u64..3_000), 1..200),
        ) {
            let mut breaker = breaker(2);
            let mut now = Instant::now();
            let mut out: Vec<Leave> = Vec::new();
            for (step, millis) in steps {
                now += Duration::from_millis(millis);
                match (step, out.pop()) {
                    (0, leave) => {
                        out.extend(leave);
                        out.extend(breaker.admit(now));
                    }
                    (1, Some(leave)) => drop(breaker.succeeded(leave)),
                    (_, Some(leave)) => drop(breaker.failed(leave, now)),
                    (_, None) => {}
                }
                prop_assert!(out.iter().filter(|leave| leave.is_probe).count() <= 1);
            }
            for leave in out {
                let _ = breaker.failed(leave, now);
            }
            prop_assert!(breaker.admit(now + SECOND * 3).is_some());
        }
    }
}
