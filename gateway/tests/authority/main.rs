//! The authority between a shard's mailbox and real HTTP servers on ports of the kernel.

#![allow(clippy::panic, reason = "tests")]

mod backend;
mod keys;
mod notices;
mod server;
mod shard;
mod tls;
