//! What the authority counts.

use crate::metrics::Count;

/// What the authority counts.
#[derive(Debug, Default)]
pub struct AuthorityMetrics {
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
