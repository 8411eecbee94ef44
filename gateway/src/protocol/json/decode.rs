//! Commands from the lines of one message.
//!
//! Nothing is copied that stands in the message as it is meant, and nothing is kept that the
//! gateway does not read. Nesting costs no stack: data is skipped by `serde_json` without
//! recursion, and what is read is three levels deep at most, so the number of bytes in the message
//! bounds everything.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
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
                    let map = &mut map;
                    let request = match field {
                        Field::Id => {
                            id = map.next_value::<Option<u32>>()?.unwrap_or(0);
                            None
                        }
                        Field::Connect => object::<Connect<'_>, _>(map)?.map(Into::into),
                        Field::Subscribe => object::<Subscribe<'_>, _>(map)?.map(Into::into),
                        Field::Publish => object::<Publish<'_>, _>(map)?.map(Into::into),
                        Field::Unsubscribe => channel(map, Request::Unsubscribe)?,
                        Field::Presence => channel(map, Request::Presence)?,
                        Field::PresenceStats => channel(map, Request::PresenceStats)?,
                        Field::History => channel(map, Request::History)?,
                        Field::Rpc => object::<Call<'_>, _>(map)?.map(|call| {
                            Request::Rpc(RpcRequest {
                                method: call.method.0,
                                data: call.data.0,
                            })
                        }),
                        Field::Send => object::<Call<'_>, _>(map)?
                            .map(|call| Request::Send(SendRequest { data: call.data.0 })),
                        Field::Refresh => object::<Token<'_>, _>(map)?.map(|refresh| {
                            Request::Refresh(RefreshRequest {
                                token: refresh.token.0,
                            })
                        }),
                        Field::SubRefresh => object::<Token<'_>, _>(map)?.map(|refresh| {
                            Request::SubRefresh(SubRefreshRequest {
                                channel: refresh.channel.0,
                                token: refresh.token.0,
                            })
                        }),
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
    Ok(object::<Channel<'de>, A>(map)?.map(|named| {
        request(ChannelRequest {
            channel: named.channel.0,
        })
    }))
}

/// The next value, which has to be an object or null.
fn object<'de, T: Deserialize<'de>, A: MapAccess<'de>>(map: &mut A) -> Result<Option<T>, A::Error> {
    Ok(map
        .next_value::<Option<Object<T>>>()?
        .map(|object| object.0))
}

/// Serde takes an array for a struct too, which the protocol does not.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
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

/// A JSON value as it stands in the message, on one line; null is a value like any other.
#[derive(Default)]
struct Raw<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = <&'de RawValue>::deserialize(deserializer)?.get().as_bytes();
        Ok(Raw(super::on_one_line(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(message: &str) -> Command<'_> {
        let mut commands = decode(message.as_bytes());
        let command = commands.next().expect("a command").expect("valid");
        assert!(commands.next().is_none(), "{message}");
        command
    }

    fn refused(message: &[u8]) -> bool {
        decode(message).any(|command| command.is_err())
    }

    #[test]
    fn of_several_requests_the_first_of_the_schema_counts() {
        let command = one(r#"{"id":1,"publish":{"channel":"a"},"subscribe":{"channel":"b"}}"#);
        assert!(
            matches!(command.request, Some(Request::Subscribe(subscribe)) if subscribe.channel == "b")
        );
        let command = one(r#"{"id":1,"ping":{},"rpc":{},"send":{}}"#);
        assert!(matches!(command.request, Some(Request::Rpc(_))));
    }

    #[test]
    fn null_is_as_good_as_absent_but_for_data() {
        let command = one(r#"{"id":null,"connect":null,"subscribe":null}"#);
        assert_eq!(
            command,
            Command {
                id: 0,
                request: None
            }
        );
        let command = one(r#"{"id":1,"publish":{"channel":null,"data":null}}"#);
        assert!(matches!(command.request, Some(Request::Publish(publish))
                if publish.channel.is_empty() && &*publish.data == b"null"));
    }

    #[test]
    fn what_stands_as_it_is_meant_is_borrowed() {
        let message = r#"{"id":1,"publish":{"channel":"news","data":{"a" : [1, 2]}}}"#;
        let Some(Request::Publish(publish)) = one(message).request else {
            panic!("a publish");
        };
        assert!(matches!(publish.channel, Cow::Borrowed("news")));
        assert!(matches!(publish.data, Cow::Borrowed(b"{\"a\" : [1, 2]}")));
        let message = r#"{"id":1,"publish":{"channel":"n\u0065ws","data":"\ud800"}}"#;
        let Some(Request::Publish(publish)) = one(message).request else {
            panic!("a publish");
        };
        assert_eq!(publish.channel, "news");
        assert_eq!(&*publish.data, br#""\ud800""#);
    }

    #[test]
    fn a_message_may_end_in_one_newline() {
        assert_eq!(decode(b"{}\n{}\n").count(), 2);
        assert_eq!(decode(b"{}\r\n{}").count(), 2);
        for message in [&b""[..], b"\n", b"{}\n\n", b"\n{}", b"{}\n\n{}", b" "] {
            assert!(refused(message), "{message:?}");
        }
    }

    #[test]
    fn what_is_not_a_command_is_refused() {
        for message in [
            "[]",
            "1",
            "null",
            "{",
            "{}{}",
            r#"{"id":-1}"#,
            r#"{"id":4294967296}"#,
            r#"{"id":1.5}"#,
            r#"{"id":"1"}"#,
            r#"{"id":1,"connect":[]}"#,
            r#"{"id":1,"connect":["token"]}"#,
            r#"{"id":1,"connect":1}"#,
            r#"{"id":1,"connect":{"token":1}}"#,
            r#"{"id":1,"subscribe":{"channel":{}}}"#,
            r#"{"id":1,"subscribe":{"channel":"\ud800"}}"#,
            r#"{"id":1,"publish":{"channel":"a","data":}}"#,
            r#"{"id":1,"publish":{"channel":"a","data":{"a":1,}}}"#,
            "{\"id\":1,\"publish\":{\"channel\":\"a\",\"data\":\"\u{1}\"}}",
        ] {
            assert!(refused(message.as_bytes()), "{message}");
        }
        assert!(refused(b"{\"id\":1,\"subscribe\":{\"channel\":\"\xff\"}}"));
        assert!(refused(
            b"{\"id\":1,\"publish\":{\"channel\":\"a\",\"data\":\"\xff\"}}"
        ));
    }

    #[test]
    fn nesting_takes_no_stack() {
        let deep = |open: &str, close: &str| {
            format!(
                r#"{{"id":1,"publish":{{"channel":"a","data":{}1{}}},"unknown":{}1{}}}"#,
                open.repeat(100_000),
                close.repeat(100_000),
                open.repeat(100_000),
                close.repeat(100_000)
            )
        };
        for message in [deep("[", "]"), deep(r#"{"a":"#, "}")] {
            assert!(one(&message).request.is_some());
        }
    }
}
