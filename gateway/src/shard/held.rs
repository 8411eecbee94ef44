//! What clients have sent and their sessions do not take yet.
//!
//! A session that is behind is not read from, but what the kernel had taken off its socket before it heard so
//! still comes: a client may send thousands of commands at once. It is taken when the session has caught up, so
//! that a burst waits instead of being refused. Bounded: a receive that is being stopped takes at most what the ring's
//! buffers hold.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use flux_runtime::ring::{Key, NetRing};
use foldhash::fast::RandomState;

use super::Shard;

/// Bytes given to a session before it is asked again whether it is behind: what a receive has.
const PORTION: usize = 4096;

/// Input of connections that are not read from.
#[derive(Default)]
pub(super) struct Held {
    input: HashMap<Key, Input, RandomState>,
    /// Those whose sessions have caught up.
    ready: VecDeque<Key>,
}

#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    /// Bytes at the start that are taken already.
    taken: usize,
    is_ready: bool,
}

impl Held {
    /// Keeps what has come behind what is kept already.
    pub(super) fn keep(&mut self, key: Key, bytes: &[u8]) {
        let input = self.input.entry(key).or_default();
        input.bytes.drain(..std::mem::take(&mut input.taken));
        input.bytes.extend_from_slice(bytes);
    }

    /// Whether anything is kept of the connection, or being taken.
    pub(super) fn has(&self, key: Key) -> bool {
        self.input.contains_key(&key)
    }

    /// The session has caught up: what is kept is given to it in this turn or the next.
    pub(super) fn make_ready(&mut self, key: Key) {
        if let Some(input) = self.input.get_mut(&key)
            && !std::mem::replace(&mut input.is_ready, true)
        {
            self.ready.push_back(key);
        }
    }

    /// Whether there is a session to be given what is kept.
    pub(super) fn is_anybody_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What is kept of a connection that ends, or nothing.
    pub(super) fn remove(&mut self, key: Key) -> Vec<u8> {
        self.input.remove(&key).map_or_else(Vec::new, |mut input| {
            input.bytes.drain(..input.taken);
            input.bytes
        })
    }
}

impl Shard {
    /// Gives sessions that have caught up what is kept of their connections, until they are behind again. Only
    /// when all of it is taken a connection is read from again: what is kept cannot grow meanwhile.
    pub(super) fn take_held(&mut self, ring: &mut NetRing, now: Instant) {
        for _ in 0..self.held.ready.len() {
            let Some(key) = self.held.ready.pop_front() else {
                return;
            };
            // Its place stays, so that nobody reads on in between.
            let Some(input) = self.held.input.get_mut(&key) else {
                continue;
            };
            let (mut bytes, mut taken) = (std::mem::take(&mut input.bytes), input.taken);
            while taken < bytes.len() && !self.is_behind(key) {
                let end = bytes.len().min(taken + PORTION);
                self.take_bytes(ring, key, &mut bytes[taken..end], now);
                taken = end;
            }
            // It has none any more where the connection has ended.
            let Some(input) = self.held.input.get_mut(&key) else {
                continue;
            };
            if taken < bytes.len() {
                *input = Input {
                    bytes,
                    taken,
                    is_ready: false,
                };
            } else {
                self.held.input.remove(&key);
                self.update_reading(ring, key);
            }
        }
    }
}
