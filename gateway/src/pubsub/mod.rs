//! Channels, subscriptions and fan-out, without I/O, clock or randomness.
//!
//! | stage | file |
//! |---|---|
//! | what is published | `publication` |
//! | how that looks to a kind of client | `wire` |
//! | where a client is in a channel's history | `position` |
//! | one order per channel; framed once per variant, handed to the shards that listen | `sequencer` |
//! | a message's encodings, each made once | `encodings` |
//! | what a delta stands for, for newcomers | `whole` |
//! | what a shard keeps of a channel: the stretch of log that somebody still needs | `channel` |
//! | who on this shard listens to what, and how far each has read | `subscriptions`, `table` |
//! | where in a client's list of subscriptions something may be pending | `spans` |
//! | what the engine delivers, and what it has lost | `delivery` |
//! | a round: which connections have something to send, and its bytes | `fanout` |
//! | how long a connection rests on a busy shard, when rounds run | `pacing` |
//!
//! A publication is bytes in an append-only log ([`flux_runtime::log`]). A subscription is a
//! position in that log and nothing else: no queue, no copy. Everything a connection is behind by
//! leaves in one send.

mod channel;
mod delivery;
mod encodings;
mod fanout;
mod pacing;
mod position;
mod publication;
mod sequencer;
#[cfg(test)]
mod simulation;
mod spans;
mod subscriptions;
mod table;
mod whole;
mod wire;

pub use delivery::Appended;
pub use fanout::{Gathered, SlowReason};
pub use pacing::{Pacer, PacingConfig};
pub use position::{Epoch, KnownEpoch, StreamPosition};
pub use publication::{Message, MessageKind, MessageRef, OwnedClientInfo};
pub use sequencer::{Delivered, Interest, Sequenced, Sequencer};
pub use subscriptions::{
    Released, Stats, Subscribed, Subscriptions, SubscriptionsConfig, Unsubscribed,
};
pub use whole::Whole;
pub use wire::{Frame, Framing, Variant, Wire};

/// A connection's place in its shard's slab.
///
/// Places are used again: what is kept here for one is dropped with `Subscriptions::close`.
pub type Slot = u32;

/// Number of a shard within this node, from 0.
pub type ShardIndex = u16;

/// A shard's own name for one of its channels. The generation tells a channel from an earlier one
/// in the same place, so that what was on its way to the earlier one is recognised as late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelKey {
    /// Place in the shard's table.
    pub index: u32,
    /// How often that place was given out before.
    pub generation: u32,
}
