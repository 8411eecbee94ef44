//! What clients have sent and their sessions do not take yet.
//!
//! A session that is behind is not read from, but what the kernel had taken off its socket before it heard so
//! still comes: a client may send thousands of commands at once. It is taken when the session has caught up, so
//! that a burst waits instead of being refused. Bounded by the socket's receive buffer.

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
    is_ready: bool,
}

impl Held {
    /// Keeps what has come behind what is kept already.
    pub(super) fn keep(&mut self, key: Key, bytes: &[u8]) {
        let input = self.input.entry(key).or_default();
        input.bytes.extend_from_slice(bytes);
    }

    /// Whether anything is kept of the connection.
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

    /// What is kept of the connection, which is from then on with the caller.
    pub(super) fn take(&mut self, key: Key) -> Option<Vec<u8>> {
        self.input.remove(&key).map(|input| input.bytes)
    }
}

impl Shard {
    /// Gives sessions that have caught up what is kept of their connections.
    pub(super) fn take_held(&mut self, ring: &mut NetRing, now: Instant) {
        // Whoever falls behind again is there again in a later turn.
        for _ in 0..self.held.ready.len() {
            let Some(key) = self.held.ready.pop_front() else {
                return;
            };
            let Some(mut bytes) = self.held.take(key) else {
                continue;
            };
            self.update_reading(ring, key);
            for portion in bytes.chunks_mut(PORTION) {
                self.on_bytes(ring, key, portion, now);
            }
        }
    }
}
