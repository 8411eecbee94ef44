//! Engines: how a publication finds the subscribers on other shards and on other nodes, and what is
//! kept of a channel: its history, who is present.
//!
//! | what | file |
//! |---|---|
//! | one node, several shards: the channel's owner shard gives the order | `memory` |
//! | several nodes: Redis gives the order, one thread of each node reads it | `redis` |
//! | what is asked about a channel's past, and answered | `history` |
//! | a channel's history: kept, read, recovered from | `stream` |
//! | what is asked of whoever orders a channel, and who is answered | `request` |
//! | what waits for a shard whose mailbox is full | `outbox` |
//! | what a door has for its own shard | `local` |
//! | who is present in a channel | `presence` |
//! | the control plane's way to the engine | `handle` |
//! | counters | `metrics` |
//!
//! Every shard holds an [`Engine`]. It asks ([`Engine::subscribe`], [`Engine::publish`]), and takes
//! answers and deliveries once a turn ([`Engine::poll`]); none of it blocks. Both engines keep
//! these promises:
//! - Per channel, all shards see the same order.
//! - After [`Event::Subscribed`] for a key, every message that is published later arrives as
//!   [`Event::Delivery`] with this key until [`Engine::unsubscribe`], or [`Event::Lost`] does.
//! - In a channel with history, the offsets of a key's deliveries rise by one, within one epoch,
//!   from the position in its [`Event::Subscribed`] on. What an engine itself has missed it fills in
//!   from the history before it goes on; where it cannot, it says [`Event::Lost`].
//! - The position in an [`Event::Recovered`] is the offset of the last delivery of the channel that
//!   was put into this shard's mailbox before it: what comes up to it stands in the answer, what
//!   comes behind it follows as deliveries.
//! - Every question with an asker is answered by exactly one event.

mod handle;
pub mod history;
mod local;
mod memory;
mod metrics;
mod outbox;
mod presence;
pub mod redis;
mod request;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use flux_runtime::log::LogSlice;
use flux_runtime::mailbox::Waker;

pub use handle::EngineHandle;
pub use memory::MemoryEngine;
pub use metrics::EngineMetrics;

use self::history::{HistoryOptions, HistoryPage, HistoryQuery, Recovery, RecoveryRequest};
use crate::protocol::{ClientId, ClientInfo, ErrorCode};
use crate::pubsub::{
    ChannelKey, Delivered, MessageKind, MessageRef, OwnedClientInfo, StreamPosition, Variant, Whole,
};

/// How long the result of a publication with an idempotency key is remembered.
pub const IDEMPOTENCY_TTL: Duration = Duration::from_secs(300);

/// Who asked: given back as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The shard's name for the connection, generation included.
    pub connection: u64,
    /// The command's id.
    pub command: u32,
}

/// How a message is published. The default: in a channel without history, unconditionally.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublishOptions<'a> {
    /// Where the channel has one. Joins and leaves never enter it.
    pub history: Option<HistoryOptions>,
    /// A second publication with this key in this channel within [`IDEMPOTENCY_TTL`] is not
    /// published and has the first one's result. Empty: none.
    pub idempotency_key: &'a str,
    /// In a channel with history: not published unless it is above that of the last publication
    /// that had one. 0: none.
    pub version: u64,
    /// Versions are compared within one epoch only. Empty: with whatever there is.
    pub version_epoch: &'a str,
}

impl PublishOptions<'_> {
    /// The history that `message` enters.
    fn history_of(&self, message: &MessageRef<'_>) -> Option<HistoryOptions> {
        self.history
            .filter(|_| message.kind() == MessageKind::Publication)
    }
}

/// Who is present in a channel, in no order; shared by everybody who asked.
pub type Members = Arc<[OwnedClientInfo]>;

/// How many are present in a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Clients: connections.
    pub clients: u64,
    /// Distinct users among them; all anonymous clients are one.
    pub users: u64,
}

/// What an engine tells a shard.
#[derive(Debug)]
pub enum Event {
    /// Answer to [`Engine::subscribe`].
    Subscribed {
        /// As asked with.
        key: ChannelKey,
        /// The newest position of a channel with history. An error when the channel will not be
        /// delivered; nothing needs to be undone.
        result: Result<Option<StreamPosition>, ErrorCode>,
    },
    /// Answer to [`Engine::recover`], behind the `Subscribed` of the same key.
    Recovered {
        /// As asked with.
        key: ChannelKey,
        /// As asked with.
        asker: Asker,
        /// What was missed up to this event.
        result: Result<Recovery, ErrorCode>,
    },
    /// Answer to [`Engine::publish`].
    Published {
        /// As asked with.
        asker: Asker,
        /// Whether it was accepted, and its place in the history where there is one.
        result: Result<Option<StreamPosition>, ErrorCode>,
    },
    /// Answer to [`Engine::history`].
    History {
        /// As asked with.
        asker: Asker,
        /// What was asked for; 112 where the query named another epoch.
        result: Result<HistoryPage, ErrorCode>,
    },
    /// Answer to [`Engine::presence`].
    Presence {
        /// As asked with.
        asker: Asker,
        /// Who is there.
        result: Result<Members, ErrorCode>,
    },
    /// Answer to [`Engine::presence_stats`].
    PresenceStats {
        /// As asked with.
        asker: Asker,
        /// How many are there.
        result: Result<PresenceStats, ErrorCode>,
    },
    /// Something was published.
    Delivery {
        /// The channel.
        key: ChannelKey,
        /// The message as the variant has it, ready for the socket.
        slice: LogSlice,
        /// Where `slice` is a delta: the whole message, for subscribers who have not had one yet.
        whole: Option<Whole>,
        /// Its place in the channel's history; 0 for what has none.
        offset: u64,
    },
    /// Something of this channel could not be delivered to this shard, and nothing more will be:
    /// its subscribers must be told (unsubscribe push 2500, upon which clients subscribe anew).
    Lost {
        /// The channel.
        key: ChannelKey,
    },
    /// Something was published in this channel that is not JSON, and the subscribers under this key
    /// speak JSON: nothing more will be delivered, and they are to be disconnected (3506).
    Inappropriate {
        /// The channel.
        key: ChannelKey,
    },
}

/// A shard's door to its engine.
pub enum Engine {
    /// One node.
    Memory(Box<MemoryEngine>),
    /// Nodes joined by Redis.
    Redis(Box<redis::RedisShard>),
}

impl Engine {
    /// Memory engines for the shards with these wakers, in their order, and the control plane's
    /// way to them.
    pub fn memory(wakers: &[Waker]) -> (Vec<Engine>, EngineHandle) {
        let (engines, handle) = MemoryEngine::for_shards(wakers);
        let engines = engines
            .into_iter()
            .map(|engine| Engine::Memory(Box::new(engine)))
            .collect();
        (engines, handle)
    }

    /// Asks for the messages of `channel` in `variant`, to be addressed with `key`; `history` where
    /// the channel has one. Answered by [`Event::Subscribed`].
    pub fn subscribe(
        &mut self,
        channel: &Arc<str>,
        variant: Variant,
        key: ChannelKey,
        history: Option<HistoryOptions>,
    ) {
        match self {
            Engine::Memory(engine) => engine.subscribe(channel, variant, key, history),
            Engine::Redis(engine) => engine.subscribe(channel, variant, key, history),
        }
    }

    /// No more of this, please. What is on its way still arrives, with the old key.
    pub fn unsubscribe(&mut self, channel: &Arc<str>, variant: Variant, key: ChannelKey) {
        match self {
            Engine::Memory(engine) => engine.unsubscribe(channel, variant, key),
            Engine::Redis(engine) => engine.unsubscribe(channel, variant, key),
        }
    }

    /// Asks for what a subscriber has missed in a channel with history. To be asked after the
    /// [`Self::subscribe`] of the same `key`, which may still be under way; answered by
    /// [`Event::Recovered`] behind its [`Event::Subscribed`].
    pub fn recover(
        &mut self,
        channel: &Arc<str>,
        key: ChannelKey,
        request: RecoveryRequest,
        history: HistoryOptions,
        asker: Asker,
    ) {
        match self {
            Engine::Memory(engine) => engine.recover(channel, key, request, history, asker),
            Engine::Redis(engine) => engine.recover(channel, key, request, history, asker),
        }
    }

    /// Publishes. An asker gets an [`Event::Published`]; joins and leaves have none.
    pub fn publish(
        &mut self,
        channel: &str,
        message: MessageRef<'_>,
        options: &PublishOptions<'_>,
        asker: Option<Asker>,
    ) {
        match self {
            Engine::Memory(engine) => engine.publish(channel, message, options, asker),
            Engine::Redis(engine) => engine.publish(channel, message, options, asker),
        }
    }

    /// Asks for past publications of a channel with history. Answered by [`Event::History`].
    pub fn history(
        &mut self,
        channel: &str,
        query: HistoryQuery,
        history: HistoryOptions,
        asker: Asker,
    ) {
        match self {
            Engine::Memory(engine) => engine.history(channel, query, history, asker),
            Engine::Redis(engine) => engine.history(channel, query, history, asker),
        }
    }

    /// A client of this shard is present in `channel` from now on. One that is already is present
    /// with this info.
    pub fn enter(&mut self, channel: &str, info: ClientInfo<'_>) {
        match self {
            Engine::Memory(engine) => engine.enter(channel, info),
            Engine::Redis(engine) => engine.enter(channel, info),
        }
    }

    /// A client of this shard is no longer present in `channel`. Nothing, if it was not.
    pub fn exit(&mut self, channel: &str, client: ClientId) {
        match self {
            Engine::Memory(engine) => engine.exit(channel, client),
            Engine::Redis(engine) => engine.exit(channel, client),
        }
    }

    /// Asks who is present in `channel`. Answered by [`Event::Presence`].
    pub fn presence(&mut self, channel: &str, asker: Asker) {
        match self {
            Engine::Memory(engine) => engine.presence(channel, asker),
            Engine::Redis(engine) => engine.presence(channel, asker),
        }
    }

    /// Asks how many are present in `channel`. Answered by [`Event::PresenceStats`].
    pub fn presence_stats(&mut self, channel: &str, asker: Asker) {
        match self {
            Engine::Memory(engine) => engine.presence_stats(channel, asker),
            Engine::Redis(engine) => engine.presence_stats(channel, asker),
        }
    }

    /// The next event, if any. Works on a bounded amount of mail, so that `None` may also mean
    /// that it is somebody else's turn: see [`Self::has_mail`].
    pub fn poll(&mut self) -> Option<Event> {
        match self {
            Engine::Memory(engine) => engine.poll(),
            Engine::Redis(engine) => engine.poll(),
        }
    }

    /// Whether there is mail to take: the shard must not park.
    pub fn has_mail(&self) -> bool {
        match self {
            Engine::Memory(engine) => engine.has_mail(),
            Engine::Redis(engine) => engine.has_mail(),
        }
    }

    /// Sends what has gathered and wakes who is to read it; to be called at the end of each turn.
    /// Returns false when something had to wait because its reader is behind: the shard must call
    /// again within a millisecond or so.
    pub fn flush(&mut self) -> bool {
        match self {
            Engine::Memory(engine) => engine.flush(),
            Engine::Redis(engine) => engine.flush(),
        }
    }

    /// Gives back the log memory of quiet channels; to be called every few seconds.
    pub fn sweep(&mut self) {
        match self {
            Engine::Memory(engine) => engine.sweep(),
            Engine::Redis(_) => {}
        }
    }

    /// Counters: each memory engine has its own, all of a node's Redis doors share one.
    pub fn metrics(&self) -> &Arc<EngineMetrics> {
        match self {
            Engine::Memory(engine) => engine.metrics(),
            Engine::Redis(engine) => engine.metrics(),
        }
    }
}

impl Event {
    fn delivery(key: ChannelKey, delivered: Delivered) -> Self {
        let Delivered {
            slice,
            whole,
            offset,
        } = delivered;
        Self::Delivery {
            key,
            slice,
            whole,
            offset,
        }
    }

    /// Bytes of log that it keeps from being given back.
    fn bytes(&self) -> usize {
        match self {
            Self::Delivery { slice, whole, .. } => {
                slice.len() + whole.as_ref().map_or(0, Whole::size)
            }
            _ => 0,
        }
    }
}
