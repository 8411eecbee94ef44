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
//! In channels with history nothing is delivered that Redis has not given a place: a publication is
//! accepted when its script has returned, and error 100 while that cannot be. Who listens keeps its
//! position meanwhile; what it missed is read when there is a connection again (see `streams`).
//!
//! Several servers with the channels divided among them are several of these beside one `Shards`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use redis::Value;

use super::super::request::{Conditions, Request};
use super::interest::{Command, Interest, Released};
use super::ledger::{Append, Content, Echo, Ledger, LedgerFull, Once, Publisher};
use super::present::Step;
use super::questions::{self, Question};
use super::record::{self, Body, Mark, ORIGIN_OF_NOBODY, Record, Rejected};
use super::scripts::{Outcome, stretch};
use super::shards::Shards;
use super::streams::{Pushed, Stream, Streams};
use crate::limits::REDIS_QUESTIONS_MAX;
use crate::protocol::ErrorCode;
use crate::pubsub::{MessageRef, StreamPosition};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Away,
    Restoring,
    Up,
}

/// What of a channel goes with it to another server.
pub(super) struct Leaving {
    interest: Released,
    stream: Option<Box<Stream>>,
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
    streams: Streams,
    /// Asked by shards and the control plane, not sent yet.
    questions: VecDeque<Question>,
}

/// What is to be published next.
pub(super) enum Outgoing<'a> {
    /// A probe to this process itself.
    Probe,
    Message(&'a str),
    Once(&'a Once),
    Append(&'a Append),
    /// Its turn has passed; something has to stand in its place.
    Nothing,
}

/// Other processes whose last sequence number is remembered; beyond it all are forgotten.
const HEARD_MAX: usize = 4_096;

impl Server {
    /// Positions of channels that were quiet for `check_delay` are compared with Redis.
    pub(super) fn new(origin: u64, check_delay: Duration) -> Self {
        Self {
            origin,
            phase: Phase::Away,
            ledger: Ledger::default(),
            interest: Interest::default(),
            probed: None,
            heard: HashMap::default(),
            streams: Streams::new(check_delay),
            questions: VecDeque::new(),
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
                let waiter = (shard, key);
                if history.is_some() && !self.streams.can_join(&channel) {
                    return shards.subscribed(waiter, Err(ErrorCode::Internal));
                }
                // Joined first: from the answer on, nothing may be missed.
                shards.join(&channel, variant, shard, key);
                match history {
                    None => {
                        if self.interest.join(&channel, waiter) {
                            shards.subscribed(waiter, Ok(None));
                        }
                    }
                    Some(options) => {
                        let is_confirmed = self.interest.want(&channel);
                        let streams = &mut self.streams;
                        streams.join(&channel, waiter, options, is_confirmed, now, shards);
                    }
                }
            }
            Request::Unsubscribe {
                channel,
                variant,
                shard,
                key,
            } => {
                let has_ended = shards.leave(&channel, variant, shard, key);
                let waiter = (shard, key);
                self.interest.leave(&channel, waiter, has_ended);
                self.streams.leave(&channel, waiter, has_ended, now, shards);
            }
            Request::Recover {
                channel,
                key,
                request,
                shard,
                asker,
                ..
            } => {
                let who = (shard, key);
                let streams = &mut self.streams;
                streams.recover(&channel, who, request, asker, now, shards);
            }
            Request::Publish {
                message,
                history,
                conditions,
                reply,
            } => {
                let key = |conditions: &Conditions| conditions.idempotency_key.clone();
                let content = match (history, conditions) {
                    (Some(history), conditions) => Content::Append(Box::new(Append {
                        message,
                        history,
                        conditions,
                        is_known: true,
                    })),
                    (None, Some(conditions)) if !conditions.idempotency_key.is_empty() => {
                        Content::Once(Box::new(Once {
                            message,
                            key: key(&conditions),
                            is_known: true,
                        }))
                    }
                    _ => Content::Message(message),
                };
                self.publish(content, reply, now, shards);
            }
            Request::History {
                channel,
                query,
                history,
                reply,
            } => self.ask(
                Question::History {
                    channel,
                    query,
                    meta_ttl: history.meta_ttl,
                    reply,
                },
                shards,
            ),
            Request::RemoveHistory { channel, reply } => {
                self.ask(Question::Remove { channel, reply }, shards);
            }
            Request::Enter { channel, info } => shards.present.enter(&channel, *info),
            Request::Exit { channel, client } => shards.present.exit(&channel, client),
            Request::Presence { channel, reply } => {
                self.ask(Question::Presence { channel, reply }, shards);
            }
            Request::PresenceStats { channel, reply } => {
                self.ask(Question::PresenceStats { channel, reply }, shards);
            }
            Request::Channels { reply } => {
                let _ = reply.send(Ok(shards.channels()));
            }
        }
    }

    fn publish(
        &mut self,
        content: Content,
        reply: Option<Publisher>,
        now: Instant,
        shards: &mut Shards,
    ) {
        let result = match (&content, self.phase) {
            // It has to be in order with what others publish: all must hear all.
            (Content::Message(message), Phase::Away | Phase::Restoring) => {
                shards.metrics.local_only.add(1);
                self.sequence(message.channel(), message.as_ref(), None, shards);
                Ok(None)
            }
            // Here only the key or the place tells what was published: no Redis, no publication.
            (_, Phase::Away) | (Content::Once(_), Phase::Restoring) => Err(ErrorCode::Internal),
            _ => {
                let result = self.ledger.push(content, reply);
                if let Err(LedgerFull(reply)) = result {
                    match reply {
                        Some(reply) => {
                            shards.metrics.refused.add(1);
                            shards.published(reply, Err(ErrorCode::TooManyRequests));
                        }
                        None => shards.metrics.presence_dropped.add(1),
                    }
                }
                if self.ledger.wants_probe() {
                    self.probe(now);
                }
                return;
            }
        };
        if let Some(reply) = reply {
            shards.published(reply, result);
        }
    }

    fn ask(&mut self, question: Question, shards: &mut Shards) {
        if self.phase == Phase::Away {
            question.refuse(ErrorCode::Internal, shards);
        } else if self.questions.len() >= REDIS_QUESTIONS_MAX {
            shards.metrics.refused.add(1);
            question.refuse(ErrorCode::TooManyRequests, shards);
        } else {
            self.questions.push_back(question);
        }
    }

    /// Does something about who is present; nothing while there is no connection, after which all is
    /// written again. False when there is no room.
    pub(super) fn may_take_steps(&self) -> bool {
        self.questions.len() < REDIS_QUESTIONS_MAX / 2
    }

    /// See [`Self::may_take_steps`].
    pub(super) fn take_step(&mut self, channel: Arc<str>, step: Step) {
        if self.phase != Phase::Away {
            self.questions.push_back(Question::Present(channel, step));
        }
    }

    /// The next questions, at most so many. Each is to be given back to [`Self::answered`] or
    /// [`Self::unanswered`].
    pub(super) fn next_questions(
        &mut self,
        count: usize,
        now: Instant,
        shards: &Shards,
    ) -> Vec<Question> {
        let mut next: Vec<Question> = Vec::new();
        if self.phase == Phase::Away {
            return next;
        }
        // Subscribers wait for these.
        next.extend(
            self.streams
                .next_reads(count, now)
                .into_iter()
                .map(Question::Read),
        );
        shards.metrics.redis_reads.add(next.len() as u64);
        let rest = self.questions.len().min(count - next.len());
        next.extend(self.questions.drain(..rest));
        next
    }

    /// Whether [`Self::next_questions`] would give any.
    pub(super) fn has_questions(&self, now: Instant) -> bool {
        self.phase != Phase::Away && (!self.questions.is_empty() || self.streams.has_reads(now))
    }

    /// Redis has answered a question.
    pub(super) fn answered(
        &mut self,
        question: Question,
        answer: &Value,
        now: Instant,
        shards: &mut Shards,
    ) {
        if let Value::ServerError(error) = answer {
            tracing::debug!(?error, "Redis has refused a question");
            shards.metrics.redis_refused.add(1);
            return self.refused_question(question, now, shards);
        }
        match question {
            Question::Read(wanted) => match stretch(answer) {
                Ok(stretch) => {
                    for why in &stretch.rejected {
                        count_rejected(*why, shards);
                    }
                    if self.streams.read(&wanted.channel, &stretch, now, shards) {
                        self.interest.forget(&wanted.channel);
                    }
                }
                Err(why) => {
                    count_rejected(why, shards);
                    self.refused_question(Question::Read(wanted), now, shards);
                }
            },
            Question::Present(channel, Step::Clean) => {
                for dead in shards.present.dead(answer) {
                    shards.metrics.redis_expelled.add(1);
                    let expel = Question::Expel(Arc::clone(&channel), Box::new(dead));
                    self.questions.push_back(expel);
                }
            }
            other => questions::answer(other, answer, shards),
        }
    }

    /// A question that Redis did not understand, as it has forgotten the scripts.
    pub(super) fn ask_again(&mut self, question: Question) {
        // There are as many of these as there may be under way.
        self.questions.push_front(question);
    }

    /// A question that another server, or nobody at the moment, has to answer.
    pub(super) fn misplaced(&mut self, question: Question, now: Instant, shards: &mut Shards) {
        if let Question::Read(wanted) = &question {
            self.streams.retry(&wanted.channel, now);
        }
        question.refuse(ErrorCode::Internal, shards);
    }

    /// A question that Redis has not answered, as the connection was lost.
    pub(super) fn unanswered(&mut self, question: Question, shards: &mut Shards) {
        // Reads are wanted anew after the next confirmation.
        question.refuse(ErrorCode::Internal, shards);
    }

    fn refused_question(&mut self, question: Question, now: Instant, shards: &mut Shards) {
        match question {
            Question::Read(wanted) => {
                if self.streams.failed(&wanted.channel, now, shards) {
                    self.interest.forget(&wanted.channel);
                }
            }
            other => other.refuse(ErrorCode::Internal, shards),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        self.streams.tick(now);
    }

    /// A probe is due.
    pub(super) fn probe(&mut self, now: Instant) {
        if self.phase != Phase::Away {
            // A probe always fits.
            let _ = self.ledger.push(Content::Probe { sent: now }, None);
        }
    }

    /// Hands out what is to be published next, with its record, up to `count`. Returns the first
    /// sequence number and how many there are: one command for each.
    pub(super) fn next_publications(
        &mut self,
        count: usize,
        mut take: impl FnMut(Outgoing<'_>, &[u8]),
    ) -> Option<(u64, usize)> {
        let origin = self.origin;
        let mut bytes = Vec::new();
        self.ledger.hand_over(count, |sequence, content| {
            bytes.clear();
            let (outgoing, message) = match content {
                Content::Probe { .. } => (Outgoing::Probe, None),
                Content::Message(message) => (Outgoing::Message(message.channel()), Some(message)),
                Content::Once(once) => (Outgoing::Once(once), Some(&once.message)),
                Content::Append(append) => (Outgoing::Append(append), Some(&append.message)),
                // Only what was sent can have come to nothing.
                Content::Nothing => return take(Outgoing::Nothing, &bytes),
            };
            let body = match message {
                None => Body::Probe,
                Some(message) => Body::Message(message.as_ref()),
            };
            record::encode(&mut bytes, origin, sequence, body);
            take(outgoing, &bytes);
        })
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.ledger.has_unsent()
    }

    /// Redis has answered the command that published `sequence`.
    pub(super) fn published(&mut self, sequence: u64, outcome: Outcome, shards: &mut Shards) {
        match outcome {
            Outcome::Taken | Outcome::Stored(_) => shards.metrics.redis_published.add(1),
            Outcome::Suppressed(_) => shards.metrics.redis_suppressed.add(1),
            Outcome::Refused => shards.metrics.redis_refused.add(1),
            Outcome::Elsewhere => {}
            Outcome::Unknown => shards.metrics.redis_scripts_unknown.add(1),
        }
        if let Some((asker, result)) = self.ledger.confirm(sequence, outcome) {
            shards.published(asker, result);
        }
    }

    /// The next command about subscriptions.
    pub(super) fn next_command(&mut self) -> Option<(Command, Vec<Arc<str>>)> {
        self.interest.next_batch()
    }

    /// Redis has confirmed a subscription.
    pub(super) fn subscribed(&mut self, channel: &str, now: Instant, shards: &mut Shards) {
        for waiter in self.interest.subscribed(channel) {
            shards.subscribed(waiter, Ok(None));
        }
        self.streams.confirmed(channel, now);
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
        self.streams.dropped(channel);
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
    pub(super) fn release(&mut self, channel: &str, shards: &mut Shards) -> Option<Leaving> {
        let interest = self.interest.release(channel)?;
        let stream = self.streams.release(channel, shards);
        self.rise();
        Some(Leaving { interest, stream })
    }

    /// `channel` comes from another server.
    pub(super) fn adopt(
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
    pub(super) fn refused(&mut self, batch: &[Arc<str>], now: Instant, shards: &mut Shards) {
        if let Some((gone, waiters)) = self.interest.refused(batch) {
            shards.metrics.redis_refused.add(1);
            self.streams.refused(&gone, waiters, now, shards);
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
        let mut is_echo = false;
        let (position, record) = match record::decode_pushed(bytes) {
            Ok(pushed) => pushed,
            Err(why) => {
                count_rejected(why, shards);
                return false;
            }
        };
        match (position, record.body, channel) {
            (Some(position), Body::Message(message), Some(channel)) => {
                shards
                    .metrics
                    .redis_received
                    .add(u64::from(record.origin != self.origin));
                let place = (position, record.mark());
                self.placed(channel, place, message, now, shards);
                return false;
            }
            (None, Body::Removed, Some(channel)) => {
                self.streams.removed(channel);
                return false;
            }
            (Some(_), ..) => {
                count_rejected(Rejected::Content, shards);
                return false;
            }
            _ => {}
        }
        let metrics = &shards.metrics;
        if let (ORIGIN_OF_NOBODY, Body::Message(message @ MessageRef::Leave(_)), Some(channel)) =
            (record.origin, record.body, channel)
        {
            metrics.redis_received.add(1);
            self.sequence(channel, message, None, shards);
            return false;
        }
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
                    _ => self.sequence(channel, message, None, shards),
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
                            self.sequence(channel, message, None, shards);
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
        self.streams.connect();
        self.probe(now);
    }

    /// A connection is lost: what was under way is delivered here, who has waited is served here,
    /// as far as that is what becomes of it.
    pub(super) fn lost(&mut self, now: Instant, shards: &mut Shards) {
        self.phase = Phase::Away;
        for entry in self.ledger.abandon() {
            let message = match &entry.content {
                Content::Message(message) => Some(message),
                // Others have got it.
                Content::Once(once) if entry.is_confirmed => Some(&once.message),
                Content::Once(_) | Content::Append(_) => None,
                Content::Probe { .. } | Content::Nothing => None,
            };
            let is_unclear = matches!(entry.content, Content::Once(_) | Content::Append(_));
            if let Some(message) = message {
                shards.metrics.local_only.add((!entry.is_confirmed).into());
                self.sequence(message.channel(), message.as_ref(), None, shards);
            }
            if let Some(asker) = entry.asker {
                let result = match is_unclear {
                    true => Err(ErrorCode::Internal),
                    false => Ok(None),
                };
                shards.published(asker, result);
            }
        }
        for channel in self.streams.disconnect(now, shards) {
            self.interest.forget(&channel);
        }
        for waiter in self.interest.disconnect() {
            shards.subscribed(waiter, Ok(None));
        }
        for question in std::mem::take(&mut self.questions) {
            question.refuse(ErrorCode::Internal, shards);
        }
    }

    /// Publications whose fate is not known.
    pub(super) fn in_flight(&self) -> usize {
        self.ledger.len()
    }

    /// Bytes of recent publications that are remembered.
    pub(super) fn recent_bytes(&self) -> usize {
        self.streams.recent_bytes()
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

    /// A publication that has a place has arrived.
    fn placed(
        &mut self,
        channel: &str,
        (position, mark): (StreamPosition, Mark),
        message: MessageRef<'_>,
        now: Instant,
        shards: &mut Shards,
    ) {
        match self
            .streams
            .push(channel, (position, mark), message, now, shards)
        {
            Pushed::Taken => {}
            Pushed::Ended => self.interest.forget(channel),
            // Who listens here does not ask for positions.
            Pushed::Untracked => self.sequence(channel, message, Some(position), shards),
        }
    }

    fn sequence(
        &mut self,
        channel: &str,
        message: MessageRef<'_>,
        position: Option<StreamPosition>,
        shards: &mut Shards,
    ) {
        if shards.sequence(channel, message, position) {
            // Its only listener could not take it and is gone.
            self.interest.forget(channel);
            self.streams.ended(channel, shards);
        }
    }
}

fn count_rejected(why: Rejected, shards: &Shards) {
    match why {
        Rejected::Format => shards.metrics.rejected_format.add(1),
        Rejected::Content => shards.metrics.rejected_content.add(1),
        Rejected::Size => shards.metrics.rejected_size.add(1),
    }
}
