//! The memory engine: one node, its shards.
//!
//! | what | file |
//! |---|---|
//! | a shard's door: requests to the owners, events from them | here |
//! | a shard as the owner of channels | `owner` |
//!
//! Each channel has an owner, the shard that its name hashes to. The owner's sequencer gives the
//! channel its order; the other shards reach it, and it reaches them, through mailboxes.
//!
//! Why nothing is missed: a mailbox hands out each sender's messages in the order in which they
//! were put in, and what waits for room waits in order. When shard S asks for a channel, its owner
//! adds S to the listeners and only then answers, into the mailbox that it puts deliveries into.
//! A client on S gets its subscribe reply when S has read that answer. A publication that anybody
//! makes after this reply reaches the owner after the owner added S, so it is delivered to S; and
//! it stands behind the answer in the mailbox, so S reads it when the subscription is in effect.
//! A second subscriber of the channel on S is answered at once: S is among the listeners, so what
//! is published from now on will arrive.
//!
//! Why nothing is missed or doubled when a subscriber recovers: the owner keeps the channel's stream
//! and works on one request at a time. A publication enters the stream and goes to the listeners in
//! one step; an answer to `recover` is read from the stream in one step and put into the same
//! mailbox as the deliveries. So everything up to the answer's position was put into the asking
//! shard's mailbox before the answer (if the shard listened) or is in the stream only (if it did
//! not yet), and everything behind the position follows the answer. The shard gives its client the
//! answer and lets it go on from where the shard is when it reads it. A shard asks after it has
//! asked to listen, and both requests reach the owner in order.
//!
//! Why there is one order: a channel has one owner, an owner is one thread, and each shard reads
//! the owner's deliveries in the order in which they were made. Two publications of one client
//! reach the owner in order, as they come from one sender.

mod owner;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use flux_runtime::log::LogWriter;
use flux_runtime::mailbox::{Receiver, Waker, mailbox};
use foldhash::fast::FixedState;

use super::history::{HistoryOptions, HistoryQuery, RecoveryRequest};
use super::local::Local;
use super::outbox::Outbox;
use super::presence::Presence;
use super::request::{Conditions, Mail, ReplyTo, Request};
use super::stream::{Results, Streams};
use super::{Asker, EngineHandle, EngineMetrics, Event, PublishOptions};
use crate::limits::{
    HISTORY_BYTES_MAX, IDEMPOTENCY_BYTES_MAX, INTEREST_PARKED_MAX, MAILBOX_MESSAGES,
    PARKED_BYTES_MAX,
};
use crate::protocol::{ClientId, ClientInfo, ErrorCode};
use crate::pubsub::{ChannelKey, MessageRef, Sequencer, ShardIndex, Variant};

/// Pieces of mail that one [`MemoryEngine::poll`] works on at most.
const POLL_MAX: usize = 128;
/// All shards must agree on who owns a channel; who that is need not be hard to guess, as nothing
/// is gained by choosing it.
const OWNER_HASH: FixedState = FixedState::with_seed(0x666c_7578);

/// Which of so many shards owns `channel`.
pub(super) fn owner_of(channel: &str, shards: usize) -> usize {
    // The upper half of the hash, spread over the shards without a division.
    let hash = OWNER_HASH.hash_one(channel) >> 32;
    ((hash * shards as u64) >> 32) as usize
}

/// One shard's part of the memory engine.
pub struct MemoryEngine {
    shard: ShardIndex,
    inbox: Receiver<Mail>,
    /// The ways to the other shards; the own one is unused.
    outboxes: Vec<Outbox>,
    /// Answers and deliveries that come from this shard itself.
    local: Local,
    sequencer: Sequencer,
    /// The histories of the channels that this shard owns.
    streams: Streams,
    results: Results,
    /// Who is present in these channels.
    presence: Presence,
    arena: LogWriter,
    metrics: Arc<EngineMetrics>,
}

impl MemoryEngine {
    /// Engines that know each other, one for each waker, and the control plane's way to them.
    pub fn for_shards(wakers: &[Waker]) -> (Vec<MemoryEngine>, EngineHandle) {
        Self::with_mailboxes(wakers, MAILBOX_MESSAGES)
    }

    fn with_mailboxes(wakers: &[Waker], capacity: usize) -> (Vec<MemoryEngine>, EngineHandle) {
        let (senders, inboxes): (Vec<_>, Vec<_>) = wakers
            .iter()
            .map(|waker| mailbox::<Mail>(capacity, waker.clone()))
            .unzip();
        let shards = wakers.len().max(1);
        let engines = inboxes
            .into_iter()
            .enumerate()
            .map(|(shard, inbox)| {
                let metrics = Arc::new(EngineMetrics::default());
                let outboxes = senders
                    .iter()
                    .map(|sender| Outbox::new(sender.clone(), Arc::clone(&metrics)))
                    .collect();
                MemoryEngine {
                    shard: shard as ShardIndex,
                    inbox,
                    outboxes,
                    local: Local::default(),
                    sequencer: Sequencer::new(),
                    streams: Streams::new(HISTORY_BYTES_MAX / shards),
                    results: Results::new(IDEMPOTENCY_BYTES_MAX / shards),
                    presence: Presence::default(),
                    arena: LogWriter::new(),
                    metrics,
                }
            })
            .collect();
        (engines, EngineHandle::to_owners(senders))
    }

    pub(super) fn subscribe(
        &mut self,
        channel: &Arc<str>,
        variant: Variant,
        key: ChannelKey,
        history: Option<HistoryOptions>,
    ) {
        if self.is_behind(channel) {
            self.metrics.refused.add(1);
            self.local.refuse(key);
            return;
        }
        let request = Request::Subscribe {
            channel: Arc::clone(channel),
            variant,
            shard: self.shard,
            key,
            history,
        };
        self.ask(channel, request);
    }

    pub(super) fn unsubscribe(&mut self, channel: &Arc<str>, variant: Variant, key: ChannelKey) {
        if self.local.ends_refused(key) {
            return;
        }
        let request = Request::Unsubscribe {
            channel: Arc::clone(channel),
            variant,
            shard: self.shard,
            key,
        };
        self.ask(channel, request);
    }

    pub(super) fn recover(
        &mut self,
        channel: &Arc<str>,
        key: ChannelKey,
        request: RecoveryRequest,
        history: HistoryOptions,
        asker: Asker,
    ) {
        if self.local.is_refused(key) || self.is_behind(channel) {
            self.metrics.refused.add(1);
            let result = Err(ErrorCode::TooManyRequests);
            self.local.push(Event::Recovered { key, asker, result });
            return;
        }
        let request = Request::Recover {
            channel: Arc::clone(channel),
            key,
            request,
            history,
            shard: self.shard,
            asker,
        };
        self.ask(channel, request);
    }

    pub(super) fn publish(
        &mut self,
        channel: &str,
        message: MessageRef<'_>,
        options: &PublishOptions<'_>,
        asker: Option<Asker>,
    ) {
        let owner = self.owner(channel);
        let history = options.history_of(&message);
        let conditions = Conditions::of(&message, options);
        let result = if owner == usize::from(self.shard) {
            if self.local.bytes() + message.size() <= PARKED_BYTES_MAX {
                self.publish_owned(channel, message, history, conditions.as_deref())
            } else {
                // The shard takes in more than it gets round to sending.
                Err(ErrorCode::TooManyRequests)
            }
        } else {
            // In a channel with history the owner answers, when it is stored. In others accepted
            // means: in the owner's mailbox. From there nothing can refuse it.
            let reply = asker
                .filter(|_| history.is_some())
                .map(|asker| ReplyTo::Shard(self.shard, asker));
            let is_answered_there = reply.is_some();
            let request = Request::Publish {
                message: message.store(&mut self.arena, channel),
                history,
                conditions,
                reply,
            };
            match self.outboxes[owner].offer(request) {
                true if is_answered_there => return,
                true => Ok(None),
                false => Err(ErrorCode::TooManyRequests),
            }
        };
        match asker {
            Some(asker) => {
                if result.is_err() {
                    self.metrics.refused.add(1);
                }
                self.local.push(Event::Published { asker, result });
            }
            None if result.is_err() => self.metrics.presence_dropped.add(1),
            None => {}
        }
    }

    pub(super) fn history(
        &mut self,
        channel: &str,
        query: HistoryQuery,
        history: HistoryOptions,
        asker: Asker,
    ) {
        if self.is_behind(channel) {
            self.metrics.refused.add(1);
            let result = Err(ErrorCode::TooManyRequests);
            self.local.push(Event::History { asker, result });
            return;
        }
        let request = Request::History {
            channel: Arc::from(channel),
            query,
            history,
            reply: ReplyTo::Shard(self.shard, asker),
        };
        self.ask(channel, request);
    }

    pub(super) fn enter(&mut self, channel: &str, info: ClientInfo<'_>) {
        if self.is_behind(channel) {
            self.metrics.presence_dropped.add(1);
            return self.local.keep_out(channel, info.client);
        }
        // If it was once, it no longer is.
        self.local.ends_kept_out(channel, info.client);
        let request = Request::Enter {
            channel: Arc::from(channel),
            info: Box::new(info.into()),
        };
        self.ask(channel, request);
    }

    pub(super) fn exit(&mut self, channel: &str, client: ClientId) {
        if self.local.ends_kept_out(channel, client) {
            return;
        }
        let request = Request::Exit {
            channel: Arc::from(channel),
            client,
        };
        self.ask(channel, request);
    }

    pub(super) fn presence(&mut self, channel: &str, asker: Asker) {
        if self.is_behind(channel) {
            self.metrics.refused.add(1);
            let result = Err(ErrorCode::TooManyRequests);
            self.local.push(Event::Presence { asker, result });
            return;
        }
        let request = Request::Presence {
            channel: Arc::from(channel),
            reply: ReplyTo::Shard(self.shard, asker),
        };
        self.ask(channel, request);
    }

    pub(super) fn presence_stats(&mut self, channel: &str, asker: Asker) {
        if self.is_behind(channel) {
            self.metrics.refused.add(1);
            let result = Err(ErrorCode::TooManyRequests);
            self.local.push(Event::PresenceStats { asker, result });
            return;
        }
        let request = Request::PresenceStats {
            channel: Arc::from(channel),
            reply: ReplyTo::Shard(self.shard, asker),
        };
        self.ask(channel, request);
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        for _ in 0..POLL_MAX {
            if let Some(event) = self.local.pop() {
                return Some(event);
            }
            match self.inbox.pop()? {
                Mail::Event(event) => return Some(event),
                Mail::Request(request) => self.carry_out(request),
            }
        }
        None
    }

    pub(super) fn has_mail(&self) -> bool {
        !self.local.is_empty() || !self.inbox.is_empty()
    }

    pub(super) fn flush(&mut self) -> bool {
        let mut is_clear = true;
        for outbox in &mut self.outboxes {
            is_clear &= outbox.flush();
        }
        is_clear
    }

    pub(super) fn sweep(&mut self) {
        self.sequencer.sweep();
        let now = Instant::now();
        let sequencer = &self.sequencer;
        self.streams.sweep(now, |name| sequencer.is_heard(name));
        self.results.expire(now);
        self.count_streams();
    }

    pub(super) fn metrics(&self) -> &Arc<EngineMetrics> {
        &self.metrics
    }

    fn owner(&self, channel: &str) -> usize {
        owner_of(channel, self.outboxes.len())
    }

    /// Whether so much waits for the owner of `channel` that questions are refused.
    fn is_behind(&self, channel: &str) -> bool {
        self.outboxes[self.owner(channel)].parked_requests() >= INTEREST_PARKED_MAX
    }

    fn ask(&mut self, channel: &str, request: Request) {
        let owner = self.owner(channel);
        if owner == usize::from(self.shard) {
            self.carry_out(request);
        } else {
            // Waits if it must; `is_behind` sees to it that not too much does.
            self.outboxes[owner].send(Mail::Request(request));
        }
    }
}

#[cfg(test)]
mod tests {
    use flux_runtime::mailbox::wake_pair;

    use super::*;
    use crate::limits::{INTEREST_PARKED_MAX, PARKED_BYTES_MAX};

    fn engines(count: usize) -> Vec<MemoryEngine> {
        let wakers: Vec<_> = (0..count)
            .map(|_| wake_pair().expect("an eventfd").0)
            .collect();
        MemoryEngine::with_mailboxes(&wakers, 2).0
    }

    #[test]
    fn clients_that_come_and_go_cannot_pile_up_requests_for_a_shard_that_is_behind() {
        let mut engines = engines(2);
        let engine = &mut engines[0];
        let channel: Arc<str> = (0..)
            .map(|n| Arc::from(format!("c{n}")))
            .find(|channel: &Arc<str>| engine.owner(channel) == 1)
            .expect("some channel is the other shard's");
        let mut refused = 0;
        for generation in 0..4 * INTEREST_PARKED_MAX as u32 {
            let key = ChannelKey {
                index: 0,
                generation,
            };
            engine.subscribe(&channel, Variant::JSON, key, None);
            engine.unsubscribe(&channel, Variant::JSON, key);
            // The shard takes its mail now and then.
            if generation % 64 == 0 {
                while let Some(event) = engine.poll() {
                    let is_refusal = matches!(
                        event,
                        Event::Subscribed {
                            result: Err(ErrorCode::TooManyRequests),
                            ..
                        }
                    );
                    assert!(is_refusal, "{event:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0);
        let waiting = engine.outboxes[1].parked_requests();
        assert!(waiting <= 2 * INTEREST_PARKED_MAX, "{waiting}");
    }

    #[test]
    fn publications_that_wait_for_their_own_shard_are_bounded() {
        let mut engines = engines(1);
        let engine = &mut engines[0];
        let channel: Arc<str> = Arc::from("c");
        let key = ChannelKey {
            index: 0,
            generation: 0,
        };
        engine.subscribe(&channel, Variant::JSON, key, None);
        let data = vec![b'1'; 60_000];
        let message = MessageRef::data(&data);
        let count = 2 * PARKED_BYTES_MAX / data.len();
        for n in 0..count as u32 {
            let asker = Asker {
                connection: 1,
                command: n,
            };
            engine.publish(&channel, message, &PublishOptions::default(), Some(asker));
        }
        let (mut delivered, mut taken, mut refused) = (0, 0, 0);
        while let Some(event) = engine.poll() {
            match event {
                Event::Delivery { slice, .. } => delivered += slice.len(),
                Event::Published { result: Ok(_), .. } => taken += 1,
                Event::Published { .. } => refused += 1,
                _ => {}
            }
        }
        assert!(
            delivered <= PARKED_BYTES_MAX + 2 * data.len(),
            "{delivered}"
        );
        assert_eq!(taken + refused, count, "every publish is answered");
        assert!(taken > 0 && refused > 0);
        // What it has taken makes room again.
        engine.publish(&channel, message, &PublishOptions::default(), None);
        assert!(matches!(engine.poll(), Some(Event::Delivery { .. })));
    }
}
