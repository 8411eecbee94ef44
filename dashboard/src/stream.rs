//! Documents to event streams.
//!
//! Invariants: a stream gets at most one document every
//! [`limits::STREAM_GAP_MIN`]; a reader that is slow is sent the newest
//! document when it can take one, and nothing waits for it; at most
//! [`limits::STREAMS_MAX`] streams are open.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::collect::Frame;
use crate::limits;

/// Opens event streams.
#[derive(Clone, Debug)]
pub struct Streams {
    frames: watch::Receiver<Option<Frame>>,
    slots: Arc<Semaphore>,
    sent: Arc<AtomicU64>,
}

struct Reader {
    frames: watch::Receiver<Option<Frame>>,
    sent: Arc<AtomicU64>,
    next: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Streams {
    /// Streams of what arrives in `frames`; they end when its sender is gone.
    #[must_use]
    pub fn new(frames: watch::Receiver<Option<Frame>>) -> Self {
        Self {
            frames,
            slots: Arc::new(Semaphore::new(limits::STREAMS_MAX)),
            sent: Arc::default(),
        }
    }

    /// The newest document.
    #[must_use]
    pub fn newest(&self) -> Option<Frame> {
        self.frames.borrow().clone()
    }

    /// Streams that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        limits::STREAMS_MAX - self.slots.available_permits()
    }

    /// Documents sent over all streams.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The answer to a request for a stream.
    pub fn respond(&self) -> Response {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            let retry = [(header::RETRY_AFTER, "5")];
            let words = "too many event streams are open, try again later\n";
            return (StatusCode::SERVICE_UNAVAILABLE, retry, words).into_response();
        };
        let mut frames = self.frames.clone();
        // The newest document goes out at once.
        frames.mark_changed();
        let reader = Reader {
            frames,
            sent: self.sent.clone(),
            next: Instant::now(),
            _slot: slot,
        };
        let events = futures_util::stream::unfold(reader, next);
        let headers = [
            (header::CACHE_CONTROL, "no-store"),
            // Proxies that collect an answer before they pass it on would hold the stream for ever.
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        let stream = Sse::new(events).keep_alive(KeepAlive::new().text("alive"));
        (headers, stream).into_response()
    }
}

async fn next(mut reader: Reader) -> Option<(Result<Event, Infallible>, Reader)> {
    loop {
        tokio::time::sleep_until(reader.next).await;
        reader.frames.changed().await.ok()?;
        let json = {
            let frame = reader.frames.borrow_and_update();
            let Some(frame) = frame.as_ref() else {
                continue;
            };
            frame.json.clone()
        };
        reader.next = Instant::now() + limits::STREAM_GAP_MIN;
        reader.sent.fetch_add(1, Ordering::Relaxed);
        return Some((Ok(Event::default().data(&*json)), reader));
    }
}
