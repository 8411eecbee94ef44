//! What every Flux process starts with.
//!
//! Data plane: `cpu` and `doctor` (what the machine gives), `shard` (one pinned executor a core),
//! `ring` (sockets), `log` (shared encoded frames), `mailbox` (messages between threads), `wheel`
//! (timers), `sockets` (an option that its crate lacks). Control plane: `config`, `logging`, `control` (signals, admin HTTP, metrics).

pub mod config;
pub mod control;
pub mod cpu;
pub mod doctor;
pub mod log;
pub mod logging;
pub mod mailbox;
pub mod proxy_protocol;
pub mod ring;
pub mod shard;
pub mod sockets;
pub mod wheel;
