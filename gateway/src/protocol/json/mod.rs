//! The JSON wire format: one document a line, several lines a message.

mod decode;
mod encode;

pub use decode::{Commands, decode};
pub use encode::{encode_client_info, encode_ping, encode_publication, encode_push, encode_reply};
