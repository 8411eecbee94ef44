//! The Centrifuge client protocol: commands in, replies and pushes out, no I/O.
//!
//! | what | file |
//! |---|---|
//! | what a client may ask | [`command`] |
//! | what the gateway may say | [`reply`] |
//! | every code, with its words | [`codes`] |
//! | tags of a publication | [`tags`] |
//! | a publication by how it differs from the one before | [`delta`] |
//! | JSON: commands from bytes, replies and pushes to bytes | [`json`] |
//! | Protobuf: the same | [`protobuf`] |
//!
//! A further wire format is a further folder beside [`json`] and a variant of [`WireFormat`];
//! nothing else knows how a command looks on the wire. What a message is put into (a WebSocket
//! frame, a chunk, an event) is [`crate::pubsub::Wire`]'s.

pub mod client_id;
pub mod codes;
pub mod command;
pub mod delta;
pub mod json;
pub mod protobuf;
pub mod reply;
pub mod tags;

pub use client_id::ClientId;
pub use codes::{Disconnect, ErrorCode, Unsubscribe};
pub use command::{Command, ConnectRequest, Request};
pub use reply::{ClientInfo, ConnectResult, Error, Publication, Push, Reply, SubscribeResult};
pub use tags::Tags;

/// How commands, replies and pushes look on the wire; chosen once per connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WireFormat {
    /// One JSON document a line, in text messages.
    #[default]
    Json,
    /// Protobuf messages with their length before them, in binary messages.
    Protobuf,
}

impl WireFormat {
    /// The commands of one message, in order.
    #[must_use]
    pub fn decode(self, message: &[u8]) -> Commands<'_> {
        match self {
            Self::Json => Commands::Json(json::decode(message)),
            Self::Protobuf => Commands::Protobuf(protobuf::decode(message)),
        }
    }

    /// Appends a reply. Whatever stands in `out` is part of the same message.
    pub fn reply(self, out: &mut Vec<u8>, id: u32, reply: &Reply<'_>) {
        match self {
            Self::Json => json::encode_reply(out, id, reply),
            Self::Protobuf => protobuf::encode_reply(out, id, reply),
        }
    }

    /// Appends a push. Whatever stands in `out` is part of the same message.
    pub fn push(self, out: &mut Vec<u8>, push: &Push<'_>) {
        match self {
            Self::Json => json::encode_push(out, push),
            Self::Protobuf => protobuf::encode_push(out, push),
        }
    }

    /// Appends a push that stands alone, for clients that only listen. Whatever stands in `out` is
    /// part of the same message.
    pub fn bare_push(self, out: &mut Vec<u8>, push: &Push<'_>) {
        match self {
            Self::Json => json::encode_bare_push(out, push),
            Self::Protobuf => protobuf::encode_bare_push(out, push),
        }
    }

    /// Appends a ping. Whatever stands in `out` is part of the same message.
    pub fn ping(self, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::encode_ping(out),
            Self::Protobuf => protobuf::encode_ping(out),
        }
    }

    /// The connect request that a client which only listens begins with: the request alone, not
    /// inside a command.
    ///
    /// # Errors
    /// When `message` is not one; the connection closes with 3501.
    pub fn decode_connect_request(self, message: &[u8]) -> Result<ConnectRequest<'_>, DecodeError> {
        match self {
            Self::Json => json::decode_connect_request(message),
            Self::Protobuf => {
                protobuf::decode_connect_request(message).map_err(DecodeError::Protobuf)
            }
        }
    }
}

/// Iterates over the commands of a message. After an error there is nothing more to be read.
#[derive(Debug)]
pub enum Commands<'a> {
    /// Of the JSON format.
    Json(json::Commands<'a>),
    /// Of the Protobuf format.
    Protobuf(protobuf::Commands<'a>),
}

impl<'a> Commands<'a> {
    /// What has not been looked at: a message of its own, unless it is empty.
    #[must_use]
    pub fn remaining(&self) -> &'a [u8] {
        match self {
            Self::Json(commands) => commands.remaining(),
            Self::Protobuf(commands) => commands.remaining(),
        }
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Json(commands) => commands.next(),
            Self::Protobuf(commands) => commands.next(),
        }
    }
}

/// A message that is not what the wire format says: the connection closes with 3501.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No command where one should be.
    #[error("no command")]
    Empty,
    /// A text message that is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// Not JSON, or not of the schema.
    #[error("not a command: {0}")]
    Json(#[from] json::Malformed),
    /// Not Protobuf, or not of the schema.
    #[error("not a command: {0}")]
    Protobuf(#[from] protobuf::Malformed),
}
