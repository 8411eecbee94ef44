//! A contiguous stretch of a channel's publications, the newest ones, in a log of its own.
//!
//! Publications are copied into it: a slice of somebody else's log would keep that whole chunk in
//! memory for as long as the history lasts. Its own chunks are small beside what is kept (a quarter
//! at most), so that the memory behind it is at most 1.5 times [`Window::bytes`] and a kilobyte.
//!
//! Invariants
//! - It holds the publications `first()..=top()`, each once, in order; none when `first() > top()`.
//! - `bytes` is the sum of what its publications stand for.
//! - `answered` holds what a reader of the present publications would get.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use flux_runtime::log::LogWriter;

use super::super::history::{
    HistoryPage, HistoryQuery, Publications, Recovery, RecoveryMode, RecoveryRequest,
    StoredPublication,
};
use crate::protocol::ErrorCode;
use crate::pubsub::{Epoch, KnownEpoch, Message, MessageRef, StreamPosition};

/// The newest publications of a channel.
#[derive(Debug, Default)]
pub(in crate::engine) struct Window {
    /// Offset of the newest publication of the channel, whether or not it is still here.
    top: u64,
    publications: VecDeque<Message>,
    log: LogWriter,
    bytes: usize,
    /// What was read last, by its place in `publications`: those who come back after a cut mostly
    /// ask for the same.
    answered: Option<(Range<usize>, Publications)>,
}

#[allow(
    dead_code,
    reason = "what only a window beside somebody else's stream needs: the Redis engine's cache"
)]
impl Window {
    /// An empty one: the next publication will have the offset behind `top`.
    pub(in crate::engine) fn new(top: u64) -> Self {
        Self {
            top,
            ..Self::default()
        }
    }

    /// Offset of the newest publication of the channel.
    pub(in crate::engine) fn top(&self) -> u64 {
        self.top
    }

    /// Offset of the oldest publication that is here; the one behind the top when none is.
    pub(in crate::engine) fn first(&self) -> u64 {
        self.top - self.publications.len() as u64 + 1
    }

    /// How many publications are here.
    pub(in crate::engine) fn len(&self) -> usize {
        self.publications.len()
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.publications.is_empty()
    }

    /// Bytes that it stands for.
    pub(in crate::engine) fn bytes(&self) -> usize {
        let answered = self.answered.as_ref().map_or(0, |(_, read)| read.len());
        self.bytes + answered * size_of::<StoredPublication>()
    }

    /// Whether everything behind `since` is here.
    pub(in crate::engine) fn covers(&self, since: u64) -> bool {
        since <= self.top && self.first() <= since.saturating_add(1)
    }

    /// Adds the publication behind the top; returns its offset.
    pub(in crate::engine) fn append(&mut self, message: MessageRef<'_>) -> u64 {
        self.top += 1;
        let message = self.copy(message);
        self.publications.push_back(message);
        self.check_invariants();
        self.top
    }

    /// Adds the publication with this offset. False, and nothing is changed, unless it is the one
    /// behind the top.
    #[must_use = "what does not follow was not taken"]
    pub(in crate::engine) fn append_at(&mut self, offset: u64, message: MessageRef<'_>) -> bool {
        let follows = Some(offset) == self.top.checked_add(1);
        if follows {
            self.append(message);
        }
        follows
    }

    /// Adds older publications, oldest first, in front of those that are here. False, and nothing
    /// is changed, unless they are without holes and end where these begin.
    #[must_use = "what does not fit was not taken"]
    pub(in crate::engine) fn extend_front(&mut self, older: &[StoredPublication]) -> bool {
        let count = older.len() as u64;
        let Some(from) = self.first().checked_sub(count).filter(|from| *from > 0) else {
            return false;
        };
        let fits = (from..).zip(older).all(|(at, old)| old.offset == at);
        if fits {
            for old in older.iter().rev() {
                let message = self.copy(old.message.as_ref());
                self.publications.push_front(message);
            }
            self.check_invariants();
        }
        fits
    }

    /// Drops the oldest until at most `count` are here.
    pub(in crate::engine) fn keep(&mut self, count: usize) {
        while self.publications.len() > count {
            self.drop_oldest();
        }
    }

    /// Drops the oldest publication; false without any.
    pub(in crate::engine) fn drop_oldest(&mut self) -> bool {
        let Some(message) = self.publications.pop_front() else {
            return false;
        };
        self.bytes -= bytes_of(&message);
        self.answered = None;
        if self.publications.is_empty() {
            self.clear();
        }
        self.check_invariants();
        true
    }

    /// Drops all publications; says how many there were. The top stays.
    pub(in crate::engine) fn clear(&mut self) -> usize {
        let count = self.publications.len();
        *self = Self::new(self.top);
        count
    }

    /// What a subscriber missed up to `position`, which is at or below the top: where the shard is
    /// that asks.
    ///
    /// - Stream: recovered exactly if the epoch is the same, everything between the subscriber and
    ///   `position` is here, and it is not more than the subscriber takes.
    /// - Cache: recovered exactly if the publication at `position` is here, or the subscriber has
    ///   it already.
    pub(in crate::engine) fn recover(
        &mut self,
        request: &RecoveryRequest,
        position: StreamPosition,
    ) -> Recovery {
        debug_assert!(position.offset <= self.top);
        let up_to = position.offset.min(self.top);
        let missed = match request.mode {
            RecoveryMode::Stream => {
                let count = up_to.checked_sub(request.offset);
                let is_complete = request.epoch.matches(position.epoch)
                    && count.is_some_and(|count| count <= u64::from(request.publications_max))
                    && (count == Some(0) || self.first() <= request.offset + 1);
                is_complete.then(|| self.places(request.offset, up_to))
            }
            RecoveryMode::Cache => {
                let has_it = up_to > 0
                    && request.offset == up_to
                    && request.epoch == KnownEpoch::Is(position.epoch);
                let is_here = up_to > 0 && self.first() <= up_to;
                match (has_it, is_here) {
                    (true, _) => Some(0..0),
                    (false, true) => Some(self.places(up_to - 1, up_to)),
                    (false, false) => None,
                }
            }
        };
        Recovery {
            position,
            recovered: missed.is_some(),
            publications: missed.map(|places| self.read(places)).unwrap_or_default(),
        }
    }

    /// Some past publications.
    ///
    /// # Errors
    /// 112 when the query names another epoch, 107 when it wants those before the very first.
    pub(in crate::engine) fn page(
        &mut self,
        query: &HistoryQuery,
        epoch: Epoch,
    ) -> Result<HistoryPage, ErrorCode> {
        let position = StreamPosition {
            epoch,
            offset: self.top,
        };
        if let Some((_, known)) = query.since
            && !known.matches(epoch)
        {
            return Err(ErrorCode::UnrecoverablePosition);
        }
        let limit = query.limit as usize;
        let all = 0..self.publications.len();
        let publications = match (query.since, query.reverse) {
            (Some((0, _)), true) => return Err(ErrorCode::BadRequest),
            (since, false) => {
                let places = since.map_or(all, |(since, _)| self.places(since, self.top));
                let end = places.end.min(places.start.saturating_add(limit));
                self.read(places.start..end)
            }
            (since, true) => {
                let end = since.map_or(all.end, |(since, _)| {
                    self.places(0, self.top.min(since - 1)).end
                });
                let newest_first = (end.saturating_sub(limit)..end).rev();
                newest_first.map(|place| self.stored(place)).collect()
            }
        };
        Ok(HistoryPage {
            publications,
            position,
        })
    }

    /// Where the publications behind offset `since`, up to `last`, are kept, as far as they are.
    fn places(&self, since: u64, last: u64) -> Range<usize> {
        let first = self.first();
        let end = (last.min(self.top) + 1).saturating_sub(first) as usize;
        let start = since.saturating_add(1).saturating_sub(first);
        usize::try_from(start).map_or(end, |start| start.min(end))..end
    }

    /// Publications by their places, oldest first.
    fn read(&mut self, places: Range<usize>) -> Publications {
        if places.is_empty() {
            return Publications::default();
        }
        if let Some((of, answered)) = &self.answered
            && *of == places
        {
            return Arc::clone(answered);
        }
        let publications: Publications = places.clone().map(|place| self.stored(place)).collect();
        self.answered = Some((places, Arc::clone(&publications)));
        publications
    }

    fn stored(&self, place: usize) -> StoredPublication {
        StoredPublication {
            offset: self.first() + place as u64,
            message: self.publications[place].clone(),
        }
    }

    /// Copies a message into the window's own log, and counts it.
    fn copy(&mut self, message: MessageRef<'_>) -> Message {
        self.answered = None;
        self.log.limit_chunks(self.bytes / 4);
        // Whose it is goes without saying.
        let message = message.store(&mut self.log, "");
        self.bytes += bytes_of(&message);
        message
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.publications.len() <= 64 {
            assert!(self.publications.len() as u64 <= self.top);
            let bytes = self.publications.iter().map(bytes_of).sum::<usize>();
            assert_eq!(bytes, self.bytes, "bytes of a window");
        }
    }
}

fn bytes_of(message: &Message) -> usize {
    size_of::<Message>() + message.size()
}
