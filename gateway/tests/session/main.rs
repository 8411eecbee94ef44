//! What the session promises to a client and to the shard that runs it, one file a promise.

#![allow(
    clippy::panic,
    reason = "an effect that has no place in a test ends it"
)]

mod allocation;
mod asking;
mod client;
mod connect;
mod credentials;
mod heartbeat;
mod limits;
mod lookup;
mod order;
mod recovery;
mod robustness;
mod server;
mod simulation;
mod subscribe;
mod vectors;
