//! What the Redis engine's thread holds for the shards: the order of every channel, and the ways
//! to them.

use std::sync::Arc;

use super::super::outbox::Outbox;
use super::super::request::{Mail, ReplyTo};
use super::super::{Asker, EngineMetrics, Event};
use super::interest::Waiter;
use super::ledger::Publisher;
use super::present::Present;
use crate::protocol::ErrorCode;
use crate::pubsub::{
    ChannelKey, Interest, MessageRef, Sequencer, ShardIndex, StreamPosition, Variant,
};

pub(super) struct Shards {
    sequencer: Sequencer,
    outboxes: Vec<Outbox>,
    pub(super) present: Present,
    pub(super) metrics: Arc<EngineMetrics>,
}

impl Shards {
    pub(super) fn new(outboxes: Vec<Outbox>, metrics: Arc<EngineMetrics>) -> Self {
        Self {
            sequencer: Sequencer::new(),
            outboxes,
            present: Present::default(),
            metrics,
        }
    }

    pub(super) fn join(
        &mut self,
        channel: &Arc<str>,
        variant: Variant,
        shard: ShardIndex,
        key: ChannelKey,
    ) {
        self.sequencer.join(channel, variant, shard, key);
        self.count_channels();
    }

    /// True when the channel has lost its last listener.
    pub(super) fn leave(
        &mut self,
        channel: &str,
        variant: Variant,
        shard: ShardIndex,
        key: ChannelKey,
    ) -> bool {
        let interest = self.sequencer.leave(channel, variant, shard, key);
        self.count_channels();
        interest == Interest::Ended
    }

    /// Gives a message its place and hands it to the shards that listen. True when the channel has
    /// lost its last listener by it.
    pub(super) fn sequence(
        &mut self,
        channel: &str,
        message: MessageRef<'_>,
        position: Option<StreamPosition>,
    ) -> bool {
        let outboxes = &mut self.outboxes;
        let sequenced =
            self.sequencer
                .publish(channel, message, position, &mut |shard, key, delivered| {
                    outboxes
                        .get_mut(usize::from(shard))
                        .is_some_and(|outbox| outbox.deliver(key, delivered))
                });
        self.metrics.sequenced.add(1);
        for (shard, key) in sequenced.inappropriate {
            self.tell(shard, Event::Inappropriate { key });
        }
        if sequenced.interest == Interest::Ended {
            self.count_channels();
        }
        sequenced.interest == Interest::Ended
    }

    /// The channel cannot be delivered: those who have waited are refused, other listeners are told
    /// that they have lost it, and all of them are gone.
    pub(super) fn lose(&mut self, channel: &str, waiters: &[Waiter]) {
        for (shard, key) in self.sequencer.remove(channel) {
            let event = if waiters.contains(&(shard, key)) {
                let result = Err(ErrorCode::Internal);
                Event::Subscribed { key, result }
            } else {
                Event::Lost { key }
            };
            self.tell(shard, event);
        }
        self.count_channels();
    }

    pub(super) fn subscribed(
        &mut self,
        (shard, key): Waiter,
        result: Result<Option<StreamPosition>, ErrorCode>,
    ) {
        self.tell(shard, Event::Subscribed { key, result });
    }

    pub(super) fn published(
        &mut self,
        publisher: Publisher,
        result: Result<Option<StreamPosition>, ErrorCode>,
    ) {
        self.answer(publisher, result, |asker, result| Event::Published {
            asker,
            result,
        });
    }

    pub(super) fn answer<T>(
        &mut self,
        reply: ReplyTo<T>,
        result: Result<T, ErrorCode>,
        event: impl FnOnce(Asker, Result<T, ErrorCode>) -> Event,
    ) {
        if let Some((shard, event)) = reply.answer(result, event) {
            self.tell(shard, event);
        }
    }

    /// The channels that somebody on this node listens to.
    pub(super) fn channels(&self) -> Vec<Arc<str>> {
        self.sequencer.names().map(Arc::clone).collect()
    }

    /// Passes on what has gathered; false while something waits for a shard that is behind.
    pub(super) fn flush(&mut self) -> bool {
        let mut is_clear = true;
        for outbox in &mut self.outboxes {
            is_clear &= outbox.flush();
        }
        is_clear
    }

    pub(super) fn sweep(&mut self) {
        self.sequencer.sweep();
    }

    pub(super) fn tell(&mut self, shard: ShardIndex, event: Event) {
        if let Some(outbox) = self.outboxes.get_mut(usize::from(shard)) {
            outbox.send(Mail::Event(event));
        }
    }

    fn count_channels(&self) {
        self.metrics.channels.set(self.sequencer.channels() as u64);
    }
}
