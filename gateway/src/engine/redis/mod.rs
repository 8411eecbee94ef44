//! The Redis engine: nodes joined by Redis Pub/Sub.

mod shard;

pub use shard::RedisShard;
