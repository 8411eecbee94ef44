//! What the bus counts.

use crate::metrics::Count;

/// What the bus counts.
#[derive(Debug, Default)]
pub struct BusMetrics {
    /// 1 while other nodes can be reached.
    pub up: Count,
    /// Connections lost.
    pub lost: Count,
    /// Attempts to connect that failed.
    pub connect_failures: Count,
    /// Requests sent.
    pub asked: Count,
    /// Requests of others carried out.
    pub performed: Count,
    /// Nodes that did not answer in time, by request.
    pub unanswered: Count,
    /// Answers that nobody waited for any more.
    pub late: Count,
    /// What came along and was no document of ours.
    pub refused: Count,
    /// Requests and documents dropped because a queue was full.
    pub dropped: Count,
}
