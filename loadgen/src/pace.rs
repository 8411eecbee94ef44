//! Open-loop pacing: when the n-th event is due follows from the rate alone,
//! never from how fast the server answers. Pure: time comes in as `Instant`.
//!
//! Invariant: the intended time of event n is `start + n / rate`, computed from
//! n, so no rounding error accumulates and a late caller does not shift what follows.

use std::time::{Duration, Instant};

/// A load generator looks this often at what is due and what has come, and not more often: to wake it for each
/// message would cost both ends more than the message. So what is due leaves up to this much late, which
/// counts into its latency, as the time does for which something that came lay there.
pub(crate) const TICK: Duration = Duration::from_micros(250);

/// The schedule of a run: events at an even rate from a start.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    start: Instant,
    per_second: f64,
    taken: u64,
}

impl Pace {
    /// `per_second` must be positive and finite (the command line checks it).
    pub(crate) fn new(start: Instant, per_second: f64) -> Self {
        debug_assert!(per_second.is_finite() && per_second > 0.0);
        Self {
            start,
            per_second,
            taken: 0,
        }
    }

    /// The intended time of event `n`.
    pub(crate) fn at(&self, n: u64) -> Instant {
        self.start + Duration::from_secs_f64(n as f64 / self.per_second)
    }

    /// Number and intended time of the next event if that has come, and moves on to the one after.
    pub(crate) fn take(&mut self, now: Instant) -> Option<(u64, Instant)> {
        let (number, intended) = (self.taken, self.next_at());
        (intended <= now).then(|| {
            self.taken += 1;
            (number, intended)
        })
    }

    /// When the next event is due.
    pub(crate) fn next_at(&self) -> Instant {
        self.at(self.taken)
    }

    /// When to look again: when the next event is due, but not before the next tick.
    pub(crate) fn next_look(&self, now: Instant) -> Instant {
        self.next_at().max(now + TICK)
    }

    /// Events taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }
}

/// Whose turn it is to send: connections one after the other at a rate (open loop), or each at the start and from
/// then on as soon as it has its answer (closed loop).
#[derive(Debug)]
pub(crate) enum Turns {
    Open { pace: Pace, connections: usize },
    Closed { to_begin: std::ops::Range<usize> },
}

impl Turns {
    /// `rate` per second over all connections; `None`: closed loop.
    pub(crate) fn new(start: Instant, rate: Option<f64>, connections: usize) -> Self {
        match rate {
            Some(rate) => Self::Open {
                pace: Pace::new(start, rate),
                connections,
            },
            None => Self::Closed {
                to_begin: 0..connections,
            },
        }
    }

    pub(crate) fn is_closed_loop(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// The next connection whose turn has come, and when it was due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<(usize, Instant)> {
        match self {
            Self::Open { pace, connections } => pace
                .take(now)
                .map(|(number, due)| ((number % *connections as u64) as usize, due)),
            Self::Closed { to_begin } => to_begin.next().map(|index| (index, now)),
        }
    }

    /// When to look again; `None`: there is nothing to wait for but answers.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Open { pace, .. } => Some(pace.next_look(now)),
            Self::Closed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_by_the_rate_and_not_by_the_caller() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 1000.0);
        assert_eq!(pace.take(start), Some((0, start)));
        assert_eq!(pace.take(start), None);
        // The caller stalls for 10 ms: all ten are due, each with its own intended time.
        let late = start + Duration::from_millis(10);
        let mut due = Vec::new();
        while let Some((number, intended)) = pace.take(late) {
            due.push((number, (intended - start).as_millis()));
        }
        let each_in_turn: Vec<_> = (1..=10).map(|n| (n, u128::from(n))).collect();
        assert_eq!(due, each_in_turn);
        assert_eq!(pace.taken(), 11);
    }

    #[test]
    fn connections_take_turns_at_a_rate_and_begin_once_without_one() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let indices = |turns: &mut Turns| -> Vec<usize> {
            std::iter::from_fn(|| turns.take(later))
                .map(|(index, _)| index)
                .collect()
        };
        let mut open = Turns::new(start, Some(4.0), 3);
        assert_eq!(indices(&mut open), [0, 1, 2, 0, 1]);
        assert!(open.next_look(later) > Some(later) && !open.is_closed_loop());
        let mut closed = Turns::new(start, None, 3);
        assert_eq!(indices(&mut closed), [0, 1, 2]);
        assert_eq!(indices(&mut closed), [0; 0]);
        assert!(closed.next_look(later).is_none() && closed.is_closed_loop());
    }

    #[test]
    fn an_odd_rate_does_not_drift() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 7.0);
        let end = start + Duration::from_secs(3600);
        while pace.take(end).is_some() {}
        assert_eq!(pace.taken(), 7 * 3600 + 1);
        assert!(pace.next_at() - end < Duration::from_millis(143));
    }
}
