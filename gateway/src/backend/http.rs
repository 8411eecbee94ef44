//! The HTTP client that asks the backend and fetches key sets.

use std::error::Error as _;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier, WantsVersions};

use crate::config::TlsConfig;

/// Idle connections kept for the next question, per endpoint.
const IDLE_CONNECTIONS_MAX: usize = 256;

/// A client: TLS by `rustls` with the certificates that the machine trusts (`SSL_CERT_FILE` adds
/// others), no redirects, no proxy of the environment.
///
/// # Errors
/// One line with the cause.
pub fn client() -> Result<reqwest::Client, String> {
    let roots = machine_roots();
    if roots.is_empty() {
        tracing::warn!(
            "this machine trusts no certificates: https:// endpoints will not be reached; install \
             ca-certificates, or name a file in SSL_CERT_FILE"
        );
    }
    let tls = versions(ClientConfig::builder_with_provider(provider()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    made(tls)
}

/// One for an endpoint that has authorities or wants a certificate of its own, as the
/// configuration's key `name` says.
///
/// # Errors
/// One line with the key, what is wrong with it, and the remedy.
pub(super) fn client_with(name: &str, tls: &TlsConfig) -> Result<reqwest::Client, String> {
    let read = tls.read(name)?;
    let bad = |key: &str, what: String| {
        format!("config key `{name}.{key}`: {what}; give certificates or a key in PEM")
    };
    let certificates = |key: &str, pem: &[u8]| {
        let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            Ok(_) => Err(bad(key, "there is no certificate in it".to_owned())),
            Err(error) => Err(bad(key, error.to_string())),
        }
    };
    let roots = match &read.ca_pem {
        None => machine_roots(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("server_ca_pem", pem)? {
                let added = roots.add(certificate);
                added.map_err(|error| bad("server_ca_pem", error.to_string()))?;
            }
            roots
        }
    };
    let builder =
        versions(ClientConfig::builder_with_provider(provider()))?.with_root_certificates(roots);
    let config = match &read.client_certificate {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(&own.key_pem);
            let key = key.map_err(|error| bad("key_pem", error.to_string()))?;
            builder
                .with_client_auth_cert(certificates("cert_pem", &own.certificate_pem)?, key)
                .map_err(|error| bad("cert_pem", error.to_string()))?
        }
    };
    made(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn versions(
    builder: ConfigBuilder<ClientConfig, WantsVersions>,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    let chosen = builder.with_safe_default_protocol_versions();
    chosen.map_err(|error| format!("TLS cannot be had: {error}"))
}

/// The certificates that the machine trusts.
fn machine_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if unusable > 0 {
        tracing::debug!(unusable, "certificates of the machine are not usable");
    }
    roots
}

fn made(tls: ClientConfig) -> Result<reqwest::Client, String> {
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
