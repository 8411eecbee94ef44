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

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes_max: 65_536,
            // 4 MiB in fragments of 64 bytes and a last empty one, as Autobahn 9.3.1 and 9.4.1 send it. Each
            // empty frame costs the shard time: no more than somebody needs.
            message_fragments_max: 65_537,
        }
    }
}
