//! Counters of an engine; plain atomics, read by the control plane.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes and another reads now and then.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// What an engine counts. Those that only Redis has stay 0 in the memory engine.
#[derive(Debug, Default)]
pub struct EngineMetrics {
    /// Messages that were given their place in a channel here.
    pub sequenced: Number,
    /// Hand-overs of a message to a shard.
    pub handed_over: Number,
    /// Publishes refused because a queue was full (error 111).
    pub refused: Number,
    /// Joins and leaves, and entries of members, dropped because a queue was full.
    pub presence_dropped: Number,
    /// Hand-overs that had to wait because the shard's mailbox was full.
    pub parked: Number,
    /// Channels that a shard lost because too much waited for it.
    pub lost: Number,
    /// Streams of channels with history, now.
    pub history_streams: Number,
    /// Bytes that these streams stand for, now.
    pub history_bytes: Number,
    /// Publications that left the history before their time, for want of memory.
    pub history_evicted: Number,
    /// Streams that were forgotten before their time, for want of memory: their channels have got
    /// another epoch.
    pub history_forgotten: Number,
    /// Subscribers that got everything they had missed.
    pub recovered: Number,
    /// Subscribers that were told that not everything they had missed is there.
    pub unrecovered: Number,
    /// Publications that were not published: their idempotency key was known or their version old.
    pub suppressed: Number,
    /// Results of publications with an idempotency key forgotten before their time.
    pub results_forgotten: Number,
    /// Members of channels now, as far as their channels are ordered here.
    pub presence_members: Number,
    /// Channels with listeners now.
    pub channels: Number,
    /// 1 while everything travels through Redis.
    pub redis_up: Number,
    /// Times that Redis was lost.
    pub redis_lost: Number,
    /// Attempts to connect that failed.
    pub redis_connect_failures: Number,
    /// Channels that are subscribed at Redis now.
    pub redis_subscriptions: Number,
    /// Publications sent to Redis whose fate is not known, now.
    pub redis_in_flight: Number,
    /// Publications that Redis has confirmed.
    pub redis_published: Number,
    /// Publications and subscriptions that Redis refused (for instance: not permitted).
    pub redis_refused: Number,
    /// Publications that a server did not take because their channel was on its way to another one, or the
    /// server itself was; each time counts.
    pub redis_detours: Number,
    /// Messages of other nodes received.
    pub redis_received: Number,
    /// Messages of other nodes that came behind later ones of the same node; dropped.
    pub redis_stale: Number,
    /// Own messages that came back.
    pub redis_echoed: Number,
    /// Own messages that came back after they had been delivered locally; dropped.
    pub redis_late_echoes: Number,
    /// Messages delivered to this node's subscribers only.
    pub local_only: Number,
    /// Records in Redis that are not in our format; dropped.
    pub rejected_format: Number,
    /// Records in our format that do not hold together; dropped.
    pub rejected_content: Number,
    /// Records longer than the limit; dropped.
    pub rejected_size: Number,
    /// Publications not published again: a known idempotency key, a version that is not newer.
    pub redis_suppressed: Number,
    /// Times that Redis did not know a script (it was restarted, or told to forget them).
    pub redis_scripts_unknown: Number,
    /// Reads of channels' histories, and comparisons of positions, for subscribers here.
    pub redis_reads: Number,
    /// Recoveries answered without a read.
    pub redis_recovered_from_memory: Number,
    /// Gaps found in what channels with history have delivered.
    pub redis_gaps: Number,
    /// Publications delivered from a history because they had not arrived otherwise.
    pub redis_filled: Number,
    /// Channels with history whose subscribers were told that they missed something.
    pub redis_insufficient: Number,
    /// Times that Redis had lost who is present, and was told again.
    pub redis_presence_lost: Number,
    /// Members of dead nodes whose entries were found and removed.
    pub redis_expelled: Number,
    /// This node's clients that are present in channels (a client counts once for each).
    pub redis_members: Number,
    /// Bytes of recent publications remembered for recoveries.
    pub redis_recent_bytes: Number,
    /// Time of the last probe through Redis and back, in microseconds.
    pub redis_probe_us: Number,
}
