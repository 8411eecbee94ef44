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
//!
//! | what | file |
//! |---|---|
//! | away, restoring, up; what is published | here |
//! | what shards and the control plane ask for | `requests` |
//! | questions to Redis and their answers | `asking` |
//! | which channels are subscribed, and where they go | `subscriptions` |
//! | what arrives through Redis | `received` |

mod asking;
mod received;
mod requests;
mod subscriptions;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::interest::Interest;
use super::ledger::{Append, Content, Ledger, Once};
use super::questions::Question;
use super::record::{self, Body, Rejected};
use super::scripts::Outcome;
use super::shards::Shards;
use super::streams::Streams;
use crate::protocol::ErrorCode;
use crate::pubsub::{MessageRef, StreamPosition};

pub(super) use self::subscriptions::Leaving;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Away,
    Restoring,
    Up,
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
            Outcome::Elsewhere | Outcome::Unavailable => {}
            Outcome::Unknown => shards.metrics.redis_scripts_unknown.add(1),
        }
        if let Some((asker, result)) = self.ledger.confirm(sequence, outcome) {
            shards.published(asker, result);
        }
        for overtaken in self.ledger.returned().take_overtaken() {
            shards.published(overtaken, Err(ErrorCode::Internal));
        }
    }

    /// What came to nothing here is this server's no more, as far as `is_elsewhere`.
    pub(super) fn hold_back(&mut self, is_elsewhere: impl Fn(&str) -> bool) {
        self.ledger.hold_back(is_elsewhere);
    }

    /// What was to be published and came to nothing here.
    pub(super) fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
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
