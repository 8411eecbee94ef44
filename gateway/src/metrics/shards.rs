//! What the shards count, each its own.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::http::Rejection;
use crate::shard::{Counter, Counters, Ended};
use crate::websocket::CloseReason;

/// A counter of every shard: name, what it counts, where it stands.
type PerShard = (&'static str, &'static str, fn(&Counters) -> &Counter);

const GAUGES: [PerShard; 5] = [
    ("flux_connections", "Connections, in whatever phase", |c| {
        &c.connections
    }),
    (
        "flux_clients",
        "Clients: WebSockets and streams that are open",
        |c| &c.clients,
    ),
    (
        "flux_channels",
        "Channels with subscribers on the shard, once for each form that they are wanted in",
        |c| &c.channels,
    ),
    ("flux_subscriptions", "Subscriptions", |c| &c.subscriptions),
    (
        "flux_fanout_rest_microseconds",
        "Time that a connection rests between two sends of publications; 0 on a quiet shard",
        |c| &c.rest_us,
    ),
];

const COUNTERS: [PerShard; 24] = [
    ("flux_accepted", "Connections accepted", |c| &c.accepted),
    (
        "flux_accept_failures",
        "Accepts that failed for want of descriptors or memory",
        |c| &c.accept_failures,
    ),
    (
        "flux_proxy_header_errors",
        "PROXY protocol headers refused",
        |c| &c.proxy_errors,
    ),
    (
        "flux_emulation_requests",
        "Requests to /emulation with commands for this node",
        |c| &c.emulated,
    ),
    (
        "flux_emulation_unknown_sessions",
        "Requests to /emulation for a session that is not there or not theirs",
        |c| &c.emulated_unknown,
    ),
    (
        "flux_messages_received",
        "WebSocket messages received",
        |c| &c.messages_in,
    ),
    ("flux_bytes_received", "Bytes received from clients", |c| {
        &c.bytes_in
    }),
    (
        "flux_publications",
        "Publications taken from clients",
        |c| &c.published,
    ),
    (
        "flux_publish_failures",
        "Publications that could not be taken",
        |c| &c.publish_failures,
    ),
    (
        "flux_questions_refused",
        "Questions of sessions that found no room at the authority's door",
        |c| &c.questions_refused,
    ),
    (
        "flux_user_limit_refusals",
        "Clients turned away because their user had as many connections as it may",
        |c| &c.user_limit_refusals,
    ),
    (
        "flux_messages_dropped",
        "Messages to the backend, which nobody takes",
        |c| &c.messages_dropped,
    ),
    (
        "flux_deliveries",
        "Publications times the subscribers they were for",
        |c| &c.deliveries,
    ),
    ("flux_sends", "Sends given to the kernel", |c| &c.sends),
    ("flux_bytes_sent", "Bytes sent to clients", |c| &c.bytes_out),
    (
        "flux_slow_consumers_bytes",
        "Clients closed because they were behind by too many bytes",
        |c| &c.slow_bytes,
    ),
    (
        "flux_slow_consumers_stuck",
        "Clients closed because a send made no progress",
        |c| &c.slow_stuck,
    ),
    (
        "flux_channel_gaps",
        "Channels in which the engine left something out; their subscribers were told",
        |c| &c.gaps,
    ),
    ("flux_rounds", "Rounds of fan-out", |c| &c.rounds),
    ("flux_turns", "Turns of the shard's loop", |c| &c.turns),
    ("flux_ring_enters", "io_uring_enter calls", |c| {
        &c.ring_enters
    }),
    (
        "flux_ring_buffer_shortages",
        "Receives that found no buffer",
        |c| &c.receive_buffer_shortages,
    ),
    (
        "flux_ring_completion_overflows",
        "Overflows of a completion queue",
        |c| &c.completion_overflows,
    ),
    (
        "flux_close_handshakes_cut",
        "Connections that the drain had to cut",
        |c| &c.ended[Ended::Forced as usize],
    ),
];

/// Everything that the shards count, read at each scrape.
#[derive(Debug)]
pub struct ShardMetrics {
    shards: Vec<Arc<Counters>>,
}

impl ShardMetrics {
    /// The counters of all shards, by their number.
    pub fn new(shards: Vec<Arc<Counters>>) -> Self {
        Self { shards }
    }

    fn encode_per_shard(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, read) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (shard, counters) in self.shards.iter().enumerate() {
                let value = ConstGauge::new(read(counters).get() as i64);
                value.encode(metric.encode_family(&[("shard", shard.to_string())])?)?;
            }
        }
        for (name, help, read) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (shard, counters) in self.shards.iter().enumerate() {
                let value = ConstCounter::new(read(counters).get());
                value.encode(metric.encode_family(&[("shard", shard.to_string())])?)?;
            }
        }
        Ok(())
    }

    /// One series for each value of a label, summed over the shards.
    fn encode_by(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, label): (&str, &str, &'static str),
        values: impl Iterator<Item = &'static str>,
        read: impl Fn(&Counters, usize) -> u64,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (index, value) in values.enumerate() {
            let sum = self
                .shards
                .iter()
                .map(|counters| read(counters, index))
                .sum::<u64>();
            ConstCounter::new(sum).encode(metric.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }
}

impl Collector for ShardMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_per_shard(&mut encoder)?;
        self.encode_by(
            &mut encoder,
            (
                "flux_requests_refused",
                "Requests refused, by reason",
                "reason",
            ),
            Rejection::ALL.iter().map(|rejection| rejection.label()),
            |counters, index| counters.rejections[index].get(),
        )?;
        self.encode_by(
            &mut encoder,
            (
                "flux_frames_refused",
                "Connections closed for breaking the framing rules, by reason",
                "reason",
            ),
            CloseReason::ALL.iter().map(|reason| reason.label()),
            |counters, index| counters.frame_errors[index].get(),
        )?;
        self.encode_by(
            &mut encoder,
            (
                "flux_connections_ended",
                "Connections ended, by reason",
                "reason",
            ),
            Ended::LABELS.into_iter(),
            |counters, index| counters.ended[index].get(),
        )
    }
}
