//! The memory engine: one node, its shards.
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
//! Why there is one order: a channel has one owner, an owner is one thread, and each shard reads
//! the owner's deliveries in the order in which they were made. Two publications of one client
//! reach the owner in order, as they come from one sender.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use flux_runtime::log::LogWriter;
use flux_runtime::mailbox::{Receiver, Waker, mailbox};
use foldhash::fast::FixedState;

use super::outbox::Outbox;
use super::{Asker, EngineMetrics, Event, Mail, Request};
use crate::limits::MAILBOX_MESSAGES;
use crate::protocol::ErrorCode;
use crate::pubsub::{ChannelKey, MessageRef, Sequencer, ShardIndex, Variant};

/// Pieces of mail that one [`MemoryEngine::poll`] works on at most.
const POLL_MAX: usize = 128;
/// All shards must agree on who owns a channel; who that is need not be hard to guess, as nothing
/// is gained by choosing it.
const OWNER_HASH: FixedState = FixedState::with_seed(0x666c_7578);

/// One shard's part of the memory engine.
pub struct MemoryEngine {
    shard: ShardIndex,
    inbox: Receiver<Mail>,
    /// The ways to the other shards; the own one is unused.
    outboxes: Vec<Outbox>,
    /// Answers and deliveries that come from this shard itself.
    local: VecDeque<Event>,
    sequencer: Sequencer,
    arena: LogWriter,
    metrics: Arc<EngineMetrics>,
}

impl MemoryEngine {
    /// Engines that know each other, one for each waker.
    pub fn for_shards(wakers: &[Waker]) -> Vec<MemoryEngine> {
        Self::with_mailboxes(wakers, MAILBOX_MESSAGES)
    }

    fn with_mailboxes(wakers: &[Waker], capacity: usize) -> Vec<MemoryEngine> {
        let (senders, inboxes): (Vec<_>, Vec<_>) = wakers
            .iter()
            .map(|waker| mailbox::<Mail>(capacity, waker.clone()))
            .unzip();
        inboxes
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
                    local: VecDeque::new(),
                    sequencer: Sequencer::new(),
                    arena: LogWriter::new(),
                    metrics,
                }
            })
            .collect()
    }

    pub(super) fn subscribe(&mut self, channel: &Arc<str>, variant: Variant, key: ChannelKey) {
        let request = Request::Subscribe {
            channel: Arc::clone(channel),
            variant,
            shard: self.shard,
            key,
        };
        self.ask(channel, request);
    }

    pub(super) fn unsubscribe(&mut self, channel: &Arc<str>, variant: Variant, key: ChannelKey) {
        let request = Request::Unsubscribe {
            channel: Arc::clone(channel),
            variant,
            shard: self.shard,
            key,
        };
        self.ask(channel, request);
    }

    pub(super) fn publish(&mut self, channel: &str, message: MessageRef<'_>, asker: Option<Asker>) {
        let owner = self.owner(channel);
        let result = if owner == usize::from(self.shard) {
            self.sequence(channel, message);
            Ok(())
        } else {
            // Accepted means: in the owner's mailbox. From there nothing can refuse it.
            let request = Request::Publish {
                message: message.store(&mut self.arena, channel),
                asker: None,
            };
            match self.outboxes[owner].offer(request) {
                true => Ok(()),
                false => Err(ErrorCode::TooManyRequests),
            }
        };
        match asker {
            Some(asker) => {
                if result.is_err() {
                    self.metrics.refused.add(1);
                }
                self.local.push_back(Event::Published { asker, result });
            }
            None if result.is_err() => self.metrics.presence_dropped.add(1),
            None => {}
        }
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        for _ in 0..POLL_MAX {
            if let Some(event) = self.local.pop_front() {
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
    }

    pub(super) fn metrics(&self) -> &Arc<EngineMetrics> {
        &self.metrics
    }

    fn owner(&self, channel: &str) -> usize {
        // The upper half of the hash, spread over the shards without a division.
        let hash = OWNER_HASH.hash_one(channel) >> 32;
        ((hash * self.outboxes.len() as u64) >> 32) as usize
    }

    fn ask(&mut self, channel: &str, request: Request) {
        let owner = self.owner(channel);
        if owner == usize::from(self.shard) {
            self.carry_out(request);
        } else {
            // Waits if it must: interest is bounded by the shard's own channels.
            self.outboxes[owner].send(Mail::Request(request));
        }
    }

    /// As the channel's owner.
    fn carry_out(&mut self, request: Request) {
        match request {
            Request::Subscribe {
                channel,
                variant,
                shard,
                key,
            } => {
                self.sequencer.join(&channel, variant, shard, key);
                let result = Ok(());
                self.tell(shard, Event::Subscribed { key, result });
            }
            Request::Unsubscribe {
                channel,
                variant,
                shard,
                key,
            } => {
                self.sequencer.leave(&channel, variant, shard, key);
            }
            Request::Publish { message, .. } => {
                self.sequence(message.channel(), message.as_ref());
            }
        }
        self.metrics.channels.set(self.sequencer.channels() as u64);
    }

    fn tell(&mut self, shard: ShardIndex, event: Event) {
        if shard == self.shard {
            self.local.push_back(event);
        } else {
            self.outboxes[usize::from(shard)].send(Mail::Event(event));
        }
    }

    fn sequence(&mut self, channel: &str, message: MessageRef<'_>) {
        let Self {
            shard: own,
            outboxes,
            local,
            sequencer,
            metrics,
            ..
        } = self;
        sequencer.publish(channel, message, &mut |shard, key, slice| {
            if shard == *own {
                metrics.handed_over.add(1);
                local.push_back(Event::Delivery { key, slice });
                true
            } else {
                outboxes[usize::from(shard)].deliver(key, slice)
            }
        });
        metrics.sequenced.add(1);
    }
}
