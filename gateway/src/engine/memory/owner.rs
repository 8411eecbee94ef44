//! What a shard does as the owner of channels: their order, their streams, who is present in them.

use std::sync::Arc;
use std::time::Instant;

use super::super::history::HistoryOptions;
use super::super::request::{Conditions, Mail, ReplyTo, Request};
use super::super::stream::{Entered, Stream};
use super::super::{Asker, Event};
use super::MemoryEngine;
use crate::protocol::ErrorCode;
use crate::pubsub::{Interest, MessageRef, ShardIndex, StreamPosition};

impl MemoryEngine {
    /// Does what was asked of the owner.
    pub(super) fn carry_out(&mut self, request: Request) {
        match request {
            Request::Subscribe {
                channel,
                variant,
                shard,
                key,
                history,
            } => {
                // Before it listens, or a stream that nobody has used for too long would look used.
                let position = history.map(|history| {
                    self.with_stream(&channel, &history, |stream| stream.position())
                });
                self.sequencer.join(&channel, variant, shard, key);
                let result = Ok(position);
                self.tell(shard, Event::Subscribed { key, result });
            }
            Request::Unsubscribe {
                channel,
                variant,
                shard,
                key,
            } => {
                let interest = self.sequencer.leave(&channel, variant, shard, key);
                self.release(&channel, interest);
            }
            Request::Recover {
                channel,
                key,
                request,
                history,
                shard,
                asker,
            } => {
                let recovery =
                    self.with_stream(&channel, &history, |stream| stream.recover(&request));
                match recovery.recovered {
                    true => self.metrics.recovered.add(1),
                    false => self.metrics.unrecovered.add(1),
                }
                let result = Ok(recovery);
                self.tell(shard, Event::Recovered { key, asker, result });
            }
            Request::Publish {
                message,
                history,
                conditions,
                reply,
            } => {
                let (channel, message) = (message.channel(), message.as_ref());
                let result = self.publish_owned(channel, message, history, conditions.as_deref());
                if let Some(reply) = reply {
                    self.answer(reply, result, |asker, result| Event::Published {
                        asker,
                        result,
                    });
                }
            }
            Request::History {
                channel,
                query,
                history,
                reply,
            } => {
                let result = self.with_stream(&channel, &history, |stream| stream.page(&query));
                self.answer(reply, result, |asker, result| Event::History {
                    asker,
                    result,
                });
            }
            Request::RemoveHistory { channel, reply } => {
                self.streams.clear(&channel);
                self.count_streams();
                let _ = reply.send(Ok(()));
            }
            Request::Enter { channel, info } => {
                self.presence.enter(&channel, *info);
                self.metrics
                    .presence_members
                    .set(self.presence.len() as u64);
            }
            Request::Exit { channel, client } => {
                self.presence.exit(&channel, client);
                self.metrics
                    .presence_members
                    .set(self.presence.len() as u64);
            }
            Request::Presence { channel, reply } => {
                let result = Ok(self.presence.members(&channel));
                self.answer(reply, result, |asker, result| Event::Presence {
                    asker,
                    result,
                });
            }
            Request::PresenceStats { channel, reply } => {
                let result = Ok(self.presence.stats(&channel));
                self.answer(reply, result, |asker, result| Event::PresenceStats {
                    asker,
                    result,
                });
            }
            Request::Channels { reply } => {
                let _ = reply.send(Ok(self.sequencer.names().map(Arc::clone).collect()));
            }
        }
        self.metrics.channels.set(self.sequencer.channels() as u64);
    }

    fn answer<T>(
        &mut self,
        reply: ReplyTo<T>,
        result: Result<T, ErrorCode>,
        event: impl FnOnce(Asker, Result<T, ErrorCode>) -> Event,
    ) {
        if let Some((shard, event)) = reply.answer(result, event) {
            self.tell(shard, event);
        }
    }

    fn tell(&mut self, shard: ShardIndex, event: Event) {
        if shard == self.shard {
            self.local.push(event);
        } else {
            self.outboxes[usize::from(shard)].send(Mail::Event(event));
        }
    }

    /// Publishes in a channel that this shard owns, unless the conditions say no.
    pub(super) fn publish_owned(
        &mut self,
        channel: &str,
        message: MessageRef<'_>,
        history: Option<HistoryOptions>,
        conditions: Option<&Conditions>,
    ) -> Result<Option<StreamPosition>, ErrorCode> {
        let key = conditions.map_or("", |conditions| &conditions.idempotency_key);
        if !key.is_empty()
            && let Some(result) = self.results.get(channel, key, Instant::now())
        {
            self.metrics.suppressed.add(1);
            return Ok(result);
        }
        let position = match history {
            None => None,
            Some(history) => {
                let now = Instant::now();
                let entered = self.with_stream(channel, &history, |stream| {
                    stream.enter(message, conditions, &history, now)
                });
                match entered {
                    Entered::At(position) => Some(position),
                    Entered::Stale(position) => {
                        self.metrics.suppressed.add(1);
                        return Ok(Some(position));
                    }
                }
            }
        };
        self.sequence(channel, message, position);
        if !key.is_empty() {
            let now = Instant::now();
            let forgotten = self.results.insert(channel, key, position, now);
            self.metrics.results_forgotten.add(forgotten as u64);
        }
        Ok(position)
    }

    /// Hands a message to the shards that listen.
    fn sequence(
        &mut self,
        channel: &str,
        message: MessageRef<'_>,
        position: Option<StreamPosition>,
    ) {
        let Self {
            shard: own,
            outboxes,
            local,
            sequencer,
            metrics,
            ..
        } = self;
        let deliver = &mut |shard, key, delivered| {
            if shard == *own {
                metrics.handed_over.add(1);
                local.push(Event::delivery(key, delivered));
                true
            } else {
                outboxes[usize::from(shard)].deliver(key, delivered)
            }
        };
        let sequenced = sequencer.publish(channel, message, position, deliver);
        metrics.sequenced.add(1);
        for (shard, key) in sequenced.inappropriate {
            self.tell(shard, Event::Inappropriate { key });
        }
        self.release(channel, sequenced.interest);
    }

    /// Works with the stream of a channel that this shard owns.
    fn with_stream<T>(
        &mut self,
        channel: &str,
        history: &HistoryOptions,
        work: impl FnOnce(&mut Stream) -> T,
    ) -> T {
        let sequencer = &self.sequencer;
        let is_heard = |name: &str| sequencer.is_heard(name);
        let result = self
            .streams
            .with(channel, history, Instant::now(), is_heard, work);
        self.count_streams();
        result
    }

    /// While somebody listens to a channel its stream is in use; its time counts from there on.
    fn release(&mut self, channel: &str, interest: Interest) {
        if interest == Interest::Ended && self.streams.len() > 0 {
            self.streams.release(channel, Instant::now());
        }
    }

    pub(super) fn count_streams(&self) {
        let (metrics, streams) = (&self.metrics, &self.streams);
        metrics.history_streams.set(streams.len() as u64);
        metrics.history_bytes.set(streams.bytes() as u64);
        metrics.history_evicted.set(streams.evicted());
        metrics.history_forgotten.set(streams.forgotten());
    }
}
