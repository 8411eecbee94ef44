//! Commands from the lines of one message.
//!
//! Nothing is copied that stands in the message as it is meant, and nothing is kept that the
//! gateway does not read. Nesting costs no stack: data is skipped by `serde_json` without
//! recursion, and what is read is three levels deep at most, so the number of bytes in the message
//! bounds everything.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::protocol::DecodeError;
use crate::protocol::command::{
    ChannelRequest, Command, ConnectRequest, PublishRequest, RefreshRequest, Request, RpcRequest,
    SendRequest, SubRefreshRequest, SubscribeRequest,
};

/// The commands of `message`: one a line, with or without a newline after the last one.
#[must_use]
pub fn decode(message: &[u8]) -> Commands<'_> {
    let lines = message.strip_suffix(b"\n").unwrap_or(message);
    Commands {
        rest: (!message.is_empty()).then_some(lines),
        empty: message.is_empty(),
    }
}

/// Iterates over the commands of a message. After an error there is nothing more to be read.
#[derive(Debug)]
pub struct Commands<'a> {
    rest: Option<&'a [u8]>,
    empty: bool,
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.empty) {
            return Some(Err(DecodeError::Empty));
        }
        let rest = self.rest.take()?;
        let line = match memchr::memchr(b'\n', rest) {
            Some(end) => {
                self.rest = Some(&rest[end + 1..]);
                &rest[..end]
            }
            None => rest,
        };
        match serde_json::from_slice::<Wire<'a>>(line) {
            Ok(Wire(command)) => Some(Ok(command)),
            Err(error) => {
                self.rest = None;
                Some(Err(error.into()))
            }
        }
    }
}

/// A command as it stands on the wire. Read by hand, so that of several requests only the first
/// of the schema is kept.
struct Wire<'a>(Command<'a>);

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Id,
    Connect,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Ping,
    Send,
    Rpc,
    Refresh,
    SubRefresh,
    #[serde(other)]
    Unknown,
}

impl<'de> Deserialize<'de> for Wire<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CommandVisitor;

        impl<'de> Visitor<'de> for CommandVisitor {
            type Value = Wire<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a command")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut id = 0;
                let mut chosen: Option<Request<'de>> = None;
                while let Some(field) = map.next_key::<Field>()? {
                    let request = match field {
                        Field::Id => {
                            id = map.next_value::<Option<u32>>()?.unwrap_or(0);
                            None
                        }
                        Field::Connect => map.next_value::<Option<Connect<'_>>>()?.map(Into::into),
                        Field::Subscribe => {
                            map.next_value::<Option<Subscribe<'_>>>()?.map(Into::into)
                        }
                        Field::Publish => map.next_value::<Option<Publish<'_>>>()?.map(Into::into),
                        Field::Unsubscribe => channel(&mut map, Request::Unsubscribe)?,
                        Field::Presence => channel(&mut map, Request::Presence)?,
                        Field::PresenceStats => channel(&mut map, Request::PresenceStats)?,
                        Field::History => channel(&mut map, Request::History)?,
                        Field::Rpc => map.next_value::<Option<Call<'_>>>()?.map(|call| {
                            Request::Rpc(RpcRequest {
                                method: call.method.0,
                                data: call.data.0,
                            })
                        }),
                        Field::Send => map
                            .next_value::<Option<Call<'_>>>()?
                            .map(|call| Request::Send(SendRequest { data: call.data.0 })),
                        Field::Refresh => map.next_value::<Option<Token<'_>>>()?.map(|refresh| {
                            Request::Refresh(RefreshRequest {
                                token: refresh.token.0,
                            })
                        }),
                        Field::SubRefresh => {
                            map.next_value::<Option<Token<'_>>>()?.map(|refresh| {
                                Request::SubRefresh(SubRefreshRequest {
                                    channel: refresh.channel.0,
                                    token: refresh.token.0,
                                })
                            })
                        }
                        Field::Ping => map
                            .next_value::<Option<IgnoredAny>>()?
                            .map(|_| Request::Ping),
                        Field::Unknown => {
                            map.next_value::<IgnoredAny>()?;
                            None
                        }
                    };
                    if let Some(request) = request
                        && chosen
                            .as_ref()
                            .is_none_or(|chosen| request.rank() <= chosen.rank())
                    {
                        chosen = Some(request);
                    }
                }
                Ok(Wire(Command {
                    id,
                    request: chosen,
                }))
            }
        }

        deserializer.deserialize_map(CommandVisitor)
    }
}

fn channel<'de, A: MapAccess<'de>>(
    map: &mut A,
    request: fn(ChannelRequest<'de>) -> Request<'de>,
) -> Result<Option<Request<'de>>, A::Error> {
    let named = map.next_value::<Option<Channel<'de>>>()?;
    Ok(named.map(|named| {
        request(ChannelRequest {
            channel: named.channel.0,
        })
    }))
}

#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Connect<'a> {
    #[serde(borrow)]
    token: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    version: Text<'a>,
}

impl<'a> From<Connect<'a>> for Request<'a> {
    fn from(wire: Connect<'a>) -> Self {
        Request::Connect(ConnectRequest {
            token: wire.token.0,
            name: wire.name.0,
            version: wire.version.0,
        })
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Subscribe<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow)]
    token: Text<'a>,
    join_leave: Option<bool>,
    #[serde(borrow)]
    delta: Text<'a>,
    tf: Option<IgnoredAny>,
    r#type: Option<i32>,
}

impl<'a> From<Subscribe<'a>> for Request<'a> {
    fn from(wire: Subscribe<'a>) -> Self {
        Request::Subscribe(SubscribeRequest {
            channel: wire.channel.0,
            token: wire.token.0,
            join_leave: wire.join_leave.unwrap_or(false),
            delta: wire.delta.0,
            has_tags_filter: wire.tf.is_some(),
            kind: wire.r#type.unwrap_or(0),
        })
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Publish<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow)]
    data: Raw<'a>,
    r#type: Option<i32>,
}

impl<'a> From<Publish<'a>> for Request<'a> {
    fn from(wire: Publish<'a>) -> Self {
        Request::Publish(PublishRequest {
            channel: wire.channel.0,
            data: wire.data.0,
            kind: wire.r#type.unwrap_or(0),
        })
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Channel<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Call<'a> {
    #[serde(borrow)]
    method: Text<'a>,
    #[serde(borrow)]
    data: Raw<'a>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Token<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow)]
    token: Text<'a>,
}

/// Text, borrowed unless it has escapes; null is no text.
#[derive(Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }

            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
                inner.deserialize_str(self)
            }
        }

        deserializer.deserialize_option(TextVisitor)
    }
}

/// A JSON value as it stands in the message; null is a value like any other.
#[derive(Default)]
struct Raw<'a>(&'a [u8]);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'de RawValue>::deserialize(deserializer).map(|raw| Raw(raw.get().as_bytes()))
    }
}
