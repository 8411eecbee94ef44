//! How many commands a client may send: a token bucket in one moment of time.
//!
//! The bucket is described by the moment at which it would be full again; taking a token moves that
//! moment by the time in which one token comes back (the "virtual scheduling" form of the generic
//! cell rate algorithm, ITU-T I.371).

use std::time::Instant;

use crate::limits::Rate;

/// Full at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes a token, if one is there.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let interval = rate.interval();
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        if full_at - now > interval * (rate.burst.max(1) - 1) {
            return false;
        }
        self.full_at = Some(full_at + interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate {
            per_second: 10,
            burst: 3,
        };
        let mut now = Instant::now();
        let mut bucket = Bucket::default();
        let mut taken = |now| (0..20).filter(|_| bucket.take(rate, now)).count();
        assert_eq!(taken(now), 3);
        now += Duration::from_millis(99);
        assert_eq!(taken(now), 0);
        now += Duration::from_millis(1);
        assert_eq!(taken(now), 1);
        now += Duration::from_millis(250);
        assert_eq!(taken(now), 2);
        now += Duration::from_secs(60);
        assert_eq!(
            taken(now),
            3,
            "no more than the burst however long the rest"
        );
    }
}
