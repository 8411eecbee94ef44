//! Replies and pushes as JSON, straight into the caller's buffer.
//!
//! A message may hold several of them, one a line: each encoder puts a newline before its own
//! where something stands in the buffer already.

use super::write::{Fields, client, comma, number, separate, string};
use crate::protocol::reply::{
    ClientInfo, ConnectResult, Error, Publication, Push, Reply, SubscribeResult,
};

/// Appends `{"id":N,..}`.
pub fn encode_reply(out: &mut Vec<u8>, id: u32, reply: &Reply<'_>) {
    separate(out);
    out.extend_from_slice(b"{\"id\":");
    number(out, u64::from(id));
    match reply {
        Reply::Error(error) => encode_error(out, error),
        Reply::Connect(result) => {
            out.extend_from_slice(b",\"connect\":");
            encode_connect(out, result);
        }
        Reply::Subscribe(result) => {
            out.extend_from_slice(b",\"subscribe\":");
            encode_subscribe(out, result);
        }
        Reply::Unsubscribe => out.extend_from_slice(b",\"unsubscribe\":{}"),
        Reply::Publish => out.extend_from_slice(b",\"publish\":{}"),
        Reply::Presence(clients) => {
            out.extend_from_slice(b",\"presence\":{\"presence\":{");
            for (at, info) in clients.iter().enumerate() {
                comma(out, at);
                client(out, info.client);
                out.push(b':');
                encode_client_info(out, info);
            }
            out.extend_from_slice(b"}}");
        }
        Reply::PresenceStats { clients, users } => {
            out.extend_from_slice(b",\"presence_stats\":{\"num_clients\":");
            number(out, u64::from(*clients));
            out.extend_from_slice(b",\"num_users\":");
            number(out, u64::from(*users));
            out.push(b'}');
        }
        Reply::History {
            publications,
            offset,
            epoch,
        } => {
            out.extend_from_slice(b",\"history\":{\"publications\":");
            encode_publications(out, publications);
            out.extend_from_slice(b",\"epoch\":");
            string(out, epoch);
            out.extend_from_slice(b",\"offset\":");
            number(out, *offset);
            out.push(b'}');
        }
        Reply::Rpc { data } => {
            out.extend_from_slice(b",\"rpc\":");
            let mut fields = Fields::begin(out);
            fields.raw("data", data);
            fields.end();
        }
        Reply::Refresh {
            client: id,
            version,
            ttl_seconds,
        } => {
            out.extend_from_slice(b",\"refresh\":{\"client\":");
            client(out, *id);
            out.extend_from_slice(b",\"version\":");
            string(out, version);
            let mut fields = Fields::more(out);
            fields.expiry(*ttl_seconds);
            fields.end();
        }
        Reply::SubRefresh { ttl_seconds } => {
            out.extend_from_slice(b",\"sub_refresh\":");
            encode_expiry(out, *ttl_seconds);
        }
    }
    out.push(b'}');
}

fn encode_error(out: &mut Vec<u8>, error: &Error<'_>) {
    out.extend_from_slice(b",\"error\":{\"code\":");
    number(out, u64::from(error.code));
    out.extend_from_slice(b",\"message\":");
    string(out, error.message);
    if error.temporary {
        out.extend_from_slice(b",\"temporary\":true");
    }
    out.push(b'}');
}

fn encode_connect(out: &mut Vec<u8>, result: &ConnectResult<'_>) {
    out.extend_from_slice(b"{\"client\":");
    client(out, result.client);
    let mut fields = Fields::more(out);
    fields.text("version", result.version);
    fields.expiry(result.ttl_seconds);
    fields.raw("data", result.data);
    if !result.subs.is_empty() {
        fields.name("subs");
        fields.out.push(b'{');
        for (at, (channel, result)) in result.subs.iter().enumerate() {
            comma(fields.out, at);
            string(fields.out, channel);
            fields.out.push(b':');
            encode_subscribe(fields.out, result);
        }
        fields.out.push(b'}');
    }
    fields.number("ping", u64::from(result.ping_seconds));
    fields.flag("pong", result.pong);
    fields.text("session", result.session);
    fields.text("node", result.node);
    fields.end();
}

fn encode_subscribe(out: &mut Vec<u8>, result: &SubscribeResult<'_>) {
    let mut fields = Fields::begin(out);
    fields.expiry(result.ttl_seconds);
    fields.flag("recoverable", result.recoverable);
    fields.text("epoch", result.epoch);
    if !result.publications.is_empty() {
        fields.name("publications");
        encode_publications(fields.out, result.publications);
    }
    fields.flag("recovered", result.recovered);
    fields.number("offset", result.offset);
    fields.flag("positioned", result.positioned);
    fields.raw("data", result.data);
    fields.flag("was_recovering", result.was_recovering);
    fields.flag("delta", result.delta);
    fields.end();
}

fn encode_publications(out: &mut Vec<u8>, publications: &[Publication<'_>]) {
    out.push(b'[');
    for (at, publication) in publications.iter().enumerate() {
        comma(out, at);
        encode_publication(out, publication);
    }
    out.push(b']');
}

/// Appends `{"push":{..}}`.
pub fn encode_push(out: &mut Vec<u8>, push: &Push<'_>) {
    separate(out);
    out.extend_from_slice(b"{\"push\":");
    encode_push_object(out, push);
    out.push(b'}');
}

/// Appends a push that stands alone, for clients that only listen.
pub fn encode_bare_push(out: &mut Vec<u8>, push: &Push<'_>) {
    separate(out);
    encode_push_object(out, push);
}

fn encode_push_object(out: &mut Vec<u8>, push: &Push<'_>) {
    match push {
        Push::Publication {
            channel,
            publication,
        } => {
            begin_push(out, channel, "pub");
            encode_publication(out, publication);
        }
        Push::Join { channel, info } => {
            begin_push(out, channel, "join");
            encode_joined_or_left(out, info);
        }
        Push::Leave { channel, info } => {
            begin_push(out, channel, "leave");
            encode_joined_or_left(out, info);
        }
        Push::Unsubscribe {
            channel,
            unsubscribe,
        } => {
            begin_push(out, channel, "unsubscribe");
            code_and_reason(out, unsubscribe.code, unsubscribe.reason);
        }
        Push::Subscribe { channel, result } => {
            begin_push(out, channel, "subscribe");
            // Of a subscription that the server has made, clients are told only this.
            let told = SubscribeResult {
                recoverable: result.recoverable,
                epoch: result.epoch,
                offset: result.offset,
                positioned: result.positioned,
                data: result.data,
                ..SubscribeResult::default()
            };
            encode_subscribe(out, &told);
        }
        Push::Message { data } => {
            begin_push(out, "", "message");
            out.extend_from_slice(b"{\"data\":");
            out.extend_from_slice(data);
            out.push(b'}');
        }
        Push::Connect(result) => {
            begin_push(out, "", "connect");
            encode_connect(out, result);
        }
        Push::Disconnect(disconnect) => {
            begin_push(out, "", "disconnect");
            code_and_reason(out, disconnect.code, disconnect.reason);
        }
        Push::Refresh { ttl_seconds } => {
            begin_push(out, "", "refresh");
            encode_expiry(out, *ttl_seconds);
        }
    }
    out.push(b'}');
}

fn encode_publication(out: &mut Vec<u8>, publication: &Publication<'_>) {
    out.extend_from_slice(b"{\"data\":");
    out.extend_from_slice(publication.data);
    if let Some(info) = &publication.info {
        out.extend_from_slice(b",\"info\":");
        encode_client_info(out, info);
    }
    let mut fields = Fields::more(out);
    fields.number("offset", publication.offset);
    if !publication.tags.is_empty() {
        fields.name("tags");
        fields.out.push(b'{');
        for (at, (key, value)) in publication.tags.iter().enumerate() {
            comma(fields.out, at);
            string(fields.out, key);
            fields.out.push(b':');
            string(fields.out, value);
        }
        fields.out.push(b'}');
    }
    fields.flag("delta", publication.delta);
    fields.end();
}

fn encode_expiry(out: &mut Vec<u8>, ttl_seconds: Option<u32>) {
    let mut fields = Fields::begin(out);
    fields.expiry(ttl_seconds);
    fields.end();
}

fn encode_joined_or_left(out: &mut Vec<u8>, info: &ClientInfo<'_>) {
    out.extend_from_slice(b"{\"info\":");
    encode_client_info(out, info);
    out.push(b'}');
}

/// Appends `{}`.
pub fn encode_ping(out: &mut Vec<u8>) {
    separate(out);
    out.extend_from_slice(b"{}");
}

/// Appends `{"user":..,"client":..}`, as it stands in publications, joins, leaves and presence.
pub fn encode_client_info(out: &mut Vec<u8>, info: &ClientInfo<'_>) {
    out.extend_from_slice(b"{\"user\":");
    string(out, info.user);
    out.extend_from_slice(b",\"client\":");
    client(out, info.client);
    if !info.conn_info.is_empty() {
        out.extend_from_slice(b",\"conn_info\":");
        out.extend_from_slice(info.conn_info);
    }
    if !info.chan_info.is_empty() {
        out.extend_from_slice(b",\"chan_info\":");
        out.extend_from_slice(info.chan_info);
    }
    out.push(b'}');
}

fn begin_push(out: &mut Vec<u8>, channel: &str, kind: &str) {
    out.push(b'{');
    if !channel.is_empty() {
        out.extend_from_slice(b"\"channel\":");
        string(out, channel);
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Both are written whatever their values: SDKs read them without asking whether they are there.
fn code_and_reason(out: &mut Vec<u8>, code: u16, reason: &str) {
    out.extend_from_slice(b"{\"code\":");
    number(out, u64::from(code));
    out.extend_from_slice(b",\"reason\":");
    string(out, reason);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codes::{Disconnect, Unsubscribe};
    use crate::protocol::{ClientId, ErrorCode};

    fn written(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    const CLIENT: ClientId = ClientId::from_random(7);

    #[test]
    fn replies_stand_as_the_protocol_has_them() {
        let connect = ConnectResult {
            client: CLIENT,
            version: "flux 1",
            ttl_seconds: None,
            data: b"",
            subs: &[],
            ping_seconds: 25,
            pong: true,
            session: "",
            node: "gateway-2",
        };
        for (reply, expected) in [
            (
                Reply::Connect(connect),
                r#"{"id":1,"connect":{"client":"00000000-0000-4000-8000-000000000007","version":"flux 1","ping":25,"pong":true,"node":"gateway-2"}}"#,
            ),
            (
                Reply::Subscribe(SubscribeResult::default()),
                r#"{"id":1,"subscribe":{}}"#,
            ),
            (Reply::Unsubscribe, r#"{"id":1,"unsubscribe":{}}"#),
            (Reply::Publish, r#"{"id":1,"publish":{}}"#),
            (
                ErrorCode::PermissionDenied.into(),
                r#"{"id":1,"error":{"code":103,"message":"permission denied"}}"#,
            ),
            (
                ErrorCode::TooManyRequests.into(),
                r#"{"id":1,"error":{"code":111,"message":"too many requests","temporary":true}}"#,
            ),
        ] {
            assert_eq!(written(|out| encode_reply(out, 1, &reply)), expected);
        }
    }

    #[test]
    fn zero_values_are_left_out_of_a_connect_result() {
        let connect = ConnectResult {
            client: CLIENT,
            version: "",
            ttl_seconds: None,
            data: b"",
            subs: &[],
            ping_seconds: 0,
            pong: false,
            session: "",
            node: "",
        };
        assert_eq!(
            written(|out| encode_reply(out, u32::MAX, &Reply::Connect(connect))),
            r#"{"id":4294967295,"connect":{"client":"00000000-0000-4000-8000-000000000007"}}"#
        );
    }

    #[test]
    fn pushes_stand_as_the_protocol_has_them() {
        let info = ClientInfo {
            user: "",
            client: CLIENT,
            conn_info: b"",
            chan_info: b"{\"a\":1}",
        };
        let publication = |data, info, offset| Push::Publication {
            channel: "c",
            publication: Publication {
                data,
                info,
                offset,
                ..Publication::default()
            },
        };
        for (push, expected) in [
            (
                publication(b"{}", None, 0),
                r#"{"push":{"channel":"c","pub":{"data":{}}}}"#,
            ),
            (
                publication(b"1", Some(info), 16),
                r#"{"push":{"channel":"c","pub":{"data":1,"info":{"user":"","client":"00000000-0000-4000-8000-000000000007","chan_info":{"a":1}},"offset":16}}}"#,
            ),
            (
                Push::Join {
                    channel: "a\"b",
                    info,
                },
                r#"{"push":{"channel":"a\"b","join":{"info":{"user":"","client":"00000000-0000-4000-8000-000000000007","chan_info":{"a":1}}}}}"#,
            ),
            (
                Push::Leave {
                    channel: "c",
                    info: ClientInfo {
                        user: "42",
                        chan_info: b"",
                        conn_info: b"[]",
                        ..info
                    },
                },
                r#"{"push":{"channel":"c","leave":{"info":{"user":"42","client":"00000000-0000-4000-8000-000000000007","conn_info":[]}}}}"#,
            ),
            (
                Push::Unsubscribe {
                    channel: "c",
                    unsubscribe: Unsubscribe::INSUFFICIENT_STATE,
                },
                r#"{"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
            ),
            (
                Push::Message { data: b"[1]" },
                r#"{"push":{"message":{"data":[1]}}}"#,
            ),
            (
                Push::Disconnect(Disconnect::SHUTDOWN),
                r#"{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}"#,
            ),
        ] {
            assert_eq!(written(|out| encode_push(out, &push)), expected);
        }
    }

    #[test]
    fn messages_are_separated_by_one_newline() {
        let both = written(|out| {
            encode_ping(out);
            encode_reply(out, 2, &Reply::Publish);
            encode_ping(out);
        });
        assert_eq!(both, "{}\n{\"id\":2,\"publish\":{}}\n{}");
    }
}
