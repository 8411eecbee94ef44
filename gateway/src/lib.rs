//! Flux Gateway: a thread-per-core WebSocket gateway that speaks the Centrifuge protocol.
//!
//! The way of a message, in the order of the folders:
//!
//! | stage | where |
//! |---|---|
//! | accept | `shard/accept` on the net ring of [`flux_runtime::ring`] |
//! | handshake | [`http`] (pure), `shard/handshake` |
//! | frame | [`websocket`] (pure), `shard/receive` |
//! | command | [`protocol`] (pure) |
//! | what a client may do and is told | [`session`] (pure) |
//! | channel, fan-out | [`pubsub`] (pure) |
//! | tokens, the backend's word | [`authority`], [`token`], [`backend`] |
//! | between shards and nodes | [`engine`] |
//! | send queue, write | `shard/send` |
//! | the end | `shard/close`, [`drain`] (pure) |
//!
//! Around it: [`api`] (server API), [`bus`] (between nodes), [`config`], [`limits`], [`metrics`], [`node`] (start,
//! control plane).

pub mod api;
pub mod authority;
pub mod backend;
pub mod bus;
pub mod config;
pub mod drain;
pub mod engine;
pub mod http;
pub mod limits;
pub mod membership;
pub mod metrics;
pub mod node;
pub mod protocol;
pub mod pubsub;
pub mod session;
pub mod shard;
pub mod token;
pub mod websocket;
