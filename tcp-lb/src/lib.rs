//! The consistent-hashing TCP balancer in front of the gateways.
//!
//! The way of a connection:
//!
//! | stage | file | pure |
//! |---|---|---|
//! | accepted, within its bounds | `flows/accept`, `caps`, `sockets` | |
//! | its request head is read for the affinity key | `head` | yes |
//! | a node is chosen | `balance/routes` (ring and placement: `flux_registry`) | yes |
//! | connected, told who the client is, the head replayed; else the next node | `flows/upstream` | |
//! | bytes both ways | `flows/relay` | |
//! | what stands still is ended; the drain | `flows/sweep` | |
//!
//! Beside it, on the control thread: what the registry says (`flux_registry`) and what probes and flows
//! say (`health`, `probe`) become standings (`balance/table`) and go to the shards as routes
//! (`control`, `mail`); `admin` shows them.
//!
//! Architecture invariants: a flow never moves between nodes; affinity never decides correctness; a
//! shard never waits for anything but its ring; an idle flow holds no buffer and no timer.

pub mod admin;
pub mod balance;
pub mod balancer;
pub mod caps;
pub mod config;
mod control;
pub mod flows;
pub mod head;
pub mod health;
pub mod limits;
pub mod mail;
pub mod meters;
pub mod probe;
pub mod sockets;
pub mod state_file;
