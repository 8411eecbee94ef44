//! What the gateway says, whatever the wire format: replies to commands, pushes, pings.

use crate::protocol::client_id::ClientId;
use crate::protocol::codes::{Disconnect, ErrorCode, Unsubscribe};
use crate::protocol::tags::Tags;

/// The answer to one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The command failed.
    Error(Error<'a>),
    /// The session is open.
    Connect(ConnectResult<'a>),
    /// The subscription is live.
    Subscribe(SubscribeResult<'a>),
    /// The subscription is gone.
    Unsubscribe,
    /// The publication is accepted.
    Publish,
    /// Who is in the channel.
    Presence(&'a [ClientInfo<'a>]),
    /// How many are in the channel.
    PresenceStats {
        /// Connections.
        clients: u32,
        /// Different users among them.
        users: u32,
    },
    /// Past publications.
    History {
        /// In the order asked for.
        publications: &'a [Publication<'a>],
        /// The newest offset of the channel.
        offset: u64,
        /// Its epoch.
        epoch: &'a str,
    },
    /// What the backend answered.
    Rpc {
        /// The payload, may be empty.
        data: &'a [u8],
    },
    /// The connection's credentials are renewed.
    Refresh {
        /// The id of this connection.
        client: ClientId,
        /// Name and version of the server.
        version: &'a str,
        /// Seconds until they expire; none: never.
        ttl_seconds: Option<u32>,
    },
    /// A subscription's credentials are renewed.
    SubRefresh {
        /// Seconds until they expire; none: never.
        ttl_seconds: Option<u32>,
    },
}

/// Why a command failed; the backend may give codes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error<'a> {
    /// Below 400 the gateway's ([`ErrorCode`]), above the backend's.
    pub code: u32,
    /// For people.
    pub message: &'a str,
    /// Whether the same command may succeed later.
    pub temporary: bool,
}

impl From<ErrorCode> for Error<'static> {
    fn from(error: ErrorCode) -> Self {
        Self {
            code: u32::from(error.code()),
            message: error.message(),
            temporary: error.temporary(),
        }
    }
}

impl From<ErrorCode> for Reply<'static> {
    fn from(error: ErrorCode) -> Self {
        Self::Error(error.into())
    }
}

/// What a client learns when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectResult<'a> {
    /// The id of this connection.
    pub client: ClientId,
    /// Name and version of the server.
    pub version: &'a str,
    /// Seconds until the credentials expire; none: never.
    pub ttl_seconds: Option<u32>,
    /// From the backend; empty without.
    pub data: &'a [u8],
    /// Server-side subscriptions.
    pub subs: &'a [(&'a str, SubscribeResult<'a>)],
    /// Seconds between two pings.
    pub ping_seconds: u32,
    /// Whether the server expects pongs.
    pub pong: bool,
    /// Names the session in requests of transports that receive by one and send by another; empty
    /// for the others.
    pub session: &'a str,
    /// The id of the node.
    pub node: &'a str,
}

/// What a client learns when it subscribes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeResult<'a> {
    /// Seconds until the subscription's credentials expire; none: never.
    pub ttl_seconds: Option<u32>,
    /// Whether the client may recover later.
    pub recoverable: bool,
    /// Whether the gateway watches over the client's position.
    pub positioned: bool,
    /// Epoch of the channel; empty where it has no history or the client no position.
    pub epoch: &'a str,
    /// After a successful recovery the offset that the client asked with, otherwise the newest.
    pub offset: u64,
    /// What the client had missed, oldest first.
    pub publications: &'a [Publication<'a>],
    /// Whether the client asked for recovery.
    pub was_recovering: bool,
    /// Whether nothing that it missed is missing.
    pub recovered: bool,
    /// From the backend; empty without.
    pub data: &'a [u8],
    /// Whether publications come as deltas.
    pub delta: bool,
}

/// What the gateway sends without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push<'a> {
    /// A publication in a channel.
    Publication {
        /// Where.
        channel: &'a str,
        /// What.
        publication: Publication<'a>,
    },
    /// A client came to a channel.
    Join {
        /// Where.
        channel: &'a str,
        /// Who.
        info: ClientInfo<'a>,
    },
    /// A client left a channel.
    Leave {
        /// Where.
        channel: &'a str,
        /// Who.
        info: ClientInfo<'a>,
    },
    /// The server subscribed this client.
    Subscribe {
        /// Where.
        channel: &'a str,
        /// Of the result, what the schema's push has: recoverable, positioned, epoch, offset, data.
        result: SubscribeResult<'a>,
    },
    /// The server ended this client's subscription.
    Unsubscribe {
        /// Where.
        channel: &'a str,
        /// Why.
        unsubscribe: Unsubscribe<'a>,
    },
    /// A message to this client outside of any channel.
    Message {
        /// The payload; in JSON a value on one line.
        data: &'a [u8],
    },
    /// The session of a unidirectional client is open.
    Connect(ConnectResult<'a>),
    /// The connection ends; for transports without a close frame.
    Disconnect(Disconnect<'a>),
    /// The connection's credentials were renewed by the server.
    Refresh {
        /// Seconds until they expire; none: never.
        ttl_seconds: Option<u32>,
    },
}

/// What was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publication<'a> {
    /// The payload: for clients of the JSON format a JSON value on one line.
    pub data: &'a [u8],
    /// Who published it, where that was a client.
    pub info: Option<ClientInfo<'a>>,
    /// Its place in the channel's history; 0 without one.
    pub offset: u64,
    /// What the publisher attached.
    pub tags: Tags<'a>,
    /// Whether `data` is a delta against the channel's previous publication.
    pub delta: bool,
}

/// Who a client is, for others to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientInfo<'a> {
    /// Id of the user, empty for an anonymous client.
    pub user: &'a str,
    /// Id of the connection.
    pub client: ClientId,
    /// What the connection's credentials say about the client: JSON on one line, empty without.
    pub conn_info: &'a [u8],
    /// What the subscription's credentials say about the client: JSON on one line, empty without.
    pub chan_info: &'a [u8],
}
