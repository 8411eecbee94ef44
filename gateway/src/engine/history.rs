//! What can be asked about a channel's past, and what is answered.

use std::sync::Arc;
use std::time::Duration;

use crate::pubsub::{KnownEpoch, Message, StreamPosition};

/// How a channel's history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Publications at most; at least 1.
    pub size: u32,
    /// How long after the last publication they are kept.
    pub ttl: Duration,
    /// How long after the last use offset and epoch are kept; at least `ttl`.
    pub meta_ttl: Duration,
}

/// A publication of the past.
#[derive(Clone, Debug)]
pub struct StoredPublication {
    /// Its place, from 1.
    pub offset: u64,
    /// What was published: `MessageRef::Publication`.
    pub message: Message,
}

/// Publications of the past, shared by everybody who asked for the same.
pub type Publications = Arc<[StoredPublication]>;

/// How a client gets what it missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// All of it, or it is told that it did not.
    #[default]
    Stream,
    /// The newest publication only.
    Cache,
}

/// A subscriber that wants what it missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryRequest {
    /// All, or the newest.
    pub mode: RecoveryMode,
    /// The last that it has seen.
    pub offset: u64,
    /// The epoch of that.
    pub epoch: KnownEpoch,
    /// More than this many are not recovered (`client.recovery_max_publication_limit`).
    pub publications_max: u32,
}

/// What a subscriber missed.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Where the asking shard is in the channel: what comes behind it arrives as deliveries, what
    /// comes up to it does not.
    pub position: StreamPosition,
    /// Whether `publications` are everything between the client's position and `position` (in
    /// cache mode: whether the newest is there, or the client has it).
    pub recovered: bool,
    /// Oldest first; none where `recovered` is false.
    pub publications: Publications,
}

/// Which past publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// How many at most; 0: only the position.
    pub limit: u32,
    /// Only those behind it (before it, in reverse).
    pub since: Option<(u64, KnownEpoch)>,
    /// Newest first.
    pub reverse: bool,
}

/// Some past publications.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// In the order asked for.
    pub publications: Publications,
    /// The newest position of the channel.
    pub position: StreamPosition,
}
