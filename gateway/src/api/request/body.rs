//! The bodies of the methods, field by field, and what of them is published or told.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::TEXT_BYTES_MAX;
use crate::protocol::{ErrorCode, json, tags};

/// `publish` and `broadcast`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Publish {
    /// Where, for `publish`.
    #[serde(deserialize_with = "or_default")]
    pub channel: String,
    /// Where, for `broadcast`.
    #[serde(deserialize_with = "or_default")]
    pub channels: Vec<String>,
    #[serde(deserialize_with = "null_too")]
    data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    b64data: String,
    tags: Option<BTreeMap<String, String>>,
    /// Not kept in the history.
    #[serde(deserialize_with = "or_default")]
    pub skip_history: bool,
    /// A second publication with this key has the first one's result. Empty: none.
    #[serde(deserialize_with = "or_default")]
    pub idempotency_key: String,
    /// Subscribers that understand deltas may get it as one.
    #[serde(deserialize_with = "or_default")]
    pub delta: bool,
    /// Not published unless above that of the last publication that had one. 0: none.
    #[serde(deserialize_with = "or_default")]
    pub version: u64,
    /// Versions are compared within one epoch only.
    #[serde(deserialize_with = "or_default")]
    pub version_epoch: String,
}

/// `subscribe`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Subscribe {
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub channel: String,
    info: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    b64info: String,
    #[serde(deserialize_with = "or_default")]
    pub client: String,
    #[serde(deserialize_with = "or_default")]
    pub session: String,
    data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    b64data: String,
    pub recover_since: Option<Position>,
    #[serde(rename = "override")]
    pub overrides: Option<Override>,
    #[serde(deserialize_with = "or_default")]
    pub expire_at: i64,
}

/// A place in a history.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Position {
    #[serde(deserialize_with = "or_default")]
    pub offset: u64,
    #[serde(deserialize_with = "or_default")]
    pub epoch: String,
}

/// Options of the channel that are different for one subscription.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Override {
    pub presence: Option<BoolValue>,
    pub join_leave: Option<BoolValue>,
    pub force_push_join_leave: Option<BoolValue>,
    pub force_positioning: Option<BoolValue>,
    pub force_recovery: Option<BoolValue>,
}

/// A switch that can also be left as it is.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct BoolValue {
    #[serde(deserialize_with = "or_default")]
    pub value: bool,
}

/// `unsubscribe`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Unsubscribe {
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub channel: String,
    #[serde(deserialize_with = "or_default")]
    pub client: String,
    #[serde(deserialize_with = "or_default")]
    pub session: String,
}

/// `disconnect`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Disconnect {
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub client: String,
    #[serde(deserialize_with = "or_default")]
    pub session: String,
    #[serde(deserialize_with = "or_default")]
    pub whitelist: Vec<String>,
    pub disconnect: Option<Reason>,
}

/// Why a client is disconnected.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Reason {
    #[serde(deserialize_with = "or_default")]
    pub code: u32,
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
}

/// `refresh`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Refresh {
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub client: String,
    #[serde(deserialize_with = "or_default")]
    pub session: String,
    #[serde(deserialize_with = "or_default")]
    pub expired: bool,
    #[serde(deserialize_with = "or_default")]
    pub expire_at: i64,
    info: Option<Box<RawValue>>,
}

/// `presence`, `presence_stats` and `history_remove`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct OfChannel {
    #[serde(deserialize_with = "or_default")]
    pub channel: String,
}

/// `history`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct History {
    #[serde(deserialize_with = "or_default")]
    pub channel: String,
    #[serde(deserialize_with = "or_default")]
    pub limit: i32,
    pub since: Option<Position>,
    #[serde(deserialize_with = "or_default")]
    pub reverse: bool,
}

/// `channels`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Channels {
    #[serde(deserialize_with = "or_default")]
    pub pattern: String,
}

/// `rpc`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the API")]
pub struct Rpc {
    #[serde(deserialize_with = "or_default")]
    pub method: String,
}

/// What is published, in the form that channels take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// JSON on one line, or any bytes (`is_json`).
    pub bytes: Vec<u8>,
    /// Whether it is JSON on one line.
    pub is_json: bool,
    /// Packed tags.
    pub tags: Vec<u8>,
}

impl Publish {
    /// What is to be published.
    ///
    /// # Errors
    /// 107 where there is none, base64 is broken, or something is longer than it may be.
    pub fn payload(&self) -> Result<Payload, ErrorCode> {
        let texts = [&self.idempotency_key, &self.version_epoch];
        if texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(ErrorCode::BadRequest);
        }
        let (bytes, is_json) =
            bytes(self.data.as_deref(), &self.b64data)?.ok_or(ErrorCode::BadRequest)?;
        let pairs = self.tags.iter().flatten();
        let tags = tags::pack(pairs.map(|(key, value)| (key.as_str(), value.as_str())))
            .ok_or(ErrorCode::BadRequest)?;
        Ok(Payload {
            bytes,
            is_json,
            tags,
        })
    }
}

impl Subscribe {
    /// What others are shown of the subscription; empty: nothing.
    ///
    /// # Errors
    /// 107 where base64 is broken.
    pub fn info(&self) -> Result<Vec<u8>, ErrorCode> {
        optional(self.info.as_deref(), &self.b64info)
    }

    /// What the client is told; empty: nothing.
    ///
    /// # Errors
    /// 107 where base64 is broken.
    pub fn data(&self) -> Result<Vec<u8>, ErrorCode> {
        optional(self.data.as_deref(), &self.b64data)
    }
}

impl Refresh {
    /// What others are shown of the connection from now on; none: as before.
    ///
    /// # Errors
    /// 107 where it is nested too deeply.
    pub fn info(&self) -> Result<Option<Vec<u8>>, ErrorCode> {
        let info = optional(self.info.as_deref(), "")?;
        Ok((!info.is_empty()).then_some(info))
    }
}

/// The bytes, and whether they are JSON on one line; none where nothing is given.
fn bytes(data: Option<&RawValue>, b64: &str) -> Result<Option<(Vec<u8>, bool)>, ErrorCode> {
    if !b64.is_empty() {
        let decoded = BASE64.decode(b64).map_err(|_| ErrorCode::BadRequest)?;
        let is_json = json::check_value(&decoded).is_ok();
        return Ok(Some((decoded, is_json)));
    }
    let Some(data) = data else {
        return Ok(None);
    };
    let line = json::on_one_line(data.get().as_bytes()).into_owned();
    // Nested deeper than clients could read.
    json::check_value(&line).map_err(|_| ErrorCode::BadRequest)?;
    Ok(Some((line, true)))
}

/// JSON on one line for clients of every format, empty without.
fn optional(data: Option<&RawValue>, b64: &str) -> Result<Vec<u8>, ErrorCode> {
    match bytes(data.filter(|data| data.get() != "null"), b64)? {
        None => Ok(Vec::new()),
        Some((bytes, true)) => Ok(bytes),
        // Clients of the JSON format could not be given it.
        Some((_, false)) => Err(ErrorCode::BadRequest),
    }
}

/// Nulls stand for what is not given, as in Centrifugo.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// But a null that is published is a value.
fn null_too<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}
