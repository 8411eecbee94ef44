//! What this node knows about one Redis server: whether everything travels through it, what is
//! under way, what is subscribed. No I/O: the connections are `link`'s.
//!
//! ```text
//!   Away ──connected──▶ Restoring ──every subscription back, a probe through──▶ Up
//!    ▲                      │                                                  │
//!    └──────────────────────┴──────────── a connection lost ───────────────────┘
//! ```
//! - `Up`: what is published goes to Redis and is delivered when it comes back, so that all nodes
//!   see one order. A new subscription is confirmed when Redis has confirmed it.
//! - `Away` and `Restoring`: what is published here is delivered here, at once, and counted as
//!   local only. In `Restoring` what other nodes publish arrives already.
//! - At the change from `Up` to `Away`, what was under way is delivered locally, once (see
//!   `ledger`), before anything published later.
//!
//! Several servers with the channels divided among them are several of these beside one `Shards`.

use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::super::Event;
use super::super::request::Request;
use super::interest::{Command, Interest, Released};
use super::ledger::{Content, Echo, Ledger, LedgerFull};
use super::record::{self, Body, Record, Rejected};
use super::shards::Shards;
use crate::protocol::ErrorCode;
use crate::pubsub::MessageRef;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Away,
    Restoring,
    Up,
}

/// Redis's answer to a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    Refused,
    /// It belongs to another server, or to none at the moment; nothing was done.
    Elsewhere,
}

pub(super) struct Server {
    /// Names this process in its records.
    origin: u64,
    phase: Phase,
    ledger: Ledger,
    interest: Interest,
    /// When the last probe came back, on this connection.
    probed: Option<Instant>,
    /// The last sequence number heard of each other process. What comes below it was sent on a
    /// connection that its process had given up, and stands behind what was sent later: it is
    /// dropped, as order comes first.
    heard: HashMap<u64, u64, RandomState>,
}

/// Other processes whose last sequence number is remembered; beyond it all are forgotten.
const HEARD_MAX: usize = 4_096;

impl Server {
    pub(super) fn new(origin: u64) -> Self {
        Self {
            origin,
            phase: Phase::Away,
            ledger: Ledger::default(),
            interest: Interest::default(),
            probed: None,
            heard: HashMap::default(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn carry_out(&mut self, request: Request, now: Instant, shards: &mut Shards) {
        match request {
            Request::Subscribe {
                channel,
                variant,
                shard,
                key,
                history,
            } => {
                if history.is_some() {
                    return shards.subscribed((shard, key), Err(ErrorCode::NotAvailable));
                }
                // Joined first: from the answer on, nothing may be missed.
                shards.join(&channel, variant, shard, key);
                if self.interest.join(&channel, (shard, key)) {
                    shards.subscribed((shard, key), Ok(None));
                }
            }
            Request::Unsubscribe {
                channel,
                variant,
                shard,
                key,
            } => {
                let has_ended = shards.leave(&channel, variant, shard, key);
                self.interest.leave(&channel, (shard, key), has_ended);
            }
            Request::Publish {
                history: Some(_),
                reply,
                ..
            } => {
                if let Some(reply) = reply {
                    shards.published(reply, Err(ErrorCode::NotAvailable));
                }
            }
            Request::Publish { message, reply, .. } => {
                if self.phase != Phase::Up {
                    shards.metrics.local_only.add(1);
                    self.sequence(message.channel(), message.as_ref(), shards);
                    if let Some(reply) = reply {
                        shards.published(reply, Ok(None));
                    }
                    return;
                }
                let content = Content::Message(message);
                match self.ledger.push(content, reply) {
                    Ok(()) => {}
                    Err(LedgerFull(Some(reply))) => {
                        shards.metrics.refused.add(1);
                        shards.published(reply, Err(ErrorCode::TooManyRequests));
                    }
                    Err(LedgerFull(None)) => shards.metrics.presence_dropped.add(1),
                }
                if self.ledger.wants_probe() {
                    self.probe(now);
                }
            }
            // What is kept of channels in Redis is not there yet.
            Request::Recover {
                key, shard, asker, ..
            } => {
                let result = Err(ErrorCode::NotAvailable);
                shards.tell(shard, Event::Recovered { key, asker, result });
            }
            Request::History { reply, .. } => {
                let result = Err(ErrorCode::NotAvailable);
                shards.answer(reply, result, |asker, result| Event::History {
                    asker,
                    result,
                });
            }
            Request::RemoveHistory { reply, .. } => {
                let _ = reply.send(Err(ErrorCode::NotAvailable));
            }
            Request::Enter { .. } | Request::Exit { .. } => {}
            Request::Presence { reply, .. } => {
                let result = Err(ErrorCode::NotAvailable);
                shards.answer(reply, result, |asker, result| Event::Presence {
                    asker,
                    result,
                });
            }
            Request::PresenceStats { reply, .. } => {
                let result = Err(ErrorCode::NotAvailable);
                shards.answer(reply, result, |asker, result| Event::PresenceStats {
                    asker,
                    result,
                });
            }
            Request::Channels { reply } => {
                let _ = reply.send(Ok(shards.channels()));
            }
        }
    }

    /// A probe is due.
    pub(super) fn probe(&mut self, now: Instant) {
        if self.phase != Phase::Away {
            // A probe always fits.
            let _ = self.ledger.push(Content::Probe { sent: now }, None);
        }
    }

    /// Hands out what is to be published next: channel (none for a probe) and record, up to
    /// `count`. Returns the first sequence number and how many there are.
    pub(super) fn next_publications(
        &mut self,
        count: usize,
        mut take: impl FnMut(Option<&str>, &[u8]),
    ) -> Option<(u64, usize)> {
        let origin = self.origin;
        let mut bytes = Vec::new();
        self.ledger.hand_over(count, |sequence, content| {
            bytes.clear();
            match content {
                Content::Probe { .. } => {
                    record::encode(&mut bytes, origin, sequence, Body::Probe);
                    take(None, &bytes);
                }
                Content::Message(message) => {
                    let body = Body::Message(message.as_ref());
                    record::encode(&mut bytes, origin, sequence, body);
                    take(Some(message.channel()), &bytes);
                }
                // Only what was sent can have been refused.
                Content::Refused => {}
            }
        })
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.ledger.has_unsent()
    }

    /// Redis has answered the PUBLISH of `sequence`.
    pub(super) fn published(&mut self, sequence: u64, outcome: Outcome, shards: &mut Shards) {
        let result = match outcome {
            Outcome::Taken => {
                shards.metrics.redis_published.add(1);
                Ok(None)
            }
            Outcome::Refused => {
                shards.metrics.redis_refused.add(1);
                Err(ErrorCode::Internal)
            }
            Outcome::Elsewhere => Err(ErrorCode::Internal),
        };
        if let Some(asker) = self.ledger.confirm(sequence, result.is_err()) {
            shards.published(asker, result);
        }
    }

    /// The next command about subscriptions.
    pub(super) fn next_command(&mut self) -> Option<(Command, Vec<Arc<str>>)> {
        self.interest.next_batch()
    }

    /// Redis has confirmed a subscription.
    pub(super) fn subscribed(&mut self, channel: &str, shards: &mut Shards) {
        for waiter in self.interest.subscribed(channel) {
            shards.subscribed(waiter, Ok(None));
        }
        self.rise();
    }

    /// Redis has confirmed the end of a subscription.
    pub(super) fn unsubscribed(&mut self, channel: &str) {
        self.interest.unsubscribed(channel);
    }

    /// Whether the end of the subscription to `channel` was asked for.
    pub(super) fn is_going(&self, channel: &str) -> bool {
        self.interest.is_going(channel)
    }

    /// Redis has ended the subscription to `channel` by itself: it belongs to another server now.
    pub(super) fn dropped(&mut self, channel: &str) {
        self.interest.dropped(channel);
    }

    /// Redis has answered that those of `batch` that it has not confirmed belong to another server.
    pub(super) fn elsewhere(&mut self, batch: &[Arc<str>]) {
        self.interest.elsewhere(batch);
    }

    /// What was found out about channels that belong elsewhere has been acted upon.
    pub(super) fn settle(&mut self) {
        self.interest.settle();
    }

    /// All channels that this server has to deliver.
    pub(super) fn channels(&self) -> impl Iterator<Item = &Arc<str>> {
        self.interest.channels()
    }

    /// `channel` goes to another server. What is under way here is answered here.
    pub(super) fn release(&mut self, channel: &str) -> Option<Released> {
        let released = self.interest.release(channel);
        self.rise();
        released
    }

    /// `channel` comes from another server.
    pub(super) fn adopt(&mut self, channel: &Arc<str>, released: Released, shards: &mut Shards) {
        for waiter in self.interest.adopt(channel, released) {
            shards.subscribed(waiter, Ok(None));
        }
    }

    /// Redis has refused a SUBSCRIBE.
    pub(super) fn refused(&mut self, batch: &[Arc<str>], shards: &mut Shards) {
        if let Some((gone, waiters)) = self.interest.refused(batch) {
            shards.metrics.redis_refused.add(1);
            shards.lose(&gone, &waiters);
        }
        self.rise();
    }

    /// A record has arrived in `channel`; without one, in this process's own probe channel. True
    /// when it shows that the way through Redis and back works.
    pub(super) fn received(
        &mut self,
        channel: Option<&str>,
        bytes: &[u8],
        now: Instant,
        shards: &mut Shards,
    ) -> bool {
        let metrics = &shards.metrics;
        let mut is_echo = false;
        let record = match record::decode(bytes) {
            Ok(record) => record,
            Err(rejected) => {
                match rejected {
                    Rejected::Format => metrics.rejected_format.add(1),
                    Rejected::Content => metrics.rejected_content.add(1),
                    Rejected::Size => metrics.rejected_size.add(1),
                }
                return false;
            }
        };
        match (record, channel) {
            (
                Record {
                    origin,
                    sequence,
                    body: Body::Message(message),
                },
                Some(channel),
            ) if origin != self.origin => {
                metrics.redis_received.add(1);
                if self.heard.len() >= HEARD_MAX && !self.heard.contains_key(&origin) {
                    self.heard.clear();
                }
                match self.heard.insert(origin, sequence) {
                    Some(last) if last >= sequence => {
                        self.heard.insert(origin, last);
                        metrics.redis_stale.add(1);
                    }
                    _ => self.sequence(channel, message, shards),
                }
            }
            (
                Record {
                    origin,
                    sequence,
                    body,
                },
                channel,
            ) if origin == self.origin && (body == Body::Probe) == channel.is_none() => {
                let mut answered = Vec::new();
                let echo = self
                    .ledger
                    .echo(sequence, &mut |asker| answered.push(asker));
                match echo {
                    Echo::Unknown => metrics.rejected_content.add(1),
                    Echo::Late => metrics.redis_late_echoes.add(1),
                    Echo::Fresh { sent } => {
                        metrics.redis_echoed.add(1);
                        is_echo = true;
                        if let Some(sent) = sent {
                            let took = now.saturating_duration_since(sent);
                            metrics.redis_probe_us.set(took.as_micros() as u64);
                            self.probed = Some(now);
                        }
                        if let (Body::Message(message), Some(channel)) = (body, channel) {
                            self.sequence(channel, message, shards);
                        }
                    }
                }
                for asker in answered {
                    shards.published(asker, Ok(None));
                }
                self.rise();
            }
            _ => metrics.rejected_content.add(1),
        }
        is_echo
    }

    /// There are connections again.
    pub(super) fn connected(&mut self, now: Instant) {
        debug_assert_eq!(self.phase, Phase::Away);
        self.phase = Phase::Restoring;
        self.probed = None;
        self.interest.connect();
        self.probe(now);
    }

    /// A connection is lost: what was under way is delivered here, who has waited is served here.
    pub(super) fn lost(&mut self, shards: &mut Shards) {
        self.phase = Phase::Away;
        for entry in self.ledger.abandon() {
            if let Content::Message(message) = &entry.content {
                shards.metrics.local_only.add((!entry.is_confirmed).into());
                self.sequence(message.channel(), message.as_ref(), shards);
            }
            if let Some(asker) = entry.asker {
                shards.published(asker, Ok(None));
            }
        }
        for waiter in self.interest.disconnect() {
            shards.subscribed(waiter, Ok(None));
        }
    }

    /// Publications whose fate is not known.
    pub(super) fn in_flight(&self) -> usize {
        self.ledger.len()
    }

    /// Channels that Redis has confirmed.
    pub(super) fn subscriptions(&self) -> usize {
        self.interest.subscriptions()
    }

    /// From now on everything travels through Redis, if all is in place for it.
    fn rise(&mut self) {
        let is_whole = self.interest.is_restored() && self.probed.is_some();
        if self.phase == Phase::Restoring && is_whole {
            self.phase = Phase::Up;
        }
    }

    fn sequence(&mut self, channel: &str, message: MessageRef<'_>, shards: &mut Shards) {
        if shards.sequence(channel, message) {
            // Its only listener could not take it and is gone.
            self.interest.forget(channel);
        }
    }
}
