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
    /// There is none, and it is too early to ask again: it may have come into the set since.
    Refuse,
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
            None => Decision::Refuse,
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
        let came_at = Instant::now();
        if let Decision::Use(key) = self.decide(id) {
            return Ok(key);
        }
        // A fetch that is under way may bring it.
        let _one_at_a_time = self.fetching.lock().await;
        let stale = match self.decide(id) {
            Decision::Use(key) => return Ok(key),
            Decision::Refuse => {
                let asked_since = self.lock().fetched_at.is_some_and(|at| at >= came_at);
                return Err(if asked_since {
                    NoKey::Unknown
                } else {
                    NoKey::Away
                });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(id: &str) -> HashMap<String, Key> {
        let document = format!(
            r#"{{"keys":[{{"kid":"{id}","kty":"OKP","crv":"Ed25519","use":"sig",
                "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}]}}"#
        );
        parse(document.as_bytes()).expect("a key set")
    }

    fn is_fetch(decision: &Decision) -> bool {
        matches!(decision, Decision::Fetch(_))
    }

    #[test]
    fn keys_are_used_for_an_hour_and_then_asked_for_again_but_not_forgotten() {
        let begin = Instant::now();
        let mut cache = Cache::default();
        assert!(matches!(cache.decide("a", begin), Decision::Fetch(None)));
        cache.tried_at = Some(begin);
        cache.fetched(keys("a"), begin);
        let late = begin + FRESH_FOR;
        let just = late
            .checked_sub(Duration::from_millis(1))
            .expect("later than the boot");
        assert!(matches!(cache.decide("a", just), Decision::Use(_)));
        assert!(matches!(cache.decide("a", late), Decision::Fetch(Some(_))));
        // That failed: it stays good, and the endpoint is left alone for a while.
        cache.tried_at = Some(late);
        assert!(matches!(cache.decide("a", late), Decision::Use(_)));
        assert!(is_fetch(&cache.decide("a", late + REFETCH_PAUSE)));
    }

    #[test]
    fn unknown_keys_fetch_once_in_a_while_and_are_not_called_invalid_in_between() {
        let begin = Instant::now();
        let mut cache = Cache {
            tried_at: Some(begin),
            ..Cache::default()
        };
        cache.fetched(keys("a"), begin);
        for id in 0..1_000 {
            let decision = cache.decide(&id.to_string(), begin);
            assert!(matches!(decision, Decision::Refuse));
        }
        assert!(is_fetch(&cache.decide("b", begin + REFETCH_PAUSE)));
        cache.tried_at = Some(begin + REFETCH_PAUSE);
        cache.fetched(keys("b"), begin + REFETCH_PAUSE);
        assert!(matches!(
            cache.decide("b", begin + REFETCH_PAUSE),
            Decision::Use(_)
        ));
        assert!(
            !matches!(cache.decide("a", begin + REFETCH_PAUSE), Decision::Use(_)),
            "withdrawn"
        );
    }
}
