//! Commands from a message.
//!
//! Everything is borrowed from the message, and nothing is kept that the gateway does not read:
//! other fields are stepped over. A filter's tree is one of those, so nothing here nests deeper than
//! the schema's four levels. The number of bytes in the message bounds everything.

use std::borrow::Cow;

use super::read::{Malformed, Reader, Value};
use crate::protocol::DecodeError;
use crate::protocol::command::{
    ChannelRequest, Command, ConnectRequest, HistoryRequest, PublishRequest, RefreshRequest,
    Request, RpcRequest, SendRequest, SincePosition, SubRefreshRequest, SubscribeRequest,
};

/// The commands of `message`, each with its length before it.
#[must_use]
pub fn decode(message: &[u8]) -> Commands<'_> {
    Commands {
        rest: Reader::new(message),
        is_empty: message.is_empty(),
    }
}

/// Iterates over the commands of a message. After an error there is nothing more to be read.
#[derive(Debug)]
pub struct Commands<'a> {
    rest: Reader<'a>,
    is_empty: bool,
}

impl<'a> Commands<'a> {
    /// The messages that have not been looked at.
    #[must_use]
    pub fn remaining(&self) -> &'a [u8] {
        self.rest.remaining()
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.is_empty) {
            return Some(Err(DecodeError::Empty));
        }
        if self.rest.is_at_end() {
            return None;
        }
        let command = self.rest.delimited().and_then(command);
        if command.is_err() {
            self.rest = Reader::new(b"");
        }
        Some(command.map_err(DecodeError::Protobuf))
    }
}

/// A request of a transport that sends by a request of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmulationRequest<'a> {
    /// The node that has the session.
    pub node: &'a str,
    /// Which session.
    pub session: &'a str,
    /// One message of commands.
    pub data: &'a [u8],
}

/// The body of such a request, without a length before it.
///
/// # Errors
/// When it is not of the schema.
pub fn decode_emulation(body: &[u8]) -> Result<EmulationRequest<'_>, Malformed> {
    let mut request = EmulationRequest::default();
    let mut fields = Reader::new(body);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => request.node = value.text()?,
            2 => request.session = value.text()?,
            3 => request.data = value.bytes()?,
            _ => {}
        }
    }
    Ok(request)
}

/// A connect request that stands alone, without a length before it: what a client that only
/// listens begins with.
///
/// # Errors
/// When it is not of the schema.
pub fn decode_connect_request(body: &[u8]) -> Result<ConnectRequest<'_>, Malformed> {
    let mut request = ConnectRequest::default();
    connect(&mut request, Reader::new(body))?;
    Ok(request)
}

fn command(bytes: &[u8]) -> Result<Command<'_>, Malformed> {
    let mut command = Command {
        id: 0,
        request: None,
    };
    let mut fields = Reader::new(bytes);
    while let Some((number, value)) = fields.field()? {
        if number == 1 {
            command.id = value.number()? as u32;
            continue;
        }
        let Some(mut request) = request(number) else {
            continue;
        };
        match &command.request {
            // A message in several pieces is one message (Protobuf's encoding, "last one wins").
            Some(chosen) if chosen.rank() == request.rank() => {
                let pieces = command.request.take();
                request = pieces.unwrap_or(request);
                merge(&mut request, value.message()?)?;
                command.request = Some(request);
            }
            // It does not count, but must be of the schema.
            Some(chosen) if chosen.rank() < request.rank() => {
                merge(&mut request, value.message()?)?;
            }
            _ => {
                merge(&mut request, value.message()?)?;
                command.request = Some(request);
            }
        }
    }
    Ok(command)
}

/// The request without content that stands in a field of a command.
fn request<'a>(number: u32) -> Option<Request<'a>> {
    Some(match number {
        4 => Request::Connect(ConnectRequest::default()),
        5 => Request::Subscribe(SubscribeRequest::default()),
        6 => Request::Unsubscribe(ChannelRequest::default()),
        7 => Request::Publish(PublishRequest::default()),
        8 => Request::Presence(ChannelRequest::default()),
        9 => Request::PresenceStats(ChannelRequest::default()),
        10 => Request::History(HistoryRequest::default()),
        11 => Request::Ping,
        12 => Request::Send(SendRequest::default()),
        13 => Request::Rpc(RpcRequest::default()),
        14 => Request::Refresh(RefreshRequest::default()),
        15 => Request::SubRefresh(SubRefreshRequest::default()),
        _ => return None,
    })
}

fn merge<'a>(request: &mut Request<'a>, mut fields: Reader<'a>) -> Result<(), Malformed> {
    match request {
        Request::Connect(request) => connect(request, fields),
        Request::Subscribe(request) => subscribe(request, fields),
        Request::Unsubscribe(request)
        | Request::Presence(request)
        | Request::PresenceStats(request) => {
            while let Some((number, value)) = fields.field()? {
                if number == 1 {
                    request.channel = text(value)?;
                }
            }
            Ok(())
        }
        Request::Publish(request) => {
            while let Some((number, value)) = fields.field()? {
                match number {
                    1 => request.channel = text(value)?,
                    2 => request.data = bytes(value)?,
                    3 => request.kind = value.number()? as i32,
                    _ => {}
                }
            }
            Ok(())
        }
        Request::History(request) => history(request, fields),
        Request::Rpc(request) => {
            while let Some((number, value)) = fields.field()? {
                match number {
                    1 => request.data = bytes(value)?,
                    2 => request.method = text(value)?,
                    _ => {}
                }
            }
            Ok(())
        }
        Request::Send(request) => {
            while let Some((number, value)) = fields.field()? {
                if number == 1 {
                    request.data = bytes(value)?;
                }
            }
            Ok(())
        }
        Request::Refresh(request) => {
            while let Some((number, value)) = fields.field()? {
                if number == 1 {
                    request.token = text(value)?;
                }
            }
            Ok(())
        }
        Request::SubRefresh(request) => {
            while let Some((number, value)) = fields.field()? {
                match number {
                    1 => request.channel = text(value)?,
                    2 => request.token = text(value)?,
                    _ => {}
                }
            }
            Ok(())
        }
        Request::Ping => {
            while fields.field()?.is_some() {}
            Ok(())
        }
    }
}

fn connect<'a>(request: &mut ConnectRequest<'a>, mut fields: Reader<'a>) -> Result<(), Malformed> {
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => request.token = text(value)?,
            2 => request.data = bytes(value)?,
            3 => request.subs.push(server_side(value.message()?)?),
            4 => request.name = text(value)?,
            5 => request.version = text(value)?,
            _ => {}
        }
    }
    Ok(())
}

/// An entry of the map of server-side subscriptions.
fn server_side(mut entry: Reader<'_>) -> Result<(Cow<'_, str>, SincePosition<'_>), Malformed> {
    let (mut channel, mut since) = (Cow::Borrowed(""), SincePosition::default());
    while let Some((number, value)) = entry.field()? {
        match number {
            1 => channel = text(value)?,
            2 => {
                let mut fields = value.message()?;
                while let Some((number, value)) = fields.field()? {
                    position(&mut since, number, value)?;
                }
            }
            _ => {}
        }
    }
    Ok((channel, since))
}

fn subscribe<'a>(
    request: &mut SubscribeRequest<'a>,
    mut fields: Reader<'a>,
) -> Result<(), Malformed> {
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => request.channel = text(value)?,
            2 => request.token = text(value)?,
            8 => request.data = bytes(value)?,
            9 => request.positioned = value.flag()?,
            10 => request.recoverable = value.flag()?,
            11 => request.join_leave = value.flag()?,
            12 => request.delta = text(value)?,
            13 => {
                value.message()?;
                request.has_tags_filter = true;
            }
            14 => request.flag = value.number()? as i64,
            15 => request.kind = value.number()? as i32,
            _ => position(&mut request.since, number, value)?,
        }
    }
    Ok(())
}

/// The fields of a subscribe request that say from where to go on.
fn position<'a>(
    since: &mut SincePosition<'a>,
    number: u32,
    value: Value<'a>,
) -> Result<(), Malformed> {
    match number {
        3 => since.recover = value.flag()?,
        6 => since.epoch = text(value)?,
        7 => since.offset = value.number()?,
        _ => {}
    }
    Ok(())
}

fn history<'a>(request: &mut HistoryRequest<'a>, mut fields: Reader<'a>) -> Result<(), Malformed> {
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => request.channel = text(value)?,
            7 => request.limit = value.number()? as i32,
            8 => {
                let mut fields = value.message()?;
                let (offset, epoch) = request.since.get_or_insert_default();
                while let Some((number, value)) = fields.field()? {
                    match number {
                        1 => *offset = value.number()?,
                        2 => *epoch = text(value)?,
                        _ => {}
                    }
                }
            }
            9 => request.reverse = value.flag()?,
            _ => {}
        }
    }
    Ok(())
}

fn text(value: Value<'_>) -> Result<Cow<'_, str>, Malformed> {
    value.text().map(Cow::Borrowed)
}

fn bytes(value: Value<'_>) -> Result<Cow<'_, [u8]>, Malformed> {
    value.bytes().map(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Result<Vec<Command<'_>>, DecodeError> {
        decode(message).collect()
    }

    #[test]
    fn several_commands_stand_in_one_message() {
        let message =
            b"\x06\x08\x01\x22\x02\x0a\x00\x00\x0b\x08\x02\x3a\x07\x0a\x01c\x12\x02\x00\xff";
        let commands = all(message).expect("valid");
        assert_eq!(commands.len(), 3);
        let connect = Request::Connect(ConnectRequest::default());
        assert_eq!((commands[0].id, &commands[0].request), (1, &Some(connect)));
        assert_eq!((commands[1].id, &commands[1].request), (0, &None), "a pong");
        let Some(Request::Publish(publish)) = &commands[2].request else {
            panic!("a publish");
        };
        assert!(matches!(publish.channel, Cow::Borrowed("c")));
        assert!(matches!(publish.data, Cow::Borrowed(b"\x00\xff")));
    }

    #[test]
    fn of_several_requests_the_first_of_the_schema_counts_and_pieces_of_one_are_one() {
        // publish{channel "a"}, subscribe{channel "b"}, publish{data "x"}, subscribe{token "t"}
        let message = b"\x14\x3a\x03\x0a\x01a\x2a\x03\x0a\x01b\x3a\x03\x12\x01x\x2a\x03\x12\x01t";
        let commands = all(message).expect("valid");
        let Some(Request::Subscribe(subscribe)) = &commands[0].request else {
            panic!("a subscribe");
        };
        assert_eq!((&*subscribe.channel, &*subscribe.token), ("b", "t"));
    }

    #[test]
    fn what_is_not_a_command_is_refused() {
        assert_eq!(all(b""), Err(DecodeError::Empty));
        for message in [
            &b"\x01"[..],
            b"\x02\x08",
            b"\x02\x08\x80",
            b"\x02\x0a\x00",
            b"\x03\x2a\x01\x08",
            b"\x02\x28\x01",
            b"\x05\x2a\x03\x0a\x01\xff",
            b"\x80",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"{\"id\":1}",
        ] {
            assert!(
                matches!(all(message), Err(DecodeError::Protobuf(_))),
                "{message:?}"
            );
        }
        // What comes before it counts, what comes behind it does not.
        let mut commands = decode(b"\x02\x08\x07\x02\x08");
        assert!(matches!(commands.next(), Some(Ok(Command { id: 7, .. }))));
        assert!(matches!(commands.next(), Some(Err(_))));
        assert!(commands.next().is_none());
    }

    #[test]
    fn an_emulation_request_holds_a_message() {
        let request = decode_emulation(b"\x0a\x01n\x12\x01s\x1a\x01\x00\x20\x05").expect("valid");
        let expected = EmulationRequest {
            node: "n",
            session: "s",
            data: b"\x00",
        };
        assert_eq!(request, expected);
        assert!(decode_emulation(b"\x0a\x01\xff").is_err());
    }
}
