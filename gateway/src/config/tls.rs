//! Centrifugo's `tls` of those that the gateway is a client of: Redis, and the backend.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flux_registry::{ClientCertificate, RedisTls};
use serde::{Deserialize, Serialize};

/// TLS as a client. The PEM keys hold the text itself, its base64, or the name of a file.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Also where an address does not ask for it.
    pub enabled: bool,
    /// Certificates to trust instead of the public authorities.
    pub server_ca_pem: String,
    /// Our own certificate.
    pub cert_pem: String,
    /// And its key.
    pub key_pem: String,
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig")
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// Reads what the PEM keys name. They count only with `enabled`, as in Centrifugo.
    pub(crate) fn read(&self, key: &str) -> Result<RedisTls, String> {
        if !self.enabled {
            return Ok(RedisTls::default());
        }
        let part = |name: &str, text: &str| {
            pem(text).map_err(|why| format!("config key `{key}.{name}`: {why}"))
        };
        let certificate = part("cert_pem", &self.cert_pem)?;
        let private = part("key_pem", &self.key_pem)?;
        let client_certificate = match (certificate, private) {
            (None, None) => None,
            (Some(certificate_pem), Some(key_pem)) => Some(ClientCertificate {
                certificate_pem,
                key_pem,
            }),
            _ => {
                return Err(format!(
                    "config key `{key}`: cert_pem and key_pem belong together; give both or neither"
                ));
            }
        };
        Ok(RedisTls {
            enabled: true,
            ca_pem: part("server_ca_pem", &self.server_ca_pem)?,
            client_certificate,
        })
    }
}

/// The PEM that a text is, encodes or names. The text is not repeated in an error: it may be a key.
fn pem(text: &str) -> Result<Option<Vec<u8>>, String> {
    const BEGIN: &str = "-----BEGIN";
    if text.is_empty() {
        return Ok(None);
    }
    if text.contains(BEGIN) {
        return Ok(Some(text.as_bytes().to_vec()));
    }
    if let Ok(decoded) = BASE64.decode(text)
        && decoded.starts_with(BEGIN.as_bytes())
    {
        return Ok(Some(decoded));
    }
    match std::fs::read(text) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => Err(format!(
            "neither PEM text, nor base64 of it, nor a file that can be read ({error}); give one of them"
        )),
    }
}
