//! Where in a client's list of subscriptions something may be pending.
//!
//! A send looks through the client's subscriptions for what is pending. With a thousand of them that would cost
//! more than the send: for a client with many, rounds note the stretch of its list in which they have found
//! channels that have advanced, and only that is looked through.
//!
//! Invariant: of a client with more than [`FEW`] subscriptions, each that has something pending lies within its
//! span, or its channel will be taken up by the next round.

use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::Slot;

/// A list of up to this many is looked through as a whole.
pub(super) const FEW: usize = if cfg!(test) { 2 } else { 16 };

/// The spans of those with many subscriptions; who has none has nothing pending.
#[derive(Debug, Default)]
pub(super) struct Spans {
    by_slot: HashMap<Slot, Range<usize>, RandomState>,
}

impl Spans {
    /// The part of the list that has to be looked through; `len` is the list's length.
    pub(super) fn of(&self, slot: Slot, len: usize) -> Range<usize> {
        if len <= FEW {
            return 0..len;
        }
        match self.by_slot.get(&slot) {
            Some(span) => span.start.min(len)..span.end.min(len),
            None => 0..0,
        }
    }

    /// Number `entry` of a list of many may have something pending.
    pub(super) fn note(&mut self, slot: Slot, entry: usize) {
        let span = self.by_slot.entry(slot).or_insert(entry..entry + 1);
        *span = span.start.min(entry)..span.end.max(entry + 1);
    }

    /// Nothing is pending, or the list is looked through as a whole.
    pub(super) fn forget(&mut self, slot: Slot) {
        if !self.by_slot.is_empty() {
            self.by_slot.remove(&slot);
        }
    }

    /// The list has grown to `len`.
    pub(super) fn grown(&mut self, slot: Slot, len: usize) {
        if len == FEW + 1 {
            self.by_slot.insert(slot, 0..len);
        }
    }

    /// Number `at` of the list was taken out, and the last took its place; `len` are left.
    pub(super) fn shrunk(&mut self, slot: Slot, at: usize, len: usize) {
        if len == FEW {
            self.forget(slot);
        } else if len > FEW && self.by_slot.contains_key(&slot) {
            self.note(slot, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_many_is_looked_through_only_where_something_was_noted() {
        let mut spans = Spans::default();
        assert_eq!(spans.of(7, FEW), 0..FEW);
        assert_eq!(spans.of(7, 1000), 0..0);
        spans.note(7, 500);
        spans.note(7, 400);
        assert_eq!(spans.of(7, 1000), 400..501);
        spans.forget(7);
        assert_eq!(spans.of(7, 1000), 0..0);
    }

    #[test]
    fn what_was_pending_before_a_list_was_long_and_what_moves_in_it_is_looked_at() {
        let mut spans = Spans::default();
        spans.grown(7, FEW + 1);
        assert_eq!(spans.of(7, FEW + 1), 0..FEW + 1);
        spans.forget(7);
        spans.note(7, 90);
        spans.shrunk(7, 3, 90);
        assert_eq!(spans.of(7, 90), 3..90);
        spans.shrunk(7, 0, FEW);
        assert_eq!(spans.of(7, FEW), 0..FEW);
        spans.grown(7, FEW + 1);
        assert_eq!(spans.of(7, FEW + 1), 0..FEW + 1);
    }
}
