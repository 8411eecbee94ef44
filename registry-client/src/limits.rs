//! Every bound of this crate, by name: what Redis holds was written by others and is read with limits.

use std::time::Duration;

/// Bytes in a node id.
pub const ID_BYTES_MAX: usize = 128;
/// Bytes in one node record (JSON). A record of 1,000 shards needs about 9 KiB.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;
/// Entries of the registry that one read looks at, latest deadline first.
pub const READ_ENTRIES_MAX: usize = 16_384;
/// Bytes of records that one read transfers.
pub const READ_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Nodes in one snapshot; more are refused, those already known stay.
pub const NODES_MAX: usize = 1_024;
/// Shards in one record.
pub const SHARDS_MAX: usize = 1_024;
/// Weight of one node, in units of 512 virtual nodes.
pub const WEIGHT_MAX: u32 = 64;
/// Bytes of the free text fields of a record (zone, build, nonce) and of a departure's reason.
pub const TEXT_BYTES_MAX: usize = 256;
/// Departures kept; the oldest goes first.
pub const DEPARTED_MAX: usize = 256;
/// Refused records that a snapshot names, so that a person can find them.
pub const REJECTED_NAMED_MAX: usize = 16;
/// How long a node that left or expired stays listed.
pub const LISTED_AFTER_END: Duration = Duration::from_secs(600);
/// Shortest and longest lease that is accepted.
pub const TTL_MIN: Duration = Duration::from_millis(100);
/// See [`TTL_MIN`].
pub const TTL_MAX: Duration = Duration::from_secs(3600);
/// Members that a choice names beside the chosen one.
pub const ALTERNATIVES_MAX: usize = 8;
/// Virtual nodes of a node with weight 1.
pub const VNODES_PER_WEIGHT: u32 = 512;
/// Shortest pause between two reads, however many events arrive.
pub const READ_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Addresses of Redis servers, sentinels or cluster seeds in one setting.
pub const REDIS_ENDPOINTS_MAX: usize = 64;
/// Servers of a Redis Cluster, replicas included.
pub const CLUSTER_NODES_MAX: usize = 1_024;
/// Servers of a Redis Cluster that are asked for its map at once.
pub const CLUSTER_ASKED_MAX: usize = 8;

const _: () = assert!(DEPARTED_MAX * (ID_BYTES_MAX + 2 * TEXT_BYTES_MAX + 256) <= READ_BYTES_MAX);
const _: () = assert!(SHARDS_MAX * 10 + 4096 <= RECORD_BYTES_MAX);
const _: () = assert!(NODES_MAX <= READ_ENTRIES_MAX);
