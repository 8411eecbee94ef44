//! The consistent-hashing TCP balancer in front of the gateways.

pub mod balance;
pub mod caps;
pub mod config;
pub mod head;
pub mod health;
pub mod limits;
pub mod sockets;
