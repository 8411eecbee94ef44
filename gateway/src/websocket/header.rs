//! The frame header (RFC 6455 §5.2): what a client's frame says before its payload.

use super::Limits;
use super::close::CloseReason;

/// Largest payload of a control frame, in bytes (§5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// Longest header of a client's frame, in bytes: 2, a 64-bit length, the masking key.
pub(super) const CLIENT_HEADER_BYTES_MAX: usize = 14;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the open message.
    Continuation = 0,
    /// A text message or its first fragment.
    Text = 1,
    /// A binary message or its first fragment.
    Binary = 2,
    /// Close (§5.5.1).
    Close = 8,
    /// Ping (§5.5.2).
    Ping = 9,
    /// Pong (§5.5.3).
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Opcode> {
        match bits {
            0 => Some(Opcode::Continuation),
            1 => Some(Opcode::Text),
            2 => Some(Opcode::Binary),
            8 => Some(Opcode::Close),
            9 => Some(Opcode::Ping),
            10 => Some(Opcode::Pong),
            _ => None,
        }
    }

    /// Close, ping and pong: at most 125 bytes, never fragmented, allowed between fragments of a message.
    pub const fn is_control(self) -> bool {
        (self as u8) & 0x8 != 0
    }
}

/// A client's frame header that keeps all rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientHeader {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) key: [u8; 4],
    pub(super) payload_len: usize,
    /// Bytes of the header itself.
    pub(super) len: usize,
}

/// The message that a frame would continue.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenMessage {
    pub(super) bytes: usize,
    pub(super) fragments: u32,
}

impl ClientHeader {
    /// Reads a header from the start of `bytes`; `None` while it is incomplete. Each rule is applied as soon as the
    /// bytes that it needs are there, and always in the same order, so the verdict does not depend on how the bytes
    /// were cut.
    #[inline]
    pub(super) fn parse(
        bytes: &[u8],
        open: Option<OpenMessage>,
        limits: &Limits,
    ) -> Result<Option<ClientHeader>, CloseReason> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(CloseReason::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(CloseReason::ReservedOpcode)?;
        let fin = first & 0x80 != 0;
        if opcode.is_control() {
            if !fin {
                return Err(CloseReason::ControlFragmented);
            }
        } else {
            match (opcode, open) {
                (Opcode::Continuation, None) => return Err(CloseReason::UnexpectedContinuation),
                (Opcode::Text | Opcode::Binary, Some(_)) => {
                    return Err(CloseReason::ExpectedContinuation);
                }
                _ => {}
            }
        }

        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        if second & 0x80 == 0 {
            return Err(CloseReason::Unmasked);
        }
        let short = second & 0x7f;
        if opcode.is_control() && short > CONTROL_PAYLOAD_BYTES_MAX as u8 {
            return Err(CloseReason::ControlTooLong);
        }
        let (claimed, key_at) = match short {
            126 => {
                let Some(length) = bytes.get(2..).and_then(|rest| rest.first_chunk::<2>()) else {
                    return Ok(None);
                };
                let length = u16::from_be_bytes(*length);
                if length < 126 {
                    return Err(CloseReason::LengthNotMinimal);
                }
                (u64::from(length), 4)
            }
            127 => {
                let Some(length) = bytes.get(2..).and_then(|rest| rest.first_chunk::<8>()) else {
                    return Ok(None);
                };
                let length = u64::from_be_bytes(*length);
                if length >> 63 != 0 {
                    return Err(CloseReason::LengthTopBit);
                }
                if length <= u64::from(u16::MAX) {
                    return Err(CloseReason::LengthNotMinimal);
                }
                (length, 10)
            }
            short => (u64::from(short), 2),
        };
        let payload_len = usize::try_from(claimed).map_err(|_| CloseReason::MessageTooBig)?;
        if !opcode.is_control() {
            let open = open.unwrap_or(OpenMessage {
                bytes: 0,
                fragments: 0,
            });
            if payload_len > limits.message_bytes_max.saturating_sub(open.bytes) {
                return Err(CloseReason::MessageTooBig);
            }
            if open.fragments >= limits.message_fragments_max {
                return Err(CloseReason::TooManyFragments);
            }
        }

        let Some(key) = bytes.get(key_at..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(None);
        };
        Ok(Some(ClientHeader {
            fin,
            opcode,
            key: *key,
            payload_len,
            len: key_at + 4,
        }))
    }
}
