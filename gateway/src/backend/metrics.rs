//! What an endpoint counts.

use crate::metrics::Count;

/// What an endpoint counts.
#[derive(Debug, Default)]
pub struct EndpointMetrics {
    /// Exchanges begun.
    pub asked: Count,
    /// Exchanges that brought an answer.
    pub answered: Count,
    /// Time that exchanges took, in microseconds.
    pub micros: Count,
    /// Exchanges without a connection, or with one that broke.
    pub failed_connection: Count,
    /// Exchanges that took too long.
    pub failed_timeout: Count,
    /// Statuses other than 200 that the configuration gives no meaning.
    pub failed_status: Count,
    /// Answers that are not what they should be, or too long.
    pub failed_answer: Count,
    /// Questions that found no place in time (error 111).
    pub refused_busy: Count,
    /// Questions that came while the endpoint was left alone (error 100).
    pub refused_open: Count,
    /// Times that the endpoint was left alone.
    pub breaker_opened: Count,
    /// 1 while it is.
    pub breaker_open: Count,
}
