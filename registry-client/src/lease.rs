//! The lease on a node id: when to register, renew and leave, and what the answers mean.
//!
//! Invariants:
//! * After [`LeaseEvent::Fenced`] nothing is sent any more: the id belongs to somebody else.
//! * The generation of a lease never falls.
//! * Heartbeats are `heartbeat` +-10 % apart while they work, and at most [`RETRY_MAX`] (+-10 %) apart while
//!   they fail, so that a registry that returns is whole again soon.
//! * A lease that lapsed renews itself: the first write that arrives decides, in the registry, who holds the id.

use std::time::{Duration, Instant};

/// Pause after the first failure.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest pause between tries while the registry is away.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(2);
/// How often leaving is tried before it is left to the TTL.
pub(crate) const LEAVE_TRIES_MAX: u32 = 2;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this and report the answer to [`Lease::on_reply`].
    Send(Request),
    /// Nothing until then.
    Wait(Instant),
    /// It is over.
    Ended,
}

/// What is sent to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Take the id.
    Register,
    /// Renew the lease.
    Heartbeat {
        /// Generation held.
        generation: u64,
    },
    /// Give the id back.
    Deregister,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The lease is ours until its TTL from now.
    Held {
        /// Generation held.
        generation: u64,
    },
    /// Somebody else holds the id.
    Fenced {
        /// Their generation.
        by: u64,
    },
    /// We have left (or the id was not ours any more).
    Left,
    /// No answer, or an error.
    Failed(String),
}

/// What the node should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// The id is ours for the first time.
    Registered {
        /// Generation held.
        generation: u64,
    },
    /// The registry did not answer; the lease goes on until its TTL. Told once per outage.
    Unreachable {
        /// What went wrong.
        error: String,
    },
    /// The lease was not renewed for its TTL: readers treat the node as dead. Told once per outage.
    Lost,
    /// The registry answers again and the lease is ours.
    Restored {
        /// Generation held.
        generation: u64,
    },
    /// A later process holds the id. The node must drain and exit; nothing is written any more.
    Fenced {
        /// Generation that holds the id.
        by: u64,
        /// Generation that we held.
        held: u64,
    },
    /// The lease was given back, or could not be and is left to its TTL.
    Released,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Registering,
    Holding,
    Leaving { tries: u32 },
    Ended,
}

/// One process's lease on one id.
#[derive(Debug)]
pub struct Lease {
    heartbeat: Duration,
    ttl: Duration,
    phase: Phase,
    generation: u64,
    next_at: Instant,
    renewed_at: Option<Instant>,
    failures: u32,
    lost: bool,
}

impl Lease {
    /// A lease that registers at once.
    pub fn new(heartbeat: Duration, ttl: Duration, now: Instant) -> Lease {
        Lease {
            heartbeat,
            ttl,
            phase: Phase::Registering,
            generation: 0,
            next_at: now,
            renewed_at: None,
            failures: 0,
            lost: false,
        }
    }

    /// Generation held; 0 before the first registration.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What to do at `now`.
    pub fn step(&self, now: Instant) -> Step {
        if self.phase == Phase::Ended {
            return Step::Ended;
        }
        if now < self.next_at {
            return Step::Wait(self.next_at);
        }
        Step::Send(match self.phase {
            Phase::Registering => Request::Register,
            Phase::Leaving { .. } => Request::Deregister,
            Phase::Holding | Phase::Ended => Request::Heartbeat {
                generation: self.generation,
            },
        })
    }

    /// The next heartbeat is due now: the record has changed in a way that others must know.
    pub fn beat_now(&mut self, now: Instant) {
        if self.failures == 0 {
            self.next_at = self.next_at.min(now);
        }
    }

    /// Gives the id back. Ends at once if it was never ours.
    pub fn leave(&mut self, now: Instant) -> Option<LeaseEvent> {
        match self.phase {
            Phase::Registering => {
                // A register whose answer was lost may have worked: then its TTL ends it.
                self.phase = Phase::Ended;
                Some(LeaseEvent::Released)
            }
            Phase::Holding => {
                self.phase = Phase::Leaving { tries: 0 };
                self.next_at = now;
                None
            }
            Phase::Leaving { .. } | Phase::Ended => None,
        }
    }

    /// Takes the answer to what [`Lease::step`] asked to send. `jitter` is drawn from 0..1 by the caller.
    pub fn on_reply(&mut self, reply: Reply, now: Instant, jitter: f64) -> Option<LeaseEvent> {
        // A hair under +10 %, so that the exchange itself fits into it: who is replaced knows within that.
        let spread = |pause: Duration| pause.mul_f64(0.9 + 0.19 * jitter.clamp(0.0, 1.0));
        match (self.phase, reply) {
            (Phase::Ended, _) => None,
            (Phase::Leaving { tries }, Reply::Failed(_)) if tries + 1 < LEAVE_TRIES_MAX => {
                self.phase = Phase::Leaving { tries: tries + 1 };
                self.next_at = now;
                None
            }
            (Phase::Leaving { .. }, _) => {
                self.phase = Phase::Ended;
                Some(LeaseEvent::Released)
            }
            (_, Reply::Held { generation }) => {
                let first = self.phase == Phase::Registering;
                let restored = self.failures > 0 || self.lost;
                self.phase = Phase::Holding;
                self.generation = self.generation.max(generation);
                self.renewed_at = Some(now);
                self.failures = 0;
                self.lost = false;
                self.next_at = now + spread(self.heartbeat);
                let generation = self.generation;
                if first {
                    Some(LeaseEvent::Registered { generation })
                } else {
                    restored.then_some(LeaseEvent::Restored { generation })
                }
            }
            (_, Reply::Fenced { by }) => {
                self.phase = Phase::Ended;
                Some(LeaseEvent::Fenced {
                    by,
                    held: self.generation,
                })
            }
            // Nobody asked to leave: the next heartbeat finds out how things stand.
            (_, Reply::Left) => {
                self.next_at = now + spread(self.heartbeat);
                None
            }
            (_, Reply::Failed(error)) => {
                self.failures += 1;
                let doubled = RETRY_MIN.saturating_mul(1 << (self.failures - 1).min(8));
                self.next_at = now + spread(doubled.min(RETRY_MAX).min(self.heartbeat));
                let lapsed = self
                    .renewed_at
                    .is_some_and(|at| now.saturating_duration_since(at) >= self.ttl);
                if lapsed && !self.lost {
                    self.lost = true;
                    return Some(LeaseEvent::Lost);
                }
                (self.failures == 1).then_some(LeaseEvent::Unreachable { error })
            }
        }
    }
}

/// Redis TIME as last told, carried on by the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerClock {
    told: Option<(u64, Instant)>,
}

impl ServerClock {
    /// The registry said `server_ms` at `at`.
    pub fn set(&mut self, server_ms: u64, at: Instant) {
        self.told = Some((server_ms, at));
    }

    /// Redis TIME at `instant`, Unix in milliseconds; `None` before the registry has told it.
    pub fn ms_at(&self, instant: Instant) -> Option<u64> {
        let (server_ms, at) = self.told?;
        let later = instant.saturating_duration_since(at).as_millis() as u64;
        let earlier = at.saturating_duration_since(instant).as_millis() as u64;
        Some((server_ms + later).saturating_sub(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(5);
    const TTL: Duration = Duration::from_secs(15);

    fn held(generation: u64) -> Reply {
        Reply::Held { generation }
    }

    fn failed() -> Reply {
        Reply::Failed("away".into())
    }

    #[test]
    fn heartbeats_keep_their_pace() {
        let start = Instant::now();
        for (jitter, wanted_ms) in [(0.0, 4500), (0.5, 4975), (1.0, 5450), (7.0, 5450)] {
            let mut lease = Lease::new(BEAT, TTL, start);
            assert_eq!(lease.step(start), Step::Send(Request::Register));
            let event = lease.on_reply(held(8), start, jitter);
            assert_eq!(event, Some(LeaseEvent::Registered { generation: 8 }));
            let next = start + Duration::from_millis(wanted_ms);
            assert_eq!(lease.step(start), Step::Wait(next));
            assert_eq!(
                lease.step(next),
                Step::Send(Request::Heartbeat { generation: 8 })
            );
        }
    }

    #[test]
    fn an_outage_is_told_once_lost_once_and_heals() {
        let mut now = Instant::now();
        let mut lease = Lease::new(BEAT, TTL, now);
        lease.on_reply(held(1), now, 0.5);
        let mut events = Vec::new();
        let outage_starts = now;
        while now < outage_starts + Duration::from_secs(30) {
            match lease.step(now) {
                Step::Wait(until) => {
                    assert!(until - now <= BEAT.mul_f64(1.1));
                    now = until;
                }
                Step::Send(_) => {
                    now += Duration::from_secs(1);
                    events.extend(lease.on_reply(failed(), now, 0.5));
                }
                Step::Ended => panic!("an outage ends no lease"),
            }
        }
        assert_eq!(
            events,
            [
                LeaseEvent::Unreachable {
                    error: "away".into()
                },
                LeaseEvent::Lost
            ]
        );
        if let Step::Wait(until) = lease.step(now) {
            assert!(until - now <= RETRY_MAX.mul_f64(1.1));
        }
        let event = lease.on_reply(held(1), now, 0.5);
        assert_eq!(event, Some(LeaseEvent::Restored { generation: 1 }));
    }

    #[test]
    fn a_fenced_lease_is_silent_for_ever() {
        let now = Instant::now();
        let mut lease = Lease::new(BEAT, TTL, now);
        lease.on_reply(held(3), now, 0.5);
        let event = lease.on_reply(Reply::Fenced { by: 9 }, now, 0.5);
        assert_eq!(event, Some(LeaseEvent::Fenced { by: 9, held: 3 }));
        lease.beat_now(now);
        assert_eq!(lease.leave(now), None);
        assert_eq!(lease.step(now + TTL * 100), Step::Ended);
    }

    #[test]
    fn leaving_is_tried_twice_and_then_left_to_the_ttl() {
        let now = Instant::now();
        let mut lease = Lease::new(BEAT, TTL, now);
        lease.on_reply(held(3), now, 0.5);
        assert_eq!(lease.leave(now), None);
        assert_eq!(lease.step(now), Step::Send(Request::Deregister));
        assert_eq!(lease.on_reply(failed(), now, 0.5), None);
        assert_eq!(lease.step(now), Step::Send(Request::Deregister));
        assert_eq!(
            lease.on_reply(failed(), now, 0.5),
            Some(LeaseEvent::Released)
        );
        assert_eq!(lease.step(now), Step::Ended);
        let mut unborn = Lease::new(BEAT, TTL, now);
        assert_eq!(unborn.leave(now), Some(LeaseEvent::Released));
    }
}
