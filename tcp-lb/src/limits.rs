//! Every bound that is not configured, by name.

use std::time::Duration;

/// Shards at most.
pub const SHARDS_MAX: usize = 1024;
/// Smallest bound on the bytes that wait for one side of a flow.
pub const QUEUE_BYTES_LEAST: usize = 16 * 1024;
/// Longest configurable timeout.
pub const TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Descriptors kept for rings, listeners, the registry, probes and the admin pages.
pub const DESCRIPTORS_RESERVED: u64 = 256;
/// Sockets of flows that have not lasted a second have at most this part of the open files.
pub const YOUNG_SHARE: u64 = 4;
/// Connections waiting in the kernel for each listener (the kernel caps it at `net.core.somaxconn`).
pub const BACKLOG: i32 = 4096;
/// Bytes held for a replay: a request head and what the client sent behind it.
pub const REPLAY_BYTES_MAX: usize = crate::head::HEAD_LEN_MAX + 4096;
/// Nodes tried for one connection at most. All nodes of a usual cluster, so that a connection fails
/// only when no eligible node is left; bounded, since each try may take the connect timeout.
pub const TRIES_MAX: usize = 8;
const _: () = assert!(TRIES_MAX <= flux_registry::limits::ALTERNATIVES_MAX);
/// How long nodes are tried for one connection, over and over while some are known: a node that drops a
/// connection in a storm takes it a second later.
pub const TRY_FOR: Duration = Duration::from_secs(5);
/// Pause before all nodes are tried again.
pub const TRY_PAUSE: Duration = Duration::from_millis(200);
/// Messages waiting for one shard.
pub const SHARD_MAIL: usize = 256;
/// Reports of flows waiting for the control thread; what is beyond is dropped (they repeat).
pub const REPORTS: usize = 1024;
/// Probes under way at once, over all nodes.
pub const PROBES_AT_ONCE: usize = 256;
/// Bytes of a probe's answer that are looked at.
pub const PROBE_ANSWER_BYTES: usize = 4096;

/// Unacknowledged data toward a node for this long: the node is gone.
pub const UPSTREAM_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// The same toward a client, whose network may pause.
pub const CLIENT_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which a node's connection is asked for a sign of life.
pub const UPSTREAM_KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// The same for a client.
pub const CLIENT_KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Pause between two lines of the log about the same shortage.
pub const SAY_AGAIN: Duration = Duration::from_secs(1);
