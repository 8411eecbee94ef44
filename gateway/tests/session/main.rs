//! What the session promises to a client and to the shard that runs it, one file a promise.

mod allocation;
mod client;
mod heartbeat;
mod limits;
mod order;
mod robustness;
mod simulation;
mod vectors;
