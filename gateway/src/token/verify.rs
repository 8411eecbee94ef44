//! From a token to what it grants.

use std::sync::Arc;
use std::time::SystemTime;

use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde_json::value::RawValue;

use super::claims::{Rules, SubscribeToken};
use super::jwks::{Jwks, NoKey};
use super::keys::{Key, StaticKeys};
use super::{TokenConfig, TokenError};
use crate::authority::payload::Allowed;
use crate::authority::{AuthorityMetrics, ConnectGrant};
use crate::limits::TOKEN_BYTES_MAX;

/// Verifies the tokens of one section of the configuration.
pub struct Verifier {
    source: Source,
    rules: Rules,
    metrics: Arc<AuthorityMetrics>,
}

enum Source {
    Static(StaticKeys),
    Jwks(Jwks),
}

impl Verifier {
    /// A verifier; with a key set, the keys of the configuration are not used.
    ///
    /// # Errors
    /// As [`TokenConfig::check`].
    pub fn new(
        config: &TokenConfig,
        section: &str,
        client: reqwest::Client,
        metrics: Arc<AuthorityMetrics>,
    ) -> Result<Self, String> {
        config.check(section)?;
        let source = if config.jwks_public_endpoint.is_empty() {
            Source::Static(StaticKeys::new(config).map_err(|(_, what)| what)?)
        } else {
            Source::Jwks(Jwks::new(
                &config.jwks_public_endpoint,
                client,
                Arc::clone(&metrics),
            ))
        };
        Ok(Self {
            source,
            rules: Rules::new(config)?,
            metrics,
        })
    }

    /// What a connection token grants at `now`. Waits for a key set at most; cancel-safe.
    ///
    /// # Errors
    /// Why it grants nothing.
    pub async fn connect(&self, token: &str, now: SystemTime) -> Result<ConnectGrant, TokenError> {
        let claims = self.claims(token, now).await;
        self.count(claims.and_then(|claims| self.rules.connect(claims.get(), now)))
    }

    /// What a subscription token grants at `now`, and to whom. As [`Verifier::connect`].
    pub(crate) async fn subscribe(
        &self,
        token: &str,
        data: Allowed,
        now: SystemTime,
    ) -> Result<SubscribeToken, TokenError> {
        let claims = self.claims(token, now).await;
        self.count(claims.and_then(|claims| self.rules.subscribe(claims.get(), data, now)))
    }

    /// The claims, once the signature holds.
    async fn claims(&self, token: &str, now: SystemTime) -> Result<Box<RawValue>, TokenError> {
        let header = header(token)?;
        match &self.source {
            Source::Static(keys) => {
                let mut keys = keys.for_algorithm(header.alg, now).peekable();
                if keys.peek().is_none() {
                    return Err(TokenError::Invalid("there is no key for its algorithm"));
                }
                keys.find_map(|key| signed(token, key).ok())
                    .ok_or(TokenError::Invalid("the signature does not hold"))
            }
            Source::Jwks(set) => {
                let Some(id) = header.kid else {
                    return Err(TokenError::Invalid("it names no key (`kid`)"));
                };
                let key = set.key(&id).await.map_err(|why| match why {
                    NoKey::Unknown => TokenError::Invalid("the key set has no key of that id"),
                    NoKey::Away => TokenError::Unjudged,
                })?;
                if !key.may_verify(header.alg) {
                    return Err(TokenError::Invalid("its key is not for its algorithm"));
                }
                signed(token, &key).map_err(|()| TokenError::Invalid("the signature does not hold"))
            }
        }
    }

    fn count<T>(&self, outcome: Result<T, TokenError>) -> Result<T, TokenError> {
        match &outcome {
            Ok(_) => self.metrics.tokens_accepted.add(1),
            Err(TokenError::Expired | TokenError::ExpiredAtOnce) => {
                self.metrics.tokens_expired.add(1);
            }
            Err(TokenError::Invalid(why)) => {
                tracing::debug!(why, "a token is invalid");
                self.metrics.tokens_invalid.add(1);
            }
            Err(TokenError::Unjudged) => self.metrics.tokens_unjudged.add(1),
        }
        outcome
    }
}

/// What a token says of itself; nothing of it is believed yet.
fn header(token: &str) -> Result<Header, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Invalid("it is too long"));
    }
    let header = decode_header(token)
        .map_err(|_| TokenError::Invalid("it is no JWT of an algorithm that exists here"))?;
    // RFC 7515, 4.1.11: what is critical and not understood makes it invalid.
    if header.crit.is_some() {
        return Err(TokenError::Invalid(
            "its header demands extensions (`crit`)",
        ));
    }
    Ok(header)
}

/// The claims of a token that `key` has signed, by one of the key's own algorithms.
pub(super) fn signed(token: &str, key: &Key) -> Result<Box<RawValue>, ()> {
    let first = key.algorithms().first().ok_or(())?;
    let mut validation = Validation::new(*first);
    validation.algorithms = key.algorithms().to_vec();
    // Claims are judged by `claims`, with the clock that is passed in.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    decode(token, key.material(), &validation)
        .map(|data| data.claims)
        .map_err(|_| ())
}

/// Feeds anything to the parsers of tokens, as tests and the fuzzer do. What would be granted to a
/// client that reads JSON.
#[must_use]
pub fn examine(token: &str, now: SystemTime) -> Vec<Vec<u8>> {
    let keys = TokenConfig {
        hmac_secret_key: super::Secret::new("secret"),
        ..TokenConfig::default()
    };
    if let Ok(header) = header(token)
        && let Ok(keys) = StaticKeys::new(&keys)
    {
        for key in keys.for_algorithm(header.alg, now) {
            let _ = signed(token, key);
        }
    }
    let mut granted = Vec::new();
    if let Ok(rules) = Rules::new(&TokenConfig::default()) {
        if let Ok(grant) = rules.connect(token, now) {
            granted.extend([grant.info, grant.data, grant.meta]);
            let subs = grant.subs.into_iter();
            granted.extend(subs.flat_map(|(_, grant)| [grant.info, grant.data]));
        }
        if let Ok(read) = rules.subscribe(token, Allowed::Json, now) {
            granted.extend([read.grant.info, read.grant.data]);
        }
        let _ = rules.subscribe(token, Allowed::Bytes, now);
    }
    granted
}

/// The same for key sets: how many keys would be used.
///
/// # Errors
/// Where it is no key set.
pub fn examine_key_set(document: &[u8]) -> Result<usize, String> {
    super::jwks::parse(document).map(|keys| keys.len())
}
