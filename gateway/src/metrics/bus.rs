//! What the bus counts.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Row, encode_rows};
use crate::bus::BusMetrics;

const GAUGES: [Row<BusMetrics>; 1] = [("flux_bus_up", "1 while other nodes can be reached", |m| {
    &m.up
})];

const COUNTERS: [Row<BusMetrics>; 8] = [
    (
        "flux_bus_lost",
        "Times that the connection between nodes was lost",
        |m| &m.lost,
    ),
    (
        "flux_bus_connect_failures",
        "Attempts to connect the bus that failed",
        |m| &m.connect_failures,
    ),
    ("flux_bus_asked", "Requests sent to other nodes", |m| {
        &m.asked
    }),
    (
        "flux_bus_performed",
        "Requests of other nodes carried out",
        |m| &m.performed,
    ),
    (
        "flux_bus_unanswered",
        "Nodes that did not answer a request in time",
        |m| &m.unanswered,
    ),
    (
        "flux_bus_late",
        "Answers that nobody waited for any more",
        |m| &m.late,
    ),
    (
        "flux_bus_refused",
        "Messages between nodes that are not in our format",
        |m| &m.refused,
    ),
    (
        "flux_bus_dropped",
        "Requests and messages dropped because a queue was full",
        |m| &m.dropped,
    ),
];

/// Read at each scrape.
#[derive(Debug)]
pub struct BusCollector(pub Arc<BusMetrics>);

impl Collector for BusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let bus = std::slice::from_ref(&self.0);
        encode_rows(&mut encoder, MetricType::Gauge, &GAUGES, bus)?;
        encode_rows(&mut encoder, MetricType::Counter, &COUNTERS, bus)
    }
}
