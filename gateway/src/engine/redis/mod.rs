//! The Redis engine: nodes joined by Redis Pub/Sub.
//!
//! | what | file |
//! |---|---|
//! | a shard's door: requests out, events in | `shard` |
//! | the loop that brings all of the following together | `engine` |
//! | where Redis is | `config` |
//! | which of several servers a channel lives on | `route` |
//! | where servers are that change their places: Sentinel, Cluster | `guide` |
//! | what sentinels say while a master is replaced | `failovers` |
//! | which server of a cluster has which slots | `topology` (no I/O) |
//! | what follows from that for the servers and channels here | `follow` |
//! | every name in Redis, and the commands that go with a cluster | `keys` |
//! | one Redis server with its connections | `endpoint` |
//! | the same server as this node sees it: away, restoring, up | `server` (no I/O) |
//! | what was sent and has not come back | `ledger` |
//! | what a server would not take, and everything of its channel behind it | `returned`, `detours` |
//! | which channels are and should be subscribed | `interest` |
//! | the format of a message in Redis | `record` |
//! | order per channel, and the ways to the shards | `shards` |
//! | channels with history: where subscribers are, what is read for them | `streams` (no I/O) |
//! | what is asked of Redis besides, and its answers | `questions` |
//! | who is present, as this node knows it | `present` (no I/O) |
//! | an entry of a channel's presence hash; all of them, page by page | `entries`, `scan` |
//! | the two connections | `link` |
//!
//! All of it but the shards' doors runs on the control plane's thread.

mod config;
mod detours;
mod endpoint;
mod engine;
mod entries;
mod failovers;
mod follow;
mod guide;
mod interest;
mod keys;
mod ledger;
mod link;
mod present;
mod publish;
mod questions;
mod record;
mod returned;
mod route;
mod scan;
mod scripts;
mod server;
mod shard;
mod shards;
#[cfg(test)]
mod simulation;
mod streams;
mod topology;

pub use config::{RedisConfig, RedisConfigError};
pub use engine::RedisEngine;
pub use shard::RedisShard;

/// Feeds anything to the readers of what stands in Redis, as tests and the fuzzer do: whether a
/// message or an entry that is accepted is, written again, the same.
#[must_use]
pub fn examine(bytes: &[u8]) -> bool {
    record::examine(bytes) && entries::examine(bytes)
}

/// The same for what Redis answers where others may have written (RESP3): the data of the
/// publications that would be handed on.
#[must_use]
pub fn examine_answer(resp: &[u8]) -> Vec<Vec<u8>> {
    let Ok(answer) = ::redis::parse_redis_value(resp) else {
        return Vec::new();
    };
    let _ = scripts::outcome(&answer);
    let present = present::Present::default();
    let _ = scan::Scan::default().take("channel", &answer, &present);
    if let Ok(page) = scan::Page::of(&answer) {
        let _ = present.dead(page.entries());
    }
    let Ok(stretch) = scripts::stretch(&answer) else {
        return Vec::new();
    };
    let entries = stretch.entries.iter();
    entries
        .map(|(_, message)| message.payload().to_vec())
        .collect()
}
