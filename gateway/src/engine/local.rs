//! What a door has for its own shard without anybody else's doing: deliveries of the shard's own
//! publications, and answers that could be given at once.
//!
//! Invariants
//! - `bytes` is the sum of the deliveries' lengths.
//! - `refused` holds the keys of the refusals among the events: subscribes that nobody else has
//!   heard of, so that nobody else needs to hear of their end either.
//! - `kept_out` holds the clients whose presence was not passed on, for the same reason. It holds
//!   no more than the shard has subscriptions.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::Event;
use crate::protocol::{ClientId, ErrorCode};
use crate::pubsub::ChannelKey;

#[derive(Default)]
pub(super) struct Local {
    events: VecDeque<Event>,
    bytes: usize,
    refused: HashSet<ChannelKey, RandomState>,
    kept_out: HashSet<(Arc<str>, ClientId), RandomState>,
}

impl Local {
    pub(super) fn push(&mut self, event: Event) {
        self.bytes += event.bytes();
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
        self.bytes -= event.bytes();
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

    /// Whether the subscribe of `key` was refused and its shard has not heard so yet.
    pub(super) fn is_refused(&self, key: ChannelKey) -> bool {
        self.refused.contains(&key)
    }

    /// The client's presence is not passed on, as too much waits already.
    pub(super) fn keep_out(&mut self, channel: &str, client: ClientId) {
        self.kept_out.insert((Arc::from(channel), client));
    }

    /// Whether the client was kept out of `channel`, which it now leaves. To be asked once.
    pub(super) fn ends_kept_out(&mut self, channel: &str, client: ClientId) -> bool {
        !self.kept_out.is_empty() && self.kept_out.remove(&(Arc::from(channel), client))
    }

    /// Bytes of the deliveries that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
