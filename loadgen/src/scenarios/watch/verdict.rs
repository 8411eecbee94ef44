//! Lost, duplicated, reordered: the judgement over numbered publications. Pure: what
//! happened comes in with its time (since the start of the run), totals come out.
//!
//! Rules
//! - A publication counts once the server acknowledged it. Without an answer nobody
//!   knows whether it was published: `unconfirmed`, judged for nothing but order.
//! - A subscriber's *session* runs from a subscribe reply to the last byte that was
//!   heard on that connection. (Between the last byte and the moment a dead transport
//!   was noticed the client was away, it just did not know.)
//! - *Lost*: not received although it was sent in a session, and the session provably
//!   outlived its delivery: it went on for `DELIVERY_BOUND` after the acknowledgement,
//!   or a later publication of the same publisher was received in it. Also lost: not
//!   received, sent while the subscriber was away, although its next subscribe reply
//!   said that everything was recovered: a silent gap.
//! - *Told*: not received, and the next subscribe reply said that something may be missing.
//! - *Missed while away*: not received, sent before the subscriber was back, in a channel
//!   without recovery. This is what at-most-once means.
//! - *Duplicated*: received again, on whatever connection. *Reordered*: received after
//!   a later one of the same publisher.
//! - What was sent before a subscriber's first session is not expected by it.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

/// A session that lasted this long after an acknowledgement must have seen the publication.
pub(crate) const DELIVERY_BOUND: Duration = Duration::from_secs(1);

/// Time since the start of the run.
pub(crate) type At = Duration;

/// Index of a node's name, as the caller numbers nodes.
pub(crate) type NodeIndex = u16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// No answer yet, or never.
    Unanswered,
    Acknowledged(At),
    /// The server said no: not published.
    Refused,
}

#[derive(Debug)]
struct Publication {
    publisher: u32,
    /// Counts from 1 per publisher.
    sequence: u32,
    node: NodeIndex,
    sent: At,
    fate: Fate,
}

/// How a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// Without a position: for the first time, or in a channel without recovery.
    Anew,
    /// The server says that nothing is missing since the last position.
    Recovered,
    /// The server says that something may be missing.
    Told,
}

#[derive(Debug)]
struct Session {
    beginning: Beginning,
    from: At,
    heard: At,
    open: bool,
    node: NodeIndex,
    /// Highest sequence received in this session, by publisher.
    high: HashMap<u32, u32>,
}

#[derive(Debug)]
struct Subscriber {
    channel: usize,
    received: Vec<u64>,
    sessions: Vec<Session>,
    /// Highest sequence ever received, by publisher.
    high: HashMap<u32, u32>,
}

/// What a receipt was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// First time, in order; sent at this time.
    InOrder(At),
    Duplicated,
    Reordered,
    /// Nobody sent this.
    Unknown,
}

/// The judgement.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    pub(crate) published: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Sent, never answered.
    pub(crate) unanswered: u64,
    /// Receipts due: acknowledged publications times subscribers that expected them.
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    /// Lost between clients of one node: never excusable.
    pub(crate) lost_same_node: u64,
    /// Lost between nodes: what happens while a node is cut off from the others.
    pub(crate) lost_cross_node: u64,
    pub(crate) missed_while_away: u64,
    /// Missing, and the subscriber was told that something may be.
    pub(crate) told: u64,
    /// Too young at the end of the run to be judged.
    pub(crate) undecided: u64,
    /// Unanswered publications that a subscriber did not see.
    pub(crate) unconfirmed: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Receipts of something that was never sent.
    pub(crate) unknown: u64,
}

impl Totals {
    /// Nothing lost, doubled, out of order or invented.
    pub(crate) fn clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.unknown == 0
    }
}

/// Everything that was sent and seen.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    channels: Vec<Vec<Publication>>,
    subscribers: Vec<Subscriber>,
    sequences: HashMap<u32, u32>,
    duplicated: u64,
    reordered: u64,
    unknown: u64,
}

impl Verdict {
    /// Subscriber number i listens to channel `i % channels`.
    pub(crate) fn new(subscribers: usize, channels: usize) -> Self {
        Self {
            channels: (0..channels).map(|_| Vec::new()).collect(),
            subscribers: (0..subscribers)
                .map(|number| Subscriber {
                    channel: number % channels,
                    received: Vec::new(),
                    sessions: Vec::new(),
                    high: HashMap::new(),
                })
                .collect(),
            ..Self::default()
        }
    }

    /// `publisher`, on `node`, publishes to its channel: the publication's number in the channel and of the publisher.
    pub(crate) fn published(
        &mut self,
        channel: usize,
        publisher: u32,
        node: NodeIndex,
        now: At,
    ) -> (usize, u32) {
        let sequence = self.sequences.entry(publisher).or_default();
        *sequence += 1;
        let publications = &mut self.channels[channel];
        publications.push(Publication {
            publisher,
            sequence: *sequence,
            node,
            sent: now,
            fate: Fate::Unanswered,
        });
        (publications.len() - 1, *sequence)
    }

    /// The server accepted a publication.
    pub(crate) fn acknowledged(&mut self, channel: usize, number: usize, now: At) {
        self.channels[channel][number].fate = Fate::Acknowledged(now);
    }

    /// The server refused a publication.
    pub(crate) fn refused(&mut self, channel: usize, number: usize) {
        self.channels[channel][number].fate = Fate::Refused;
    }

    /// A subscriber's subscription stands (again).
    pub(crate) fn joined(
        &mut self,
        subscriber: usize,
        node: NodeIndex,
        beginning: Beginning,
        now: At,
    ) {
        self.left(subscriber);
        let session = Session {
            beginning,
            from: now,
            heard: now,
            open: true,
            node,
            high: HashMap::new(),
        };
        self.subscribers[subscriber].sessions.push(session);
    }

    /// Bytes came for a subscriber: its connection lives.
    pub(crate) fn heard(&mut self, subscriber: usize, now: At) {
        if let Some(session) = self.subscribers[subscriber]
            .sessions
            .last_mut()
            .filter(|session| session.open)
        {
            session.heard = now;
        }
    }

    /// A subscriber's connection or subscription is gone.
    pub(crate) fn left(&mut self, subscriber: usize) {
        if let Some(session) = self.subscribers[subscriber].sessions.last_mut() {
            session.open = false;
        }
    }

    /// When a subscriber was last heard of in its last session.
    pub(crate) fn last_heard(&self, subscriber: usize) -> Option<At> {
        self.subscribers[subscriber]
            .sessions
            .last()
            .map(|session| session.heard)
    }

    /// A subscriber received publication `number` of its channel.
    pub(crate) fn received(&mut self, subscriber: usize, number: usize) -> Receipt {
        let subscriber = &mut self.subscribers[subscriber];
        let Some(publication) = self.channels[subscriber.channel].get(number) else {
            self.unknown += 1;
            return Receipt::Unknown;
        };
        let (word, bit) = (number / 64, 1u64 << (number % 64));
        if subscriber.received.len() <= word {
            subscriber.received.resize(word + 1, 0);
        }
        if subscriber.received[word] & bit != 0 {
            self.duplicated += 1;
            return Receipt::Duplicated;
        }
        subscriber.received[word] |= bit;
        if let Some(session) = subscriber.sessions.last_mut() {
            let high = session.high.entry(publication.publisher).or_default();
            *high = publication.sequence.max(*high);
        }
        let high = subscriber.high.entry(publication.publisher).or_default();
        if publication.sequence < *high {
            self.reordered += 1;
            return Receipt::Reordered;
        }
        *high = publication.sequence;
        Receipt::InOrder(publication.sent)
    }

    /// The judgement as of `now`.
    pub(crate) fn settle(&self, now: At) -> Totals {
        let mut totals = Totals {
            duplicated: self.duplicated,
            reordered: self.reordered,
            unknown: self.unknown,
            ..Totals::default()
        };
        for publication in self.channels.iter().flatten() {
            totals.published += 1;
            match publication.fate {
                Fate::Acknowledged(_) => totals.acknowledged += 1,
                Fate::Refused => totals.refused += 1,
                Fate::Unanswered => totals.unanswered += 1,
            }
        }
        for subscriber in &self.subscribers {
            for (number, publication) in self.channels[subscriber.channel].iter().enumerate() {
                subscriber.judge(number, publication, now, &mut totals);
            }
        }
        debug_assert_eq!(totals.lost, totals.lost_same_node + totals.lost_cross_node);
        totals
    }
}

impl Subscriber {
    fn has(&self, number: usize) -> bool {
        self.received
            .get(number / 64)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    fn judge(&self, number: usize, publication: &Publication, now: At, totals: &mut Totals) {
        let session = self
            .sessions
            .partition_point(|session| session.from <= publication.sent)
            .checked_sub(1);
        let Fate::Acknowledged(acknowledged) = publication.fate else {
            if self.has(number) {
                totals.delivered += 1;
            } else if publication.fate == Fate::Unanswered && session.is_some() {
                totals.unconfirmed += 1;
            }
            return;
        };
        if self.has(number) {
            totals.delivered += 1;
            totals.expected += 1;
            return;
        }
        let Some(index) = session else {
            return;
        };
        let session = &self.sessions[index];
        totals.expected += 1;
        let end = if session.open { now } else { session.heard };
        let overtaken = session
            .high
            .get(&publication.publisher)
            .is_some_and(|high| *high > publication.sequence);
        let is_provable = overtaken || acknowledged + DELIVERY_BOUND <= end;
        let next = self.sessions.get(index + 1).map(|next| next.beginning);
        let is_lost = match next {
            // What comes later cannot excuse a hole in what came before.
            _ if overtaken => true,
            Some(Beginning::Recovered) => true,
            Some(Beginning::Told) => {
                totals.told += 1;
                return;
            }
            Some(Beginning::Anew) | None => is_provable && publication.sent <= end,
        };
        if is_lost {
            totals.lost += 1;
            if session.node == publication.node {
                totals.lost_same_node += 1;
            } else {
                totals.lost_cross_node += 1;
            }
        } else if session.open {
            totals.undecided += 1;
        } else {
            totals.missed_while_away += 1;
        }
    }
}

#[cfg(test)]
mod tests;
