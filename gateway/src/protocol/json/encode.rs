//! Replies and pushes as JSON, straight into the caller's buffer.
//!
//! A message may hold several of them, one a line: each encoder puts a newline before its own
//! where something stands in the buffer already.

use crate::protocol::client_id::ClientId;
use crate::protocol::codes::ErrorCode;
use crate::protocol::reply::{ClientInfo, ConnectResult, Publication, Push, Reply};

/// Appends `{"id":N,..}`.
pub fn encode_reply(out: &mut Vec<u8>, id: u32, reply: &Reply<'_>) {
    separate(out);
    out.extend_from_slice(b"{\"id\":");
    number(out, u64::from(id));
    match reply {
        Reply::Error(error) => encode_error(out, *error),
        Reply::Connect(result) => encode_connect(out, result),
        Reply::Subscribe => out.extend_from_slice(b",\"subscribe\":{}}"),
        Reply::Unsubscribe => out.extend_from_slice(b",\"unsubscribe\":{}}"),
        Reply::Publish => out.extend_from_slice(b",\"publish\":{}}"),
    }
}

fn encode_error(out: &mut Vec<u8>, error: ErrorCode) {
    out.extend_from_slice(b",\"error\":{\"code\":");
    number(out, u64::from(error.code()));
    out.extend_from_slice(b",\"message\":");
    string(out, error.message());
    if error.temporary() {
        out.extend_from_slice(b",\"temporary\":true");
    }
    out.extend_from_slice(b"}}");
}

fn encode_connect(out: &mut Vec<u8>, result: &ConnectResult<'_>) {
    out.extend_from_slice(b",\"connect\":{\"client\":");
    client(out, result.client);
    if !result.version.is_empty() {
        out.extend_from_slice(b",\"version\":");
        string(out, result.version);
    }
    if result.ping_seconds > 0 {
        out.extend_from_slice(b",\"ping\":");
        number(out, u64::from(result.ping_seconds));
    }
    if result.pong {
        out.extend_from_slice(b",\"pong\":true");
    }
    if !result.node.is_empty() {
        out.extend_from_slice(b",\"node\":");
        string(out, result.node);
    }
    out.extend_from_slice(b"}}");
}

/// Appends `{"push":{..}}`.
pub fn encode_push(out: &mut Vec<u8>, push: &Push<'_>) {
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
        Push::Message { data } => {
            begin_push(out, "", "message");
            out.extend_from_slice(b"{\"data\":");
            out.extend_from_slice(data);
            out.push(b'}');
        }
        Push::Disconnect(disconnect) => {
            begin_push(out, "", "disconnect");
            code_and_reason(out, disconnect.code, disconnect.reason);
        }
    }
    out.extend_from_slice(b"}}");
}

fn encode_publication(out: &mut Vec<u8>, publication: &Publication<'_>) {
    out.extend_from_slice(b"{\"data\":");
    out.extend_from_slice(publication.data);
    if let Some(info) = &publication.info {
        out.extend_from_slice(b",\"info\":");
        encode_client_info(out, info);
    }
    if publication.offset > 0 {
        out.extend_from_slice(b",\"offset\":");
        number(out, publication.offset);
    }
    out.push(b'}');
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
    separate(out);
    out.extend_from_slice(b"{\"push\":{");
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

fn separate(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b'\n');
    }
}

fn client(out: &mut Vec<u8>, client: ClientId) {
    out.push(b'"');
    out.extend_from_slice(&client.text());
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A JSON string (RFC 8259, 7): quotes, backslashes and control characters escaped, nothing else.
fn string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 0x0f)]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codes::{Disconnect, Unsubscribe};

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
            ping_seconds: 25,
            pong: true,
            node: "gateway-2",
        };
        for (reply, expected) in [
            (
                Reply::Connect(connect),
                r#"{"id":1,"connect":{"client":"00000000-0000-4000-8000-000000000007","version":"flux 1","ping":25,"pong":true,"node":"gateway-2"}}"#,
            ),
            (Reply::Subscribe, r#"{"id":1,"subscribe":{}}"#),
            (Reply::Unsubscribe, r#"{"id":1,"unsubscribe":{}}"#),
            (Reply::Publish, r#"{"id":1,"publish":{}}"#),
            (
                Reply::Error(ErrorCode::PermissionDenied),
                r#"{"id":1,"error":{"code":103,"message":"permission denied"}}"#,
            ),
            (
                Reply::Error(ErrorCode::TooManyRequests),
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
            ping_seconds: 0,
            pong: false,
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
            publication: Publication { data, info, offset },
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

    proptest::proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(text in ".*") {
            let json = written(|out| string(out, &text));
            proptest::prop_assert!(!json.contains(['\r', '\n']));
            let back: String = serde_json::from_str(&json).expect("valid JSON");
            proptest::prop_assert_eq!(back, text);
        }

        #[test]
        fn any_number_is_read_back_as_it_was(value: u64) {
            let json = written(|out| number(out, value));
            proptest::prop_assert_eq!(json, value.to_string());
        }
    }
}
