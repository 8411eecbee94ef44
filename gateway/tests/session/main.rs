//! What the session promises to a client and to the shard that runs it, one file a promise.

#![allow(
    clippy::panic,
    reason = "an effect that has no place in a test ends it"
)]

mod allocation;
mod client;
mod connect;
mod heartbeat;
mod limits;
mod order;
mod robustness;
mod simulation;
mod vectors;
