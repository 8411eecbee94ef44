//! A message as it travels through Redis.
//!
//! ```text
//! 0   4  "FLX1": this format, this version
//! 4   1  kind: p publication, j join, l leave, o probe
//! 5   1  flags: 1 = a client's info follows
//! 6   8  origin: the sending process, a random number, big endian
//! 14  8  sequence: rises with each message of that process, big endian
//!        with info: client id (16), then lengths of user, conn_info, chan_info (4 each, big
//!        endian), then those
//!        data, to the end
//! ```
//!
//! Origin and sequence tell a process its own messages: what it has sent and seen come back is
//! delivered once, also when the connection breaks in between (see `ledger`). A record of another
//! format or version is refused and counted; nothing in it is trusted before it has been checked,
//! as others may write to the same Redis.

use crate::limits::REDIS_RECORD_BYTES_MAX;
use crate::protocol::json::check_value;
use crate::protocol::{ClientId, ClientInfo, Tags};
use crate::pubsub::MessageRef;

const MAGIC: &[u8; 4] = b"FLX1";
const HEADER_LEN: usize = 22;
const HAS_INFO: u8 = 1;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Message(MessageRef<'a>),
    /// Sent to oneself, to see that the way through Redis works.
    Probe,
}

/// A record, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) origin: u64,
    pub(super) sequence: u64,
    pub(super) body: Body<'a>,
}

/// Why a record is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// Not this format, or not this version of it.
    Format,
    /// This format, but it does not hold together.
    Content,
    /// Longer than the limit.
    Size,
}

/// Appends a record to `out`.
pub(super) fn encode(out: &mut Vec<u8>, origin: u64, sequence: u64, body: Body<'_>) {
    let (kind, message) = match body {
        Body::Probe => (b'o', None),
        Body::Message(message) => {
            let kind = match message {
                MessageRef::Publication { .. } => b'p',
                MessageRef::Join(_) => b'j',
                MessageRef::Leave(_) => b'l',
            };
            (kind, Some(message))
        }
    };
    let info = message.and_then(|message| message.info());
    out.reserve(HEADER_LEN + 28 + message.map_or(0, |message| message.size()));
    out.extend_from_slice(MAGIC);
    out.push(kind);
    out.push(if info.is_some() { HAS_INFO } else { 0 });
    out.extend_from_slice(&origin.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    if let Some(info) = info {
        let parts = [info.user.as_bytes(), info.conn_info, info.chan_info];
        out.extend_from_slice(info.client.as_bytes());
        for part in parts {
            out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        }
        for part in parts {
            out.extend_from_slice(part);
        }
    }
    if let Some(message) = message {
        out.extend_from_slice(message.payload());
    }
}

/// Takes a record apart and checks every part of it.
pub(super) fn decode(bytes: &[u8]) -> Result<Record<'_>, Rejected> {
    if bytes.len() > REDIS_RECORD_BYTES_MAX {
        return Err(Rejected::Size);
    }
    let rest = bytes.strip_prefix(MAGIC).ok_or(Rejected::Format)?;
    let (&[kind, flags], rest) = rest.split_first_chunk().ok_or(Rejected::Content)?;
    let (origin, rest) = number(rest)?;
    let (sequence, rest) = number(rest)?;
    let (info, data) = match flags {
        0 => (None, rest),
        HAS_INFO => {
            let (info, rest) = client_info(rest)?;
            (Some(info), rest)
        }
        _ => return Err(Rejected::Format),
    };
    let body = match (kind, info) {
        (b'p', info) => {
            check_json(data)?;
            Body::Message(MessageRef::Publication {
                data,
                info,
                tags: Tags::NONE,
                delta: false,
            })
        }
        (b'j', Some(info)) if data.is_empty() => Body::Message(MessageRef::Join(info)),
        (b'l', Some(info)) if data.is_empty() => Body::Message(MessageRef::Leave(info)),
        (b'o', None) if data.is_empty() => Body::Probe,
        _ => return Err(Rejected::Content),
    };
    Ok(Record {
        origin,
        sequence,
        body,
    })
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Rejected> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Rejected::Content)?;
    Ok((u64::from_be_bytes(*number), rest))
}

fn client_info(bytes: &[u8]) -> Result<(ClientInfo<'_>, &[u8]), Rejected> {
    let (client, mut rest) = bytes.split_first_chunk::<16>().ok_or(Rejected::Content)?;
    let mut lengths = [0usize; 3];
    for length in &mut lengths {
        let (number, after) = rest.split_first_chunk().ok_or(Rejected::Content)?;
        *length = u32::from_be_bytes(*number) as usize;
        rest = after;
    }
    let mut parts: [&[u8]; 3] = [b""; 3];
    for (part, length) in parts.iter_mut().zip(lengths) {
        (*part, rest) = rest.split_at_checked(length).ok_or(Rejected::Content)?;
    }
    let [user, conn_info, chan_info] = parts;
    for json in [conn_info, chan_info] {
        if !json.is_empty() {
            check_json(json)?;
        }
    }
    let info = ClientInfo {
        user: std::str::from_utf8(user).map_err(|_| Rejected::Content)?,
        client: ClientId::from_bytes(*client),
        conn_info,
        chan_info,
    };
    Ok((info, rest))
}

/// What is not one JSON value on one line would break the frame that it is put into, and with it the
/// connection of every subscriber.
fn check_json(bytes: &[u8]) -> Result<(), Rejected> {
    check_value(bytes).map_err(|_| Rejected::Content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info() -> ClientInfo<'static> {
        ClientInfo {
            user: "ü",
            client: ClientId::from_random(5),
            conn_info: b"{\"a\":[1]}",
            chan_info: b"",
        }
    }

    fn bodies() -> [Body<'static>; 5] {
        let (data, info) = (b"{\"n\":1}", info());
        [
            Body::Message(MessageRef::data(data)),
            Body::Message(MessageRef::Publication {
                data,
                info: Some(info),
                tags: Tags::NONE,
                delta: false,
            }),
            Body::Message(MessageRef::Join(info)),
            Body::Message(MessageRef::Leave(info)),
            Body::Probe,
        ]
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        for body in bodies() {
            let mut bytes = Vec::new();
            encode(&mut bytes, 7, u64::MAX, body);
            let record = Record {
                origin: 7,
                sequence: u64::MAX,
                body,
            };
            assert_eq!(decode(&bytes), Ok(record));
        }
    }

    #[test]
    fn other_formats_and_broken_records_are_refused() {
        for bytes in [
            &b""[..],
            b"hello",
            b"{\"json\":1}",
            b"__p1:1:abcdefgh__\x0a\x02{}",
            b"FLX2p\0________________{}",
        ] {
            assert_eq!(decode(bytes), Err(Rejected::Format), "{bytes:?}");
        }
        for bytes in [
            &b"FLX1"[..],
            b"FLX1p\0________",
            b"FLX1p\0________________",
            b"FLX1p\0________________{",
            b"FLX1p\0________________{} {}",
            b"FLX1p\0________________[\n]",
            b"FLX1p\0________________\"\xff\"",
            b"FLX1j\0________________",
            b"FLX1o\0________________{}",
            b"FLX1?\0________________{}",
            b"FLX1p\x01________________cccccccccccccccc\xff\xff\xff\xff\0\0\0\0\0\0\0\0{}",
        ] {
            assert_eq!(decode(bytes), Err(Rejected::Content), "{bytes:?}");
        }
        let mut deep = b"FLX1p\0________________".to_vec();
        deep.extend_from_slice(&b"[".repeat(1_000));
        deep.extend_from_slice(&b"]".repeat(1_000));
        assert_eq!(decode(&deep), Err(Rejected::Content));
        let long = vec![b'x'; REDIS_RECORD_BYTES_MAX + 1];
        assert_eq!(decode(&long), Err(Rejected::Size));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind: u8, rest: Vec<u8>) {
            let mut bytes = MAGIC.to_vec();
            bytes.push(kind);
            bytes.extend_from_slice(&rest);
            let _ = decode(&bytes);
        }

        #[test]
        fn a_record_cut_or_changed_is_refused_or_still_a_record(at in 0usize..80, byte: u8, which in 0usize..5) {
            let mut bytes = Vec::new();
            encode(&mut bytes, 1, 2, bodies()[which]);
            let at = at % bytes.len();
            let _ = decode(&bytes[..at]);
            bytes[at] = byte;
            if let Ok(Record { body: Body::Message(message), .. }) = decode(&bytes) {
                prop_assert!(message.size() <= bytes.len());
            }
        }
    }
}
