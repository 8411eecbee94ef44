//! What a client asks for, whatever the wire format.
//!
//! Only what the gateway reads is kept; the other fields of the schema are accepted and dropped by
//! the decoders. Text that stands in the message without escapes is borrowed from it, and so is
//! data: in the JSON format one JSON value on one line, in Protobuf bytes.

use std::borrow::Cow;

/// One command of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// Comes back with the reply; 0 in a pong and where `send` has none.
    pub id: u32,
    /// The first request of the schema that is set. None with id 0 is the pong.
    pub request: Option<Request<'a>>,
}

/// The requests, in the order of the schema: where a command has several, the first one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The first command of every session.
    Connect(ConnectRequest<'a>),
    /// A subscription to a channel.
    Subscribe(SubscribeRequest<'a>),
    /// Its end.
    Unsubscribe(ChannelRequest<'a>),
    /// A publication.
    Publish(PublishRequest<'a>),
    /// Who is in the channel.
    Presence(ChannelRequest<'a>),
    /// How many are in the channel.
    PresenceStats(ChannelRequest<'a>),
    /// Past publications of the channel.
    History(HistoryRequest<'a>),
    /// A call to the backend.
    Rpc(RpcRequest<'a>),
    /// A message to the backend, without a reply.
    Send(SendRequest<'a>),
    /// A new connection token.
    Refresh(RefreshRequest<'a>),
    /// A new subscription token.
    SubRefresh(SubRefreshRequest<'a>),
    /// Reserved by the protocol; the pings that exist go the other way.
    Ping,
}

impl Request<'_> {
    /// Its place in the order by which one of several requests is chosen.
    pub(crate) const fn rank(&self) -> u8 {
        match self {
            Self::Connect(_) => 0,
            Self::Subscribe(_) => 1,
            Self::Unsubscribe(_) => 2,
            Self::Publish(_) => 3,
            Self::Presence(_) => 4,
            Self::PresenceStats(_) => 5,
            Self::History(_) => 6,
            Self::Rpc(_) => 7,
            Self::Send(_) => 8,
            Self::Refresh(_) => 9,
            Self::SubRefresh(_) => 10,
            Self::Ping => 11,
        }
    }
}

/// Who connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    /// JWT, empty for an anonymous client.
    pub token: Cow<'a, str>,
    /// For the backend's connect proxy; empty without.
    pub data: Cow<'a, [u8]>,
    /// Server-side subscriptions that the client had and wants to recover: channel and position.
    /// At most as many as a message can hold.
    pub subs: Vec<(Cow<'a, str>, SincePosition<'a>)>,
    /// The SDK's or the application's name for the kind of client.
    pub name: Cow<'a, str>,
    /// The application's version.
    pub version: Cow<'a, str>,
}

/// From where a client wants to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SincePosition<'a> {
    /// Whether the client wants what it missed.
    pub recover: bool,
    /// The last offset that it has seen.
    pub offset: u64,
    /// The epoch of that offset; empty: any.
    pub epoch: Cow<'a, str>,
}

/// What to subscribe to, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeRequest<'a> {
    /// Never empty in a valid request.
    pub channel: Cow<'a, str>,
    /// JWT for this channel, empty without.
    pub token: Cow<'a, str>,
    /// From where to go on.
    pub since: SincePosition<'a>,
    /// For the backend's subscribe proxy; empty without.
    pub data: Cow<'a, [u8]>,
    /// The client wants its position checked.
    pub positioned: bool,
    /// The client wants to be able to recover.
    pub recoverable: bool,
    /// The client wants join and leave pushes.
    pub join_leave: bool,
    /// The delta format that the client understands, empty without.
    pub delta: Cow<'a, str>,
    /// Whether the client wants only publications whose tags pass a filter.
    pub has_tags_filter: bool,
    /// Bits that change details; 2: a position that cannot be recovered is error 112.
    pub flag: i64,
    /// Kind of subscription; 0 is the plain one, the others are maps and shared polls.
    pub kind: i32,
}

/// A request that names nothing but a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelRequest<'a> {
    /// Never empty in a valid request.
    pub channel: Cow<'a, str>,
}

/// What to publish, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishRequest<'a> {
    /// Never empty in a valid request.
    pub channel: Cow<'a, str>,
    /// The payload; never empty in a valid request.
    pub data: Cow<'a, [u8]>,
    /// Kind of channel; 0 is the plain one.
    pub kind: i32,
}

/// Which past publications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryRequest<'a> {
    /// Never empty in a valid request.
    pub channel: Cow<'a, str>,
    /// How many at most; 0: none, only the position; below 0: as many as allowed.
    pub limit: i32,
    /// Only those behind this position (before it, in reverse); none: from the end of the history.
    pub since: Option<(u64, Cow<'a, str>)>,
    /// Newest first.
    pub reverse: bool,
}

/// What to call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcRequest<'a> {
    /// Name of the method, may be empty.
    pub method: Cow<'a, str>,
    /// The payload, may be empty.
    pub data: Cow<'a, [u8]>,
}

/// A message to the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendRequest<'a> {
    /// The payload, may be empty.
    pub data: Cow<'a, [u8]>,
}

/// A new connection token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefreshRequest<'a> {
    /// JWT.
    pub token: Cow<'a, str>,
}

/// A new subscription token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubRefreshRequest<'a> {
    /// Never empty in a valid request.
    pub channel: Cow<'a, str>,
    /// JWT.
    pub token: Cow<'a, str>,
}
