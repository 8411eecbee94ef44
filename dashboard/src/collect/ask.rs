//! One question to an admin address: bounded in time and size, its failures in
//! a person's words.

use std::error::Error as _;
use std::io;

use serde_json::Value;

use crate::limits::{ANSWER_BYTES_MAX, PROBE_TIMEOUT};

/// The one client of the process. Follows no redirect and uses no proxy: an
/// admin address is asked itself or not at all.
pub(crate) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(flux_registry::tls_without_authorities())
        .timeout(PROBE_TIMEOUT)
        .connect_timeout(PROBE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(1)
        .user_agent(concat!("flux-dashboard/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Status and JSON body of `url`.
pub(crate) async fn get(client: &reqwest::Client, url: &str) -> Result<(u16, Value), String> {
    let mut response = client.get(url).send().await.map_err(|e| words(&e))?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| words(&e))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("answer of more than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    match serde_json::from_slice(&body) {
        Ok(value) => Ok((status, value)),
        Err(_) => Err(format!("HTTP {status} without JSON")),
    }
}

/// The three lists of `/ready`.
pub(crate) async fn ready(
    client: &reqwest::Client,
    base: &str,
) -> Result<(bool, Vec<String>, Vec<String>), String> {
    let (status, body) = get(client, &format!("{base}/ready")).await?;
    if status != 200 && status != 503 {
        return Err(format!("HTTP {status}"));
    }
    let list = |name: &str| -> Vec<String> {
        let items = body.get(name).and_then(Value::as_array);
        let items = items.map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .take(16)
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    let mut reasons = list("reasons");
    if status == 503 && reasons.is_empty() {
        reasons.push("not ready".to_owned());
    }
    Ok((status == 200, reasons, list("degraded")))
}

fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(io) = source.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
                io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
                io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
                io::ErrorKind::UnexpectedEof => "connection closed".to_owned(),
                _ => io.to_string(),
            };
        }
        cause = source.source();
    }
    if error.is_connect() {
        "no connection".to_owned()
    } else {
        "connection closed".to_owned()
    }
}
