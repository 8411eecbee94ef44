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
mod tests {
    use super::*;

    fn ms(ms: u64) -> At {
        Duration::from_millis(ms)
    }

    /// Two subscribers of one channel on nodes 0 and 1, joined at 0.
    fn two() -> Verdict {
        let mut verdict = Verdict::new(2, 1);
        verdict.joined(0, 0, Beginning::Anew, ms(0));
        verdict.joined(1, 1, Beginning::Anew, ms(0));
        verdict
    }

    fn publish(verdict: &mut Verdict, publisher: u32, at: u64) -> usize {
        let (number, _) = verdict.published(0, publisher, publisher as NodeIndex, ms(at));
        verdict.acknowledged(0, number, ms(at + 1));
        number
    }

    #[test]
    fn everything_received_once_and_in_order_is_clean() {
        let mut verdict = two();
        for at in 0..100 {
            let number = publish(&mut verdict, (at % 2) as u32, at * 10);
            for subscriber in 0..2 {
                assert_eq!(
                    verdict.received(subscriber, number),
                    Receipt::InOrder(ms(at * 10))
                );
            }
        }
        let totals = verdict.settle(ms(5000));
        assert!(totals.clean());
        assert_eq!(
            (totals.expected, totals.delivered, totals.missed_while_away),
            (200, 200, 0)
        );
    }

    #[test]
    fn a_gap_in_a_live_session_is_lost_by_node() {
        let mut verdict = two();
        let number = publish(&mut verdict, 0, 10);
        assert_eq!(verdict.settle(ms(500)).undecided, 2);
        let totals = verdict.settle(ms(5000));
        assert_eq!(
            (totals.lost, totals.lost_same_node, totals.lost_cross_node),
            (2, 1, 1)
        );
        verdict.received(0, number);
        assert_eq!(verdict.settle(ms(5000)).lost, 1);
    }

    #[test]
    fn overtaken_in_its_session_is_lost_however_young() {
        let mut verdict = two();
        publish(&mut verdict, 0, 10);
        let later = publish(&mut verdict, 0, 20);
        verdict.received(1, later);
        verdict.heard(1, ms(25));
        verdict.left(1);
        let totals = verdict.settle(ms(30));
        assert_eq!(
            (totals.lost, totals.missed_while_away, totals.undecided),
            (1, 0, 2)
        );
    }

    #[test]
    fn what_is_sent_after_the_last_byte_of_a_dead_transport_is_missed_while_away() {
        let mut verdict = two();
        verdict.heard(1, ms(1000));
        // The transport is dead from here; the client notices 30 s later.
        for at in [1500, 5000, 20_000] {
            let number = publish(&mut verdict, 0, at);
            verdict.received(0, number);
        }
        verdict.left(1);
        verdict.joined(1, 0, Beginning::Anew, ms(32_000));
        let number = publish(&mut verdict, 0, 33_000);
        verdict.received(0, number);
        verdict.received(1, number);
        let totals = verdict.settle(ms(40_000));
        assert!(totals.clean(), "{totals:?}");
        assert_eq!(
            (totals.missed_while_away, totals.expected, totals.delivered),
            (3, 8, 5)
        );
    }

    #[test]
    fn recovery_brings_missed_while_away_to_nothing() {
        let mut verdict = two();
        verdict.left(1);
        let numbers: Vec<usize> = (0..10).map(|n| publish(&mut verdict, 0, 100 + n)).collect();
        for number in &numbers {
            verdict.received(0, *number);
        }
        assert_eq!(verdict.settle(ms(5000)).missed_while_away, 10);
        verdict.joined(1, 0, Beginning::Anew, ms(5000));
        for number in &numbers {
            assert!(matches!(verdict.received(1, *number), Receipt::InOrder(_)));
        }
        let totals = verdict.settle(ms(9000));
        assert!(totals.clean() && totals.missed_while_away == 0 && totals.delivered == 20);
    }

    #[test]
    fn what_is_missing_after_a_recovery_is_lost_and_not_where_the_subscriber_was_told() {
        for (beginning, lost, told) in [(Beginning::Recovered, 2, 0), (Beginning::Told, 0, 2)] {
            let mut verdict = two();
            verdict.heard(1, ms(50));
            verdict.left(1);
            let numbers: Vec<usize> = (0..5).map(|n| publish(&mut verdict, 0, 100 + n)).collect();
            verdict.joined(1, 0, beginning, ms(5000));
            for (number, is_missing) in numbers.iter().zip([true, false, false, true, false]) {
                verdict.received(0, *number);
                if !is_missing {
                    verdict.received(1, *number);
                }
            }
            let totals = verdict.settle(ms(9000));
            assert_eq!((totals.lost, totals.told), (lost, told), "{beginning:?}");
            assert_eq!((totals.missed_while_away, totals.undecided), (0, 0));
        }
    }

    #[test]
    fn twice_is_duplicated_also_on_another_connection() {
        let mut verdict = two();
        let number = publish(&mut verdict, 0, 10);
        verdict.received(1, number);
        assert_eq!(verdict.received(1, number), Receipt::Duplicated);
        verdict.left(1);
        verdict.joined(1, 0, Beginning::Anew, ms(100));
        assert_eq!(verdict.received(1, number), Receipt::Duplicated);
        let totals = verdict.settle(ms(20));
        assert_eq!((totals.duplicated, totals.delivered), (2, 1));
    }

    #[test]
    fn an_earlier_one_after_a_later_one_is_reordered_per_publisher() {
        let mut verdict = two();
        let first = publish(&mut verdict, 0, 10);
        let other = publish(&mut verdict, 1, 11);
        let second = publish(&mut verdict, 0, 12);
        assert!(matches!(verdict.received(0, second), Receipt::InOrder(_)));
        assert!(matches!(verdict.received(0, other), Receipt::InOrder(_)));
        assert_eq!(verdict.received(0, first), Receipt::Reordered);
        let totals = verdict.settle(ms(13));
        // All three arrived: nothing is lost for this subscriber.
        assert_eq!((totals.reordered, totals.lost, totals.delivered), (1, 0, 3));
    }

    #[test]
    fn unanswered_and_refused_publications_are_not_lost() {
        let mut verdict = two();
        verdict.published(0, 0, 0, ms(10));
        let (refused, _) = verdict.published(0, 0, 0, ms(20));
        verdict.refused(0, refused);
        let totals = verdict.settle(ms(60_000));
        assert!(totals.clean());
        assert_eq!(
            (
                totals.unanswered,
                totals.refused,
                totals.unconfirmed,
                totals.expected
            ),
            (1, 1, 2, 0)
        );
    }

    #[test]
    fn what_was_sent_before_the_first_subscription_is_not_expected() {
        let mut verdict = Verdict::new(1, 1);
        publish(&mut verdict, 7, 10);
        verdict.joined(0, 0, Beginning::Anew, ms(50));
        assert_eq!(verdict.settle(ms(60_000)).expected, 0);
        assert_eq!(verdict.received(0, 99), Receipt::Unknown);
        assert!(!verdict.settle(ms(60_000)).clean());
    }

    /// A world whose faults are known: the verdict must find exactly those.
    #[test]
    fn injected_faults_are_found_one_for_one() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..30 {
            let (subscribers, channels) = (random.usize(1..20), random.usize(1..4));
            let mut verdict = Verdict::new(subscribers, channels);
            let mut online = vec![true; subscribers];
            for subscriber in 0..subscribers {
                verdict.joined(subscriber, 0, Beginning::Anew, ms(0));
            }
            let mut injected = Totals::default();
            let mut now = 0;
            for _ in 0..500 {
                now += 2000;
                for (subscriber, online) in online.iter_mut().enumerate() {
                    verdict.heard(subscriber, ms(now));
                    if random.f32() < 0.05 {
                        *online = !*online;
                        if *online {
                            verdict.joined(subscriber, 0, Beginning::Anew, ms(now));
                        } else {
                            verdict.left(subscriber);
                        }
                    }
                }
                let channel = random.usize(0..channels);
                let (number, _) =
                    verdict.published(channel, random.u32(0..5), random.u16(0..2), ms(now + 1));
                verdict.acknowledged(channel, number, ms(now + 2));
                for subscriber in
                    (0..subscribers).filter(|subscriber| subscriber % channels == channel)
                {
                    injected.expected += 1;
                    if !online[subscriber] {
                        injected.missed_while_away += 1;
                    } else if random.f32() < 0.02 {
                        injected.lost += 1;
                    } else {
                        verdict.received(subscriber, number);
                        injected.delivered += 1;
                        if random.f32() < 0.02 {
                            verdict.received(subscriber, number);
                            injected.duplicated += 1;
                        }
                    }
                }
            }
            // Sessions that stay open are heard of once more, so that the last rounds can be judged.
            now += 2000;
            for subscriber in 0..subscribers {
                verdict.heard(subscriber, ms(now));
            }
            let totals = verdict.settle(ms(now));
            assert_eq!(
                (
                    totals.expected,
                    totals.delivered,
                    totals.lost,
                    totals.missed_while_away,
                    totals.duplicated,
                    totals.reordered
                ),
                (
                    injected.expected,
                    injected.delivered,
                    injected.lost,
                    injected.missed_while_away,
                    injected.duplicated,
                    0
                )
            );
            assert_eq!(totals.undecided + totals.unconfirmed + totals.unknown, 0);
        }
    }
}
