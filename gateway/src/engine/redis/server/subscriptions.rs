//! Which channels Redis delivers to this node, and channels that go to another server.

use std::sync::Arc;
use std::time::Instant;

use super::super::interest::{Command, Released};
use super::super::shards::Shards;
use super::super::streams::Stream;
use super::Server;

/// What of a channel goes with it to another server.
pub(in super::super) struct Leaving {
    interest: Released,
    stream: Option<Box<Stream>>,
}

impl Server {
    /// The next command about subscriptions.
    pub(in super::super) fn next_command(&mut self) -> Option<(Command, Vec<Arc<str>>)> {
        self.interest.next_batch()
    }

    /// Redis has confirmed a subscription.
    pub(in super::super) fn subscribed(
        &mut self,
        channel: &str,
        now: Instant,
        shards: &mut Shards,
    ) {
        for waiter in self.interest.subscribed(channel) {
            shards.subscribed(waiter, Ok(None));
        }
        self.streams.confirmed(channel, now);
        self.rise();
    }

    /// Redis has confirmed the end of a subscription.
    pub(in super::super) fn unsubscribed(&mut self, channel: &str) {
        self.interest.unsubscribed(channel);
    }

    /// Whether the end of the subscription to `channel` was asked for.
    pub(in super::super) fn is_going(&self, channel: &str) -> bool {
        self.interest.is_going(channel)
    }

    /// Redis has ended the subscription to `channel` by itself: it belongs to another server now.
    pub(in super::super) fn dropped(&mut self, channel: &str) {
        self.interest.dropped(channel);
        self.streams.dropped(channel);
    }

    /// Redis has answered that those of `batch` that it has not confirmed belong to another server.
    pub(in super::super) fn elsewhere(&mut self, batch: &[Arc<str>]) {
        self.interest.elsewhere(batch);
    }

    /// What was found out about channels that belong elsewhere has been acted upon.
    pub(in super::super) fn settle(&mut self) {
        self.interest.settle();
    }

    /// All channels that this server has to deliver.
    pub(in super::super) fn channels(&self) -> impl Iterator<Item = &Arc<str>> {
        self.interest.channels()
    }

    /// `channel` goes to another server. What is under way here is answered here.
    pub(in super::super) fn release(
        &mut self,
        channel: &str,
        shards: &mut Shards,
    ) -> Option<Leaving> {
        let interest = self.interest.release(channel)?;
        let stream = self.streams.release(channel, shards);
        self.rise();
        Some(Leaving { interest, stream })
    }

    /// `channel` comes from another server.
    pub(in super::super) fn adopt(
        &mut self,
        channel: &Arc<str>,
        leaving: Leaving,
        now: Instant,
        shards: &mut Shards,
    ) {
        for waiter in self.interest.adopt(channel, leaving.interest) {
            shards.subscribed(waiter, Ok(None));
        }
        if let Some(stream) = leaving.stream
            && self.streams.adopt(channel, stream, now, shards)
        {
            self.interest.forget(channel);
        }
    }

    /// Redis has refused a SUBSCRIBE.
    pub(in super::super) fn refused(
        &mut self,
        batch: &[Arc<str>],
        now: Instant,
        shards: &mut Shards,
    ) {
        if let Some((gone, waiters)) = self.interest.refused(batch) {
            shards.metrics.redis_refused.add(1);
            self.streams.refused(&gone, waiters, now, shards);
        }
        self.rise();
    }
}
