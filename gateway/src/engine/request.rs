//! What is asked of whoever orders a channel, and who is to be answered.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::history::{HistoryOptions, HistoryPage, HistoryQuery, RecoveryRequest};
use super::{Asker, Event, Members, PresenceStats, PublishOptions};
use crate::protocol::{ClientId, ErrorCode};
use crate::pubsub::{
    ChannelKey, Message, MessageKind, MessageRef, OwnedClientInfo, ShardIndex, StreamPosition,
    Variant,
};

/// What is in a mailbox of this module.
#[derive(Debug)]
pub(super) enum Mail {
    Event(Event),
    Request(Request),
}

/// What is asked of whoever orders the channel.
#[derive(Debug)]
pub(super) enum Request {
    Subscribe {
        channel: Arc<str>,
        variant: Variant,
        shard: ShardIndex,
        key: ChannelKey,
        history: Option<HistoryOptions>,
    },
    Unsubscribe {
        channel: Arc<str>,
        variant: Variant,
        shard: ShardIndex,
        key: ChannelKey,
    },
    Recover {
        channel: Arc<str>,
        key: ChannelKey,
        request: RecoveryRequest,
        history: HistoryOptions,
        shard: ShardIndex,
        asker: Asker,
    },
    Publish {
        message: Message,
        /// Where the channel has one.
        history: Option<HistoryOptions>,
        conditions: Option<Box<Conditions>>,
        reply: Option<ReplyTo<Option<StreamPosition>>>,
    },
    History {
        channel: Arc<str>,
        query: HistoryQuery,
        history: HistoryOptions,
        reply: ReplyTo<HistoryPage>,
    },
    RemoveHistory {
        channel: Arc<str>,
        reply: Reply<()>,
    },
    Enter {
        channel: Arc<str>,
        info: Box<OwnedClientInfo>,
    },
    Exit {
        channel: Arc<str>,
        client: ClientId,
    },
    Presence {
        channel: Arc<str>,
        reply: ReplyTo<Members>,
    },
    PresenceStats {
        channel: Arc<str>,
        reply: ReplyTo<PresenceStats>,
    },
    /// The channels that have subscribers here.
    Channels {
        reply: Reply<Vec<Arc<str>>>,
    },
}

impl Request {
    /// The channel that it is about; none for what is about all of them.
    pub(super) fn channel(&self) -> Option<&str> {
        match self {
            Self::Subscribe { channel, .. }
            | Self::Unsubscribe { channel, .. }
            | Self::Recover { channel, .. }
            | Self::History { channel, .. }
            | Self::RemoveHistory { channel, .. }
            | Self::Enter { channel, .. }
            | Self::Exit { channel, .. }
            | Self::Presence { channel, .. }
            | Self::PresenceStats { channel, .. } => Some(channel),
            Self::Publish { message, .. } => Some(message.channel()),
            Self::Channels { .. } => None,
        }
    }
}

/// Under which conditions a publication is one; most have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) idempotency_key: Box<str>,
    pub(super) version: u64,
    pub(super) version_epoch: Box<str>,
}

impl Conditions {
    /// Those of `options`; joins and leaves know none.
    pub(super) fn of(message: &MessageRef<'_>, options: &PublishOptions<'_>) -> Option<Box<Self>> {
        let is_unconditional = options.idempotency_key.is_empty() && options.version == 0;
        if is_unconditional || message.kind() != MessageKind::Publication {
            return None;
        }
        Some(Box::new(Self {
            idempotency_key: options.idempotency_key.into(),
            version: options.version,
            version_epoch: options.version_epoch.into(),
        }))
    }
}

/// The control plane waits for the answer, see [`super::EngineHandle`].
pub(super) type Reply<T> = oneshot::Sender<Result<T, ErrorCode>>;

/// Who is to be answered with a `T`.
pub(super) enum ReplyTo<T> {
    /// A session, by way of its shard.
    Shard(ShardIndex, Asker),
    /// The control plane.
    Caller(Reply<T>),
}

impl<T> ReplyTo<T> {
    /// Answers a caller at once; for a session, the event that its shard must be told.
    #[must_use = "a shard is to be told"]
    pub(super) fn answer(
        self,
        result: Result<T, ErrorCode>,
        event: impl FnOnce(Asker, Result<T, ErrorCode>) -> Event,
    ) -> Option<(ShardIndex, Event)> {
        match self {
            Self::Shard(shard, asker) => Some((shard, event(asker, result))),
            Self::Caller(sender) => {
                // One that no longer waits has gone away by itself.
                let _ = sender.send(result);
                None
            }
        }
    }
}

impl<T> fmt::Debug for ReplyTo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard(shard, asker) => f.debug_tuple("Shard").field(shard).field(asker).finish(),
            Self::Caller(_) => f.write_str("Caller"),
        }
    }
}
