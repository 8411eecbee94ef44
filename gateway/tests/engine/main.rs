//! Promises of the engines: order, nothing missed, bounded waiting; for Redis also what happens when
//! it is away and comes back.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic, prints its seed and says when it is skipped"
)]

#[path = "../support/node.rs"]
mod node;

mod differential;
mod door;
mod memory;
mod redis;
mod redis_foreign;
mod redis_history;
mod redis_losses;
mod redis_presence;
