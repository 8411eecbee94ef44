//! What the server API counts.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::answer::Outcome;
use super::request::Method;
use crate::bus::Count;

/// What the server API counts.
#[derive(Debug, Default)]
pub struct ApiMetrics {
    requests: [Count; Method::ALL.len()],
    errors: [Count; Method::ALL.len()],
    /// Requests without the key.
    pub unauthorized: Count,
    /// Bodies that are not what the method takes.
    pub unreadable: Count,
}

impl ApiMetrics {
    /// A request was carried out.
    pub fn count(&self, method: Method, outcome: &Outcome) {
        self.requests[method as usize].inc();
        if outcome.result.is_err() {
            self.errors[method as usize].inc();
        }
    }
}

/// Read at each scrape.
#[derive(Debug)]
pub struct ApiCollector(pub Arc<ApiMetrics>);

impl Collector for ApiCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let by_method = [
            (
                "flux_api_requests",
                "Requests to the server API, those inside batches included",
                &self.0.requests,
            ),
            (
                "flux_api_errors",
                "Requests to the server API that were answered with an error",
                &self.0.errors,
            ),
        ];
        for (name, help, counts) in by_method {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (method, count) in Method::ALL.iter().zip(counts) {
                ConstCounter::new(count.get())
                    .encode(metric.encode_family(&[("method", method.name())])?)?;
            }
        }
        let plain = [
            (
                "flux_api_unauthorized",
                "Requests to the server API without its key",
                &self.0.unauthorized,
            ),
            (
                "flux_api_unreadable",
                "Requests to the server API that are not what the method takes",
                &self.0.unreadable,
            ),
        ];
        for (name, help, count) in plain {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count.get()).encode(metric)?;
        }
        Ok(())
    }
}
