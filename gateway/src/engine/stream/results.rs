//! What became of publications that came with an idempotency key, so that a second one with the same
//! key is not published and gets the same answer.
//!
//! Bounded: beyond the bound the oldest results are forgotten, and counted by the caller.
//!
//! Invariants
//! - `order` names exactly the keys of `by_key`, oldest first; they expire in this order.
//! - `bytes` is the sum of what they stand for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::super::IDEMPOTENCY_TTL;
use super::after;
use crate::pubsub::StreamPosition;

/// Channel and idempotency key, with the channel's length first: no two pairs look the same.
type Key = Arc<[u8]>;

/// Results by channel and idempotency key.
#[derive(Debug)]
pub(in crate::engine) struct Results {
    by_key: HashMap<Key, Option<StreamPosition>, RandomState>,
    order: VecDeque<(Option<Instant>, Key)>,
    bytes: usize,
    bytes_max: usize,
    scratch: Vec<u8>,
}

impl Results {
    pub(in crate::engine) fn new(bytes_max: usize) -> Self {
        Self {
            by_key: HashMap::default(),
            order: VecDeque::new(),
            bytes: 0,
            bytes_max,
            scratch: Vec::new(),
        }
    }

    /// The result of the publication with this key, if there was one.
    #[allow(
        clippy::option_option,
        reason = "a publication without a position has a result too"
    )]
    pub(in crate::engine) fn get(
        &mut self,
        channel: &str,
        key: &str,
        now: Instant,
    ) -> Option<Option<StreamPosition>> {
        self.expire(now);
        self.write_key(channel, key);
        self.by_key.get(&self.scratch[..]).copied()
    }

    /// Remembers a result; says how many were forgotten before their time to make room.
    pub(in crate::engine) fn insert(
        &mut self,
        channel: &str,
        key: &str,
        result: Option<StreamPosition>,
        now: Instant,
    ) -> usize {
        self.write_key(channel, key);
        let key: Key = self.scratch[..].into();
        if self.by_key.insert(Arc::clone(&key), result).is_none() {
            self.bytes += bytes_of(&key);
            self.order.push_back((after(now, IDEMPOTENCY_TTL), key));
        }
        let mut forgotten = 0;
        while self.bytes > self.bytes_max && self.forget_oldest() {
            forgotten += 1;
        }
        forgotten
    }

    /// Forgets what is too old.
    pub(in crate::engine) fn expire(&mut self, now: Instant) {
        while let Some((Some(at), _)) = self.order.front()
            && now >= *at
        {
            self.forget_oldest();
        }
        if self.order.is_empty() && self.order.capacity() > 1_024 {
            *self = Self::new(self.bytes_max);
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_front() else {
            return false;
        };
        self.by_key.remove(&key);
        self.bytes -= bytes_of(&key);
        true
    }

    fn write_key(&mut self, channel: &str, key: &str) {
        self.scratch.clear();
        self.scratch
            .extend_from_slice(&(channel.len() as u32).to_le_bytes());
        self.scratch.extend_from_slice(channel.as_bytes());
        self.scratch.extend_from_slice(key.as_bytes());
    }
}

/// The text, and what stands around it in both collections.
fn bytes_of(key: &Key) -> usize {
    key.len() + 2 * size_of::<Key>() + size_of::<Option<StreamPosition>>() + 64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pubsub::Epoch;

    fn at(offset: u64) -> Option<StreamPosition> {
        let epoch = Epoch::from_random(1);
        Some(StreamPosition { epoch, offset })
    }

    #[test]
    fn a_result_is_known_for_its_time_and_for_its_channel() {
        let start = Instant::now();
        let mut results = Results::new(1 << 20);
        results.insert("a", "k", at(1), start);
        results.insert("b", "k", None, start);
        assert_eq!(results.get("a", "k", start), Some(at(1)));
        assert_eq!(results.get("b", "k", start), Some(None));
        assert_eq!(results.get("", "ak", start), None, "another channel");
        let late = start + IDEMPOTENCY_TTL;
        let just_before = late - Duration::from_millis(1);
        assert_eq!(results.get("a", "k", just_before), Some(at(1)));
        assert_eq!(results.get("a", "k", late), None);
        assert_eq!((results.by_key.len(), results.bytes), (0, 0));
    }

    #[test]
    fn beyond_the_bound_the_oldest_are_forgotten() {
        let now = Instant::now();
        let mut results = Results::new(10_000);
        let mut forgotten = 0;
        for n in 0..1_000 {
            forgotten += results.insert("c", &n.to_string(), at(n), now);
            assert!(results.bytes <= 10_000);
        }
        assert!(forgotten > 0);
        assert_eq!(results.order.len() + forgotten, 1_000);
        assert_eq!(results.get("c", "0", now), None);
        assert_eq!(results.get("c", "999", now), Some(at(999)));
    }
}
