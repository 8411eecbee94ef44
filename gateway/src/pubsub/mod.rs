//! Channels, subscriptions and fan-out, without I/O, clock or randomness.
//!
//! | stage | file |
//! |---|---|
//! | what is published, and how it looks on the wire | `publication` |
//! | where a client is in a channel's history | `position` |
//! | one order per channel; encoded once per variant, handed to the shards that listen | `sequencer` |
//! | what a shard keeps of a channel: the stretch of log that somebody still needs | `channel` |
//! | who on this shard listens to what, and how far each has read | `subscriptions`, `table` |
//! | a round: which connections have something to send, and its bytes | `fanout` |
//! | when a round is due | `pacing` |
//!
//! A publication is bytes in an append-only log ([`flux_runtime::log`]). A subscription is a
//! position in that log and nothing else: no queue, no copy. Everything a connection is behind by
//! leaves in one send.

mod channel;
mod fanout;
mod pacing;
mod position;
mod publication;
mod sequencer;
#[cfg(test)]
mod simulation;
mod subscriptions;
mod table;

pub use fanout::{Gathered, SlowReason};
pub use pacing::{Due, Pacer, PacingConfig};
pub use position::{Epoch, KnownEpoch, StreamPosition};
pub use publication::{Message, MessageKind, MessageRef};
pub use sequencer::{Interest, Sequencer};
pub use subscriptions::{
    Released, Stats, Subscribed, Subscriptions, SubscriptionsConfig, Unsubscribed,
};

/// A connection's place in its shard's slab.
///
/// Places are used again: what is kept here for one is dropped with `Subscriptions::close`.
pub type Slot = u32;

/// Number of a shard within this node, from 0.
pub type ShardIndex = u16;

/// One encoding of a channel's messages; each variant in use has a log of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Variant {
    /// JSON text frames, publications only.
    Json = 0,
    /// JSON text frames, publications and who joins and leaves.
    JsonJoinLeave = 1,
}

impl Variant {
    /// How many there are.
    pub const COUNT: usize = 2;
    /// All of them.
    pub const ALL: [Variant; Self::COUNT] = [Variant::Json, Variant::JsonJoinLeave];

    /// Whether a message of this kind is in this variant's log.
    pub fn carries(self, kind: MessageKind) -> bool {
        match self {
            Variant::Json => kind == MessageKind::Publication,
            Variant::JsonJoinLeave => true,
        }
    }
}

/// A shard's own name for one of its channels. The generation tells a channel from an earlier one
/// in the same place, so that what was on its way to the earlier one is recognised as late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelKey {
    /// Place in the shard's table.
    pub index: u32,
    /// How often that place was given out before.
    pub generation: u32,
}
