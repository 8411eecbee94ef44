//! What the server API is asked: methods and their bodies, as Centrifugo has them. Pure.
//!
//! Invariants
//! - What comes out of [`Request::parse`] is within every bound of this file, and its data is what
//!   [`Payload`] promises.
//! - A body that is no JSON of the right types is [`Unreadable`] (HTTP 400); one that is, but asks
//!   for something that can never be had, is error 107 in the answer.
//! - Fields that are not known are ignored, as Centrifugo does.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::protocol::{ErrorCode, json, tags};

/// Channels of one broadcast; beyond it error 107.
pub const BROADCAST_CHANNELS_MAX: usize = 10_000;
/// Commands of one batch; beyond it error 107.
pub const BATCH_COMMANDS_MAX: usize = 10_000;
/// Longest id of a user, idempotency key or version epoch, in bytes; beyond it error 107.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// Clients that one disconnect may keep; beyond it error 107.
pub const WHITELIST_MAX: usize = 1_000;

/// A method of the server API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named as in the API")]
pub enum Method {
    Publish,
    Broadcast,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Refresh,
    Presence,
    PresenceStats,
    History,
    HistoryRemove,
    Channels,
    Info,
    Rpc,
    Batch,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Publish,
        Self::Broadcast,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Disconnect,
        Self::Refresh,
        Self::Presence,
        Self::PresenceStats,
        Self::History,
        Self::HistoryRemove,
        Self::Channels,
        Self::Info,
        Self::Rpc,
        Self::Batch,
    ];

    /// As it stands in the path.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Broadcast => "broadcast",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Disconnect => "disconnect",
            Self::Refresh => "refresh",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::History => "history",
            Self::HistoryRemove => "history_remove",
            Self::Channels => "channels",
            Self::Info => "info",
            Self::Rpc => "rpc",
            Self::Batch => "batch",
        }
    }

    /// The method of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// The body is no JSON of the right types.
#[derive(Debug, thiserror::Error)]
#[error("the body is not what the method takes: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

/// One request.
#[derive(Debug)]
#[allow(missing_docs, reason = "named as in the API")]
pub enum Request {
    Publish(Publish),
    Broadcast(Publish),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Disconnect(Disconnect),
    Refresh(Refresh),
    Presence(OfChannel),
    PresenceStats(OfChannel),
    History(History),
    HistoryRemove(OfChannel),
    Channels(Channels),
    Info,
    Rpc(Rpc),
    Batch(Batch),
}

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

/// `batch`.
#[derive(Debug, Default)]
pub struct Batch {
    /// In their order; none where a command names no method that there is.
    pub commands: Vec<Option<Request>>,
    /// Whether they are carried out at the same time.
    pub parallel: bool,
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

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn parse(method: Method, body: &[u8]) -> Result<Self, Unreadable> {
        fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Unreadable> {
            // Structs would be read from arrays as well.
            let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
            if first == Some(&b'[') {
                return Err(Unreadable(serde::de::Error::custom("an array")));
            }
            Ok(serde_json::from_slice(body)?)
        }
        Ok(match method {
            Method::Publish => Self::Publish(read(body)?),
            Method::Broadcast => Self::Broadcast(read(body)?),
            Method::Subscribe => Self::Subscribe(read(body)?),
            Method::Unsubscribe => Self::Unsubscribe(read(body)?),
            Method::Disconnect => Self::Disconnect(read(body)?),
            Method::Refresh => Self::Refresh(read(body)?),
            Method::Presence => Self::Presence(read(body)?),
            Method::PresenceStats => Self::PresenceStats(read(body)?),
            Method::History => Self::History(read(body)?),
            Method::HistoryRemove => Self::HistoryRemove(read(body)?),
            Method::Channels => Self::Channels(read(body)?),
            Method::Info => {
                read::<BTreeMap<String, serde::de::IgnoredAny>>(body)?;
                Self::Info
            }
            Method::Rpc => Self::Rpc(read(body)?),
            Method::Batch => Self::Batch(batch(body)?),
        })
    }

    /// Which method it is.
    #[must_use]
    pub const fn method(&self) -> Method {
        match self {
            Self::Publish(_) => Method::Publish,
            Self::Broadcast(_) => Method::Broadcast,
            Self::Subscribe(_) => Method::Subscribe,
            Self::Unsubscribe(_) => Method::Unsubscribe,
            Self::Disconnect(_) => Method::Disconnect,
            Self::Refresh(_) => Method::Refresh,
            Self::Presence(_) => Method::Presence,
            Self::PresenceStats(_) => Method::PresenceStats,
            Self::History(_) => Method::History,
            Self::HistoryRemove(_) => Method::HistoryRemove,
            Self::Channels(_) => Method::Channels,
            Self::Info => Method::Info,
            Self::Rpc(_) => Method::Rpc,
            Self::Batch(_) => Method::Batch,
        }
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

fn batch(body: &[u8]) -> Result<Batch, Unreadable> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Written<'a> {
        #[serde(borrow)]
        commands: Vec<BTreeMap<String, &'a RawValue>>,
        parallel: bool,
    }
    let written: Written<'_> = serde_json::from_slice(body)?;
    let mut commands = Vec::with_capacity(written.commands.len().min(BATCH_COMMANDS_MAX + 1));
    for command in written.commands {
        if commands.len() > BATCH_COMMANDS_MAX {
            // Refused as a whole: see `is_too_long`.
            break;
        }
        let known = Method::ALL.into_iter().find_map(|method| {
            let body = command.get(method.name())?;
            (method != Method::Batch && body.get() != "null").then_some((method, *body))
        });
        commands.push(match known {
            Some((method, body)) => Some(Request::parse(method, body.get().as_bytes())?),
            None => None,
        });
    }
    Ok(Batch {
        commands,
        parallel: written.parallel,
    })
}

impl Batch {
    /// Whether there are more commands than one batch may have.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.commands.len() > BATCH_COMMANDS_MAX
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn publish(body: &str) -> Publish {
        match Request::parse(Method::Publish, body.as_bytes()).expect(body) {
            Request::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn data_reaches_channels_as_json_on_one_line() {
        let payload = publish("{\"channel\":\"a\",\"data\":{\n\"b\":\r\n[1]}}").payload();
        let payload = payload.expect("valid");
        assert_eq!(payload.bytes, b"{ \"b\":  [1]}");
        assert!(payload.is_json);
        let payload = publish(r#"{"channel":"a","b64data":"/w=="}"#).payload();
        let payload = payload.expect("valid");
        assert_eq!((&payload.bytes[..], payload.is_json), (&b"\xff"[..], false));
        let payload = publish(r#"{"channel":"a","b64data":"MQ==","data":2,"tags":{"k":"v"}}"#);
        let payload = payload.payload().expect("base64 wins");
        assert_eq!((&payload.bytes[..], payload.is_json), (&b"1"[..], true));
        assert!(!payload.tags.is_empty());
    }

    #[test]
    fn what_can_never_be_published_is_a_bad_request() {
        let deep = format!("{{\"data\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        let key = format!(r#"{{"data":1,"idempotency_key":"{}"}}"#, "k".repeat(2000));
        for body in ["{}", r#"{"b64data":"!"}"#, &deep, &key] {
            let outcome = publish(body).payload();
            assert_eq!(outcome, Err(ErrorCode::BadRequest), "{body}");
        }
    }

    #[test]
    fn wrong_types_are_unreadable_and_unknown_fields_are_not() {
        for (method, body) in [
            (Method::Publish, ""),
            (Method::Publish, "{"),
            (Method::Publish, "[1]"),
            (Method::Publish, " []"),
            (Method::Publish, r#"{"channel":1}"#),
            (Method::Broadcast, r#"{"channels":"a"}"#),
            (Method::History, r#"{"limit":"1"}"#),
            (Method::Batch, r#"{"commands":[{"publish":{"channel":1}}]}"#),
            (Method::Info, "1"),
        ] {
            assert!(Request::parse(method, body.as_bytes()).is_err(), "{body}");
        }
        for method in Method::ALL {
            let body = br#"{"nobody":{"knows":["this"]}}"#;
            let request = Request::parse(method, body).expect("all fields have defaults");
            assert_eq!(request.method(), method);
            assert_eq!(Method::parse(method.name()), Some(method));
        }
    }

    #[test]
    fn a_batch_keeps_the_order_and_the_places_of_unknown_commands() {
        let body = r#"{"parallel":true,"commands":[{"publish":{"channel":"a"}},{"dance":{}},{},
            {"batch":{"commands":[]}},{"info":{}}]}"#;
        let Ok(Request::Batch(batch)) = Request::parse(Method::Batch, body.as_bytes()) else {
            panic!("readable");
        };
        let methods: Vec<_> = batch
            .commands
            .iter()
            .map(|command| command.as_ref().map(Request::method))
            .collect();
        assert_eq!(
            methods,
            [Some(Method::Publish), None, None, None, Some(Method::Info)]
        );
        assert!(batch.parallel && !batch.is_too_long());
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic_and_what_is_published_is_one_line(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            text in r#"\{("(channel|data|b64data|tags|commands)":("[a-zA-Z0-9=]{0,5}"|\{\}|\[1\]|1|null),?){0,3}\}"#,
        ) {
            for body in [&body[..], text.as_bytes()] {
                for method in Method::ALL {
                    if let Ok(Request::Publish(publish)) = Request::parse(method, body)
                        && let Ok(payload) = publish.payload()
                        && payload.is_json
                    {
                        prop_assert!(json::check_value(&payload.bytes).is_ok());
                    }
                }
            }
        }
    }
}
