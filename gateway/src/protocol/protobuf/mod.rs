//! The Protobuf wire format: messages with their length before them, several in one transport
//! message.
//!
//! | what | file |
//! |---|---|
//! | the schema, as an account of the wire format | `client.proto` |
//! | fields of a message from its bytes | `read` |
//! | commands from a message | `decode` |
//! | fields of a message into bytes | `write` |
//! | replies and pushes | `encode` |
//!
//! Why not generated code: it would own every text and every payload, four allocations for a
//! publish that needs none, and an owned tree for every reply. What is written here is held against
//! the schema by tests, with a library's reading of it.

mod decode;
mod encode;
mod read;
mod write;

pub use decode::{Commands, EmulationRequest, decode, decode_connect_request, decode_emulation};
pub use encode::{encode_bare_push, encode_ping, encode_push, encode_reply};
pub use read::Malformed;
