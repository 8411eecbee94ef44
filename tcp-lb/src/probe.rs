//! One active probe: GET `/ready` on a node's admin address.
//!
//! Over HTTP, since the kernel of a frozen process still completes TCP handshakes; on a new connection
//! each time, since an old one says nothing about whether the process still accepts. What each shard
//! does is the node's to know: it answers 503 when one of its shards does not.

use std::error::Error;
use std::net::SocketAddr;

use reqwest::{Client, StatusCode};

use crate::health::{PROBE_TIMEOUT, Probe};
use crate::limits;

/// A client for all probes.
///
/// # Errors
/// When the HTTP client cannot be built.
pub fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .tls_backend_preconfigured(flux_registry::tls_without_authorities())
        .timeout(PROBE_TIMEOUT)
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// Probes a node. Dropping the future ends the probe without a result.
pub async fn probe(client: &Client, admin: SocketAddr) -> Probe {
    match client.get(format!("http://{admin}/ready")).send().await {
        Ok(answer) if answer.status() == StatusCode::OK => Probe::Passed,
        Ok(answer) => {
            let status = answer.status().as_u16();
            match reasons(answer).await {
                Some(reasons) => Probe::Failed(format!("says {status}: {reasons}")),
                None => Probe::Failed(format!("says {status}")),
            }
        }
        Err(error) if error.is_timeout() => {
            Probe::Failed(format!("no answer within {} ms", PROBE_TIMEOUT.as_millis()))
        }
        Err(error) => Probe::Failed(root_cause(&error)),
    }
}

/// Why the node is not ready, from the body that every Flux process answers with.
async fn reasons(mut answer: reqwest::Response) -> Option<String> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > limits::PROBE_ANSWER_BYTES {
            return None;
        }
    }
    let document: serde_json::Value = serde_json::from_slice(&body).ok()?;
    let reasons: Vec<&str> = document
        .get("reasons")?
        .as_array()?
        .iter()
        .filter_map(|reason| reason.as_str())
        .collect();
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
