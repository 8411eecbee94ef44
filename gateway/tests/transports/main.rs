//! Promises of every transport, through real sockets: real shards on the memory engine, clients
//! made of bytes.

#![allow(clippy::panic, reason = "a test fails by a panic")]

#[allow(dead_code, reason = "shared with the tests of the shard")]
#[path = "../shard/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the tests of the shard")]
#[path = "../shard/node.rs"]
mod node;

mod bodies;
mod calls;
mod control_plane;
mod cors;
mod emulation;
mod exchange;
mod protobuf;
mod streams;
mod unidirectional;
mod users;

use flux_gateway::http::{AllowedOrigins, Transports};

use self::node::Settings;

/// Every transport, in a node called `node-1` where everything is allowed.
fn settings() -> Settings {
    let mut settings = Settings {
        transports: Transports {
            api: Some(1_000),
            ..Transports::all()
        },
        origins: AllowedOrigins::new(&["https://*.example.com"]).expect("a pattern"),
        ..Settings::default()
    };
    settings.session.node = "node-1".to_owned();
    settings
}
