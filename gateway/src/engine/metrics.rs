//! What an engine counts.

use std::sync::Arc;

use crate::metrics::Count;

/// What an engine counts. Those that only Redis has stay 0 in the memory engine.
#[derive(Debug, Default)]
pub struct EngineMetrics {
    /// Messages that were given their place in a channel here.
    pub sequenced: Count,
    /// Hand-overs of a message to a shard.
    pub handed_over: Count,
    /// Publishes refused because a queue was full (error 111).
    pub refused: Count,
    /// Joins and leaves, and entries of members, dropped because a queue was full.
    pub presence_dropped: Count,
    /// Hand-overs that had to wait because the shard's mailbox was full.
    pub parked: Count,
    /// Channels that a shard lost because too much waited for it.
    pub lost: Count,
    /// Streams of channels with history, now.
    pub history_streams: Count,
    /// Bytes that these streams stand for, now.
    pub history_bytes: Count,
    /// Publications that left the history before their time, for want of memory.
    pub history_evicted: Count,
    /// Streams that were forgotten before their time, for want of memory: their channels have got
    /// another epoch.
    pub history_forgotten: Count,
    /// Subscribers that got everything they had missed.
    pub recovered: Count,
    /// Subscribers that were told that not everything they had missed is there.
    pub unrecovered: Count,
    /// Publications that were not published: their idempotency key was known or their version old.
    pub suppressed: Count,
    /// Results of publications with an idempotency key forgotten before their time.
    pub results_forgotten: Count,
    /// Members of channels now, as far as their channels are ordered here.
    pub presence_members: Count,
    /// Channels with listeners now.
    pub channels: Count,
    /// 1 while everything travels through Redis.
    pub redis_up: Count,
    /// Times that Redis was lost.
    pub redis_lost: Count,
    /// Attempts to connect that failed.
    pub redis_connect_failures: Count,
    /// Channels that are subscribed at Redis now.
    pub redis_subscriptions: Count,
    /// Publications sent to Redis whose fate is not known, now.
    pub redis_in_flight: Count,
    /// Publications that Redis has confirmed.
    pub redis_published: Count,
    /// Publications and subscriptions that Redis refused (for instance: not permitted).
    pub redis_refused: Count,
    /// Publications that a server did not take because their channel was on its way to another one, the
    /// server itself was, or it had forgotten the script; each time counts.
    pub redis_detours: Count,
    /// Messages of other nodes received.
    pub redis_received: Count,
    /// Messages of other nodes that came behind later ones of the same node; dropped.
    pub redis_stale: Count,
    /// Own messages that came back.
    pub redis_echoed: Count,
    /// Own messages that came back after they had been delivered locally; dropped.
    pub redis_late_echoes: Count,
    /// Messages delivered to this node's subscribers only.
    pub local_only: Count,
    /// Records in Redis that are not in our format; dropped.
    pub rejected_format: Count,
    /// Records in our format that do not hold together; dropped.
    pub rejected_content: Count,
    /// Records longer than the limit; dropped.
    pub rejected_size: Count,
    /// Publications not published again: a known idempotency key, a version that is not newer.
    pub redis_suppressed: Count,
    /// Times that Redis did not know a script (it was restarted, or told to forget them).
    pub redis_scripts_unknown: Count,
    /// Reads of channels' histories, and comparisons of positions, for subscribers here.
    pub redis_reads: Count,
    /// Recoveries answered without a read.
    pub redis_recovered_from_memory: Count,
    /// Gaps found in what channels with history have delivered.
    pub redis_gaps: Count,
    /// Publications delivered from a history because they had not arrived otherwise.
    pub redis_filled: Count,
    /// Channels with history whose subscribers were told that they missed something.
    pub redis_insufficient: Count,
    /// Times that Redis had lost who is present, and was told again.
    pub redis_presence_lost: Count,
    /// Members of dead nodes whose entries were found and removed.
    pub redis_expelled: Count,
    /// This node's clients that are present in channels (a client counts once for each).
    pub redis_members: Count,
    /// Bytes of recent publications remembered for recoveries.
    pub redis_recent_bytes: Count,
    /// Time of the last probe through Redis and back, in microseconds.
    pub redis_probe_us: Count,
}

impl EngineMetrics {
    /// Channels with listeners on the node whose engine has these parts: each once, however many
    /// shards listen, and in however many variants.
    pub fn channels_of(parts: &[Arc<Self>]) -> u64 {
        parts.iter().map(|part| part.channels.get()).sum()
    }
}
