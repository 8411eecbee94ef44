//! What the server API is asked: methods and their bodies, as Centrifugo has them. Pure.
//!
//! Invariants
//! - What comes out of [`Request::parse`] is within every bound of this file, and its data is what
//!   [`Payload`] promises.
//! - A body that is no JSON of the right types is [`Unreadable`] (HTTP 400); one that is, but asks
//!   for something that can never be had, is error 107 in the answer.
//! - Fields that are not known are ignored, as Centrifugo does.

mod body;

use std::collections::BTreeMap;

pub use body::{
    BoolValue, Channels, Disconnect, History, OfChannel, Override, Payload, Position, Publish,
    Reason, Refresh, Rpc, Subscribe, Unsubscribe,
};
use serde::Deserialize;
use serde_json::value::RawValue;

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

/// `batch`.
#[derive(Debug, Default)]
pub struct Batch {
    /// In their order; none where a command names no method that there is.
    pub commands: Vec<Option<Request>>,
    /// Whether they are carried out at the same time.
    pub parallel: bool,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{ErrorCode, json};

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
