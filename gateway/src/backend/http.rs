//! The HTTP client that asks the backend and fetches key sets.

use std::error::Error as _;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// Idle connections kept for the next question, per endpoint.
const IDLE_CONNECTIONS_MAX: usize = 256;

/// A client: TLS by `rustls` with the certificates that the machine trusts (`SSL_CERT_FILE` adds
/// others), no redirects, no proxy of the environment.
///
/// # Errors
/// One line with the cause.
pub fn client() -> Result<reqwest::Client, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if unusable > 0 {
        tracing::debug!(unusable, "certificates of the machine are not usable");
    }
    if roots.is_empty() {
        tracing::warn!(
            "this machine trusts no certificates: https:// endpoints will not be reached; install \
             ca-certificates, or name a file in SSL_CERT_FILE"
        );
    }
    let tls =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be had: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .user_agent(concat!("flux-gateway/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| format!("the HTTP client cannot be made: {}", explain(&error)))
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is longer than it may be.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// The connection broke.
    #[error("cut off: {0}")]
    CutOff(String),
}

/// A body of at most `max` bytes; no more is read of a longer one.
pub(crate) async fn read_bounded(
    mut response: reqwest::Response,
    max: usize,
) -> Result<Vec<u8>, BodyError> {
    if response
        .content_length()
        .is_some_and(|length| length > max as u64)
    {
        return Err(BodyError::TooLong(max));
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > max => {
                return Err(BodyError::TooLong(max));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(BodyError::CutOff(explain(&error))),
        }
    }
}

/// An error with its causes: the outermost one alone says little. Without the URL, which is known
/// and may carry credentials.
pub(crate) fn explain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.is_empty() {
        return if error.is_timeout() {
            "timed out".to_owned()
        } else {
            "failed".to_owned()
        };
    }
    text
}
