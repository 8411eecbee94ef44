//! How messages look to a kind of client: wire format, framing, and what it wants to see.
//!
//! | framing | a message of replies or pushes becomes |
//! |---|---|
//! | WebSocket | one frame: text for JSON, binary for Protobuf |
//! | HTTP stream | one chunk (RFC 9112, 7.1) with a newline behind each JSON document |
//! | server-sent events | one chunk with an event for each JSON document |
//!
//! Why one chunk a message: a client's reader then never waits for the rest of a message that has
//! been written whole, and bytes of different messages can follow one another in one send.

use flux_runtime::log::{LogSlice, LogWriter};

use super::MessageKind;
use crate::protocol::{Push, WireFormat};
use crate::websocket::{Opcode, header};

/// What carries a message to the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// WebSocket frames.
    #[default]
    WebSocket,
    /// A response without end: documents in JSON with a newline behind each, in Protobuf with their
    /// length before each.
    HttpStream,
    /// A response of server-sent events; always JSON.
    Sse,
}

/// How messages look to a kind of client; chosen once per connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Wire {
    /// How a reply or push is encoded.
    pub format: WireFormat,
    /// What it is put into.
    pub transport: Framing,
    /// Whether pushes stand alone, not inside a reply: to clients that send nothing.
    pub unidirectional: bool,
}

/// One form of a channel's messages; each variant in use has a log of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Variant {
    /// How they look.
    pub wire: Wire,
    /// Whether joins and leaves are among them.
    pub join_leave: bool,
    /// Whether publications may come as deltas against the one before.
    pub delta: bool,
}

/// What stands around one encoded reply or push of a known length.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    prefix: [u8; Self::PREFIX_LEN_MAX],
    prefix_len: u8,
    suffix: &'static [u8],
}

impl Frame {
    /// 16 digits, a line end and the name of an event's field.
    const PREFIX_LEN_MAX: usize = 24;

    /// What stands before it.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        &self.prefix[..usize::from(self.prefix_len)]
    }

    /// What stands behind it.
    #[must_use]
    pub fn suffix(&self) -> &'static [u8] {
        self.suffix
    }

    fn new(parts: [&[u8]; 3], suffix: &'static [u8]) -> Self {
        let mut prefix = [0; Self::PREFIX_LEN_MAX];
        let mut len = 0;
        for part in parts {
            prefix[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        Self {
            prefix,
            prefix_len: len as u8,
            suffix,
        }
    }
}

const EVENT_PREFIX: &[u8] = b"data: ";
const EVENT_SUFFIX: &[u8] = b"\n\n";

impl Wire {
    /// What stands around one encoded reply or push of `len` bytes.
    #[must_use]
    pub fn frame(self, len: usize) -> Frame {
        match (self.transport, self.format) {
            (Framing::WebSocket, WireFormat::Json) => {
                Frame::new([&header(Opcode::Text, len), b"", b""], b"")
            }
            (Framing::WebSocket, WireFormat::Protobuf) => {
                Frame::new([&header(Opcode::Binary, len), b"", b""], b"")
            }
            (Framing::HttpStream, WireFormat::Protobuf) => {
                Frame::new([&chunk_size(len), b"\r\n", b""], b"\r\n")
            }
            (Framing::HttpStream, WireFormat::Json) => {
                Frame::new([&chunk_size(len + 1), b"\r\n", b""], b"\n\r\n")
            }
            (Framing::Sse, _) => {
                let event = EVENT_PREFIX.len() + len + EVENT_SUFFIX.len();
                Frame::new([&chunk_size(event), b"\r\n", EVENT_PREFIX], b"\n\n\r\n")
            }
        }
    }

    /// Appends a message of encoded replies and pushes as it goes to the transport. Nothing becomes
    /// nothing: an empty chunk would end the response.
    pub fn frame_into(self, out: &mut Vec<u8>, encoded: &[u8]) {
        if encoded.is_empty() {
            return;
        }
        if self.transport == Framing::Sse && memchr::memchr(b'\n', encoded).is_some() {
            return events_into(out, encoded);
        }
        let frame = self.frame(encoded.len());
        out.reserve(frame.prefix().len() + encoded.len() + frame.suffix().len());
        out.extend_from_slice(frame.prefix());
        out.extend_from_slice(encoded);
        out.extend_from_slice(frame.suffix());
    }

    /// Puts one encoded push with its frame into a log.
    #[must_use]
    pub fn append(self, log: &mut LogWriter, encoded: &[u8]) -> LogSlice {
        let frame = self.frame(encoded.len());
        log.append(&[frame.prefix(), encoded, frame.suffix()])
    }

    /// Appends an encoded push as this kind of client gets it. Whatever stands in `out` is part of
    /// the same message.
    pub fn push(self, out: &mut Vec<u8>, push: &Push<'_>) {
        match self.unidirectional {
            false => self.format.push(out, push),
            true => self.format.bare_push(out, push),
        }
    }
}

/// Several JSON documents, one a line, as events of one chunk.
fn events_into(out: &mut Vec<u8>, encoded: &[u8]) {
    let lines = memchr::memchr_iter(b'\n', encoded).count() + 1;
    let around = EVENT_PREFIX.len() + EVENT_SUFFIX.len();
    let len = encoded.len() - (lines - 1) + lines * around;
    out.reserve(len + Frame::PREFIX_LEN_MAX);
    out.extend_from_slice(&chunk_size(len));
    out.extend_from_slice(b"\r\n");
    for line in encoded.split(|byte| *byte == b'\n') {
        out.extend_from_slice(EVENT_PREFIX);
        out.extend_from_slice(line);
        out.extend_from_slice(EVENT_SUFFIX);
    }
    out.extend_from_slice(b"\r\n");
}

/// A chunk's size in hexadecimal digits.
struct ChunkSize {
    digits: [u8; 16],
    start: u8,
}

impl std::ops::Deref for ChunkSize {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.digits[usize::from(self.start)..]
    }
}

fn chunk_size(len: usize) -> ChunkSize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 16];
    let (mut start, mut rest) = (16, len);
    while start == 16 || rest > 0 {
        start -= 1;
        digits[start] = HEX[rest & 0xf];
        rest >>= 4;
    }
    ChunkSize {
        digits,
        start: start as u8,
    }
}

impl Variant {
    /// Publications in JSON over a WebSocket.
    pub const JSON: Variant = Variant {
        wire: Wire {
            format: WireFormat::Json,
            transport: Framing::WebSocket,
            unidirectional: false,
        },
        join_leave: false,
        delta: false,
    };

    /// As `JSON`, with those who join and leave.
    pub const JSON_JOIN_LEAVE: Variant = Variant {
        join_leave: true,
        ..Self::JSON
    };

    /// Whether a message of this kind is in this variant's log.
    #[must_use]
    pub fn carries(self, kind: MessageKind) -> bool {
        self.join_leave || kind == MessageKind::Publication
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(transport: Framing) -> Wire {
        Wire {
            transport,
            ..Wire::default()
        }
    }

    fn framed(transport: Framing, encoded: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        wire(transport).frame_into(&mut out, encoded);
        out
    }

    #[test]
    fn one_message_is_one_frame_or_chunk() {
        let two = b"{\"id\":1}\n{}";
        assert_eq!(
            framed(Framing::WebSocket, two),
            b"\x81\x0b{\"id\":1}\n{}".as_slice()
        );
        assert_eq!(
            framed(Framing::HttpStream, two),
            b"c\r\n{\"id\":1}\n{}\n\r\n".as_slice()
        );
        assert_eq!(
            framed(Framing::Sse, two),
            b"1a\r\ndata: {\"id\":1}\n\ndata: {}\n\n\r\n".as_slice()
        );
        assert_eq!(framed(Framing::Sse, b"{}"), b"a\r\ndata: {}\n\n\r\n");
    }

    #[test]
    fn an_empty_message_does_not_end_the_response() {
        for transport in [Framing::WebSocket, Framing::HttpStream, Framing::Sse] {
            assert_eq!(framed(transport, b""), b"");
        }
    }

    #[test]
    fn a_chunk_says_how_long_it_is() {
        for len in [1, 14, 15, 16, 254, 255, 256, 65_535, 65_536, 1 << 20] {
            for transport in [Framing::HttpStream, Framing::Sse] {
                let out = framed(transport, &vec![b'x'; len]);
                let end = memchr::memmem::find(&out, b"\r\n").expect("a size");
                let size = std::str::from_utf8(&out[..end]).expect("digits");
                let size = usize::from_str_radix(size, 16).expect("hexadecimal");
                assert_eq!(end + 2 + size + 2, out.len());
                assert!(out.ends_with(b"\n\r\n"));
            }
        }
    }
}
