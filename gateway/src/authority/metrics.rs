//! What the authority counts; plain atomics, read at each scrape.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that goes up, or up and down.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// What the authority counts.
#[derive(Debug, Default)]
pub struct AuthorityMetrics {
    /// Questions that a shard could not hand over because too many waited (error 111).
    pub questions_refused: Count,
    /// Questions being answered now.
    pub questions_in_flight: Count,
    /// Questions answered.
    pub answers: Count,
    /// Answers that had to wait because the shard's mailbox was full.
    pub answers_delayed: Count,
    /// Tokens that hold.
    pub tokens_accepted: Count,
    /// Tokens that have expired, or do not hold yet.
    pub tokens_expired: Count,
    /// Tokens that are not acceptable, whatever the reason.
    pub tokens_invalid: Count,
    /// Tokens that could not be judged because no key set could be had.
    pub tokens_unjudged: Count,
    /// Key sets fetched.
    pub jwks_fetched: Count,
    /// Fetches of a key set that failed.
    pub jwks_failures: Count,
    /// Notices that were dropped because too many waited, or the backend was away.
    pub notices_dropped: Count,
    /// Notices that the backend has taken.
    pub notices_sent: Count,
    /// Notices that the backend did not take.
    pub notices_failed: Count,
}
