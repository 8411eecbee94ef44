//! All streams of an owner, bounded by bytes.
//!
//! Beyond the bound, streams without publications that nobody listens to are forgotten, so that
//! their channels get another epoch; then the stream that was used longest ago loses its oldest
//! publications, then the next one. Either way whoever comes back to what is gone is told so
//! (`recovered: false`).
//!
//! Expired publications and forgotten streams are not seen from their time on; their memory is
//! given back by a sweep over a part of the table at a time.
//!
//! Invariants
//! - `bytes` is the sum of what the streams stand for; after each change at most `bytes_max`, but
//!   for streams that have no publications and somebody listening.
//! - A stream is in `full` while it has publications, else in `bare`.

use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use slab::Slab;

use super::super::history::HistoryOptions;
use super::Stream;
use super::recency::{List, Recency};
use crate::pubsub::Epoch;

/// Streams without publications that are looked at for one to forget, each time room is made.
const FORGET_TRIES: usize = 16;
/// A sweep looks at one part of so many of all places, and at this many at least.
const SWEEP_PARTS: usize = 32;
const SWEEP_MIN: usize = 1_024;
/// What a stream costs beside itself: its place in the tables, the first chunk of its log.
const ENTRY_BYTES: usize = 256;

struct Entry {
    name: Arc<str>,
    stream: Stream,
    /// What it stood for when it was last looked at.
    bytes: usize,
    is_full: bool,
}

/// The streams of the channels that one shard owns.
pub(in crate::engine) struct Streams {
    by_name: HashMap<Arc<str>, u32, RandomState>,
    entries: Slab<Entry>,
    recency: Recency,
    full: List,
    bare: List,
    bytes: usize,
    bytes_max: usize,
    /// Publications that went before their time.
    evicted: u64,
    /// Streams that were forgotten before their time.
    forgotten: u64,
    swept_to: usize,
}

impl Streams {
    pub(in crate::engine) fn new(bytes_max: usize) -> Self {
        Self {
            by_name: HashMap::default(),
            entries: Slab::new(),
            recency: Recency::default(),
            full: List::default(),
            bare: List::default(),
            bytes: 0,
            bytes_max,
            evicted: 0,
            forgotten: 0,
            swept_to: 0,
        }
    }

    pub(in crate::engine) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that all of them stand for.
    pub(in crate::engine) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Publications that went before their time, since the start.
    pub(in crate::engine) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Streams that were forgotten before their time, since the start.
    pub(in crate::engine) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Works with the stream of `channel` as it is now, making one if there is none. `is_heard`
    /// says whether somebody listens to a channel: then its stream is in use all the time.
    pub(in crate::engine) fn with<T>(
        &mut self,
        channel: &str,
        options: &HistoryOptions,
        now: Instant,
        is_heard: impl Fn(&str) -> bool,
        work: impl FnOnce(&mut Stream) -> T,
    ) -> T {
        let place = match self.by_name.get(channel) {
            Some(place) => *place,
            None => self.insert(channel, options, now),
        };
        let entry = &mut self.entries[place as usize];
        if entry.stream.is_forgotten(now) && !is_heard(channel) {
            entry.stream = Stream::new(Epoch::from_random(fastrand::u64(..)), now, options);
        }
        entry.stream.expire(now);
        entry.stream.renew(now, options);
        let result = work(&mut entry.stream);
        self.settle(place);
        self.make_room(is_heard);
        self.check_invariants();
        result
    }

    /// Drops the publications of `channel`.
    pub(in crate::engine) fn clear(&mut self, channel: &str) {
        if let Some(place) = self.by_name.get(channel).copied() {
            self.entries[place as usize].stream.clear();
            self.settle(place);
            self.check_invariants();
        }
    }

    /// Nobody listens to `channel` any longer: its time counts from now on.
    pub(in crate::engine) fn release(&mut self, channel: &str, now: Instant) {
        if let Some(place) = self.by_name.get(channel) {
            self.entries[*place as usize].stream.release(now);
        }
    }

    /// Gives back the memory of what is over, in one part of the table; to be called every few
    /// seconds.
    pub(in crate::engine) fn sweep(&mut self, now: Instant, is_heard: impl Fn(&str) -> bool) {
        let places = self.entries.capacity();
        let count = (places / SWEEP_PARTS).max(SWEEP_MIN).min(places);
        for _ in 0..count {
            if self.swept_to >= places {
                self.swept_to = 0;
            }
            let place = self.swept_to;
            self.swept_to += 1;
            let Some(entry) = self.entries.get_mut(place) else {
                continue;
            };
            if entry.stream.is_forgotten(now) && !is_heard(&entry.name) {
                self.remove(place as u32);
            } else if entry.stream.expire(now) > 0 {
                self.settle(place as u32);
            }
        }
        if self.entries.is_empty() && self.entries.capacity() > SWEEP_MIN {
            self.entries = Slab::new();
            self.by_name = HashMap::default();
            self.recency.shrink(0);
        }
        self.check_invariants();
    }

    fn insert(&mut self, channel: &str, options: &HistoryOptions, now: Instant) -> u32 {
        let name: Arc<str> = Arc::from(channel);
        let place = self.entries.insert(Entry {
            name: Arc::clone(&name),
            stream: Stream::new(Epoch::from_random(fastrand::u64(..)), now, options),
            bytes: 0,
            is_full: false,
        }) as u32;
        self.by_name.insert(name, place);
        self.recency.push(&mut self.bare, place);
        place
    }

    /// The stream in `place` was used or has changed.
    fn settle(&mut self, place: u32) {
        let entry = &mut self.entries[place as usize];
        let bytes = ENTRY_BYTES + 2 * entry.name.len() + entry.stream.bytes();
        self.bytes = self.bytes - entry.bytes + bytes;
        entry.bytes = bytes;
        let was_full = std::mem::replace(&mut entry.is_full, !entry.stream.is_empty());
        let is_full = entry.is_full;
        let list = match was_full {
            true => &mut self.full,
            false => &mut self.bare,
        };
        self.recency.remove(list, place);
        let list = match is_full {
            true => &mut self.full,
            false => &mut self.bare,
        };
        self.recency.push(list, place);
    }

    fn remove(&mut self, place: u32) {
        let gone = self.entries.remove(place as usize);
        self.bytes -= gone.bytes;
        self.by_name.remove(&gone.name);
        let list = match gone.is_full {
            true => &mut self.full,
            false => &mut self.bare,
        };
        self.recency.remove(list, place);
    }

    fn make_room(&mut self, is_heard: impl Fn(&str) -> bool) {
        for _ in 0..FORGET_TRIES {
            let Some(place) = self.bare.oldest().filter(|_| self.bytes > self.bytes_max) else {
                break;
            };
            if is_heard(&self.entries[place as usize].name) {
                // It is in use: others first.
                self.recency.remove(&mut self.bare, place);
                self.recency.push(&mut self.bare, place);
            } else {
                self.forgotten += 1;
                self.remove(place);
            }
        }
        while self.bytes > self.bytes_max
            && let Some(place) = self.full.oldest()
        {
            let Entry { stream, bytes, .. } = &mut self.entries[place as usize];
            while self.bytes > self.bytes_max {
                let before = stream.bytes();
                if !stream.drop_oldest() {
                    break;
                }
                self.evicted += 1;
                let freed = before - stream.bytes();
                *bytes -= freed;
                self.bytes -= freed;
            }
            if stream.is_empty() {
                self.entries[place as usize].is_full = false;
                self.recency.remove(&mut self.full, place);
                self.recency.push(&mut self.bare, place);
            }
        }
    }

    /// Checked after each change in debug builds while the table is small enough for it.
    fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.entries.len() <= 64 {
            let bytes = self
                .entries
                .iter()
                .map(|(_, entry)| entry.bytes)
                .sum::<usize>();
            assert_eq!(bytes, self.bytes, "bytes of all streams");
            assert_eq!(self.entries.len(), self.by_name.len());
            for (place, entry) in &self.entries {
                assert_eq!(self.by_name.get(&entry.name), Some(&(place as u32)));
                assert_eq!(entry.is_full, !entry.stream.is_empty(), "{}", entry.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pubsub::{MessageRef, StreamPosition};

    const OPTIONS: HistoryOptions = HistoryOptions {
        size: 100,
        ttl: Duration::from_secs(10),
        meta_ttl: Duration::from_secs(100),
    };

    fn publish(streams: &mut Streams, channel: &str, bytes: usize, now: Instant) -> StreamPosition {
        let data = vec![b'1'; bytes];
        streams.with(
            channel,
            &OPTIONS,
            now,
            |_| false,
            |stream| {
                stream.enter(MessageRef::data(&data), None, &OPTIONS, now);
                stream.position()
            },
        )
    }

    fn is_empty(streams: &Streams, channel: &str) -> bool {
        let place = streams.by_name[channel];
        streams.entries[place as usize].stream.is_empty()
    }

    #[test]
    fn beyond_the_bound_the_stream_used_longest_ago_loses_its_oldest_first() {
        let now = Instant::now();
        let mut streams = Streams::new(20_000);
        for channel in ["a", "b", "c"] {
            for _ in 0..3 {
                publish(&mut streams, channel, 1_000, now);
            }
        }
        assert_eq!(streams.evicted(), 0);
        // `a` was used: `b` is the one that was not.
        publish(&mut streams, "a", 1, now);
        publish(&mut streams, "d", 12_000, now);
        assert!(streams.bytes() <= 20_000);
        assert!(is_empty(&streams, "b") && !is_empty(&streams, "a"));
        assert!(streams.evicted() >= 3);
        let position = publish(&mut streams, "b", 1, now);
        assert_eq!(position.offset, 4, "its position has stayed");
    }

    #[test]
    fn many_channels_used_once_are_bounded_and_those_listened_to_keep_their_epoch() {
        let now = Instant::now();
        let mut streams = Streams::new(100_000);
        let is_heard = |name: &str| name == "heard";
        let position = |stream: &mut Stream| stream.position();
        let heard = streams.with("heard", &OPTIONS, now, is_heard, position);
        for n in 0..10_000 {
            streams.with(&n.to_string(), &OPTIONS, now, is_heard, position);
            assert!(streams.bytes() <= 100_000);
        }
        assert!(streams.len() < 1_000);
        assert_eq!(
            streams.with("heard", &OPTIONS, now, is_heard, position),
            heard
        );
    }

    #[test]
    fn what_is_over_is_not_seen_and_a_sweep_gives_its_memory_back() {
        let start = Instant::now();
        let mut streams = Streams::new(1 << 20);
        for n in 0..100 {
            publish(&mut streams, &n.to_string(), 100, start);
        }
        let full = streams.bytes();
        let expired = start + OPTIONS.ttl;
        streams.sweep(expired, |_| false);
        assert!(streams.bytes() < full && streams.len() == 100);
        assert!(is_empty(&streams, "7"));
        let first = publish(&mut streams, "7", 1, expired);
        assert_eq!(first.offset, 2);
        let forgotten = start + OPTIONS.meta_ttl;
        streams.sweep(forgotten, |name| name == "8");
        assert_eq!(streams.len(), 2, "one was used since, one is listened to");
        streams.release("8", forgotten);
        streams.sweep(forgotten, |_| false);
        assert_eq!(
            streams.len(),
            2,
            "its time counts from its last listener on"
        );
        let again = publish(&mut streams, "9", 1, forgotten);
        assert_eq!(again.offset, 1);
        streams.sweep(forgotten + 2 * OPTIONS.meta_ttl, |_| false);
        assert_eq!((streams.len(), streams.bytes()), (0, 0));
    }
}
