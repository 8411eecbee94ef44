//! Frames of the server: never masked, never fragmented, no extension (RFC 6455 §5).

use std::ops::Deref;

use super::close::{CLOSE_REASON_BYTES_MAX, CloseCode};
use super::header::{CONTROL_PAYLOAD_BYTES_MAX, Opcode};

/// The header of a server's frame: 2, 4 or 10 bytes.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    bytes: [u8; 10],
    len: u8,
}

impl Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The header of a whole message (FIN set) with `payload_len` bytes.
#[inline]
pub fn header(opcode: Opcode, payload_len: usize) -> FrameHeader {
    debug_assert!(!opcode.is_control() || payload_len <= CONTROL_PAYLOAD_BYTES_MAX);
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode as u8;
    let len = match payload_len {
        0..=125 => {
            bytes[1] = payload_len as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
            10
        }
    };
    FrameHeader { bytes, len }
}

/// Appends a whole frame.
#[inline]
pub fn frame_into(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let header = header(opcode, payload.len());
    out.reserve(header.len() + payload.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
}

/// Appends a close frame. A reason longer than 123 bytes is cut at a character.
pub fn close_frame_into(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    out.extend_from_slice(&header(Opcode::Close, 2 + reason.len()));
    out.extend_from_slice(&code.get().to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// A close frame. A reason longer than 123 bytes is cut at a character.
pub fn close_frame(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + reason.len().min(CLOSE_REASON_BYTES_MAX));
    close_frame_into(&mut out, code, reason);
    out
}

/// Appends the answer to a client's close frame: the same code, or none where it gave none (§5.5.1).
pub fn close_reply_into(out: &mut Vec<u8>, code: Option<CloseCode>) {
    match code {
        Some(code) => close_frame_into(out, code, ""),
        None => out.extend_from_slice(&header(Opcode::Close, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_rfc() {
        let mut out = Vec::new();
        frame_into(&mut out, Opcode::Text, b"Hello");
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        out.clear();
        frame_into(&mut out, Opcode::Ping, b"Hello");
        assert_eq!(out, [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        assert_eq!(*header(Opcode::Binary, 256), [0x82, 0x7e, 0x01, 0x00]);
        assert_eq!(
            *header(Opcode::Binary, 65_536),
            [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }

    #[test]
    fn lengths_are_minimal_at_their_borders() {
        for (payload_len, header_len) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(header(Opcode::Text, payload_len).len(), header_len);
        }
    }

    #[test]
    fn a_close_frame_holds_a_reason_of_any_length() {
        assert_eq!(
            close_frame(CloseCode::NORMAL, "bye"),
            [0x88, 5, 0x03, 0xe8, b'b', b'y', b'e']
        );
        let long = "é".repeat(100);
        let frame = close_frame(CloseCode::GOING_AWAY, &long);
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert_eq!(frame[1], 124);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
        let mut reply = Vec::new();
        close_reply_into(&mut reply, None);
        assert_eq!(reply, [0x88, 0]);
    }
}
