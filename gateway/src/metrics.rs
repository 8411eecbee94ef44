//! The one place for the names of the gateway's metrics.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::authority::{AuthorityMetrics, Count};
use crate::backend::{Endpoint, EndpointMetrics};
use crate::engine::{EngineMetrics, Number};
use crate::http::Rejection;
use crate::shard::{Counter, Counters, Ended};
use crate::websocket::CloseReason;

/// A counter of every shard: name, what it counts, where it stands.
type PerShard = (&'static str, &'static str, fn(&Counters) -> &Counter);

const GAUGES: [PerShard; 4] = [
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
        "Channels with subscribers on the shard",
        |c| &c.channels,
    ),
    ("flux_subscriptions", "Subscriptions", |c| &c.subscriptions),
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
    (
        "flux_rounds_delayed",
        "Turns in which a round waited because the shard is busy",
        |c| &c.rounds_delayed,
    ),
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

/// A number of the engine: name, what it is, where it stands.
type OfEngine = (&'static str, &'static str, fn(&EngineMetrics) -> &Number);

const ENGINE_GAUGES: [OfEngine; 10] = [
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

const ENGINE_COUNTERS: [OfEngine; 34] = [
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

/// What the engine counts, read at each scrape and summed over its parts.
#[derive(Debug)]
pub struct EngineCollector {
    parts: Vec<Arc<EngineMetrics>>,
}

impl EngineCollector {
    /// The counters of each part: one a shard in the memory engine, one in all with Redis.
    pub fn new(parts: Vec<Arc<EngineMetrics>>) -> Self {
        Self { parts }
    }

    fn sum(&self, read: fn(&EngineMetrics) -> &Number) -> u64 {
        self.parts.iter().map(|part| read(part).get()).sum()
    }
}

impl Collector for EngineCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, read) in ENGINE_GAUGES {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(self.sum(read) as i64).encode(metric)?;
        }
        for (name, help, read) in ENGINE_COUNTERS {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(self.sum(read)).encode(metric)?;
        }
        Ok(())
    }
}

/// A number of the authority: name, what it is, where it stands.
type OfAuthority = (&'static str, &'static str, fn(&AuthorityMetrics) -> &Count);

const AUTHORITY_COUNTERS: [OfAuthority; 9] = [
    (
        "flux_questions_refused",
        "Questions of sessions that found no room (error 111)",
        |m| &m.questions_refused,
    ),
    (
        "flux_questions_answered",
        "Questions of sessions answered",
        |m| &m.answers,
    ),
    (
        "flux_answers_delayed",
        "Answers that had to wait because a shard's mailbox was full",
        |m| &m.answers_delayed,
    ),
    (
        "flux_tokens_unjudged",
        "Tokens that could not be judged because no key set could be had",
        |m| &m.tokens_unjudged,
    ),
    ("flux_jwks_fetched", "Key sets fetched", |m| &m.jwks_fetched),
    (
        "flux_jwks_failures",
        "Fetches of a key set that failed",
        |m| &m.jwks_failures,
    ),
    (
        "flux_notices_sent",
        "Lifecycle notices that the backend has taken",
        |m| &m.notices_sent,
    ),
    (
        "flux_notices_failed",
        "Lifecycle notices that the backend did not take",
        |m| &m.notices_failed,
    ),
    (
        "flux_notices_dropped",
        "Lifecycle notices dropped because too many waited",
        |m| &m.notices_dropped,
    ),
];

/// Tokens of one outcome: its label, where it stands.
type OfTokens = (&'static str, fn(&AuthorityMetrics) -> &Count);

const TOKENS: [OfTokens; 3] = [
    ("accepted", |m| &m.tokens_accepted),
    ("expired", |m| &m.tokens_expired),
    ("invalid", |m| &m.tokens_invalid),
];

/// A number of an endpoint: label of its reason, where it stands.
type OfEndpoint = (&'static str, fn(&EndpointMetrics) -> &Count);

const BACKEND_FAILURES: [OfEndpoint; 6] = [
    ("connection", |m| &m.failed_connection),
    ("timeout", |m| &m.failed_timeout),
    ("status", |m| &m.failed_status),
    ("answer", |m| &m.failed_answer),
    ("busy", |m| &m.refused_busy),
    ("breaker_open", |m| &m.refused_open),
];

/// What the authority and the backend's endpoints count, read at each scrape.
pub struct AuthorityCollector {
    authority: Arc<AuthorityMetrics>,
    endpoints: Vec<Arc<Endpoint>>,
}

impl AuthorityCollector {
    /// See [`crate::authority::Authority`].
    pub fn new(authority: Arc<AuthorityMetrics>, endpoints: Vec<Arc<Endpoint>>) -> Self {
        Self {
            authority,
            endpoints,
        }
    }

    fn encode_endpoints(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, kind): (&str, &str, MetricType),
        read: impl Fn(&EndpointMetrics) -> u64,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for endpoint in &self.endpoints {
            let labels = [("endpoint", endpoint.name())];
            let family = metric.encode_family(&labels)?;
            let value = read(endpoint.metrics());
            match kind {
                MetricType::Gauge => ConstGauge::new(value as i64).encode(family)?,
                _ => ConstCounter::new(value).encode(family)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AuthorityCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AuthorityCollector")
            .finish_non_exhaustive()
    }
}

impl Collector for AuthorityCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Questions of sessions being answered";
        let metric =
            encoder.encode_descriptor("flux_questions_in_flight", help, None, MetricType::Gauge)?;
        ConstGauge::new(self.authority.questions_in_flight.get() as i64).encode(metric)?;
        for (name, help, read) in AUTHORITY_COUNTERS {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(read(&self.authority).get()).encode(metric)?;
        }
        let help = "Tokens judged, by outcome";
        let mut metric =
            encoder.encode_descriptor("flux_tokens", help, None, MetricType::Counter)?;
        for (outcome, read) in TOKENS {
            let count = ConstCounter::new(read(&self.authority).get());
            count.encode(metric.encode_family(&[("outcome", outcome)])?)?;
        }
        self.encode_endpoints(
            &mut encoder,
            (
                "flux_backend_asked",
                "Exchanges with the backend begun",
                MetricType::Counter,
            ),
            |metrics| metrics.asked.get(),
        )?;
        self.encode_endpoints(
            &mut encoder,
            (
                "flux_backend_answered",
                "Exchanges that brought an answer",
                MetricType::Counter,
            ),
            |metrics| metrics.answered.get(),
        )?;
        self.encode_endpoints(
            &mut encoder,
            (
                "flux_backend_exchange_microseconds",
                "Time that exchanges with the backend took",
                MetricType::Counter,
            ),
            |metrics| metrics.micros.get(),
        )?;
        self.encode_endpoints(
            &mut encoder,
            (
                "flux_backend_breaker_open",
                "1 while an endpoint that failed is left alone",
                MetricType::Gauge,
            ),
            |metrics| metrics.breaker_open.get(),
        )?;
        self.encode_endpoints(
            &mut encoder,
            (
                "flux_backend_breaker_opened",
                "Times that an endpoint was left alone",
                MetricType::Counter,
            ),
            |metrics| metrics.breaker_opened.get(),
        )?;
        let help = "Questions that the backend did not answer, by reason";
        let mut metric =
            encoder.encode_descriptor("flux_backend_failures", help, None, MetricType::Counter)?;
        for endpoint in &self.endpoints {
            for (reason, read) in BACKEND_FAILURES {
                let labels = [("endpoint", endpoint.name()), ("reason", reason)];
                let count = ConstCounter::new(read(endpoint.metrics()).get());
                count.encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
