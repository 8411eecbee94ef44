//! What a shard keeps of one channel: the stretch of its log that some subscriber still needs.
//!
//! Positions count the bytes of the channel's log from the moment this shard began to listen.
//!
//! Invariants
//! - `tail <= head`; the retained runs cover exactly `tail..head`, in order, without holes.
//! - Every confirmed subscriber's cursor is within `tail..=head`; `lagging` counts those below
//!   `head`. Nothing is retained when nobody lags.
//! - Cursors stand between frames: a subscriber takes all that is pending or nothing.
//! - In a channel with history `position` is the place of the last publication before `head`:
//!   whoever's cursor is at the head has seen everything up to it.
//! - Who waits (`waiting` for the channel, `recovering` for an answer of its own) has its cursor
//!   at `UNCONFIRMED`, and nobody else.
//! - In a log of deltas a subscriber gets its first publication whole: it is `baseless` until one
//!   that came with its whole form is put aside for it in `firsts`, where it stays until taken.

use std::collections::VecDeque;
use std::sync::Arc;

use flux_runtime::log::LogSlice;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use super::{Slot, StreamPosition, Variant};

/// Cursor of a subscriber whom the engine has not confirmed yet. It is beyond every
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

/// What few channels need.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Who waits for what it has missed, and the command that asked.
    pub(super) recovering: HashMap<Slot, u32, RandomState>,
    /// Who has not had a whole publication yet, where there are deltas.
    pub(super) baseless: HashSet<Slot, RandomState>,
    /// The first publication of some of those who lag, in whole.
    pub(super) firsts: HashMap<Slot, First, RandomState>,
}

/// A publication that one subscriber gets in whole in place of the delta in the log.
#[derive(Debug, Clone)]
pub(super) struct First {
    /// Where the delta stands in the log.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) whole: LogSlice,
}

#[derive(Debug)]
struct Run {
    start: u64,
    slice: LogSlice,
}

impl Run {
    fn end(&self) -> u64 {
        self.start + self.slice.len() as u64
    }

    /// What of it lies between two positions, the second of which is above its start.
    fn part(&self, from: u64, to: u64) -> LogSlice {
        if from <= self.start && to >= self.end() {
            return self.slice.clone();
        }
        let skip = from.saturating_sub(self.start);
        let end = to.min(self.end()) - self.start;
        self.slice.slice(skip as usize, end as usize)
    }
}

/// A channel with subscribers on this shard.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: Arc<str>,
    pub(super) variant: Variant,
    pub(super) subscribers: SmallVec<[Subscriber; 2]>,
    /// Who waits for the engine's word; `None` once it has confirmed.
    pub(super) waiting: Option<Vec<Waiter>>,
    /// Where the head is in the channel's history; none where it has none, or is not confirmed.
    pub(super) position: Option<StreamPosition>,
    pub(super) rare: Option<Box<Rare>>,
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
            position: None,
            rare: None,
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

    /// Whether the subscriber waits for an answer of its own.
    pub(super) fn is_recovering(&self, slot: Slot) -> bool {
        let rare = self.rare.as_ref();
        rare.is_some_and(|rare| rare.recovering.contains_key(&slot))
    }

    /// How many wait for an answer of their own.
    pub(super) fn recovering_count(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.recovering.len())
    }

    /// The subscriber waits for what it has missed.
    pub(super) fn recover(&mut self, slot: Slot, command: u32) {
        let rare = self.rare.get_or_insert_default();
        rare.recovering.insert(slot, command);
    }

    /// Ends the subscriber's wait, if `command` is what it waits with.
    pub(super) fn take_recovering(&mut self, slot: Slot, command: u32) -> bool {
        let Some(rare) = &mut self.rare else {
            return false;
        };
        let is_its = rare.recovering.get(&slot) == Some(&command);
        if is_its {
            rare.recovering.remove(&slot);
            self.drop_empty_rare();
        }
        is_its
    }

    /// The subscriber gets what is published from now on.
    pub(super) fn begin(&mut self, slot: Slot) {
        if self.variant.delta {
            self.rare.get_or_insert_default().baseless.insert(slot);
        }
    }

    /// A delta that stands from `start` to `end` has come: its whole form is put aside for everybody
    /// who has not had one, and not encoded where everybody has.
    pub(super) fn put_aside(&mut self, start: u64, end: u64, encode: impl FnOnce() -> LogSlice) {
        if let Some(rare) = &mut self.rare
            && !rare.baseless.is_empty()
        {
            let whole = encode();
            for slot in rare.baseless.drain() {
                let whole = whole.clone();
                rare.firsts.insert(slot, First { start, end, whole });
            }
        }
    }

    /// A message has come whole: if it is a publication, everybody has one now. Without an offset it
    /// may be a join or a leave, where those are told.
    pub(super) fn passed_whole(&mut self, has_offset: bool) {
        if let Some(rare) = &mut self.rare
            && (has_offset || !self.variant.join_leave)
        {
            rare.baseless.clear();
            self.drop_empty_rare();
        }
    }

    /// The first publication that is put aside for a subscriber.
    pub(super) fn first_of(&self, slot: Slot) -> Option<&First> {
        self.rare.as_ref()?.firsts.get(&slot)
    }

    /// Forgets what was put aside for a subscriber, who has taken it or will not.
    pub(super) fn forget_first(&mut self, slot: Slot) {
        if let Some(rare) = &mut self.rare
            && rare.firsts.remove(&slot).is_some()
        {
            self.drop_empty_rare();
        }
    }

    /// Forgets a subscriber who is gone.
    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some(waiting) = &mut self.waiting {
            waiting.retain(|waiter| waiter.slot != slot);
        }
        if let Some(rare) = &mut self.rare {
            rare.recovering.remove(&slot);
            rare.baseless.remove(&slot);
            rare.firsts.remove(&slot);
            self.drop_empty_rare();
        }
    }

    fn drop_empty_rare(&mut self) {
        if self.rare.as_ref().is_some_and(|rare| {
            rare.recovering.is_empty() && rare.baseless.is_empty() && rare.firsts.is_empty()
        }) {
            self.rare = None;
        }
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
            let end = run.end();
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

    /// Hands out everything from `from` up to `to`, run by run.
    pub(super) fn pending(&self, from: u64, to: u64, mut take: impl FnMut(LogSlice)) {
        debug_assert!(from >= self.tail);
        // Who is not far behind has nothing pending but in the last run.
        if let Some(last) = self.retained.back()
            && (last.start..last.end()).contains(&from)
        {
            return take(last.part(from, to));
        }
        let first = self.retained.partition_point(|run| run.end() <= from);
        for run in self.retained.range(first..) {
            if run.start >= to {
                break;
            }
            take(run.part(from, to));
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
        if let Some(rare) = &self.rare {
            for first in rare.firsts.values() {
                assert!(self.variant.delta, "{}: whole forms", self.name);
                assert!(
                    first.start >= self.tail && first.start < first.end && first.end <= head,
                    "{}: a whole form of what is not retained",
                    self.name
                );
            }
        }
        assert!(
            !self.subscribers.is_empty(),
            "{}: kept without subscribers",
            self.name
        );
    }
}
