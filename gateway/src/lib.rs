//! Flux Gateway: a thread-per-core WebSocket gateway that speaks the Centrifuge protocol.

pub mod limits;
pub mod protocol;
pub mod session;
