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
        } => encode_publication(
            out,
            channel,
            publication.data,
            publication.info.as_ref(),
            publication.offset,
        ),
        Push::Join { channel, info } => encode_presence_event(out, channel, "join", info),
        Push::Leave { channel, info } => encode_presence_event(out, channel, "leave", info),
        Push::Unsubscribe {
            channel,
            unsubscribe,
        } => {
            begin_push(out, channel, "unsubscribe");
            code_and_reason(out, unsubscribe.code, unsubscribe.reason);
            out.extend_from_slice(b"}}");
        }
        Push::Message { data } => {
            begin_push(out, "", "message");
            out.extend_from_slice(b"{\"data\":");
            raw(out, data);
            out.extend_from_slice(b"}}}");
        }
        Push::Disconnect(disconnect) => {
            begin_push(out, "", "disconnect");
            code_and_reason(out, disconnect.code, disconnect.reason);
            out.extend_from_slice(b"}}");
        }
    }
}

/// Appends `{"push":{"channel":..,"pub":{..}}}`. `data` has to be valid JSON.
pub fn encode_publication(
    out: &mut Vec<u8>,
    channel: &str,
    data: &[u8],
    info: Option<&ClientInfo<'_>>,
    offset: u64,
) {
    begin_push(out, channel, "pub");
    publication_object(
        out,
        &Publication {
            data,
            info: info.copied(),
            offset,
        },
    );
    out.extend_from_slice(b"}}");
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
        raw(out, info.conn_info);
    }
    if !info.chan_info.is_empty() {
        out.extend_from_slice(b",\"chan_info\":");
        raw(out, info.chan_info);
    }
    out.push(b'}');
}

fn encode_presence_event(out: &mut Vec<u8>, channel: &str, kind: &str, info: &ClientInfo<'_>) {
    begin_push(out, channel, kind);
    out.extend_from_slice(b"{\"info\":");
    encode_client_info(out, info);
    out.extend_from_slice(b"}}}");
}

fn publication_object(out: &mut Vec<u8>, publication: &Publication<'_>) {
    out.extend_from_slice(b"{\"data\":");
    raw(out, publication.data);
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

/// A JSON value as it came, in one line. Line ends can only stand between its tokens, and they
/// would end the line here, or the event in a stream of server-sent events.
fn raw(out: &mut Vec<u8>, value: &[u8]) {
    let start = out.len();
    out.extend_from_slice(value);
    let mut written = &mut out[start..];
    while let Some(at) = memchr::memchr2(b'\r', b'\n', written) {
        written[at] = b' ';
        written = &mut written[at + 1..];
    }
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
