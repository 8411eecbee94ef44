//! Flux Gateway: a thread-per-core WebSocket gateway that speaks the Centrifuge protocol.

pub mod drain;
pub mod engine;
pub mod http;
pub mod limits;
pub mod membership;
pub mod protocol;
pub mod pubsub;
pub mod session;
pub mod websocket;
