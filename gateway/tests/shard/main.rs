//! Promises of a shard's whole data path, from the accepted socket to its end: real shards on the
//! memory engine, real clients, no process around them.

#![allow(clippy::panic, reason = "a test fails by a panic")]

mod client;
#[allow(dead_code, reason = "shared with the tests of the transports")]
mod node;

mod bounds;
mod closing;
mod heartbeat;
mod pacing;
mod recovery;
mod slow_consumer;
