//! What the authority and the backend's endpoints count.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::{Count, Row, encode_rows, encode_value};
use crate::authority::AuthorityMetrics;
use crate::backend::{Endpoint, EndpointMetrics};

const GAUGES: [Row<AuthorityMetrics>; 1] = [(
    "flux_questions_in_flight",
    "Questions of sessions being answered",
    |m| &m.questions_in_flight,
)];

const COUNTERS: [Row<AuthorityMetrics>; 8] = [
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

const ENDPOINT_GAUGES: [Row<EndpointMetrics>; 1] = [(
    "flux_backend_breaker_open",
    "1 while an endpoint that failed is left alone",
    |m| &m.breaker_open,
)];

const ENDPOINT_COUNTERS: [Row<EndpointMetrics>; 4] = [
    (
        "flux_backend_asked",
        "Exchanges with the backend begun",
        |m| &m.asked,
    ),
    (
        "flux_backend_answered",
        "Exchanges that brought an answer",
        |m| &m.answered,
    ),
    (
        "flux_backend_exchange_microseconds",
        "Time that exchanges with the backend took",
        |m| &m.micros,
    ),
    (
        "flux_backend_breaker_opened",
        "Times that an endpoint was left alone",
        |m| &m.breaker_opened,
    ),
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

/// Read at each scrape.
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
        kind: MetricType,
        rows: &[Row<EndpointMetrics>],
    ) -> fmt::Result {
        for (name, help, read) in rows {
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for endpoint in &self.endpoints {
                let labels = [("endpoint", endpoint.name())];
                let value = read(endpoint.metrics()).get();
                encode_value(metric.encode_family(&labels)?, kind, value)?;
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
        let authority = std::slice::from_ref(&self.authority);
        encode_rows(&mut encoder, MetricType::Gauge, &GAUGES, authority)?;
        encode_rows(&mut encoder, MetricType::Counter, &COUNTERS, authority)?;
        let help = "Tokens judged, by outcome";
        let mut metric =
            encoder.encode_descriptor("flux_tokens", help, None, MetricType::Counter)?;
        for (outcome, read) in TOKENS {
            let count = ConstCounter::new(read(&self.authority).get());
            count.encode(metric.encode_family(&[("outcome", outcome)])?)?;
        }
        self.encode_endpoints(&mut encoder, MetricType::Gauge, &ENDPOINT_GAUGES)?;
        self.encode_endpoints(&mut encoder, MetricType::Counter, &ENDPOINT_COUNTERS)?;
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
