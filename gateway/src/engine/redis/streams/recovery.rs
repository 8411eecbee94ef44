//! Subscribers that want what they missed: answered from what is remembered, else behind a read.

use std::time::Instant;

use super::super::super::history::{Recovery, RecoveryMode, RecoveryRequest};
use super::super::super::{Asker, Event};
use super::super::interest::Waiter;
use super::super::shards::Shards;
use super::Streams;
use super::read::Sent;
use super::recent::{Settled, not_recovered};
use super::stream::Stream;
use crate::limits::REDIS_READ_PUBLICATIONS_MAX;
use crate::protocol::ErrorCode;
use crate::pubsub::{ChannelKey, ShardIndex};

/// A recovery that waits for a read.
#[derive(Debug)]
pub(super) struct Recoverer {
    pub(super) shard: ShardIndex,
    pub(super) key: ChannelKey,
    pub(super) request: RecoveryRequest,
    pub(super) asker: Asker,
}

impl Streams {
    /// Somebody who listens wants what it missed.
    pub(in super::super) fn recover(
        &mut self,
        channel: &str,
        (shard, key): Waiter,
        request: RecoveryRequest,
        asker: Asker,
        now: Instant,
        shards: &mut Shards,
    ) {
        let recoverer = Recoverer {
            shard,
            key,
            request,
            asker,
        };
        let stream = self.channels.get_mut(channel);
        let Some(stream) = stream.filter(|stream| stream.has_listeners) else {
            return recoverer.answer(Err(ErrorCode::Internal), shards);
        };
        stream.expire(now, &mut self.recent_bytes);
        if let Some(position) = stream.position {
            if let Settled::Answer(recovery) = stream.recent.settle(&request, position) {
                shards.metrics.redis_recovered_from_memory.add(1);
                return recoverer.answer(Ok(recovery), shards);
            }
            if !self.is_connected {
                return recoverer.answer(Err(ErrorCode::Internal), shards);
            }
        }
        stream.recoverers.push(recoverer);
        self.want_read(channel, now);
    }

    /// Answers who has waited for a read and can be answered now.
    pub(super) fn answer(&mut self, channel: &str, sent: Sent, now: Instant, shards: &mut Shards) {
        let Some(stream) = self.channels.get_mut(channel) else {
            return;
        };
        let Some(position) = stream.position else {
            return;
        };
        for waiter in stream.subscribers.drain(..) {
            shards.subscribed(waiter, Ok(Some(position)));
        }
        for recoverer in std::mem::take(&mut stream.recoverers) {
            let request = recoverer.request;
            match stream.recent.settle(&request, position) {
                Settled::Answer(recovery) => recoverer.answer(Ok(recovery), shards),
                Settled::Unknown if sent.covers(&request) => {
                    let recovery = not_recovered(position);
                    recoverer.answer(Ok(recovery), shards);
                }
                Settled::Unknown => stream.recoverers.push(recoverer),
            }
        }
        if !stream.recoverers.is_empty() {
            self.want_read(channel, now);
        }
    }
}

impl Stream {
    pub(super) fn refuse_recoverers(&mut self, shards: &mut Shards) {
        for recoverer in self.recoverers.drain(..) {
            recoverer.answer(Err(ErrorCode::Internal), shards);
        }
    }

    pub(super) fn limit_of_recoveries(&self) -> u32 {
        let limits = self
            .recoverers
            .iter()
            .map(|waiting| limit_of(&waiting.request));
        limits.max().unwrap_or(1)
    }
}

impl Recoverer {
    pub(super) fn answer(self, result: Result<Recovery, ErrorCode>, shards: &mut Shards) {
        let Self {
            shard, key, asker, ..
        } = self;
        shards.tell(shard, Event::Recovered { key, asker, result });
    }
}

/// How many publications a recovery may need.
pub(super) fn limit_of(request: &RecoveryRequest) -> u32 {
    match request.mode {
        RecoveryMode::Stream => request
            .publications_max
            .clamp(1, REDIS_READ_PUBLICATIONS_MAX),
        RecoveryMode::Cache => 1,
    }
}
