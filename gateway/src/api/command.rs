//! `flux-gateway publish`: the server API for people at a terminal.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

/// Longest wait for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `flux-gateway publish` takes. The key of the server API is taken from the environment
/// (`FLUX_HTTP_API_KEY`, or a file named by `FLUX_HTTP_API_KEY_FILE`) or the configuration file,
/// never from an argument, which others could see.
#[derive(Args, Debug, Clone)]
pub struct PublishArguments {
    /// Name of the channel.
    pub channel: String,
    /// What to publish: JSON; text that is none is published as a JSON string.
    pub data: String,
    /// Admin address of a node.
    #[arg(long, default_value = "http://127.0.0.1:8100")]
    pub address: String,
    /// Configuration file with the key: .toml, .json, .yaml.
    #[arg(long, env = "FLUX_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Publishes, and says what the node answers.
///
/// # Errors
/// One line with what is wrong and what to do.
pub async fn publish(arguments: &PublishArguments, key: &str) -> Result<String, String> {
    let PublishArguments {
        channel,
        data,
        address,
        ..
    } = arguments;
    let data: Value = serde_json::from_str(data).unwrap_or_else(|_| data.as_str().into());
    let url = format!("{}/api/publish", address.trim_end_matches('/'));
    let client = crate::backend::http::client()?;
    let body = serde_json::json!({ "channel": channel, "data": data });
    let mut request = client.post(&url).timeout(PATIENCE).json(&body);
    if !key.is_empty() {
        request = request.header(super::access::KEY_HEADER, key);
    }
    let response = request.send().await.map_err(|error| {
        let error = error.without_url();
        format!("{address} does not answer: {error}; name a node's admin address with --address")
    })?;
    let status = response.status();
    let text = response
        .text()
        .await
        .map_err(|error| format!("{address} broke off: {}", error.without_url()))?;
    match status.as_u16() {
        200 => {}
        401 if key.is_empty() => {
            return Err(format!("{address} wants a key: set FLUX_HTTP_API_KEY"));
        }
        401 => {
            return Err(format!(
                "{address} does not know this key: check FLUX_HTTP_API_KEY"
            ));
        }
        404 => {
            return Err(format!(
                "{address} has no server API: set http_api.key there, and name its admin address"
            ));
        }
        _ => return Err(format!("{address} answers {status}: {text}")),
    }
    let answer: Value = serde_json::from_str(&text)
        .map_err(|_| format!("{address} answers with something that is no JSON: {text}"))?;
    match answer.get("error") {
        Some(error) => Err(format!("not published: {error}")),
        None => Ok(answer["result"].to_string()),
    }
}
