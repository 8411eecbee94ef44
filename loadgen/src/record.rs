//! Latencies in an HDR histogram, in microseconds.
//!
//! What is recorded is `received - intended`: a request that could not be sent in
//! time because the server (or this program) stalled counts with its whole wait, so
//! there is no coordinated omission to correct for afterwards.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that keeps its value; longer ones are recorded as this.
const LATENCY_US_MAX: u64 = 120_000_000;

/// A histogram of latencies.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

/// What a report says about latencies, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        // 1 us to the maximum, three significant digits: the bounds are constants that the crate accepts.
        #[allow(
            clippy::expect_used,
            reason = "constant bounds, checked by every test that records"
        )]
        Self(
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("constant histogram bounds are valid"),
        )
    }

    /// Records how long after its intended time something came.
    pub(crate) fn record(&mut self, intended: Instant, received: Instant) {
        self.record_duration(received.saturating_duration_since(intended));
    }

    /// Records a duration.
    pub(crate) fn record_duration(&mut self, latency: Duration) {
        self.0
            .saturating_record((latency.as_micros() as u64).max(1));
    }

    /// Takes what another one recorded.
    pub(crate) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// Forgets what was recorded during the warm-up.
    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    pub(crate) fn summary(&self) -> Summary {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Summary {
            count: self.0.len(),
            mean_us: (self.0.mean() * 10.0).round() / 10.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max(),
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        write!(
            f,
            "p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms",
            ms(self.p50_us),
            ms(self.p90_us),
            ms(self.p99_us),
            ms(self.p999_us),
            ms(self.max_us)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Pace;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut latencies = Latencies::new();
        for us in 1..=1000 {
            latencies.record_duration(Duration::from_micros(us));
        }
        let summary = latencies.summary();
        assert_eq!(
            (
                summary.count,
                summary.p50_us,
                summary.p99_us,
                summary.max_us
            ),
            (1000, 500, 990, 1000)
        );
    }

    #[test]
    fn a_stall_counts_for_everything_that_was_due_in_it() {
        // 100 requests a second; the server answers at once but for one stall of a second.
        let start = Instant::now();
        let mut pace = Pace::new(start, 100.0);
        let mut latencies = Latencies::new();
        let mut now = start;
        for step in 0..=200u64 {
            now = if step == 50 {
                now + Duration::from_secs(1)
            } else {
                now.max(pace.next_at())
            };
            while let Some((_, intended)) = pace.take(now) {
                latencies.record(intended, now + Duration::from_micros(100));
            }
        }
        // About 100 of 300 were due while it stood still: a closed loop would have seen one.
        let summary = latencies.summary();
        assert!(summary.p50_us < 200, "{summary:?}");
        assert!(
            (600_000..=1_001_000).contains(&summary.p90_us),
            "{summary:?}"
        );
        assert!(summary.max_us >= 980_000, "{summary:?}");
    }

    #[test]
    fn beyond_the_range_is_kept_as_the_longest() {
        let mut latencies = Latencies::new();
        latencies.record_duration(Duration::from_secs(3600));
        assert!(latencies.summary().max_us >= LATENCY_US_MAX);
    }
}
