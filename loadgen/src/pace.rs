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

    /// The intended time of the next event if it has come, and moves on to the one after.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        let intended = self.next_at();
        (intended <= now).then(|| {
            self.taken += 1;
            intended
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_by_the_rate_and_not_by_the_caller() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 1000.0);
        assert_eq!(pace.take(start), Some(start));
        assert_eq!(pace.take(start), None);
        // The caller stalls for 10 ms: all ten are due, each with its own intended time.
        let late = start + Duration::from_millis(10);
        let mut due = Vec::new();
        while let Some(intended) = pace.take(late) {
            due.push((intended - start).as_millis());
        }
        assert_eq!(due, (1..=10).collect::<Vec<_>>());
        assert_eq!(pace.taken(), 11);
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
