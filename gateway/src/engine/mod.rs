//! Engines: how a publication finds the subscribers on other shards and on other nodes.
//!
//! | what | file |
//! |---|---|
//! | one node, several shards: the channel's owner shard gives the order | `memory` |
//! | several nodes: Redis gives the order, one thread of each node reads it | `redis` |
//! | what waits for a shard whose mailbox is full | `outbox` |
//! | what a door has for its own shard | `local` |
//! | counters | `metrics` |
//!
//! Every shard holds an [`Engine`]. It asks ([`Engine::subscribe`], [`Engine::publish`]), and takes
//! answers and deliveries once a turn ([`Engine::poll`]); none of it blocks. Both engines keep
//! these promises:
//! - Per channel, all shards see the same order.
//! - After [`Event::Subscribed`] for a key, every message that is published later arrives as
//!   [`Event::Delivery`] with this key until [`Engine::unsubscribe`], or [`Event::Lost`] does.
//! - Every [`Engine::publish`] with an asker is answered by one [`Event::Published`].

pub mod history;
mod local;
mod memory;
mod metrics;
mod outbox;
pub mod redis;

use std::sync::Arc;

use flux_runtime::log::LogSlice;
use flux_runtime::mailbox::Waker;

pub use memory::MemoryEngine;
pub use metrics::{EngineMetrics, Number};

use crate::protocol::ErrorCode;
use crate::pubsub::{ChannelKey, Message, MessageRef, ShardIndex, Variant};

/// Who wants to know what became of a publish: given back as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The shard's name for the connection, generation included.
    pub connection: u64,
    /// The command's id.
    pub command: u32,
}

/// What an engine tells a shard.
#[derive(Debug)]
pub enum Event {
    /// Answer to [`Engine::subscribe`].
    Subscribed {
        /// As asked with.
        key: ChannelKey,
        /// An error when the channel will not be delivered; nothing needs to be undone.
        result: Result<(), ErrorCode>,
    },
    /// Answer to [`Engine::publish`].
    Published {
        /// As asked with.
        asker: Asker,
        /// Whether it was accepted.
        result: Result<(), ErrorCode>,
    },
    /// Something was published.
    Delivery {
        /// The channel.
        key: ChannelKey,
        /// Complete WebSocket frames.
        slice: LogSlice,
    },
    /// Something of this channel could not be delivered to this shard, and nothing more will be:
    /// its subscribers must be told (unsubscribe push 2500, upon which clients subscribe anew).
    Lost {
        /// The channel.
        key: ChannelKey,
    },
}

/// What is in a mailbox of this module.
#[derive(Debug)]
enum Mail {
    Event(Event),
    Request(Request),
}

/// What a shard asks of whoever orders the channel.
#[derive(Debug)]
enum Request {
    Subscribe {
        channel: Arc<str>,
        variant: Variant,
        shard: ShardIndex,
        key: ChannelKey,
    },
    Unsubscribe {
        channel: Arc<str>,
        variant: Variant,
        shard: ShardIndex,
        key: ChannelKey,
    },
    Publish {
        message: Message,
        asker: Option<(ShardIndex, Asker)>,
    },
}

impl Request {
    /// The channel that it is about.
    fn channel(&self) -> &str {
        match self {
            Request::Subscribe { channel, .. } | Request::Unsubscribe { channel, .. } => channel,
            Request::Publish { message, .. } => message.channel(),
        }
    }
}

/// A shard's door to its engine.
pub enum Engine {
    /// One node.
    Memory(Box<MemoryEngine>),
    /// Nodes joined by Redis.
    Redis(Box<redis::RedisShard>),
}

impl Engine {
    /// Memory engines for the shards with these wakers, in their order.
    pub fn memory(wakers: &[Waker]) -> Vec<Engine> {
        MemoryEngine::for_shards(wakers)
            .into_iter()
            .map(|engine| Engine::Memory(Box::new(engine)))
            .collect()
    }

    /// Asks for the messages of `channel` in `variant`, to be addressed with `key`. Answered by
    /// [`Event::Subscribed`].
    pub fn subscribe(&mut self, channel: &Arc<str>, variant: Variant, key: ChannelKey) {
        match self {
            Engine::Memory(engine) => engine.subscribe(channel, variant, key),
            Engine::Redis(engine) => engine.subscribe(channel, variant, key),
        }
    }

    /// No more of this, please. What is on its way still arrives, with the old key.
    pub fn unsubscribe(&mut self, channel: &Arc<str>, variant: Variant, key: ChannelKey) {
        match self {
            Engine::Memory(engine) => engine.unsubscribe(channel, variant, key),
            Engine::Redis(engine) => engine.unsubscribe(channel, variant, key),
        }
    }

    /// Publishes. An asker gets an [`Event::Published`]; joins and leaves have none.
    pub fn publish(&mut self, channel: &str, message: MessageRef<'_>, asker: Option<Asker>) {
        match self {
            Engine::Memory(engine) => engine.publish(channel, message, asker),
            Engine::Redis(engine) => engine.publish(channel, message, asker),
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
