//! What a door has for its own shard without anybody else's doing: deliveries of the shard's own
//! publications, and answers that could be given at once.
//!
//! Invariants
//! - `bytes` is the sum of the deliveries' lengths.
//! - `refused` holds the keys of the refusals among the events: subscribes that nobody else has
//!   heard of, so that nobody else needs to hear of their end either.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::Event;
use crate::protocol::ErrorCode;
use crate::pubsub::ChannelKey;

#[derive(Default)]
pub(super) struct Local {
    events: VecDeque<Event>,
    bytes: usize,
    refused: HashSet<ChannelKey, RandomState>,
}

impl Local {
    pub(super) fn push(&mut self, event: Event) {
        self.bytes += bytes_of(&event);
        self.events.push_back(event);
    }

    /// Answers a subscribe that is not passed on, as too much waits already.
    pub(super) fn refuse(&mut self, key: ChannelKey) {
        self.refused.insert(key);
        let result = Err(ErrorCode::TooManyRequests);
        self.push(Event::Subscribed { key, result });
    }

    /// Whether the subscribe of `key` was refused and its shard, who asks for its end, has not
    /// heard so yet. To be asked once.
    pub(super) fn ends_refused(&mut self, key: ChannelKey) -> bool {
        self.refused.remove(&key)
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.bytes -= bytes_of(&event);
        if let Event::Subscribed {
            key,
            result: Err(_),
        } = &event
        {
            self.refused.remove(key);
        }
        Some(event)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Bytes of the deliveries that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn bytes_of(event: &Event) -> usize {
    match event {
        Event::Delivery { slice, .. } => slice.len(),
        _ => 0,
    }
}
