//! `/metrics`: the one place for the balancer's metric names. Read from the counters at each scrape.

use std::fmt;
use std::time::Instant;

use flux_registry::RegistryState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::View;
use crate::health::FlowFailure;
use crate::meters::Meters;

type Of = fn(&Meters) -> u64;

/// Counters summed over shards: name, help, source.
const COUNTERS: [(&str, &str, Of); 22] = [
    ("flux_lb_accepted", "Connections accepted", |m| {
        m.accepted.get()
    }),
    (
        "flux_lb_accept_shortages",
        "Accepts that failed for want of descriptors or memory",
        |m| m.accept_shortages.get(),
    ),
    (
        "flux_lb_socket_shortages",
        "Connections to nodes not begun for want of descriptors or memory",
        |m| m.socket_shortages.get(),
    ),
    (
        "flux_lb_accept_pauses",
        "Times a listener rested for the accept rate or the bound on flows",
        |m| m.accept_pauses.get(),
    ),
    (
        "flux_lb_refused_full",
        "Connections closed at flows_max",
        |m| m.refused_full.get(),
    ),
    (
        "flux_lb_refused_source_full",
        "Connections closed at flows_per_source_max",
        |m| m.refused_source_full.get(),
    ),
    ("flux_lb_placed_by_sid", "Connections placed by sid", |m| {
        m.placed_by_sid.get()
    }),
    (
        "flux_lb_placed_by_source",
        "Connections placed by source address",
        |m| m.placed_by_source.get(),
    ),
    (
        "flux_lb_opaque_heads",
        "Connections passed on without a usable head (too long, too slow, not HTTP)",
        |m| m.opaque_heads.get(),
    ),
    ("flux_lb_retries", "Attempts on a next node", |m| {
        m.retries.get()
    }),
    ("flux_lb_no_node", "Connections that no node took", |m| {
        m.no_node.get()
    }),
    (
        "flux_lb_flows_cut",
        "Flows cut because their node was gone",
        |m| m.cut.get(),
    ),
    (
        "flux_lb_flows_stalled",
        "Flows ended because one side took nothing for stalled_timeout_ms",
        |m| m.stalled.get(),
    ),
    (
        "flux_lb_flows_half_closed_expired",
        "Flows ended after half_closed_timeout_ms with one direction closed",
        |m| m.half_closed_expired.get(),
    ),
    ("flux_lb_flows_reset", "Flows ended by a reset", |m| {
        m.reset.get()
    }),
    ("flux_lb_flows_drained", "Flows cut by the drain", |m| {
        m.drained.get()
    }),
    (
        "flux_lb_backpressure",
        "Times a side was not read because the other did not keep up",
        |m| m.backpressure.get(),
    ),
    (
        "flux_lb_buffers_copied",
        "Receive buffers copied because few were left",
        |m| m.copied.get(),
    ),
    (
        "flux_lb_received_without_buffer",
        "Receives that found no buffer",
        |m| m.no_buffers.get(),
    ),
    ("flux_lb_ring_enters", "io_uring_enter calls", |m| {
        m.enters.get()
    }),
    (
        "flux_lb_received_bytes",
        "Bytes received from clients and nodes",
        |m| m.bytes_received.get(),
    ),
    (
        "flux_lb_sent_bytes",
        "Bytes sent to clients and nodes",
        |m| m.bytes_sent.get(),
    ),
];

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl Collector for View {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, of) in COUNTERS {
            let counter = ConstCounter::new(self.sum(of));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        self.encode_failures(&mut encoder)?;
        self.encode_shards(&mut encoder)?;
        self.encode_nodes(&mut encoder)?;
        self.encode_registry(&mut encoder)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, f64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (of, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&[(label, of)])?)?;
    }
    Ok(())
}

impl View {
    fn encode_failures(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Attempts that failed before the first byte, by reason";
        let mut family = encoder.encode_descriptor(
            "flux_lb_connect_failures",
            help,
            None,
            MetricType::Counter,
        )?;
        for (at, failure) in FlowFailure::ALL.iter().enumerate() {
            let counter = ConstCounter::new(self.sum(|meters| meters.failures[at].get()));
            counter.encode(family.encode_family(&[("reason", failure.as_str())])?)?;
        }
        Ok(())
    }

    fn encode_shards(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let names: Vec<String> = (0..self.meters().len())
            .map(|shard| shard.to_string())
            .collect();
        let flows = self.meters().iter().map(|meters| meters.flows.get() as f64);
        let by_shard = names.iter().map(String::as_str).zip(flows);
        gauges(
            encoder,
            "flux_lb_shard_flows",
            "Flows of each shard",
            "shard",
            by_shard,
        )?;
        let busy = self.lock().busy.clone();
        let by_shard = names
            .iter()
            .map(String::as_str)
            .zip(busy.into_iter().map(f64::from));
        gauges(
            encoder,
            "flux_lb_shard_busy_ratio",
            "Share of recent time that a shard worked",
            "shard",
            by_shard,
        )?;
        gauge(
            encoder,
            "flux_lb_flows",
            "Flows at present",
            self.sum(|meters| meters.flows.get()) as f64,
        )?;
        gauge(
            encoder,
            "flux_lb_flows_max",
            "Flows at most",
            self.caps().flows_max() as f64,
        )
    }

    fn encode_nodes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let nodes = self.lock().table.statuses(Instant::now());
        let each = |of: fn(&crate::balance::NodeStatus) -> f64| {
            nodes.iter().map(move |node| (node.id.as_str(), of(node)))
        };
        gauges(
            encoder,
            "flux_lb_node_flows",
            "Flows to each node",
            "node",
            each(|node| node.flows as f64),
        )?;
        gauges(
            encoder,
            "flux_lb_node_eligible",
            "Whether a node takes new connections",
            "node",
            each(|node| f64::from(u8::from(node.eligible))),
        )?;
        gauges(
            encoder,
            "flux_lb_node_probe_ok",
            "Whether a node's probes pass",
            "node",
            each(|node| f64::from(u8::from(node.probe == "ok"))),
        )
    }

    fn encode_registry(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let changing = self.lock();
        let snapshot = &changing.snapshot;
        let age = snapshot
            .age_at(Instant::now())
            .map_or(f64::INFINITY, |age| age.as_secs_f64());
        let on = |yes: bool| f64::from(u8::from(yes));
        gauge(
            encoder,
            "flux_lb_registry_age_seconds",
            "Age of what is known from the registry",
            age,
        )?;
        gauge(
            encoder,
            "flux_lb_registry_ok",
            "Whether the registry can be read",
            on(snapshot.state == RegistryState::Ok),
        )?;
        gauge(
            encoder,
            "flux_lb_last_known_good",
            "Whether routing rests on nodes known before",
            on(snapshot.doubt.is_some()),
        )?;
        gauge(
            encoder,
            "flux_lb_registry_rejected",
            "Records refused in the last read",
            snapshot.rejected as f64,
        )?;
        gauge(
            encoder,
            "flux_lb_panic",
            "Whether under half of the nodes are eligible, so that all are tried",
            on(changing.table.panicking()),
        )
    }
}
