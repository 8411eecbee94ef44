//! A client's frames for the tests of the wire layer: any field may be wrong.

#![allow(dead_code, reason = "each test file uses its part")]

use flux_gateway::websocket::{CloseReason, Decoder, Event, Limits};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// How a length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Minimal,
    TwoBytes,
    EightBytes,
}

#[derive(Clone, Debug)]
pub(crate) struct ClientFrame {
    pub(crate) fin: bool,
    pub(crate) reserved: u8,
    pub(crate) opcode: u8,
    pub(crate) key: Option<[u8; 4]>,
    pub(crate) length: Length,
    pub(crate) payload: Vec<u8>,
}

impl ClientFrame {
    pub(crate) fn new(opcode: u8, payload: &[u8]) -> ClientFrame {
        ClientFrame {
            fin: true,
            reserved: 0,
            opcode,
            key: Some([0x37, 0xfa, 0x21, 0x3d]),
            length: Length::Minimal,
            payload: payload.to_vec(),
        }
    }

    pub(crate) fn fragment(opcode: u8, payload: &[u8]) -> ClientFrame {
        ClientFrame {
            fin: false,
            ..ClientFrame::new(opcode, payload)
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let claimed = self.payload.len() as u64;
        write_header(
            out,
            u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode,
            self.key,
            self.length,
            claimed,
        );
        let key = self.key.unwrap_or_default();
        out.extend(
            self.payload
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ key[at % 4]),
        );
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

/// A header that claims any length.
pub(crate) fn write_header(
    out: &mut Vec<u8>,
    first: u8,
    key: Option<[u8; 4]>,
    length: Length,
    claimed: u64,
) {
    let masked = if key.is_some() { 0x80 } else { 0 };
    out.push(first);
    match length {
        Length::Minimal if claimed < 126 => out.push(masked | claimed as u8),
        Length::Minimal if claimed > 65_535 => {
            out.push(masked | 127);
            out.extend(claimed.to_be_bytes());
        }
        Length::Minimal | Length::TwoBytes => {
            out.push(masked | 126);
            out.extend((claimed as u16).to_be_bytes());
        }
        Length::EightBytes => {
            out.push(masked | 127);
            out.extend(claimed.to_be_bytes());
        }
    }
    out.extend(key.iter().flatten());
}

/// An event that outlives its buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Failed(CloseReason),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Seen {
        match event {
            Event::Text(text) => Seen::Text(text.to_owned()),
            Event::Binary(bytes) => Seen::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Seen::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Seen::Pong(bytes.to_vec()),
            Event::Close(code, reason) => {
                Seen::Close(code.map(|code| code.get()), reason.to_owned())
            }
        }
    }
}

/// Feeds `bytes` in pieces of the lengths that `next_len` gives, and returns what came out.
pub(crate) fn decode(
    decoder: &mut Decoder,
    bytes: &[u8],
    limits: &Limits,
    mut next_len: impl FnMut() -> usize,
) -> Vec<Seen> {
    let mut bytes = bytes.to_vec();
    let mut rest = &mut bytes[..];
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at_mut(next_len().clamp(1, rest.len()));
        if let Err(reason) = decoder.feed(piece, limits, &mut |event| seen.push(Seen::from(event)))
        {
            seen.push(Seen::Failed(reason));
        }
        rest = behind;
    }
    seen
}

/// Everything at once.
pub(crate) fn decode_whole(bytes: &[u8]) -> Vec<Seen> {
    decode(&mut Decoder::new(), bytes, &Limits::default(), || {
        usize::MAX
    })
}
