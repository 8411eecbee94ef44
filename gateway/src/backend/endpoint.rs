//! One endpoint: its bounds, its breaker, one exchange.
//!
//! Invariants
//! - At most `concurrency` exchanges are under way and `queue` questions wait for one to end.
//! - A question waits at most `timeout` for its place, and as long again for its answer.
//! - Whatever becomes of an exchange, the breaker is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{StatusCode, Url};
use tokio::sync::Semaphore;

use super::breaker::{Breaker, Change, Leave};
use super::http::{self, BodyError};
use super::wire::Garbage;
use super::{EndpointMetrics, ProxyConfig};
use crate::authority::{Headers, OwnedError, Refusal};
use crate::limits::BACKEND_ANSWER_BYTES_MAX;
use crate::protocol::ErrorCode;

/// Troubles of one endpoint are logged this often at most; all of them are counted.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// An endpoint of the backend.
pub struct Endpoint {
    /// Its key in the configuration.
    name: String,
    config: ProxyConfig,
    url: Url,
    forwarded: Vec<HeaderName>,
    fixed: HeaderMap,
    client: reqwest::Client,
    places: Semaphore,
    waiting: AtomicUsize,
    breaker: Mutex<Breaker>,
    logged_at: Mutex<Option<Instant>>,
    metrics: Arc<EndpointMetrics>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The endpoint could not be asked, or did not answer as it should: 111 where too many wait,
    /// else 100.
    Failed(ErrorCode),
    /// Its status means this.
    Means(Refusal),
}

/// What came of an exchange.
enum Failure {
    /// No connection, cut off.
    Connection(String),
    TimedOut,
    Status(StatusCode),
    TooLong,
}

impl Endpoint {
    /// An endpoint under its key in the configuration.
    ///
    /// # Errors
    /// As [`ProxyConfig::check`] and [`ProxyConfig::client`].
    pub fn new(name: &str, config: &ProxyConfig, client: reqwest::Client) -> Result<Self, String> {
        config.check(name)?;
        let client = config.client(name)?.unwrap_or(client);
        let refuse = |what: String| format!("config key `{name}`: {what}");
        let url = Url::parse(&config.endpoint).map_err(|error| refuse(error.to_string()))?;
        let forwarded = config
            .http_headers
            .iter()
            .filter_map(|header| HeaderName::from_bytes(header.as_bytes()).ok())
            .collect();
        let mut fixed = HeaderMap::new();
        for (header, value) in &config.http.static_headers {
            let header = HeaderName::from_bytes(header.as_bytes());
            let value = HeaderValue::from_str(value.expose());
            if let (Ok(header), Ok(mut value)) = (header, value) {
                value.set_sensitive(true);
                fixed.insert(header, value);
            }
        }
        fixed.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self {
            name: name.to_owned(),
            url,
            forwarded,
            fixed,
            client,
            places: Semaphore::new(config.concurrency),
            waiting: AtomicUsize::new(0),
            breaker: Mutex::new(Breaker::new(config.breaker.clone())),
            logged_at: Mutex::new(None),
            metrics: Arc::default(),
            config: config.clone(),
        })
    }

    /// Its key in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &ProxyConfig {
        &self.config
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<EndpointMetrics> {
        &self.metrics
    }

    /// Posts a document and returns the answer's. Cancel-safe: an exchange that is given up counts
    /// as one that failed.
    pub(crate) async fn ask(
        &self,
        document: Vec<u8>,
        headers: &Headers,
    ) -> Result<Vec<u8>, Trouble> {
        if self.lock().is_open(Instant::now()) {
            self.metrics.refused_open.add(1);
            return Err(Trouble::Failed(ErrorCode::Internal));
        }
        let Some(_place) = self.place().await else {
            self.metrics.refused_busy.add(1);
            return Err(Trouble::Failed(ErrorCode::TooManyRequests));
        };
        // It may have opened while we waited.
        let Some(leave) = self.lock().admit(Instant::now()) else {
            self.metrics.refused_open.add(1);
            return Err(Trouble::Failed(ErrorCode::Internal));
        };
        let mut outcome = Outcome {
            endpoint: self,
            leave,
            is_reported: false,
        };
        self.metrics.asked.add(1);
        let begun = Instant::now();
        let exchange = tokio::time::timeout(self.config.timeout, self.exchange(document, headers));
        let answer = exchange.await.unwrap_or(Err(Failure::TimedOut));
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.metrics.micros.add(micros);
        let failure = match answer {
            Ok(answer) => {
                outcome.succeeded();
                self.metrics.answered.add(1);
                return Ok(answer);
            }
            Err(failure) => failure,
        };
        if let Failure::Status(status) = failure
            && let Some(meaning) = self.meaning(status)
        {
            outcome.succeeded();
            self.metrics.answered.add(1);
            return Err(Trouble::Means(meaning));
        }
        let (count, what) = match &failure {
            Failure::Connection(why) => (&self.metrics.failed_connection, why.clone()),
            Failure::TimedOut => {
                let what = format!("no answer within {:?}", self.config.timeout);
                (&self.metrics.failed_timeout, what)
            }
            Failure::Status(status) => (&self.metrics.failed_status, format!("status {status}")),
            Failure::TooLong => {
                let what = format!("an answer longer than {BACKEND_ANSWER_BYTES_MAX} bytes");
                (&self.metrics.failed_answer, what)
            }
        };
        count.add(1);
        self.log(&what);
        // One that answers is not down, whatever it answers.
        let is_down = match failure {
            Failure::Connection(_) | Failure::TimedOut => true,
            Failure::Status(status) => status.is_server_error(),
            Failure::TooLong => false,
        };
        if is_down {
            outcome.failed();
        } else {
            outcome.succeeded();
        }
        Err(Trouble::Failed(ErrorCode::Internal))
    }

    /// To be called for an answer that is none.
    pub(crate) fn was_garbage(&self, garbage: &Garbage) -> Trouble {
        self.metrics.failed_answer.add(1);
        self.log(&garbage.to_string());
        Trouble::Failed(ErrorCode::Internal)
    }

    async fn place(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            return Some(place);
        }
        let waiting = Waiting::new(&self.waiting, self.config.queue)?;
        let place = tokio::time::timeout(self.config.timeout, self.places.acquire()).await;
        drop(waiting);
        place.ok()?.ok()
    }

    async fn exchange(&self, document: Vec<u8>, headers: &Headers) -> Result<Vec<u8>, Failure> {
        let mut all = HeaderMap::with_capacity(self.forwarded.len() + self.fixed.len());
        for name in &self.forwarded {
            let known = headers
                .iter()
                .filter(|(known, _)| **known == *name.as_str());
            for (_, value) in known {
                if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                    all.append(name.clone(), value);
                }
            }
        }
        for (name, value) in &self.fixed {
            all.insert(name.clone(), value.clone());
        }
        let request = self
            .client
            .post(self.url.clone())
            .headers(all)
            .body(document);
        let broken = |error: reqwest::Error| Failure::Connection(http::explain(&error));
        let response = request.send().await.map_err(broken)?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Status(response.status()));
        }
        let body = http::read_bounded(response, BACKEND_ANSWER_BYTES_MAX).await;
        body.map_err(|error| match error {
            BodyError::TooLong(_) => Failure::TooLong,
            BodyError::CutOff(why) => Failure::Connection(why),
        })
    }

    fn meaning(&self, status: StatusCode) -> Option<Refusal> {
        let transforms = &self.config.http.status_to_code_transforms;
        let transform = transforms
            .iter()
            .find(|transform| transform.status_code == status.as_u16())?;
        if transform.to_error.code != 0 {
            return Some(Refusal::Error(OwnedError {
                code: transform.to_error.code,
                message: transform.to_error.message.clone(),
                temporary: transform.to_error.temporary,
            }));
        }
        Some(Refusal::Disconnect {
            code: transform.to_disconnect.code,
            reason: transform.to_disconnect.reason.clone(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, what: &str) {
        let now = Instant::now();
        let mut logged_at = self
            .logged_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if logged_at.is_none_or(|at| now.saturating_duration_since(at) >= LOG_EVERY) {
            *logged_at = Some(now);
            tracing::warn!(
                endpoint = self.name,
                what,
                "the backend has failed a question"
            );
        }
    }

    fn changed(&self, change: Change) {
        match change {
            Change::None => {}
            Change::Opened(pause) => {
                self.metrics.breaker_opened.add(1);
                self.metrics.breaker_open.set(1);
                tracing::warn!(
                    endpoint = self.name,
                    ?pause,
                    "the backend fails again and again; it is left alone for a while"
                );
            }
            Change::Closed => {
                self.metrics.breaker_open.set(0);
                tracing::info!(endpoint = self.name, "the backend answers again");
            }
        }
    }
}

/// One of those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        if waiting.fetch_add(1, Ordering::Relaxed) < max {
            return Some(Self(waiting));
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The outcome of an exchange, which the breaker learns in any case.
struct Outcome<'a> {
    endpoint: &'a Endpoint,
    leave: Leave,
    is_reported: bool,
}

impl Outcome<'_> {
    fn succeeded(&mut self) {
        self.is_reported = true;
        let change = self.endpoint.lock().succeeded(self.leave);
        self.endpoint.changed(change);
    }

    fn failed(&mut self) {
        self.is_reported = true;
        let change = self.endpoint.lock().failed(self.leave, Instant::now());
        self.endpoint.changed(change);
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if !self.is_reported {
            self.failed();
        }
    }
}
