//! A channel's history: its epoch, its offsets, and the newest publications. No I/O, clock or
//! randomness.
//!
//! | what | file |
//! |---|---|
//! | a contiguous stretch of publications: kept, read, recovered from | `window` |
//! | one channel's stream: who may enter it, how long it lives | here |
//! | all streams of an owner, bounded by bytes | `store` |
//! | which of them was used last | `recency` |
//! | results of publications with an idempotency key | `results` |
//!
//! The memory engine's owner of a channel keeps a [`Stream`]. The Redis engine keeps a [`Window`] of
//! each subscribed channel beside the stream that Redis has, so that many who recover at once are
//! answered from it.
//!
//! Invariants
//! - The first publication of an epoch has offset 1, each later one the offset before it plus one.
//! - What is kept are the newest publications up to the top without holes, or none.
//! - A stream outlives its publications: epoch and top stay until nobody has used them for
//!   `meta_ttl`. Only then may the channel get another epoch.

mod recency;
mod results;
mod store;
#[cfg(test)]
mod tests;
mod window;

use std::time::{Duration, Instant};

pub(super) use results::Results;
pub(super) use store::Streams;
pub(super) use window::Window;

use super::history::{HistoryOptions, HistoryPage, HistoryQuery, Recovery, RecoveryRequest};
use super::request::Conditions;
use crate::protocol::ErrorCode;
use crate::pubsub::{Epoch, MessageRef, StreamPosition};

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    /// It is in the stream, here.
    At(StreamPosition),
    /// Its version is not above that of an earlier one: it is dropped. The stream stands here.
    Stale(StreamPosition),
}

/// One life of a channel's history.
#[derive(Debug)]
pub(super) struct Stream {
    epoch: Epoch,
    window: Window,
    /// Of the last publication that had one; 0 before.
    version: u64,
    version_epoch: Box<str>,
    /// When the publications go; never without.
    expires_at: Option<Instant>,
    /// When epoch and top go; never without.
    forgotten_at: Option<Instant>,
    meta_ttl: Duration,
}

impl Stream {
    pub(super) fn new(epoch: Epoch, now: Instant, options: &HistoryOptions) -> Self {
        let mut stream = Self {
            epoch,
            window: Window::new(0),
            version: 0,
            version_epoch: Box::default(),
            expires_at: None,
            forgotten_at: None,
            meta_ttl: Duration::ZERO,
        };
        stream.renew(now, options);
        stream
    }

    /// Where it stands.
    pub(super) fn position(&self) -> StreamPosition {
        StreamPosition {
            epoch: self.epoch,
            offset: self.window.top(),
        }
    }

    /// It is used: epoch and top live on for `meta_ttl`.
    pub(super) fn renew(&mut self, now: Instant, options: &HistoryOptions) {
        self.meta_ttl = options.meta_ttl.max(options.ttl);
        self.release(now);
    }

    /// As [`Self::renew`], for what is used until now without a word.
    pub(super) fn release(&mut self, now: Instant) {
        self.forgotten_at = after(now, self.meta_ttl);
    }

    /// Takes a publication in, unless its version is an old one.
    pub(super) fn enter(
        &mut self,
        message: MessageRef<'_>,
        conditions: Option<&Conditions>,
        options: &HistoryOptions,
        now: Instant,
    ) -> Entered {
        if let Some(conditions) = conditions.filter(|conditions| conditions.version > 0) {
            let is_same_epoch = conditions.version_epoch.is_empty()
                || conditions.version_epoch == self.version_epoch;
            if is_same_epoch && conditions.version <= self.version {
                return Entered::Stale(self.position());
            }
            self.version = conditions.version;
            if self.version_epoch != conditions.version_epoch {
                self.version_epoch = conditions.version_epoch.clone();
            }
        }
        self.window.append(message);
        self.window.keep(options.size.max(1) as usize);
        self.expires_at = after(now, options.ttl);
        Entered::At(self.position())
    }

    /// What a subscriber missed up to the top.
    pub(super) fn recover(&mut self, request: &RecoveryRequest) -> Recovery {
        let position = self.position();
        self.window.recover(request, position)
    }

    /// Some past publications.
    pub(super) fn page(&mut self, query: &HistoryQuery) -> Result<HistoryPage, ErrorCode> {
        self.window.page(query, self.epoch)
    }

    /// Drops the publications if their time is over; says how many there were.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        match self.expires_at {
            Some(at) if now >= at => self.clear(),
            _ => 0,
        }
    }

    /// Whether nobody has used it for so long that the channel may begin anew.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        self.forgotten_at.is_some_and(|at| now >= at)
    }

    /// Drops all publications; says how many there were. The position stays.
    pub(super) fn clear(&mut self) -> usize {
        self.expires_at = None;
        self.window.clear()
    }

    /// Drops the oldest publication; false without any.
    pub(super) fn drop_oldest(&mut self) -> bool {
        self.window.drop_oldest()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Bytes of memory that it stands for.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.version_epoch.len() + self.window.bytes()
    }
}

/// The moment so much later; none when it never comes.
fn after(now: Instant, time: Duration) -> Option<Instant> {
    now.checked_add(time)
}
