//! A message as it travels through Redis.
//!
//! ```text
//! 0   4  "FLX1": this format, this version
//! 4   1  kind: p publication, j join, l leave, o probe, r history removed
//! 5   1  flags: 1 = a client's info follows, 2 = tags follow, 4 = may be sent as a delta,
//!               8 = the data need not be JSON
//! 6   8  origin: the sending process, a random number, big endian
//! 14  8  sequence: rises with each message of that process, big endian
//!        with info: client id (16), then lengths of user, conn_info, chan_info (4 each, big
//!        endian), then those
//!        with tags: their length (2, big endian), then they, packed
//!        data, to the end
//! ```
//!
//! A publication that has a place in its channel's history is published by the script that gave
//! it that place, which puts it into an envelope: `FLX2`, the epoch (8 letters), the offset in
//! decimal, a colon, and the record as it stands in the stream.
//!
//! Origin and sequence tell a process its own messages: what it has sent and seen come back is
//! delivered once, also when the connection breaks in between (see `ledger`). A record of another
//! format or version is refused and counted; nothing in it is trusted before it has been checked,
//! as others may write to the same Redis.

use crate::limits::REDIS_RECORD_BYTES_MAX;
use crate::protocol::json::check_value;
use crate::protocol::{ClientId, ClientInfo, Tags};
use crate::pubsub::{Epoch, MessageRef, StreamPosition};

const MAGIC: &[u8; 4] = b"FLX1";
/// What an envelope begins with; the script that makes them knows it.
pub(super) const ENVELOPE_MAGIC: &[u8; 4] = b"FLX2";
/// Origin of what no process has published: it has no sequence.
pub(super) const ORIGIN_OF_NOBODY: u64 = 0;
const HEADER_LEN: usize = 22;
const HAS_INFO: u8 = 1;
const HAS_TAGS: u8 = 2;
const WANTS_DELTA: u8 = 4;
const IS_BINARY: u8 = 8;
const FLAGS: u8 = HAS_INFO | HAS_TAGS | WANTS_DELTA | IS_BINARY;
/// Digits of the longest offset.
const OFFSET_DIGITS_MAX: usize = 20;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Message(MessageRef<'a>),
    /// Sent to oneself, to see that the way through Redis works.
    Probe,
    /// The channel's history was removed: what is remembered of it counts no longer.
    Removed,
}

/// A record, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) origin: u64,
    pub(super) sequence: u64,
    pub(super) body: Body<'a>,
}

/// Tells a publication from every other: its origin, then its sequence.
pub(super) type Mark = u128;

impl Record<'_> {
    /// See [`Mark`].
    pub(super) fn mark(&self) -> Mark {
        (u128::from(self.origin) << 64) | u128::from(self.sequence)
    }
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
        Body::Removed => (b'r', None),
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
    let mut flags = 0;
    if info.is_some() {
        flags |= HAS_INFO;
    }
    if let Some(message) = &message {
        if !message.tags().is_empty() {
            flags |= HAS_TAGS;
        }
        if message.wants_delta() {
            flags |= WANTS_DELTA;
        }
        if kind == b'p' && check_value(message.payload()).is_err() {
            flags |= IS_BINARY;
        }
    }
    out.reserve(HEADER_LEN + 30 + message.map_or(0, |message| message.size()));
    out.extend_from_slice(MAGIC);
    out.push(kind);
    out.push(flags);
    out.extend_from_slice(&origin.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    if let Some(info) = info {
        put_info(out, info);
    }
    if let Some(message) = message {
        let tags = message.tags();
        if !tags.is_empty() {
            // At most `TAGS_BYTES_MAX`, which fits.
            out.extend_from_slice(&(tags.packed().len() as u16).to_be_bytes());
            out.extend_from_slice(tags.packed());
        }
        out.extend_from_slice(message.payload());
    }
}

/// Appends a client's info to `out`, as [`client_info`] reads it.
pub(super) fn put_info(out: &mut Vec<u8>, info: ClientInfo<'_>) {
    let parts = [info.user.as_bytes(), info.conn_info, info.chan_info];
    out.extend_from_slice(info.client.as_bytes());
    for part in parts {
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Takes apart what a channel has delivered: a record, and its place in the history where it has
/// one.
pub(super) fn decode_pushed(
    bytes: &[u8],
) -> Result<(Option<StreamPosition>, Record<'_>), Rejected> {
    let Some(rest) = bytes.strip_prefix(ENVELOPE_MAGIC) else {
        return Ok((None, decode(bytes)?));
    };
    let (epoch, rest) = rest.split_at_checked(Epoch::LEN).ok_or(Rejected::Content)?;
    let epoch = epoch_of(epoch)?;
    let colon = rest
        .iter()
        .take(OFFSET_DIGITS_MAX + 1)
        .position(|byte| *byte == b':')
        .ok_or(Rejected::Content)?;
    let offset = offset_of(&rest[..colon])?;
    let record = decode(&rest[colon + 1..])?;
    let is_publication = matches!(record.body, Body::Message(MessageRef::Publication { .. }));
    match offset {
        1.. if is_publication => Ok((Some(StreamPosition { epoch, offset }), record)),
        _ => Err(Rejected::Content),
    }
}

/// An epoch as Redis holds it.
pub(super) fn epoch_of(bytes: &[u8]) -> Result<Epoch, Rejected> {
    let text = std::str::from_utf8(bytes).map_err(|_| Rejected::Content)?;
    Epoch::parse(text).ok_or(Rejected::Content)
}

/// An offset as Redis holds it: decimal digits and nothing else.
pub(super) fn offset_of(bytes: &[u8]) -> Result<u64, Rejected> {
    let is_number = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(bytes).map_err(|_| Rejected::Content)?;
    text.parse()
        .ok()
        .filter(|_| is_number)
        .ok_or(Rejected::Content)
}

/// Takes a record apart and checks every part of it.
pub(super) fn decode(bytes: &[u8]) -> Result<Record<'_>, Rejected> {
    if bytes.len() > REDIS_RECORD_BYTES_MAX {
        return Err(Rejected::Size);
    }
    let rest = bytes.strip_prefix(MAGIC).ok_or(Rejected::Format)?;
    let (&[kind, flags], rest) = rest.split_first_chunk().ok_or(Rejected::Content)?;
    if flags & !FLAGS != 0 {
        return Err(Rejected::Format);
    }
    let has = |flag: u8| flags & flag != 0;
    let (origin, rest) = number(rest)?;
    let (sequence, rest) = number(rest)?;
    let (info, rest) = if has(HAS_INFO) {
        let (info, rest) = client_info(rest)?;
        (Some(info), rest)
    } else {
        (None, rest)
    };
    let (tags, data) = if has(HAS_TAGS) {
        let (len, rest) = rest.split_first_chunk().ok_or(Rejected::Content)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (tags, rest) = rest.split_at_checked(len).ok_or(Rejected::Content)?;
        (Tags::from_packed(tags).ok_or(Rejected::Content)?, rest)
    } else {
        (Tags::NONE, rest)
    };
    let is_bare = data.is_empty() && flags & !HAS_INFO == 0;
    let body = match (kind, info) {
        (b'p', info) => {
            if !has(IS_BINARY) {
                check_json(data)?;
            }
            Body::Message(MessageRef::Publication {
                data,
                info,
                tags,
                delta: has(WANTS_DELTA),
            })
        }
        (b'j', Some(info)) if is_bare => Body::Message(MessageRef::Join(info)),
        (b'l', Some(info)) if is_bare => Body::Message(MessageRef::Leave(info)),
        (b'o', None) if is_bare => Body::Probe,
        (b'r', None) if is_bare => Body::Removed,
        _ => return Err(Rejected::Content),
    };
    Ok(Record {
        origin,
        sequence,
        body,
    })
}

/// Whether a message that is accepted is, written again, the same message.
pub(super) fn examine(bytes: &[u8]) -> bool {
    match decode_pushed(bytes) {
        Ok((_, record)) => {
            let mut written = Vec::new();
            encode(&mut written, record.origin, record.sequence, record.body);
            decode(&written) == Ok(record)
        }
        Err(_) => true,
    }
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Rejected> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Rejected::Content)?;
    Ok((u64::from_be_bytes(*number), rest))
}

/// The client's info that stands at the beginning, and what follows it.
pub(super) fn client_info(bytes: &[u8]) -> Result<(ClientInfo<'_>, &[u8]), Rejected> {
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

    fn bodies() -> [Body<'static>; 8] {
        let (data, info) = (b"{\"n\":1}", info());
        let tags = Tags::from_packed(b"\0\x01a\0\x02bc").expect("packed");
        [
            Body::Removed,
            Body::Message(MessageRef::data(b"\xff\n")),
            Body::Message(MessageRef::Publication {
                data,
                info: Some(info),
                tags,
                delta: true,
            }),
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
            b"FLX3p\0________________{}",
            b"FLX1p\x10________________{}",
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

    #[test]
    fn an_envelope_gives_a_publication_its_place_and_nothing_else_has_one() {
        let mut record = Vec::new();
        encode(&mut record, 7, 8, Body::Message(MessageRef::data(b"{}")));
        let wrap = |head: &str, record: &[u8]| {
            let mut bytes = ENVELOPE_MAGIC.to_vec();
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(record);
            bytes
        };
        let bytes = wrap("abcdefgh17:", &record);
        let (position, inner) = decode_pushed(&bytes).expect("an envelope");
        let epoch = Epoch::parse("abcdefgh").expect("an epoch");
        assert_eq!(position, Some(StreamPosition { epoch, offset: 17 }));
        assert_eq!(inner, decode(&record).expect("a record"));
        assert_eq!(
            decode_pushed(&record).map(|(position, _)| position),
            Ok(None)
        );
        for head in [
            "",
            "abcdefgh",
            "abcdefgh:",
            "abcdefgh0:",
            "abcdefgh-1:",
            "abcdefgh+1:",
            "abcdefg11:",
            "abcdefgh1",
            "abcdefgh99999999999999999999:",
            "abcdefgh000000000000000000001:",
        ] {
            let bytes = wrap(head, &record);
            assert_eq!(decode_pushed(&bytes), Err(Rejected::Content), "{head}");
        }
        for body in [
            Body::Probe,
            Body::Removed,
            Body::Message(MessageRef::Join(info())),
        ] {
            let mut record = Vec::new();
            encode(&mut record, 7, 8, body);
            let bytes = wrap("abcdefgh1:", &record);
            assert_eq!(decode_pushed(&bytes), Err(Rejected::Content), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn no_envelope_makes_it_panic(rest: Vec<u8>) {
            let mut bytes = ENVELOPE_MAGIC.to_vec();
            bytes.extend_from_slice(&rest);
            let _ = decode_pushed(&bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(kind: u8, rest: Vec<u8>) {
            let mut bytes = MAGIC.to_vec();
            bytes.push(kind);
            bytes.extend_from_slice(&rest);
            let _ = decode(&bytes);
        }

        #[test]
        fn a_record_cut_or_changed_is_refused_or_still_a_record(at in 0usize..80, byte: u8, which in 0usize..8) {
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
