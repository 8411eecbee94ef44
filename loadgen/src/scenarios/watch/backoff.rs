//! The reconnect delay of the Centrifuge SDKs: full jitter between 500 ms and 20 s. Pure.

use std::time::Duration;

const DELAY_MIN_MS: u64 = 500;
const DELAY_MAX_MS: u64 = 20_000;

/// The delay before attempt number `attempt` (0: the first after a loss); `random` is in 0..=1.
pub(crate) fn delay(attempt: u32, random: f64) -> Duration {
    let span = DELAY_MIN_MS
        .saturating_mul(1 << attempt.min(16))
        .min(DELAY_MAX_MS);
    let jitter = (span as f64 * random.clamp(0.0, 1.0)) as u64;
    Duration::from_millis((DELAY_MIN_MS + jitter).min(DELAY_MAX_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_from_half_a_second_to_twenty() {
        assert_eq!(delay(0, 0.0), Duration::from_millis(500));
        assert_eq!(delay(0, 1.0), Duration::from_millis(1000));
        assert_eq!(delay(3, 1.0), Duration::from_millis(4500));
        assert_eq!(delay(40, 1.0), Duration::from_secs(20));
        assert_eq!(delay(40, 0.0), Duration::from_millis(500));
    }
}
