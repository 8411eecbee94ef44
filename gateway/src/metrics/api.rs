//! What the server API counts.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::{Row, encode_rows};
use crate::api::metrics::{ApiMetrics, Refused};
use crate::api::request::Method;

const COUNTERS: [Row<ApiMetrics>; 2] = [
    (
        "flux_api_unauthorized",
        "Requests to the server API without its key",
        |m| &m.unauthorized,
    ),
    (
        "flux_api_unreadable",
        "Requests to the server API that are not what the method takes",
        |m| &m.unreadable,
    ),
];

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
        let help = "Requests to the server API that did not come as far as their method";
        let mut metric =
            encoder.encode_descriptor("flux_api_refused", help, None, MetricType::Counter)?;
        for (why, count) in Refused::ALL.iter().zip(&self.0.refused) {
            ConstCounter::new(count.get())
                .encode(metric.encode_family(&[("reason", why.reason())])?)?;
        }
        let api = std::slice::from_ref(&self.0);
        encode_rows(&mut encoder, MetricType::Counter, &COUNTERS, api)
    }
}
