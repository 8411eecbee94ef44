//! What a shard keeps of one channel: the stretch of its log that some subscriber still needs.
//!
//! Positions count the bytes of the channel's log from the moment this shard began to listen.
//!
//! Invariants
//! - `tail <= head`; the retained runs cover exactly `tail..head`, in order, without holes.
//! - Every confirmed subscriber's cursor is within `tail..=head`; `lagging` counts those below
//!   `head`. Nothing is retained when nobody lags.
//! - Cursors stand between frames: a subscriber takes all that is pending or nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use flux_runtime::log::LogSlice;
use smallvec::SmallVec;

use super::{Slot, Variant};

/// Cursor of a subscriber whose channel the engine has not confirmed yet. It is beyond every
/// position, so that it never has anything pending.
pub(super) const UNCONFIRMED: u64 = u64::MAX;

/// A subscriber as its channel knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subscriber {
    pub(super) slot: Slot,
    /// Place of the subscription in the connection's list.
    pub(super) entry: u32,
}

/// A subscribe command that waits for the engine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) slot: Slot,
    pub(super) command: u32,
}

#[derive(Debug)]
struct Run {
    start: u64,
    slice: LogSlice,
}

/// A channel with subscribers on this shard.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: Arc<str>,
    pub(super) variant: Variant,
    pub(super) subscribers: SmallVec<[Subscriber; 2]>,
    /// Who waits for the engine's word; `None` once it has confirmed.
    pub(super) waiting: Option<Vec<Waiter>>,
    /// Subscribers with something pending.
    pub(super) lagging: u32,
    /// Whether something arrived since the last round.
    pub(super) has_advanced: bool,
    /// Head at the last round.
    pub(super) rounded: u64,
    retained: VecDeque<Run>,
    tail: u64,
    /// Retained bytes at which to look again for the slowest cursor.
    trim_at: u64,
}

/// Retained bytes below which looking for the slowest cursor is not worth it.
const TRIM_BYTES_MIN: u64 = 64 * 1024;

impl Channel {
    pub(super) fn new(name: Arc<str>, variant: Variant) -> Self {
        Self {
            name,
            variant,
            subscribers: SmallVec::new(),
            waiting: Some(Vec::new()),
            lagging: 0,
            has_advanced: false,
            rounded: 0,
            retained: VecDeque::new(),
            tail: 0,
            trim_at: TRIM_BYTES_MIN,
        }
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.waiting.is_none()
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Adds `slice`, which starts at `head`.
    pub(super) fn append(&mut self, head: u64, slice: &LogSlice) {
        if let Some(last) = self.retained.back_mut()
            && last.slice.try_join(slice)
        {
            return;
        }
        self.retained.push_back(Run {
            start: head,
            slice: slice.clone(),
        });
    }

    /// Whether so much is retained that the slowest cursor should be looked for.
    pub(super) fn wants_trim(&self, head: u64) -> bool {
        head - self.tail >= self.trim_at
    }

    /// Forgets what lies below `slowest`, a position at or above the tail.
    pub(super) fn trim(&mut self, slowest: u64, head: u64) {
        debug_assert!(slowest >= self.tail && slowest <= head);
        while let Some(run) = self.retained.front_mut() {
            if run.start >= slowest {
                break;
            }
            let end = run.start + run.slice.len() as u64;
            if end <= slowest {
                self.retained.pop_front();
            } else {
                run.slice.advance((slowest - run.start) as usize);
                run.start = slowest;
            }
        }
        self.tail = slowest;
        if self.retained.is_empty() && self.retained.capacity() > 8 {
            self.retained = VecDeque::new();
        }
        self.trim_at = ((head - slowest) * 2).max(TRIM_BYTES_MIN);
    }

    /// Hands out everything from `cursor` to the head, run by run.
    pub(super) fn pending(&self, cursor: u64, mut take: impl FnMut(LogSlice)) {
        debug_assert!(cursor >= self.tail);
        let first = self
            .retained
            .partition_point(|run| run.start + run.slice.len() as u64 <= cursor);
        for run in self.retained.range(first..) {
            let skip = cursor.saturating_sub(run.start) as usize;
            take(match skip {
                0 => run.slice.clone(),
                _ => run.slice.slice(skip, run.slice.len()),
            });
        }
    }

    pub(super) fn check_invariants(&self, head: u64) {
        assert!(self.tail <= head, "{}: tail above head", self.name);
        let mut at = self.tail;
        for run in &self.retained {
            assert_eq!(run.start, at, "{}: hole in what is retained", self.name);
            assert!(!run.slice.is_empty(), "{}: empty run", self.name);
            at += run.slice.len() as u64;
        }
        assert_eq!(at, head, "{}: retained bytes end below head", self.name);
        if self.lagging == 0 {
            assert_eq!(self.tail, head, "{}: retained for nobody", self.name);
        }
        assert!(
            !self.subscribers.is_empty(),
            "{}: kept without subscribers",
            self.name
        );
    }
}
