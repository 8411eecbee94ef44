//! What one node asks of others, and what each reports. Pure.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::authority::SubscribeGrant;
use crate::protocol::ClientId;
use crate::pubsub::KnownEpoch;
use crate::shard::call;

/// Something that every node, or one, is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Close sessions.
    Disconnect {
        /// Whose.
        target: Target,
        /// 3000-4999.
        code: u16,
        /// At most 123 bytes.
        reason: String,
        /// These clients stay.
        whitelist: Vec<Client>,
    },
    /// End subscriptions.
    Unsubscribe {
        /// Whose.
        target: Target,
        /// Where; empty: everywhere.
        channel: String,
        /// 2000-2999.
        code: u16,
        /// For people.
        reason: String,
    },
    /// Begin server-side subscriptions.
    Subscribe {
        /// Whose.
        target: Target,
        /// Where.
        channel: String,
        /// How.
        grant: Box<Grant>,
        /// From where the client goes on: offset and epoch.
        recover_since: Option<(u64, String)>,
    },
    /// Renew the credentials of connections, or end them.
    Refresh {
        /// Whose.
        target: Target,
        /// They have expired.
        expired: bool,
        /// Time until they expire; none: never.
        expires_in_ms: Option<u64>,
        /// New `conn_info`; none: as before.
        info: Option<Bytes>,
    },
    /// How much there is on the node.
    Info {},
    /// Channels with subscribers on the node.
    Channels {
        /// A glob for their names; empty: all.
        pattern: String,
    },
    /// Commands for a session that receives by one connection and sends by others.
    Commands {
        /// Its text.
        session: String,
        /// A frame of commands in its wire format.
        data: Bytes,
    },
}

/// Whose sessions are meant: all that fit every part that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The user's id; empty: whichever.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The connection's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
    /// The session's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// The id of a connection, as text on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(pub ClientId);

/// Bytes, as base64 on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// See [`SubscribeGrant`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "named as in SubscribeGrant")]
pub struct Grant {
    pub expires_in_ms: Option<u64>,
    pub info: Bytes,
    pub data: Bytes,
    pub presence: Option<bool>,
    pub join_leave: Option<bool>,
    pub force_push_join_leave: Option<bool>,
    pub force_recovery: Option<bool>,
    pub force_positioning: Option<bool>,
}

/// What a node says about an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What it found.
    pub found: Found,
    /// Shards that did not answer in time, or things that did not fit: the report is not whole.
    #[serde(default)]
    pub is_partial: bool,
}

/// What a node found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Found {
    /// So many sessions were meant.
    Sessions(u64),
    /// How much there is.
    Node(NodeReport),
    /// Channels and their subscribers.
    Channels(Vec<(String, u64)>),
}

/// How much there is on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "named as in the server API's `info`")]
pub struct NodeReport {
    pub version: String,
    pub clients: u64,
    pub users: u64,
    pub channels: u64,
    pub subscriptions: u64,
    pub uptime_s: u64,
}

impl Target {
    /// As the shards take it.
    #[must_use]
    pub fn to_shards(&self) -> call::Target {
        call::Target {
            user: self.user.clone(),
            client: self.client.map(|client| client.0),
            session: self.session.clone(),
        }
    }
}

impl Grant {
    /// As the shards take it.
    #[must_use]
    pub fn to_shards(&self) -> SubscribeGrant {
        SubscribeGrant {
            expires_in: self.expires_in_ms.map(Duration::from_millis),
            info: self.info.0.clone(),
            data: self.data.0.clone(),
            presence: self.presence,
            join_leave: self.join_leave,
            force_push_join_leave: self.force_push_join_leave,
            force_recovery: self.force_recovery,
            force_positioning: self.force_positioning,
        }
    }
}

/// Where a client goes on, as the shards take it.
#[must_use]
pub fn known_position((offset, epoch): &(u64, String)) -> (u64, KnownEpoch) {
    (*offset, KnownEpoch::parse(epoch))
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64
            .decode(text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Client {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Client {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        ClientId::parse(&text)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("not the id of a client"))
    }
}
