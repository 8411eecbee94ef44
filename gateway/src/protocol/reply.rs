//! What the gateway says, whatever the wire format: replies to commands, pushes, pings.

use crate::protocol::client_id::ClientId;
use crate::protocol::codes::{Disconnect, ErrorCode, Unsubscribe};

/// The answer to one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The command failed.
    Error(ErrorCode),
    /// The session is open.
    Connect(ConnectResult<'a>),
    /// The subscription is live.
    Subscribe,
    /// The subscription is gone.
    Unsubscribe,
    /// The publication is accepted.
    Publish,
}

/// What a client learns when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectResult<'a> {
    /// The id of this connection.
    pub client: ClientId,
    /// Name and version of the server.
    pub version: &'a str,
    /// Seconds between two pings.
    pub ping_seconds: u32,
    /// Whether the server expects pongs.
    pub pong: bool,
    /// The id of the node.
    pub node: &'a str,
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
    /// The connection ends; for transports without a close frame.
    Disconnect(Disconnect<'a>),
}

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication<'a> {
    /// The payload: for clients of the JSON format a JSON value on one line.
    pub data: &'a [u8],
    /// Who published it, where that was a client.
    pub info: Option<ClientInfo<'a>>,
    /// Its place in the channel's history; 0 without one.
    pub offset: u64,
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
