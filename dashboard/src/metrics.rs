//! Metrics: names, meaning, and the copy of figures into them at a scrape.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::document::{RegistryState, State};
use crate::stream::Streams;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

/// The dashboard's own figures.
#[derive(Debug)]
pub(crate) struct Metrics {
    streams: Gauge,
    documents: Counter,
    nodes: Family<OfState, Gauge>,
    balancers_unreachable: Gauge,
    registry_readable: Gauge,
    registry_age_seconds: Gauge<f64, AtomicU64>,
    registry_rejected: Gauge,
    timeline_events: Counter,
}

impl Metrics {
    /// The metrics and the registry that holds them.
    #[must_use]
    pub(crate) fn new() -> (Self, Registry) {
        let metrics = Self {
            streams: Gauge::default(),
            documents: Counter::default(),
            nodes: Family::default(),
            balancers_unreachable: Gauge::default(),
            registry_readable: Gauge::default(),
            registry_age_seconds: Gauge::default(),
            registry_rejected: Gauge::default(),
            timeline_events: Counter::default(),
        };
        let mut registry = Registry::with_prefix("flux_dashboard");
        registry.register(
            "streams",
            "Event streams that are open",
            metrics.streams.clone(),
        );
        registry.register(
            "documents_sent",
            "Documents sent over event streams",
            metrics.documents.clone(),
        );
        registry.register("nodes", "Nodes by state as shown", metrics.nodes.clone());
        registry.register(
            "balancers_unreachable",
            "Balancers that do not answer",
            metrics.balancers_unreachable.clone(),
        );
        registry.register(
            "registry_readable",
            "1 while the registry can be read",
            metrics.registry_readable.clone(),
        );
        registry.register(
            "registry_age_seconds",
            "Age of the newest registry snapshot",
            metrics.registry_age_seconds.clone(),
        );
        registry.register(
            "registry_rejected",
            "Records refused in the newest registry snapshot",
            metrics.registry_rejected.clone(),
        );
        registry.register(
            "timeline_events",
            "State changes seen",
            metrics.timeline_events.clone(),
        );
        (metrics, registry)
    }

    /// Copies what is known now.
    pub(crate) fn refresh(&self, streams: &Streams) {
        self.streams.set(streams.open() as i64);
        raise(&self.documents, streams.sent());
        let Some(frame) = streams.newest() else {
            return;
        };
        let document = &frame.document;
        for (state, word) in [
            (State::Starting, "starting"),
            (State::Ready, "ready"),
            (State::Draining, "draining"),
            (State::Dead, "dead"),
        ] {
            let nodes = document.nodes.iter().filter(|n| n.state == state).count();
            let of_state = OfState { state: word };
            self.nodes.get_or_create(&of_state).set(nodes as i64);
        }
        let lost = document
            .balancers
            .iter()
            .filter(|b| b.state == "unreachable");
        self.balancers_unreachable.set(lost.count() as i64);
        self.registry_readable
            .set(i64::from(document.registry.state == RegistryState::Ok));
        self.registry_age_seconds
            .set(document.registry.age_ms as f64 / 1000.0);
        self.registry_rejected
            .set(document.registry.rejected as i64);
        raise(&self.timeline_events, document.timeline_last);
    }
}

fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
