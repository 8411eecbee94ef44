//! The Redis engine: nodes joined by Redis Pub/Sub.
//!
//! | what | file |
//! |---|---|
//! | a shard's door: requests out, events in | `shard` |
//! | the loop that brings all of the following together | `engine` |
//! | one Redis server as this node sees it: away, restoring, up | `server` |
//! | what was sent and has not come back | `ledger` |
//! | which channels are and should be subscribed | `interest` |
//! | the format of a message in Redis | `record` |
//! | order per channel, and the ways to the shards | `shards` |
//! | the two connections | `link` |
//!
//! All of it but the shards' doors runs on the control plane's thread. Names in Redis are those
//! that Centrifugo documents: messages of channel `C` travel in `PREFIX.client.C`, and what is meant
//! for one node in `PREFIX.node.ID`, with `centrifugo` as the default prefix.

mod engine;
mod interest;
mod ledger;
mod link;
mod record;
mod server;
mod shard;
mod shards;
#[cfg(test)]
mod simulation;

pub use engine::{RedisConfig, RedisConfigError, RedisEngine};
pub use shard::RedisShard;
