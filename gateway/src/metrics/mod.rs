//! The one place for the names of the gateway's metrics, one file for each part that counts.
//!
//! The parts count into atomics of their own; a collector reads them at each scrape.

mod api;
mod authority;
mod bus;
mod engine;
mod shards;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

pub use api::ApiCollector;
pub use authority::AuthorityCollector;
pub use bus::BusCollector;
pub use engine::EngineCollector;
pub use shards::ShardMetrics;

/// A number that any thread may change and read; on the data path see [`crate::shard::Counter`].
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A number of a part: name, what it says, where it stands.
type Row<P> = (&'static str, &'static str, fn(&P) -> &Count);

/// Metrics without labels, summed over the parts.
fn encode_rows<P>(
    encoder: &mut DescriptorEncoder<'_>,
    kind: MetricType,
    rows: &[Row<P>],
    parts: &[Arc<P>],
) -> fmt::Result {
    for (name, help, read) in rows {
        let sum = parts.iter().map(|part| read(part).get()).sum();
        encode_value(
            encoder.encode_descriptor(name, help, None, kind)?,
            kind,
            sum,
        )?;
    }
    Ok(())
}

fn encode_value(encoder: MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
    match kind {
        MetricType::Gauge => ConstGauge::new(value as i64).encode(encoder),
        _ => ConstCounter::new(value).encode(encoder),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn every_metric_is_ours_by_its_name_and_stands_once_on_the_page() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ShardMetrics::new(vec![Arc::default()])));
        registry.register_collector(Box::new(EngineCollector::new(vec![Arc::default()])));
        registry.register_collector(Box::new(ApiCollector(Arc::default())));
        registry.register_collector(Box::new(BusCollector(Arc::default())));
        let authority = AuthorityCollector::new(Arc::default(), Vec::new());
        registry.register_collector(Box::new(authority));
        let mut page = String::new();
        encode(&mut page, &registry).expect("text");
        let mut names = HashSet::new();
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().expect("a name");
            assert!(name.starts_with("flux_"), "{name}");
            assert!(names.insert(name), "{name} stands twice");
        }
        assert!(names.len() > 50, "{}", names.len());
    }
}
