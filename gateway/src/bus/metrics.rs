//! What the bus counts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// A number that one thread writes and another reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// It is this now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the bus counts.
#[derive(Debug, Default)]
pub struct BusMetrics {
    /// 1 while other nodes can be reached.
    pub up: Count,
    /// Connections lost.
    pub lost: Count,
    /// Attempts to connect that failed.
    pub connect_failures: Count,
    /// Requests sent.
    pub asked: Count,
    /// Requests of others carried out.
    pub performed: Count,
    /// Nodes that did not answer in time, by request.
    pub unanswered: Count,
    /// Answers that nobody waited for any more.
    pub late: Count,
    /// What came along and was no document of ours.
    pub refused: Count,
    /// Requests and documents dropped because a queue was full.
    pub dropped: Count,
}

/// A counter: name, what it counts, where it stands.
type OfBus = (&'static str, &'static str, fn(&BusMetrics) -> &Count);

const COUNTERS: [OfBus; 8] = [
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
        let up = encoder.encode_descriptor(
            "flux_bus_up",
            "1 while other nodes can be reached",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(self.0.up.get() as i64).encode(up)?;
        for (name, help, read) in COUNTERS {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(read(&self.0).get()).encode(metric)?;
        }
        Ok(())
    }
}
