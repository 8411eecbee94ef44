//! JSON Web Key Sets (RFC 7517): fetched, kept for an hour, fetched again where a key is unknown.
//!
//! Invariants
//! - One fetch at a time, and none within [`REFETCH_PAUSE`] of the last one: tokens with made-up
//!   key ids cannot make the gateway flood the endpoint.
//! - While the endpoint is away the keys stay good.
//! - A token whose key may exist but could not be looked for is not called invalid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;

use super::keys::Key;
use crate::authority::AuthorityMetrics;
use crate::backend::http;
use crate::limits::{JWKS_BYTES_MAX, JWKS_KEYS_MAX};

/// How long keys are used without asking whether they still are.
const FRESH_FOR: Duration = Duration::from_secs(3600);
/// Longest wait for the document.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Shortest time between the beginnings of two fetches.
const REFETCH_PAUSE: Duration = Duration::from_secs(3);

/// The keys of one endpoint.
pub(super) struct Jwks {
    url: String,
    client: reqwest::Client,
    cache: Mutex<Cache>,
    fetching: tokio::sync::Mutex<()>,
    metrics: Arc<AuthorityMetrics>,
}

/// There is no key to verify with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The set has no such key.
    Unknown,
    /// The set could not be asked just now.
    Away,
}

/// What is known, and since when.
#[derive(Default)]
struct Cache {
    keys: HashMap<String, Key>,
    fetched_at: Option<Instant>,
    tried_at: Option<Instant>,
}

/// What to do about a key id.
enum Decision {
    Use(Key),
    /// With what to use if that fails.
    Fetch(Option<Key>),
    Refuse(NoKey),
}

impl Cache {
    fn decide(&self, id: &str, now: Instant) -> Decision {
        let key = self.keys.get(id);
        let age = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        if let Some(key) = key
            && age(self.fetched_at).is_some_and(|age| age < FRESH_FOR)
        {
            return Decision::Use(key.clone());
        }
        if age(self.tried_at).is_none_or(|age| age >= REFETCH_PAUSE) {
            return Decision::Fetch(key.cloned());
        }
        match key {
            Some(key) => Decision::Use(key.clone()),
            // It may have come into the set since.
            None => Decision::Refuse(NoKey::Away),
        }
    }

    fn fetched(&mut self, keys: HashMap<String, Key>, at: Instant) {
        self.keys = keys;
        self.fetched_at = Some(at);
    }
}

impl Jwks {
    pub(super) fn new(url: &str, client: reqwest::Client, metrics: Arc<AuthorityMetrics>) -> Self {
        Self {
            url: url.to_owned(),
            client,
            cache: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            metrics,
        }
    }

    /// The key of an id. Takes as long as a fetch at most; cancel-safe (a fetch that is cut off is
    /// one that failed).
    pub(super) async fn key(&self, id: &str) -> Result<Key, NoKey> {
        match self.decide(id) {
            Decision::Use(key) => return Ok(key),
            Decision::Refuse(why) => return Err(why),
            Decision::Fetch(_) => {}
        }
        let _one_at_a_time = self.fetching.lock().await;
        // Whoever was before us may have fetched it.
        let stale = match self.decide(id) {
            Decision::Use(key) => return Ok(key),
            Decision::Refuse(why) => {
                let was_fetched = self.lock().was_fetched_last();
                return Err(if was_fetched { NoKey::Unknown } else { why });
            }
            Decision::Fetch(stale) => stale,
        };
        let now = Instant::now();
        self.lock().tried_at = Some(now);
        match self.fetch().await {
            Ok(keys) => {
                self.metrics.jwks_fetched.add(1);
                let mut cache = self.lock();
                cache.fetched(keys, now);
                cache.keys.get(id).cloned().ok_or(NoKey::Unknown)
            }
            Err(why) => {
                self.metrics.jwks_failures.add(1);
                tracing::warn!(
                    endpoint = self.url,
                    why,
                    keys_kept = self.lock().keys.len(),
                    "the key set cannot be had; tokens of known keys are still judged"
                );
                stale.ok_or(NoKey::Away)
            }
        }
    }

    fn decide(&self, id: &str) -> Decision {
        self.lock().decide(id, Instant::now())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<HashMap<String, Key>, String> {
        let work = async {
            let response = self.client.get(&self.url).send().await;
            let response = response.map_err(|error| http::explain(&error))?;
            if response.status() != reqwest::StatusCode::OK {
                return Err(format!("status {}", response.status()));
            }
            let body = http::read_bounded(response, JWKS_BYTES_MAX).await;
            parse(&body.map_err(|error| error.to_string())?)
        };
        tokio::time::timeout(TIMEOUT, work)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
    }
}

impl Cache {
    /// Whether the last attempt brought the set.
    fn was_fetched_last(&self) -> bool {
        self.fetched_at.is_some() && self.fetched_at == self.tried_at
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

/// The keys of a document that can verify signatures here; one entry that is not understood does
/// not cost the others.
///
/// # Errors
/// Where it is no key set, or too large a one.
pub(super) fn parse(document: &[u8]) -> Result<HashMap<String, Key>, String> {
    let document: Document =
        serde_json::from_slice(document).map_err(|error| format!("no key set: {error}"))?;
    if document.keys.len() > JWKS_KEYS_MAX {
        return Err(format!(
            "a key set of {} keys; at most {JWKS_KEYS_MAX}",
            document.keys.len()
        ));
    }
    Ok(document
        .keys
        .into_iter()
        .filter_map(|value| serde_json::from_value::<Jwk>(value).ok())
        .filter_map(|jwk| Key::from_jwk(&jwk))
        .collect())
}
