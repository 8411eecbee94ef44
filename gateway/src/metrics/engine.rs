//! What the engine counts.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Row, encode_rows};
use crate::engine::EngineMetrics;

const GAUGES: [Row<EngineMetrics>; 10] = [
    (
        "flux_engine_channels",
        "Channels with listeners on this node",
        |m| &m.channels,
    ),
    (
        "flux_history_streams",
        "Channels of which a history, or its position, is kept here",
        |m| &m.history_streams,
    ),
    ("flux_history_bytes", "Bytes of history kept here", |m| {
        &m.history_bytes
    }),
    (
        "flux_presence_members",
        "Members of channels with presence",
        |m| &m.presence_members,
    ),
    (
        "flux_redis_up",
        "1 while everything travels through Redis",
        |m| &m.redis_up,
    ),
    (
        "flux_redis_subscriptions",
        "Channels subscribed at Redis",
        |m| &m.redis_subscriptions,
    ),
    (
        "flux_redis_in_flight",
        "Publications sent to Redis whose fate is not known",
        |m| &m.redis_in_flight,
    ),
    (
        "flux_redis_recent_bytes",
        "Bytes of recent publications remembered for recoveries",
        |m| &m.redis_recent_bytes,
    ),
    (
        "flux_redis_members",
        "This node's clients that are present in channels, once for each",
        |m| &m.redis_members,
    ),
    (
        "flux_redis_probe_microseconds",
        "Last probe through Redis and back",
        |m| &m.redis_probe_us,
    ),
];

const COUNTERS: [Row<EngineMetrics>; 34] = [
    (
        "flux_engine_sequenced",
        "Messages given their place in a channel here",
        |m| &m.sequenced,
    ),
    (
        "flux_engine_handed_over",
        "Hand-overs of a message to a shard",
        |m| &m.handed_over,
    ),
    (
        "flux_engine_refused",
        "Publishes refused because a queue was full",
        |m| &m.refused,
    ),
    (
        "flux_engine_presence_dropped",
        "Joins and leaves dropped because a queue was full",
        |m| &m.presence_dropped,
    ),
    (
        "flux_engine_parked",
        "Hand-overs that waited for a full mailbox",
        |m| &m.parked,
    ),
    (
        "flux_engine_channels_lost",
        "Channels that a shard lost because too much waited for it",
        |m| &m.lost,
    ),
    (
        "flux_history_evicted",
        "Publications that left the history before their time, for want of memory",
        |m| &m.history_evicted,
    ),
    (
        "flux_history_forgotten",
        "Channels that got another epoch before their time, for want of memory",
        |m| &m.history_forgotten,
    ),
    (
        "flux_recovered",
        "Subscribers that got everything they had missed",
        |m| &m.recovered,
    ),
    (
        "flux_unrecovered",
        "Subscribers that were told that they have missed something",
        |m| &m.unrecovered,
    ),
    (
        "flux_publications_suppressed",
        "Publications whose idempotency key was known or whose version was old",
        |m| &m.suppressed,
    ),
    (
        "flux_idempotency_results_forgotten",
        "Results of publications forgotten before their time, for want of memory",
        |m| &m.results_forgotten,
    ),
    (
        "flux_redis_detours",
        "Publications that waited because their channel was on its way to another server",
        |m| &m.redis_detours,
    ),
    ("flux_redis_lost", "Times that Redis was lost", |m| {
        &m.redis_lost
    }),
    (
        "flux_redis_connect_failures",
        "Attempts to connect to Redis that failed",
        |m| &m.redis_connect_failures,
    ),
    (
        "flux_redis_published",
        "Publications that Redis has confirmed",
        |m| &m.redis_published,
    ),
    (
        "flux_redis_suppressed",
        "Publications not published again: known idempotency key, no newer version",
        |m| &m.redis_suppressed,
    ),
    (
        "flux_redis_scripts_unknown",
        "Times that Redis did not know a script",
        |m| &m.redis_scripts_unknown,
    ),
    (
        "flux_redis_reads",
        "Reads of histories and comparisons of positions for subscribers",
        |m| &m.redis_reads,
    ),
    (
        "flux_redis_recovered_from_memory",
        "Recoveries answered without a read",
        |m| &m.redis_recovered_from_memory,
    ),
    (
        "flux_redis_gaps",
        "Gaps found in what channels with history have delivered",
        |m| &m.redis_gaps,
    ),
    (
        "flux_redis_filled",
        "Publications delivered from a history as they had not arrived otherwise",
        |m| &m.redis_filled,
    ),
    (
        "flux_redis_insufficient",
        "Channels with history whose subscribers were told that they missed something",
        |m| &m.redis_insufficient,
    ),
    (
        "flux_redis_presence_lost",
        "Times that Redis had lost who is present, and was told again",
        |m| &m.redis_presence_lost,
    ),
    (
        "flux_redis_expelled",
        "Members of dead nodes whose entries were found",
        |m| &m.redis_expelled,
    ),
    (
        "flux_redis_refused",
        "Publications and subscriptions that Redis refused",
        |m| &m.redis_refused,
    ),
    (
        "flux_redis_received",
        "Messages of other nodes received",
        |m| &m.redis_received,
    ),
    ("flux_redis_echoed", "Own messages that came back", |m| {
        &m.redis_echoed
    }),
    (
        "flux_redis_late_echoes",
        "Own messages that came back after they had been delivered locally",
        |m| &m.redis_late_echoes,
    ),
    (
        "flux_redis_stale",
        "Messages of other nodes that came too late to be in order; dropped",
        |m| &m.redis_stale,
    ),
    (
        "flux_local_only",
        "Messages delivered to this node's subscribers only",
        |m| &m.local_only,
    ),
    (
        "flux_redis_rejected_format",
        "Records in Redis that are not in our format",
        |m| &m.rejected_format,
    ),
    (
        "flux_redis_rejected_content",
        "Records in Redis that do not hold together",
        |m| &m.rejected_content,
    ),
    (
        "flux_redis_rejected_size",
        "Records in Redis that are too long",
        |m| &m.rejected_size,
    ),
];

/// Read at each scrape and summed over the engine's parts.
#[derive(Debug)]
pub struct EngineCollector {
    parts: Vec<Arc<EngineMetrics>>,
}

impl EngineCollector {
    /// The counters of each part: one a shard in the memory engine, one in all with Redis.
    pub fn new(parts: Vec<Arc<EngineMetrics>>) -> Self {
        Self { parts }
    }
}

impl Collector for EngineCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode_rows(&mut encoder, MetricType::Gauge, &GAUGES, &self.parts)?;
        encode_rows(&mut encoder, MetricType::Counter, &COUNTERS, &self.parts)
    }
}
