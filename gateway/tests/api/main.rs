//! The server API, as backends meet it: real processes, real sockets.
//!
//! | promise | file |
//! |---|---|
//! | every method does what it says, on one node and across two | `methods` |
//! | who may call, and what is answered to what is no request | `access` |
//! | other nodes: those that do not answer are named, garbage is refused | `cluster` |
//! | people at a terminal | `terminal` |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say loudly what they found"
)]

#[allow(dead_code, reason = "shared with the tests of the process")]
#[path = "../process/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the tests of the process")]
#[path = "../process/gateway.rs"]
mod gateway;
mod support;

mod access;
mod cluster;
mod methods;
mod terminal;
