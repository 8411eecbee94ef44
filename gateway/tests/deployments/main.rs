//! Promise: whatever Redis's deployment does, no subscriber misses anything without being told. Each test
//! starts its deployment for real, publishes from one node to subscribers on two, lets something happen,
//! and prints how long publications stood still.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic and says how long it took and why it was skipped"
)]

mod cluster;
mod divergence;
mod node;
mod sentinel;
mod servers;
mod traffic;
