//! Promises of the program `flux-gateway` as a process: its doors, its ends, what it does under pressure.
#![allow(clippy::panic, reason = "a test ends by panicking")]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "what the gateway said last, beside the panic; what a test has seen"
)]

#[path = "../attack/mod.rs"]
mod attack;
mod client;
mod credentials;
mod deployments;
mod doors;
mod ends;
mod gateway;
mod hostile;
mod limits;
mod order;
mod pressure;
mod slow;
mod start;
