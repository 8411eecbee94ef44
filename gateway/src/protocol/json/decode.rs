//! Commands from the lines of one message.
//!
//! Nothing is copied that stands in the message as it is meant, and nothing is kept that the
//! gateway does not read: the other fields of the schema, and unknown ones, only have to be valid
//! JSON. The number of bytes in the message bounds everything.

use std::borrow::Cow;

use super::scan::{Malformed, Scanner};
use crate::protocol::DecodeError;
use crate::protocol::command::{
    ChannelRequest, Command, ConnectRequest, HistoryRequest, PublishRequest, RefreshRequest,
    Request, RpcRequest, SendRequest, SincePosition, SubRefreshRequest, SubscribeRequest,
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

impl<'a> Commands<'a> {
    /// The lines that have not been looked at.
    #[must_use]
    pub fn remaining(&self) -> &'a [u8] {
        self.rest.unwrap_or_default()
    }
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
        let command = decode_line(line);
        if command.is_err() {
            self.rest = None;
        }
        Some(command)
    }
}

/// A connect request that stands alone: what a client that only listens begins with.
///
/// # Errors
/// When `message` is not one JSON object of the schema.
pub fn decode_connect_request(message: &[u8]) -> Result<ConnectRequest<'_>, DecodeError> {
    let text = simdutf8::basic::from_utf8(message).map_err(|_| DecodeError::NotUtf8)?;
    let mut scanner = Scanner::new(text);
    let request = connect(&mut scanner)?;
    scanner.end()?;
    request.ok_or(DecodeError::Empty)
}

fn decode_line(line: &[u8]) -> Result<Command<'_>, DecodeError> {
    let text = simdutf8::basic::from_utf8(line).map_err(|_| DecodeError::NotUtf8)?;
    let mut scanner = Scanner::new(text);
    let mut id = 0;
    let mut chosen: Option<Request<'_>> = None;
    let is_object = scanner.object(|scanner, name| {
        let request = if name == "id" {
            id = scanner.integer()?;
            None
        } else {
            request(scanner, name)?
        };
        if let Some(request) = request
            && chosen
                .as_ref()
                .is_none_or(|chosen| request.rank() <= chosen.rank())
        {
            chosen = Some(request);
        }
        Ok(())
    })?;
    scanner.end()?;
    if !is_object {
        return Err(DecodeError::Empty);
    }
    Ok(Command {
        id,
        request: chosen,
    })
}

/// The request that stands in the field `name`, if that is one and it is set.
fn request<'a>(scanner: &mut Scanner<'a>, name: &str) -> Result<Option<Request<'a>>, Malformed> {
    Ok(match name {
        "connect" => connect(scanner)?.map(Request::Connect),
        "subscribe" => {
            let mut request = SubscribeRequest::default();
            let is_set = scanner.object(|scanner, name| {
                match name {
                    "channel" => request.channel = scanner.text()?,
                    "token" => request.token = scanner.text()?,
                    "recover" => request.since.recover = scanner.boolean()?,
                    "epoch" => request.since.epoch = scanner.text()?,
                    "offset" => request.since.offset = scanner.integer()?,
                    "data" => request.data = data(scanner)?,
                    "positioned" => request.positioned = scanner.boolean()?,
                    "recoverable" => request.recoverable = scanner.boolean()?,
                    "flag" => request.flag = scanner.integer()?,
                    "join_leave" => request.join_leave = scanner.boolean()?,
                    "delta" => request.delta = scanner.text()?,
                    "tf" => request.has_tags_filter = scanner.value()? != "null",
                    "type" => request.kind = scanner.integer()?,
                    _ => skip(scanner)?,
                }
                Ok(())
            })?;
            is_set.then_some(Request::Subscribe(request))
        }
        "publish" => {
            let mut request = PublishRequest::default();
            let is_set = scanner.object(|scanner, name| {
                match name {
                    "channel" => request.channel = scanner.text()?,
                    "data" => request.data = data(scanner)?,
                    "type" => request.kind = scanner.integer()?,
                    _ => skip(scanner)?,
                }
                Ok(())
            })?;
            is_set.then_some(Request::Publish(request))
        }
        "unsubscribe" => channel(scanner)?.map(Request::Unsubscribe),
        "presence" => channel(scanner)?.map(Request::Presence),
        "presence_stats" => channel(scanner)?.map(Request::PresenceStats),
        "history" => {
            let mut request = HistoryRequest::default();
            let is_set = scanner.object(|scanner, name| {
                match name {
                    "channel" => request.channel = scanner.text()?,
                    "limit" => request.limit = scanner.integer()?,
                    "since" => request.since = position(scanner)?,
                    "reverse" => request.reverse = scanner.boolean()?,
                    _ => skip(scanner)?,
                }
                Ok(())
            })?;
            is_set.then_some(Request::History(request))
        }
        "rpc" => {
            let mut request = RpcRequest::default();
            let is_set = scanner.object(|scanner, name| {
                match name {
                    "method" => request.method = scanner.text()?,
                    "data" => request.data = data(scanner)?,
                    _ => skip(scanner)?,
                }
                Ok(())
            })?;
            is_set.then_some(Request::Rpc(request))
        }
        "send" => {
            let mut request = SendRequest::default();
            let is_set = scanner.object(|scanner, name| {
                match name {
                    "data" => request.data = data(scanner)?,
                    _ => skip(scanner)?,
                }
                Ok(())
            })?;
            is_set.then_some(Request::Send(request))
        }
        "refresh" => {
            let mut request = RefreshRequest::default();
            let is_set = scanner.object(|scanner, name| {
                match name {
                    "token" => request.token = scanner.text()?,
                    _ => skip(scanner)?,
                }
                Ok(())
            })?;
            is_set.then_some(Request::Refresh(request))
        }
        "sub_refresh" => {
            let mut request = SubRefreshRequest::default();
            let is_set = scanner.object(|scanner, name| {
                match name {
                    "channel" => request.channel = scanner.text()?,
                    "token" => request.token = scanner.text()?,
                    _ => skip(scanner)?,
                }
                Ok(())
            })?;
            is_set.then_some(Request::SubRefresh(request))
        }
        "ping" => (scanner.value()? != "null").then_some(Request::Ping),
        _ => {
            skip(scanner)?;
            None
        }
    })
}

fn connect<'a>(scanner: &mut Scanner<'a>) -> Result<Option<ConnectRequest<'a>>, Malformed> {
    let mut request = ConnectRequest::default();
    let is_set = scanner.object(|scanner, name| {
        match name {
            "token" => request.token = scanner.text()?,
            "data" => request.data = data(scanner)?,
            "subs" => request.subs = subs(scanner)?,
            "name" => request.name = scanner.text()?,
            "version" => request.version = scanner.text()?,
            _ => skip(scanner)?,
        }
        Ok(())
    })?;
    Ok(is_set.then_some(request))
}

fn channel<'a>(scanner: &mut Scanner<'a>) -> Result<Option<ChannelRequest<'a>>, Malformed> {
    let mut request = ChannelRequest::default();
    let is_set = scanner.object(|scanner, name| {
        match name {
            "channel" => request.channel = scanner.text()?,
            _ => skip(scanner)?,
        }
        Ok(())
    })?;
    Ok(is_set.then_some(request))
}

/// Channels with the positions to go on from.
fn subs<'a>(
    scanner: &mut Scanner<'a>,
) -> Result<Vec<(Cow<'a, str>, SincePosition<'a>)>, Malformed> {
    let mut subs: Vec<(Cow<'a, str>, SincePosition<'a>)> = Vec::new();
    scanner.object(|scanner, channel| {
        let mut since = SincePosition::default();
        scanner.object(|scanner, name| {
            match name {
                "recover" => since.recover = scanner.boolean()?,
                "epoch" => since.epoch = scanner.text()?,
                "offset" => since.offset = scanner.integer()?,
                _ => skip(scanner)?,
            }
            Ok(())
        })?;
        subs.push((Cow::Owned(channel.to_owned()), since));
        Ok(())
    })?;
    Ok(subs)
}

fn position<'a>(scanner: &mut Scanner<'a>) -> Result<Option<(u64, Cow<'a, str>)>, Malformed> {
    let (mut offset, mut epoch) = (0, Cow::Borrowed(""));
    let is_set = scanner.object(|scanner, name| {
        match name {
            "offset" => offset = scanner.integer()?,
            "epoch" => epoch = scanner.text()?,
            _ => skip(scanner)?,
        }
        Ok(())
    })?;
    Ok(is_set.then_some((offset, epoch)))
}

/// A value that is passed on, on one line; null is a value like any other.
fn data<'a>(scanner: &mut Scanner<'a>) -> Result<Cow<'a, [u8]>, Malformed> {
    Ok(super::on_one_line(scanner.value()?.as_bytes()))
}

fn skip(scanner: &mut Scanner<'_>) -> Result<(), Malformed> {
    scanner.value().map(drop)
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
            r#"{"id":1,"id":[]}"#,
            r#"{id:1}"#,
            r#"{"id":01}"#,
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
}
