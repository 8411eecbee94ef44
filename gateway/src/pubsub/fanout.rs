//! A round: everybody who has something pending gets all of it in one send.
//!
//! The shard calls [`Subscriptions::begin_round`], then for each slot that
//! [`Subscriptions::next_prompt`] and [`Subscriptions::next_ready`] yield
//! [`Subscriptions::gather`], and gives the bytes to the ring. While that send is in flight the
//! connection is left alone, however much arrives for it; when it has completed
//! ([`Subscriptions::sent`]) it is ready again if anything came in the meantime.
//!
//! On a busy shard a connection rests after a send of publications (how long is `pacing`'s
//! business): what arrives meanwhile leaves together, at the rest's end, with what arrived last
//! before it. Replies end no rest and wait for none. Who is behind by much does not rest, so that a
//! rest never makes a slow consumer of anybody.
//!
//! A cursor moves when its bytes are handed out, not when the kernel has taken them: bytes handed
//! out are pinned by the send that holds them, the ring continues a partial send until it is
//! complete, and nothing else is sent on that connection before. So retention is for what nobody
//! has handed out yet.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use flux_runtime::log::LogSlice;

use super::channel::{First, UNCONFIRMED};
use super::spans::FEW;
use super::subscriptions::{Connection, Entry, Resting, Subscriptions};
use super::{ChannelKey, Slot};

/// Pending bytes up to which several ranges are copied behind each other instead of being sent
/// from where they lie. Measured over loopback with 100 connections (CPU time of the shard a send,
/// kernel included): copying is 15-20 % cheaper for 8 to 32 ranges of 120 B and for 16 of 1 KiB,
/// equal for 2 to 4 of 4 KiB, and dearer from 2 of 16 KiB on.
const COPY_BYTES_MAX: u64 = 16 * 1024;

/// Part of what a connection may be behind by, in one channel: a round is urgent when more than this
/// has arrived since the one before, and nobody who is behind by more rests. At most this much
/// arrives before a round, while it waits for the one before, and while its sends wait.
pub(super) const LAG_SHARE: u64 = 4;

/// Why a connection counts as a slow consumer (close code 3008).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlowReason {
    /// It is behind by more bytes than it may be.
    Bytes,
    /// Its send has made no progress for too long.
    Stuck,
}

/// What [`Subscriptions::gather`] found for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gathered {
    /// Nothing to send.
    Nothing,
    /// There is something; a send is in flight from now on.
    Send {
        /// Bytes in the control buffer and the pieces together.
        bytes: u64,
    },
}

impl Subscriptions {
    /// Marks every connection as ready that has something pending, has no send in flight and does
    /// not rest: those whose channels have advanced, and those whose rest of length `rest` ends.
    /// Who has a send in flight becomes ready when it completes.
    ///
    /// To be called when nobody is left of the round before: what may arrive of a channel between
    /// two rounds is bounded, and so is what anybody is behind by without being slow.
    pub fn begin_round(&mut self, now: Instant, rest: Duration) {
        debug_assert!(self.ready.is_empty(), "the round before is not over");
        self.is_urgent = false;
        self.wake_rested(now, rest);
        let much = self.config.lag_bytes_max / LAG_SHARE;
        let Self {
            advanced,
            places,
            heads,
            connections,
            ready,
            spans,
            ..
        } = self;
        for index in advanced.drain(..) {
            let Some(found) = places[index as usize].channel.as_mut() else {
                continue;
            };
            let head = heads[index as usize];
            found.has_advanced = false;
            found.rounded = head;
            for subscriber in &found.subscribers {
                let connection = &mut connections[subscriber.slot as usize];
                if connection.entries.len() > FEW {
                    spans.note(subscriber.slot, subscriber.entry as usize);
                }
                if connection.progress_ms != 0 || connection.is_ready || connection.is_evicted {
                    continue;
                }
                if connection.is_resting {
                    let cursor = connection.entries[subscriber.entry as usize].cursor;
                    if head.saturating_sub(cursor) <= much {
                        continue;
                    }
                }
                connection.is_ready = true;
                ready.push_back(subscriber.slot);
            }
        }
        self.check_invariants();
    }

    /// Ends the rests that have lasted for `rest`; who has something pending is ready.
    fn wake_rested(&mut self, now: Instant, rest: Duration) {
        while let Some(first) = self.resting.front()
            && first.since + rest <= now
        {
            let slot = first.slot;
            self.resting.pop_front();
            let Some(connection) = self.connections.get_mut(slot as usize) else {
                continue;
            };
            // Another connection may be in this place by now, or it did not rest to the end.
            if !std::mem::take(&mut connection.is_resting) {
                continue;
            }
            if connection.progress_ms == 0 && self.pending_bytes(slot) > 0 {
                self.make_ready(slot);
            }
        }
    }

    /// Bytes that the connection is behind by, in all its channels together; what has arrived since the last
    /// round may not be among them.
    fn pending_bytes(&self, slot: Slot) -> u64 {
        let Some(connection) = self.connection(slot) else {
            return 0;
        };
        let span = self.spans.of(slot, connection.entries.len());
        let behind =
            |entry: &Entry| self.heads[entry.channel as usize].saturating_sub(entry.cursor);
        connection.entries[span].iter().map(behind).sum()
    }

    fn make_ready(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        if !connection.is_ready && !connection.is_evicted {
            connection.is_ready = true;
            self.ready.push_back(slot);
        }
    }

    /// Since when there is something for a round to do, with rests of length `rest`: now, where a
    /// channel has advanced, else the end of the first rest. `None`: nothing.
    pub fn round_wanted(&self, now: Instant, rest: Duration) -> Option<Instant> {
        match self.has_advanced() {
            true => Some(now),
            false => self.resting.front().map(|first| first.since + rest),
        }
    }

    /// Whether anybody rests after a send of publications.
    pub fn is_anybody_resting(&self) -> bool {
        !self.resting.is_empty()
    }

    /// Whether everybody whom the last round found has had their send.
    pub fn is_round_over(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether a round would find anything.
    pub fn has_advanced(&self) -> bool {
        !self.advanced.is_empty()
    }

    /// Whether so much of one channel has arrived that the next round should not wait, and nothing
    /// more should be taken from the mailbox before it.
    pub fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// The caller has bytes of its own for this connection (replies, pings): they are to leave
    /// promptly, or when the send in flight has completed.
    pub fn mark_ready(&mut self, slot: Slot) {
        if self.connections.len() <= slot as usize {
            self.connections
                .resize_with(slot as usize + 1, Connection::default);
        }
        let connection = &mut self.connections[slot as usize];
        if connection.progress_ms == 0 && !connection.is_prompt && !connection.is_evicted {
            connection.is_prompt = true;
            self.prompt.push_back(slot);
        }
    }

    /// A connection for which the caller has bytes, without a send in flight.
    pub fn next_prompt(&mut self) -> Option<Slot> {
        next_idle(&mut self.prompt, &mut self.connections, |connection| {
            connection.is_prompt = false;
        })
    }

    /// The next connection of the round, without a send in flight.
    pub fn next_ready(&mut self) -> Option<Slot> {
        next_idle(&mut self.ready, &mut self.connections, |connection| {
            connection.is_ready = false;
        })
    }

    /// Begins a send of `control` alone: what is pending stays so until it may be sent.
    pub fn send_alone(&mut self, slot: Slot, now: Instant, control: &[u8]) -> Gathered {
        let now_ms = self.ms(now);
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return Gathered::Nothing;
        };
        debug_assert_eq!(connection.progress_ms, 0, "one send at a time");
        if control.is_empty() {
            return Gathered::Nothing;
        }
        connection.progress_ms = now_ms.wrapping_add(1).max(1);
        Gathered::Send {
            bytes: control.len() as u64,
        }
    }

    /// Collects what the connection in `slot` is to be sent: first `control` (replies, in which a
    /// subscribe reply stands before the first publication of its channel), then everything
    /// pending of each channel. A single range is sent from where it lies; several small ones are
    /// copied behind `control`. When there is anything, a send is in flight from `now` on until
    /// [`Self::sent`]; where publications are among it and `rest` is not zero the connection rests.
    ///
    /// `pieces` is only added to.
    pub fn gather(
        &mut self,
        slot: Slot,
        now: Instant,
        rest: Duration,
        control: &mut Vec<u8>,
        pieces: &mut impl Extend<LogSlice>,
    ) -> Gathered {
        let now_ms = self.ms(now);
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return Gathered::Nothing;
        };
        debug_assert_eq!(connection.progress_ms, 0, "one send at a time");
        let mut pending_bytes = 0;
        let mut ranges = 0;
        let span = self.spans.of(slot, connection.entries.len());
        for entry in &connection.entries[span.clone()] {
            let behind = self.heads[entry.channel as usize].saturating_sub(entry.cursor);
            pending_bytes += behind;
            ranges += usize::from(behind > 0);
        }
        let control_len = control.len() as u64;
        if pending_bytes + control_len == 0 {
            return Gathered::Nothing;
        }
        let is_copied = pending_bytes <= COPY_BYTES_MAX && (ranges > 1 || control_len > 0);
        connection.progress_ms = now_ms.wrapping_add(1).max(1);
        let mut bytes = control_len;
        if ranges > 0 {
            if !rest.is_zero() && !std::mem::replace(&mut connection.is_resting, true) {
                self.resting.push_back(Resting { slot, since: now });
            }
            self.hand_out(slot, span, |slice| {
                bytes += slice.len() as u64;
                if is_copied {
                    control.extend_from_slice(slice.as_bytes());
                } else {
                    pieces.extend(Some(slice));
                }
            });
            self.spans.forget(slot);
        }
        self.check_invariants();
        Gathered::Send { bytes }
    }

    /// Copies everything pending of the connection in `slot` behind `out`, whether or not a send is
    /// in flight: for the last bytes of a connection whose subscriptions are about to end.
    pub fn take_pending(&mut self, slot: Slot, out: &mut Vec<u8>) {
        let all = self.connection(slot).map_or(0, |own| own.entries.len());
        self.hand_out(slot, 0..all, |slice| {
            out.extend_from_slice(slice.as_bytes());
        });
        self.check_invariants();
    }

    /// Moves the cursors in a part of the list of the connection in `slot` to the heads; `take` gets what they pass.
    fn hand_out(&mut self, slot: Slot, part: Range<usize>, mut take: impl FnMut(LogSlice)) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        for entry in &mut connection.entries[part] {
            let head = self.heads[entry.channel as usize];
            if entry.cursor >= head {
                continue;
            }
            let Some(found) = self.places[entry.channel as usize].channel.as_mut() else {
                continue;
            };
            match found.first_of(slot).cloned() {
                None => found.pending(entry.cursor, head, &mut take),
                Some(First { start, end, whole }) => {
                    found.pending(entry.cursor, start, &mut take);
                    take(whole);
                    found.pending(end, head, &mut take);
                    found.forget_first(slot);
                }
            }
            entry.cursor = head;
            found.lagging -= 1;
            if found.lagging == 0 {
                found.trim(head, head);
            }
        }
    }

    /// The send in flight was taken in part; what is left of it goes on.
    pub fn progressed(&mut self, slot: Slot, now: Instant) {
        let now_ms = self.ms(now);
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && connection.progress_ms != 0
        {
            connection.progress_ms = now_ms.wrapping_add(1).max(1);
        }
    }

    /// The send in flight is complete. The connection is ready again if something is pending.
    pub fn sent(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        connection.progress_ms = 0;
        let is_resting = connection.is_resting;
        let pending = self.pending_bytes(slot);
        if pending > self.config.lag_bytes_max / LAG_SHARE {
            // It has kept up with what it was given; it must not become slow by waiting for its turn.
            self.mark_ready(slot);
        } else if pending > 0 && !is_resting {
            self.make_ready(slot);
        }
        self.check_invariants();
    }

    /// Whether a send is in flight.
    pub fn is_sending(&self, slot: Slot) -> bool {
        self.connection(slot)
            .is_some_and(|connection| connection.progress_ms != 0)
    }

    /// Looks at one part of `parts` of the connections, going on where it stopped last, for slow
    /// consumers: a send without progress for too long, or too many bytes behind in all channels
    /// together. Those it finds are added to [`Self::next_evicted`].
    ///
    /// The part is one of all places, also of those that are empty after a rush: each connection's
    /// turn comes after `parts` calls, however many there once were.
    pub fn sweep(&mut self, parts: usize, now: Instant) {
        let now_ms = self.ms(now);
        let stuck_ms = self.config.stuck_max.as_millis() as u32;
        for _ in 0..self.connections.len().div_ceil(parts) {
            if self.swept_to >= self.connections.len() {
                self.swept_to = 0;
            }
            let slot = self.swept_to as Slot;
            self.swept_to += 1;
            let connection = &self.connections[slot as usize];
            if connection.progress_ms == 0 || connection.is_evicted {
                continue;
            }
            let silent_ms = now_ms.wrapping_add(1).wrapping_sub(connection.progress_ms);
            let lag = self.pending_bytes(slot);
            if silent_ms >= stuck_ms {
                self.evict(slot, SlowReason::Stuck);
            } else if lag > self.config.lag_bytes_max {
                self.evict(slot, SlowReason::Bytes);
            }
        }
    }

    /// A connection that must be closed as a slow consumer (code 3008); its subscriptions have
    /// ended in effect, and [`Self::close`] removes them.
    pub fn next_evicted(&mut self) -> Option<(Slot, SlowReason)> {
        self.evicted.pop()
    }

    /// Finds the slowest cursor, forgets what lies below it, and evicts those who would keep more
    /// than the bound. `last_len` is the length of what arrived last: that is always kept, so that
    /// one frame longer than the bound evicts nobody who keeps up.
    pub(super) fn trim(&mut self, index: u32, last_len: u64) {
        let head = self.heads[index as usize];
        let bound = self.config.lag_bytes_max.max(last_len);
        let limit = head.saturating_sub(bound);
        let Some(found) = self.places[index as usize].channel.as_ref() else {
            return;
        };
        let mut slowest = head;
        let mut too_slow: Vec<Slot> = Vec::new();
        for subscriber in &found.subscribers {
            let cursor = self.connections[subscriber.slot as usize].entries
                [subscriber.entry as usize]
                .cursor;
            if cursor < limit {
                too_slow.push(subscriber.slot);
            } else {
                slowest = slowest.min(cursor);
            }
        }
        for slot in too_slow {
            self.evict(slot, SlowReason::Bytes);
        }
        if let Some(found) = self.places[index as usize].channel.as_mut() {
            found.trim(slowest.max(found.tail()), head);
        }
    }

    /// Nothing more is sent to this connection: its cursors go to the heads, so that it holds
    /// nothing back.
    fn evict(&mut self, slot: Slot, reason: SlowReason) {
        let connection = &mut self.connections[slot as usize];
        for entry in &mut connection.entries {
            let head = self.heads[entry.channel as usize];
            if entry.cursor >= head {
                continue;
            }
            entry.cursor = head;
            if let Some(found) = self.places[entry.channel as usize].channel.as_mut() {
                found.forget_first(slot);
                found.lagging -= 1;
                if found.lagging == 0 {
                    found.trim(head, head);
                }
            }
        }
        if std::mem::replace(&mut connection.is_evicted, true) {
            return;
        }
        match reason {
            SlowReason::Bytes => self.stats.slow_bytes += 1,
            SlowReason::Stuck => self.stats.slow_stuck += 1,
        }
        self.evicted.push((slot, reason));
    }

    /// Positions of a subscription, for tests and for history: cursor and head.
    pub fn positions(&self, slot: Slot, key: ChannelKey) -> Option<(u64, u64)> {
        let connection = self.connection(slot)?;
        let entry = connection
            .entries
            .iter()
            .find(|entry| entry.channel == key.index && entry.cursor != UNCONFIRMED)?;
        Some((entry.cursor, self.heads[key.index as usize]))
    }
}

/// Takes connections out of `queue`, of which `taken` makes a note, up to the first without a send
/// in flight.
fn next_idle(
    queue: &mut VecDeque<Slot>,
    connections: &mut [Connection],
    taken: impl Fn(&mut Connection),
) -> Option<Slot> {
    loop {
        let slot = queue.pop_front()?;
        let connection = &mut connections[slot as usize];
        taken(connection);
        if connection.progress_ms == 0 {
            return Some(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::SubscriptionsConfig;

    #[test]
    fn a_stuck_connection_is_found_in_as_many_sweeps_after_a_rush_as_before_it() {
        const PARTS: usize = 10;
        const RUSH: Slot = 1_000;
        let start = Instant::now();
        let config = SubscriptionsConfig::default();
        let mut subscriptions = Subscriptions::new(config, start);
        for slot in 0..RUSH {
            subscriptions.mark_ready(slot);
        }
        for slot in 0..RUSH - 1 {
            subscriptions.close(slot, &mut |_| {});
        }
        let stuck = subscriptions.next_prompt().expect("one is left");
        let mut control = b"x".to_vec();
        let gathered =
            subscriptions.gather(stuck, start, Duration::ZERO, &mut control, &mut Vec::new());
        assert_eq!(gathered, Gathered::Send { bytes: 1 });
        let later = start + config.stuck_max + Duration::from_secs(1);
        for _ in 0..PARTS {
            subscriptions.sweep(PARTS, later);
        }
        assert_eq!(
            subscriptions.next_evicted(),
            Some((stuck, SlowReason::Stuck))
        );
    }
}
