//! Replies and pushes, straight into the caller's buffer.

use super::write::{Encode, Fields, delimited};
use crate::protocol::client_id::ClientId;
use crate::protocol::codes::{Disconnect, Unsubscribe};
use crate::protocol::reply::{
    ClientInfo, ConnectResult, Error, Publication, Push, Reply, SubscribeResult,
};
use crate::protocol::tags::Tags;

/// Appends a reply behind its length.
pub fn encode_reply(out: &mut Vec<u8>, id: u32, reply: &Reply<'_>) {
    delimited(out, &Answer { id, reply });
}

/// Appends a reply that holds nothing but a push, behind its length.
pub fn encode_push(out: &mut Vec<u8>, push: &Push<'_>) {
    delimited(out, &Pushed(push));
}

/// Appends a push that stands alone, for clients that only listen, behind its length.
pub fn encode_bare_push(out: &mut Vec<u8>, push: &Push<'_>) {
    delimited(out, push);
}

/// Appends a reply (or push) without fields.
pub fn encode_ping(out: &mut Vec<u8>) {
    out.push(0);
}

struct Answer<'a> {
    id: u32,
    reply: &'a Reply<'a>,
}

impl Encode for Answer<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        to.number(1, u64::from(self.id));
        match *self.reply {
            Reply::Error(error) => to.message(2, &error),
            Reply::Connect(result) => to.message(5, &result),
            Reply::Subscribe(result) => to.message(6, &result),
            Reply::Unsubscribe => to.message(7, &Nothing),
            Reply::Publish => to.message(8, &Nothing),
            Reply::Presence(clients) => to.message(9, &Presence(clients)),
            Reply::PresenceStats { clients, users } => {
                to.message(10, &PresenceStats { clients, users });
            }
            Reply::History {
                publications,
                offset,
                epoch,
            } => to.message(
                11,
                &History {
                    publications,
                    offset,
                    epoch,
                },
            ),
            Reply::Rpc { data } => to.message(13, &Data(data)),
            Reply::Refresh {
                client,
                version,
                ttl_seconds,
            } => to.message(
                14,
                &Refreshed {
                    client,
                    version,
                    ttl_seconds,
                },
            ),
            Reply::SubRefresh { ttl_seconds } => to.message(15, &Expiry(ttl_seconds)),
        }
    }

    fn len_min(&self) -> usize {
        match self.reply {
            Reply::Subscribe(result) => result.len_min(),
            Reply::History { publications, .. } => payloads(publications),
            Reply::Rpc { data } => data.len(),
            _ => 0,
        }
    }
}

struct Pushed<'a>(&'a Push<'a>);

impl Encode for Pushed<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        to.message(4, self.0);
    }

    fn len_min(&self) -> usize {
        self.0.len_min()
    }
}

impl Encode for Push<'_> {
    #[inline]
    fn fields(&self, to: &mut Fields<'_>) {
        match self {
            Push::Publication {
                channel,
                publication,
            } => {
                to.text(2, channel);
                to.message(4, publication);
            }
            Push::Join { channel, info } => {
                to.text(2, channel);
                to.message(5, &Presented(info));
            }
            Push::Leave { channel, info } => {
                to.text(2, channel);
                to.message(6, &Presented(info));
            }
            Push::Unsubscribe {
                channel,
                unsubscribe,
            } => {
                to.text(2, channel);
                to.message(7, unsubscribe);
            }
            Push::Message { data } => to.message(8, &Data(data)),
            Push::Subscribe { channel, result } => {
                to.text(2, channel);
                to.message(9, &SubscribedByServer(result));
            }
            Push::Connect(result) => to.message(10, &Connected(result)),
            Push::Disconnect(disconnect) => to.message(11, disconnect),
            Push::Refresh { ttl_seconds } => to.message(12, &Expiry(*ttl_seconds)),
        }
    }

    fn len_min(&self) -> usize {
        match self {
            Push::Publication { publication, .. } => publication.len_min(),
            Push::Message { data } => data.len(),
            _ => 0,
        }
    }
}

impl Encode for Error<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        to.number(1, u64::from(self.code));
        to.text(2, self.message);
        to.flag(3, self.temporary);
    }
}

impl Encode for ConnectResult<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        client(to, 1, self.client);
        to.text(2, self.version);
        expiry(to, 3, self.ttl_seconds);
        to.bytes(5, self.data);
        for sub in self.subs {
            to.message(6, &ServerSide(sub));
        }
        ping_and_place(to, self);
    }
}

/// A connect result as the push of a unidirectional client has it: other numbers.
struct Connected<'a>(&'a ConnectResult<'a>);

impl Encode for Connected<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        client(to, 1, self.0.client);
        to.text(2, self.0.version);
        to.bytes(3, self.0.data);
        for sub in self.0.subs {
            to.message(4, &ServerSide(sub));
        }
        expiry(to, 5, self.0.ttl_seconds);
        ping_and_place(to, self.0);
    }
}

fn ping_and_place(to: &mut Fields<'_>, result: &ConnectResult<'_>) {
    to.number(7, u64::from(result.ping_seconds));
    to.flag(8, result.pong);
    to.text(9, result.session);
    to.text(10, result.node);
}

/// An entry of a map from channels to results.
struct ServerSide<'a>(&'a (&'a str, SubscribeResult<'a>));

impl Encode for ServerSide<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        let (channel, result) = self.0;
        to.text(1, channel);
        to.message(2, result);
    }
}

impl Encode for SubscribeResult<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        expiry(to, 1, self.ttl_seconds);
        to.flag(3, self.recoverable);
        to.text(6, self.epoch);
        for publication in self.publications {
            to.message(7, publication);
        }
        to.flag(8, self.recovered);
        to.number(9, self.offset);
        to.flag(10, self.positioned);
        to.bytes(11, self.data);
        to.flag(12, self.was_recovering);
        to.flag(13, self.delta);
    }

    fn len_min(&self) -> usize {
        payloads(self.publications)
    }
}

/// A subscribe result as the push of a server-side subscription has it.
struct SubscribedByServer<'a>(&'a SubscribeResult<'a>);

impl Encode for SubscribedByServer<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        to.flag(1, self.0.recoverable);
        to.text(4, self.0.epoch);
        to.number(5, self.0.offset);
        to.flag(6, self.0.positioned);
        to.bytes(7, self.0.data);
    }
}

impl Encode for Publication<'_> {
    #[inline]
    fn fields(&self, to: &mut Fields<'_>) {
        to.bytes(4, self.data);
        if let Some(info) = &self.info {
            to.message(5, info);
        }
        to.number(6, self.offset);
        tags(to, 7, self.tags);
        to.flag(8, self.delta);
    }

    fn len_min(&self) -> usize {
        self.data.len()
    }
}

fn tags(to: &mut Fields<'_>, number: u32, tags: Tags<'_>) {
    for (key, value) in tags.iter() {
        to.message(number, &Tag { key, value });
    }
}

struct Tag<'a> {
    key: &'a str,
    value: &'a str,
}

impl Encode for Tag<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        to.text(1, self.key);
        to.text(2, self.value);
    }
}

impl Encode for ClientInfo<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        to.text(1, self.user);
        client(to, 2, self.client);
        to.bytes(3, self.conn_info);
        to.bytes(4, self.chan_info);
    }
}

/// A join or a leave.
struct Presented<'a>(&'a ClientInfo<'a>);

impl Encode for Presented<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        to.message(1, self.0);
    }
}

impl Encode for Unsubscribe<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        to.number(2, u64::from(self.code));
        to.text(3, self.reason);
    }
}

impl Encode for Disconnect<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        to.number(1, u64::from(self.code));
        to.text(2, self.reason);
    }
}

struct Presence<'a>(&'a [ClientInfo<'a>]);

impl Encode for Presence<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        for info in self.0 {
            to.message(1, &Present(info));
        }
    }
}

/// An entry of a map from connections to their infos.
struct Present<'a>(&'a ClientInfo<'a>);

impl Encode for Present<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        client(to, 1, self.0.client);
        to.message(2, self.0);
    }
}

struct PresenceStats {
    clients: u32,
    users: u32,
}

impl Encode for PresenceStats {
    fn fields(&self, to: &mut Fields<'_>) {
        to.number(1, u64::from(self.clients));
        to.number(2, u64::from(self.users));
    }
}

struct History<'a> {
    publications: &'a [Publication<'a>],
    offset: u64,
    epoch: &'a str,
}

impl Encode for History<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        for publication in self.publications {
            to.message(1, publication);
        }
        to.text(2, self.epoch);
        to.number(3, self.offset);
    }

    fn len_min(&self) -> usize {
        payloads(self.publications)
    }
}

struct Refreshed<'a> {
    client: ClientId,
    version: &'a str,
    ttl_seconds: Option<u32>,
}

impl Encode for Refreshed<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        client(to, 1, self.client);
        to.text(2, self.version);
        expiry(to, 3, self.ttl_seconds);
    }
}

/// A result that says when credentials expire.
struct Expiry(Option<u32>);

impl Encode for Expiry {
    fn fields(&self, to: &mut Fields<'_>) {
        expiry(to, 1, self.0);
    }
}

/// A result or push of a payload.
struct Data<'a>(&'a [u8]);

impl Encode for Data<'_> {
    fn fields(&self, to: &mut Fields<'_>) {
        to.bytes(1, self.0);
    }

    fn len_min(&self) -> usize {
        self.0.len()
    }
}

/// A result without fields.
struct Nothing;

impl Encode for Nothing {
    fn fields(&self, _: &mut Fields<'_>) {}
}

/// Whether credentials expire, and in the next field in how many seconds.
fn expiry(to: &mut Fields<'_>, number: u32, ttl_seconds: Option<u32>) {
    to.flag(number, ttl_seconds.is_some());
    to.number(number + 1, u64::from(ttl_seconds.unwrap_or_default()));
}

fn payloads(publications: &[Publication<'_>]) -> usize {
    publications.iter().map(Encode::len_min).sum()
}

fn client(to: &mut Fields<'_>, number: u32, client: ClientId) {
    to.bytes(number, &client.text());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ErrorCode;

    fn written(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out);
        out
    }

    #[test]
    fn messages_stand_as_the_protocol_has_them() {
        let publication = Push::Publication {
            channel: "c",
            publication: Publication {
                data: b"{}",
                offset: 300,
                ..Publication::default()
            },
        };
        for (bytes, expected) in [
            (written(encode_ping), &b"\x00"[..]),
            (
                written(|out| encode_reply(out, 1, &Reply::Publish)),
                b"\x04\x08\x01\x42\x00",
            ),
            (
                written(|out| encode_reply(out, 2, &ErrorCode::TooManyRequests.into())),
                b"\x1b\x08\x02\x12\x17\x08\x6f\x12\x11too many requests\x18\x01",
            ),
            (
                written(|out| encode_push(out, &publication)),
                b"\x0e\x22\x0c\x12\x01c\x22\x07\x22\x02{}\x30\xac\x02",
            ),
            (
                written(|out| encode_bare_push(out, &publication)),
                b"\x0c\x12\x01c\x22\x07\x22\x02{}\x30\xac\x02",
            ),
            (
                written(|out| encode_bare_push(out, &Push::Disconnect(Disconnect::SHUTDOWN))),
                b"\x0f\x5a\x0d\x08\xb9\x17\x12\x08shutdown",
            ),
        ] {
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn messages_follow_one_another_without_anything_between() {
        let both = written(|out| {
            encode_ping(out);
            encode_reply(out, 2, &Reply::Publish);
            encode_ping(out);
        });
        assert_eq!(both, b"\x00\x04\x08\x02\x42\x00\x00");
    }
}
