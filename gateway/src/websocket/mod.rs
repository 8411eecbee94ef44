//! WebSocket frames and messages (RFC 6455), as a server sees them. Pure: bytes in, events and bytes out.
//!
//! | stage | file |
//! |---|---|
//! | frame header: parse and write | `header.rs` |
//! | masking key | `mask.rs` |
//! | bytes -> events, nothing held while idle | `decoder.rs` |
//! | fragments -> message, UTF-8 as it arrives | `message.rs` |
//! | frames to send | `encode.rs` |
//! | close codes and why a connection is closed | `close.rs` |
//!
//! No extension is negotiated, so the RSV bits are always an error.

mod close;
mod decoder;
mod encode;
mod header;
mod mask;
mod message;

pub use close::{CLOSE_REASON_BYTES_MAX, CloseCode, CloseReason};
pub use decoder::{Decoder, Event};
pub use encode::{
    FrameHeader, close_frame, close_frame_into, close_reply_into, frame_into, header,
};
pub use header::{CONTROL_PAYLOAD_BYTES_MAX, Opcode};
pub use mask::unmask;

/// What one client may send in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest message, all its fragments together, in bytes. Beyond it the connection is closed with 1009, on the
    /// claimed length and before anything is stored.
    pub message_bytes_max: usize,
    /// Most frames that one message may come in (empty ones count). Beyond it the connection is closed with 1008.
    pub message_fragments_max: u32,
}

impl Limits {
    /// Bounds for messages of at most `message_bytes_max` bytes: they may come in as many frames as fragments of 64
    /// bytes need, and a last empty one (Autobahn 9.3.1 sends 4 MiB so). Each frame costs the shard time whatever its
    /// length, so empty ones must not be free.
    pub const fn for_messages_of(message_bytes_max: usize) -> Limits {
        let fragments = message_bytes_max / FRAGMENT_BYTES_LIKELY + 1;
        let bounded = if fragments < FRAGMENTS_FLOOR {
            FRAGMENTS_FLOOR
        } else {
            fragments
        };
        Limits {
            message_bytes_max,
            message_fragments_max: if bounded > u32::MAX as usize {
                u32::MAX
            } else {
                bounded as u32
            },
        }
    }
}

/// Shortest fragment that a reasonable client cuts a long message into, in bytes.
const FRAGMENT_BYTES_LIKELY: usize = 64;
/// Frames that even the shortest message may come in.
const FRAGMENTS_FLOOR: usize = 64;

impl Default for Limits {
    fn default() -> Limits {
        Limits::for_messages_of(65_536)
    }
}
