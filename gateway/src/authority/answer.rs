//! What the authority answers.

use std::time::Duration;

use crate::protocol::{Error, ErrorCode};

/// The answer to a [`Question`](super::Question) of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `Connect`.
    Connect(Result<ConnectGrant, Refusal>),
    /// To `Refresh`.
    Refresh(Result<RefreshGrant, Refusal>),
    /// To `Subscribe`.
    Subscribe(Result<SubscribeGrant, Refusal>),
    /// To `SubRefresh`.
    SubRefresh(Result<RefreshGrant, Refusal>),
    /// To `Publish`.
    Publish(Result<PublishGrant, Refusal>),
    /// To `Rpc`.
    Rpc(Result<RpcGrant, Refusal>),
}

/// The client may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectGrant {
    /// Empty for an anonymous client.
    pub user: String,
    /// Time until the credentials expire; none: never.
    pub expires_in: Option<Duration>,
    /// Shown to others (`conn_info`): JSON on one line, empty without.
    pub info: Vec<u8>,
    /// For the client: JSON on one line (bytes for Protobuf), empty without.
    pub data: Vec<u8>,
    /// For the backend only: JSON, empty without.
    pub meta: Vec<u8>,
    /// Server-side subscriptions, each channel once.
    pub subs: Vec<(String, SubscribeGrant)>,
}

/// Credentials are renewed, or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefreshGrant {
    /// The credentials have expired and are not renewed: the session ends with 3005, the
    /// subscription with 2501.
    pub expired: bool,
    /// Time until they expire; none: never.
    pub expires_in: Option<Duration>,
    /// New `conn_info` or `chan_info`; none: as before.
    pub info: Option<Vec<u8>>,
    /// The server-side subscriptions that the connection's new token names; none: it was no such
    /// token that renewed.
    pub channels: Option<Vec<String>>,
}

/// The client may subscribe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeGrant {
    /// Time until the credentials expire; none: never.
    pub expires_in: Option<Duration>,
    /// Shown to others (`chan_info`): JSON on one line, empty without.
    pub info: Vec<u8>,
    /// For the client, empty without.
    pub data: Vec<u8>,
    /// Overrides of the channel's options; none: as configured.
    pub presence: Option<bool>,
    /// As `presence`.
    pub join_leave: Option<bool>,
    /// As `presence`.
    pub force_push_join_leave: Option<bool>,
    /// As `presence`.
    pub force_recovery: Option<bool>,
    /// As `presence`.
    pub force_positioning: Option<bool>,
}

/// What is published, as the backend has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishGrant {
    /// Instead of the client's data; none: as it is.
    pub data: Option<Vec<u8>>,
    /// Not kept in the history.
    pub skip_history: bool,
}

/// What a call returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcGrant {
    /// May be empty.
    pub data: Vec<u8>,
}

/// No.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The command is answered with an error.
    Error(OwnedError),
    /// The session ends.
    Disconnect {
        /// 3000-4999.
        code: u16,
        /// Plain text of at most 123 bytes.
        reason: String,
    },
}

/// An error that may be the backend's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedError {
    /// Below 400 the gateway's, above the backend's.
    pub code: u32,
    /// For people.
    pub message: String,
    /// Whether the same command may succeed later.
    pub temporary: bool,
}

impl OwnedError {
    /// As the wire formats take it.
    #[must_use]
    pub fn as_ref(&self) -> Error<'_> {
        Error {
            code: self.code,
            message: &self.message,
            temporary: self.temporary,
        }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Self {
        Self::Error(OwnedError {
            code: u32::from(error.code()),
            message: error.message().to_owned(),
            temporary: error.temporary(),
        })
    }
}

impl From<crate::protocol::Disconnect<'_>> for Refusal {
    fn from(disconnect: crate::protocol::Disconnect<'_>) -> Self {
        Self::Disconnect {
            code: disconnect.code,
            reason: disconnect.reason.to_owned(),
        }
    }
}
