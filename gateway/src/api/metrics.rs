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
    refused: [Count; Refused::ALL.len()],
}

/// Why a request with the key does not come as far as its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no method of that name.
    UnknownMethod,
    /// It is no POST.
    NotPost,
    /// Its body is longer than it may be.
    TooLarge,
    /// Its body does not come to its end.
    CutOff,
}

impl Refused {
    const ALL: [Self; 4] = [
        Self::UnknownMethod,
        Self::NotPost,
        Self::TooLarge,
        Self::CutOff,
    ];

    const fn reason(self) -> &'static str {
        match self {
            Self::UnknownMethod => "unknown_method",
            Self::NotPost => "not_post",
            Self::TooLarge => "too_large",
            Self::CutOff => "cut_off",
        }
    }
}

impl ApiMetrics {
    /// A request did not come as far as its method.
    pub fn refuse(&self, why: Refused) {
        self.refused[why as usize].inc();
    }

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
        let help = "Requests to the server API that did not come as far as their method";
        let mut metric =
            encoder.encode_descriptor("flux_api_refused", help, None, MetricType::Counter)?;
        for (why, count) in Refused::ALL.iter().zip(&self.0.refused) {
            ConstCounter::new(count.get())
                .encode(metric.encode_family(&[("reason", why.reason())])?)?;
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
