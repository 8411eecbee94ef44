//! What a session asks, and what it merely tells.

use std::sync::Arc;

use crate::protocol::{ClientId, WireFormat};

/// Headers of the client's own request that the backend may be told of (name in lower case,
/// value): those that some `http_headers` of the configuration names, from the handshake, else from
/// the connect command.
pub type Headers = Arc<[(Box<str>, Box<str>)]>;

/// Whose session it is: goes with every question, since the backend is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Id of the connection.
    pub client: Option<ClientId>,
    /// Id of the user; empty for an anonymous client, and before it has connected.
    pub user: String,
    /// What the connection's credentials carry for the backend: JSON, empty without.
    pub meta: Vec<u8>,
    /// `websocket`, `sse`, `http_stream`, `uni_websocket`, `uni_sse` or `uni_http_stream`.
    pub transport: &'static str,
    /// The wire format of the client.
    pub format: WireFormat,
    /// What is known of its headers.
    pub headers: Headers,
}

/// A question, from a session to the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub who: Who,
    /// What.
    pub kind: QuestionKind,
}

/// What is asked. With a token, the token decides; without one, the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuestionKind {
    /// May this client connect? Answered by [`Answer::Connect`](super::Answer::Connect).
    Connect {
        /// Empty: ask the backend.
        token: String,
        /// What the client sent for the backend.
        data: Vec<u8>,
        /// Kind of client.
        name: String,
        /// Its version.
        version: String,
    },
    /// Are the connection's credentials renewed? Answered by
    /// [`Answer::Refresh`](super::Answer::Refresh).
    Refresh {
        /// Empty: ask the backend.
        token: String,
    },
    /// May this client subscribe? Answered by [`Answer::Subscribe`](super::Answer::Subscribe).
    Subscribe {
        /// Where.
        channel: String,
        /// Empty: ask the backend.
        token: String,
        /// What the client sent for the backend.
        data: Vec<u8>,
    },
    /// Are the subscription's credentials renewed? Answered by
    /// [`Answer::SubRefresh`](super::Answer::SubRefresh).
    SubRefresh {
        /// Where.
        channel: String,
        /// Empty: ask the backend.
        token: String,
    },
    /// May this be published? Only the backend is asked. Answered by
    /// [`Answer::Publish`](super::Answer::Publish).
    Publish {
        /// Where.
        channel: String,
        /// What.
        data: Vec<u8>,
    },
    /// A call to the backend. Answered by [`Answer::Rpc`](super::Answer::Rpc).
    Rpc {
        /// May be empty.
        method: String,
        /// May be empty.
        data: Vec<u8>,
    },
}

/// What the backend is told without being asked. At most once each, and lost when the backend is
/// away for long: counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whose session.
    pub who: Who,
    /// What happened.
    pub kind: NoticeKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// The client has connected.
    Connected,
    /// The connection has ended.
    Disconnected {
        /// Close code; 0 when the transport just ended.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// The client has subscribed.
    Subscribed {
        /// Where.
        channel: String,
    },
    /// The subscription has ended.
    Unsubscribed {
        /// Where.
        channel: String,
        /// Unsubscribe code; 0 when the client asked or is gone.
        code: u16,
    },
}
