//! What this process has handed to Redis and not seen come back.
//!
//! Everything that is published travels through Redis and back, also to this node's own
//! subscribers, so that all nodes see one order. The ledger makes that safe: when a connection
//! breaks, what has not come back is delivered locally, and if it comes back later after all, it
//! is dropped.
//!
//! It rests on this: one connection publishes, one is subscribed, Redis carries out the commands
//! of a connection in order and pushes to a connection in order. So messages come back in the
//! order of their sequence numbers, and when one comes back, those before it that have not come
//! back never will (this node was not subscribed to their channels when Redis carried them out).
//! That nobody here listened when a message was published says nothing about whether it comes
//! back: somebody may have come before Redis carried it out. So an entry stays until something at
//! or behind it comes back; probes see to it that something does.
//!
//! Invariants
//! - Entries have consecutive sequence numbers, the last one `next - 1`; those that have been
//!   handed to the connection stand before those that have not.
//! - A sequence number below `floor` was dealt with when a connection was lost: it is delivered
//!   already, or nobody was there to deliver it to.
//! - Each publish is answered exactly once: when it is confirmed, comes back, or is abandoned.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::super::history::HistoryOptions;
use super::super::request::{Conditions, ReplyTo};
use super::detours::Detour;
use super::returned::Returned;
use super::scripts::Outcome;
use crate::limits::{REDIS_IN_FLIGHT_BYTES_MAX, REDIS_IN_FLIGHT_MAX};
use crate::protocol::ErrorCode;
use crate::pubsub::{Message, StreamPosition};

/// Messages behind which a probe is sent at the latest, so that entries do not wait for the next
/// regular one when there are many.
const MESSAGES_PER_PROBE: usize = 1_024;

/// Who is to be answered.
pub(super) type Publisher = ReplyTo<Option<StreamPosition>>;

#[derive(Debug)]
pub(super) enum Content {
    Message(Message),
    /// A publication with an idempotency key, in a channel without history.
    Once(Box<Once>),
    /// A publication in a channel with history. It does not come back: what comes is the
    /// publication with its place, which needs no ledger.
    Append(Box<Append>),
    Probe {
        sent: Instant,
    },
    /// Nothing to come back, or to be delivered.
    Nothing,
}

/// See [`Content::Once`].
#[derive(Debug)]
pub(super) struct Once {
    pub(super) message: Message,
    pub(super) key: Box<str>,
    /// False once Redis has said that it does not know the script.
    pub(super) is_known: bool,
}

/// See [`Content::Append`].
#[derive(Debug)]
pub(super) struct Append {
    pub(super) message: Message,
    pub(super) history: HistoryOptions,
    pub(super) conditions: Option<Box<Conditions>>,
    /// False once Redis has said that it does not know the script.
    pub(super) is_known: bool,
    /// Since when and how often it was tried in vain, if it was.
    pub(super) detour: Option<Detour>,
}

impl Append {
    pub(super) fn new(
        message: Message,
        history: HistoryOptions,
        conditions: Option<Box<Conditions>>,
    ) -> Box<Self> {
        Box::new(Self {
            message,
            history,
            conditions,
            is_known: true,
            detour: None,
        })
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) content: Content,
    pub(super) asker: Option<Publisher>,
    /// Redis has answered the command: other nodes have got it.
    pub(super) is_confirmed: bool,
}

impl Entry {
    fn nothing() -> Self {
        Self {
            content: Content::Nothing,
            asker: None,
            is_confirmed: false,
        }
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::Message(message) => message.size(),
            Content::Once(once) => once.message.size(),
            Content::Append(append) => append.message.size(),
            Content::Probe { .. } | Content::Nothing => 0,
        }
    }
}

/// Who is to be told, and what.
pub(super) type Answered = (Publisher, Result<Option<StreamPosition>, ErrorCode>);

/// What a message that has come back means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// Deliver it.
    Fresh {
        /// For a probe: when it was sent.
        sent: Option<Instant>,
    },
    /// It was dealt with already.
    Late,
    /// This process never sent it.
    Unknown,
}

/// There are too many in flight. Who is to be told so comes back.
#[derive(Debug)]
pub(super) struct LedgerFull(pub(super) Option<Publisher>);

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: VecDeque<Entry>,
    /// How many of them have been handed to the connection.
    handed: usize,
    bytes: usize,
    /// Publications of which only the script's answer tells what became of them, by sequence number:
    /// all that are on their way to a history, and those with an idempotency key that have not come
    /// back although later ones have.
    unanswered: BTreeMap<u64, Entry>,
    /// Publications on their way to a history that came to nothing here; not counted as being here.
    returned: Returned,
    next: u64,
    floor: u64,
    /// Messages behind the last probe.
    since_probe: usize,
}

impl Ledger {
    /// Whether so much has been taken in that a probe should clear it up.
    pub(super) fn wants_probe(&self) -> bool {
        self.since_probe >= MESSAGES_PER_PROBE
    }

    /// Takes in what is to be sent.
    pub(super) fn push(
        &mut self,
        content: Content,
        asker: Option<Publisher>,
    ) -> Result<(), LedgerFull> {
        let entry = Entry {
            content,
            asker,
            is_confirmed: false,
        };
        // Probes are few, and the one that finds out what is wrong must not be turned away.
        let is_full = self.len() >= REDIS_IN_FLIGHT_MAX
            || self.bytes + entry.size() > REDIS_IN_FLIGHT_BYTES_MAX;
        if is_full && !matches!(entry.content, Content::Probe { .. }) {
            return Err(LedgerFull(entry.asker));
        }
        self.add(entry);
        Ok(())
    }

    fn add(&mut self, entry: Entry) {
        self.since_probe = match entry.content {
            Content::Probe { .. } => 0,
            _ => self.since_probe + 1,
        };
        self.bytes += entry.size();
        self.entries.push_back(entry);
        self.next += 1;
        self.check_invariants();
    }

    /// Hands out up to `count` entries that have not been, with their sequence numbers.
    pub(super) fn hand_over(
        &mut self,
        count: usize,
        mut take: impl FnMut(u64, &Content),
    ) -> Option<(u64, usize)> {
        let count = count.min(self.entries.len() - self.handed);
        if count == 0 {
            return None;
        }
        let first = self.front() + self.handed as u64;
        let handed = self.handed..self.handed + count;
        for (sequence, entry) in (first..).zip(self.entries.range_mut(handed)) {
            if let Content::Append(append) = &entry.content
                && self.returned.is_closed(append.message.channel())
            {
                let append = std::mem::replace(entry, Entry::nothing());
                self.bytes -= append.size();
                self.returned.put(sequence, append, self.next);
            }
            take(sequence, &entry.content);
            if matches!(entry.content, Content::Append(_)) {
                let append = std::mem::replace(entry, Entry::nothing());
                self.unanswered.insert(sequence, append);
            }
        }
        self.handed += count;
        Some((first, count))
    }

    /// Redis has answered the command of `sequence`. What it did not know how to do is to be sent
    /// again.
    pub(super) fn confirm(&mut self, sequence: u64, outcome: Outcome) -> Option<Answered> {
        let result = match outcome {
            Outcome::Taken | Outcome::Suppressed(None) => Ok(None),
            Outcome::Stored(position) | Outcome::Suppressed(Some(position)) => Ok(Some(position)),
            Outcome::Refused | Outcome::Elsewhere | Outcome::Unknown => Err(ErrorCode::Internal),
            Outcome::Unavailable => Err(ErrorCode::Internal),
        };
        if outcome == Outcome::Unavailable {
            // The loss that follows settles what becomes of others.
            let is_append = |entry: &Entry| matches!(entry.content, Content::Append(_));
            if !self.unanswered.get(&sequence).is_some_and(is_append) {
                return None;
            }
        }
        if let Some(mut entry) = self.unanswered.remove(&sequence) {
            self.bytes -= entry.size();
            let result = match (outcome, &mut entry.content) {
                (Outcome::Stored(_) | Outcome::Suppressed(Some(_)), content) => {
                    if let Content::Append(append) = content {
                        self.returned.overtake(sequence, append.message.channel());
                    }
                    result
                }
                (Outcome::Elsewhere | Outcome::Unavailable, Content::Append(_)) => {
                    self.returned.put(sequence, entry, self.next);
                    return None;
                }
                (Outcome::Taken | Outcome::Suppressed(None), Content::Once(_)) => result,
                (Outcome::Unknown, Content::Append(append)) if append.is_known => {
                    append.is_known = false;
                    self.returned.put(sequence, entry, self.next);
                    return None;
                }
                (Outcome::Unknown, Content::Once(once)) if once.is_known => {
                    once.is_known = false;
                    self.add(entry);
                    return None;
                }
                _ => Err(ErrorCode::Internal),
            };
            self.check_invariants();
            return Some((entry.asker?, result));
        }
        let at = sequence.checked_sub(self.front())? as usize;
        let entry = self.entries.get_mut(at)?;
        entry.is_confirmed = true;
        let asker = entry.asker.take();
        if outcome != Outcome::Taken {
            self.bytes -= entry.size();
            let content = std::mem::replace(&mut entry.content, Content::Nothing);
            if let Content::Once(mut once) = content
                && outcome == Outcome::Unknown
                && once.is_known
            {
                once.is_known = false;
                self.add(Entry {
                    content: Content::Once(once),
                    asker,
                    is_confirmed: false,
                });
                return None;
            }
        }
        self.check_invariants();
        Some((asker?, result))
    }

    /// A message of this process has come back. `answered` hears whose publish is thereby known to
    /// be carried out.
    pub(super) fn echo(&mut self, sequence: u64, answered: &mut impl FnMut(Publisher)) -> Echo {
        if sequence < self.floor {
            return Echo::Late;
        }
        if sequence >= self.front() + self.handed as u64 {
            return Echo::Unknown;
        }
        let mut sent = None;
        while self.front() <= sequence {
            let at = self.front();
            let Some(entry) = self.pop() else { break };
            let is_open = matches!(entry.content, Content::Once(_)) && !entry.is_confirmed;
            if at < sequence && is_open {
                self.bytes += entry.size();
                self.unanswered.insert(at, entry);
                continue;
            }
            if let Some(asker) = entry.asker {
                answered(asker);
            }
            if let Content::Probe { sent: at } = entry.content {
                sent = Some(at);
            }
        }
        // Below it nothing comes back any more, this one included.
        self.floor = sequence + 1;
        self.check_invariants();
        Echo::Fresh { sent }
    }

    /// A connection is lost: hands out everything that is still here, in order, to be delivered
    /// locally, where that is what becomes of it, and answered. If any of it comes back later, it
    /// is late. What was on its way to a history and not sent has come to nothing.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = Entry> + use<> {
        self.floor = self.next;
        let first = self.front();
        for (sequence, entry) in (first..).zip(&mut self.entries).skip(self.handed) {
            if matches!(entry.content, Content::Append(_)) {
                let append = std::mem::replace(entry, Entry::nothing());
                self.returned.put(sequence, append, self.next);
            }
        }
        self.handed = 0;
        self.bytes = 0;
        self.since_probe = 0;
        let unanswered = std::mem::take(&mut self.unanswered).into_values();
        unanswered.chain(std::mem::take(&mut self.entries))
    }

    /// Nothing of channels that `is_elsewhere` names is sent any more; see [`Returned`].
    pub(super) fn hold_back(&mut self, is_elsewhere: impl Fn(&str) -> bool) {
        for entry in self.unanswered.values().chain(&self.entries) {
            if let Content::Append(append) = &entry.content
                && is_elsewhere(append.message.channel())
            {
                self.returned.close(append.message.channel(), self.next);
            }
        }
    }

    /// What came to nothing here.
    pub(super) fn returned(&mut self) -> &mut Returned {
        &mut self.returned
    }

    /// Channels that are open again, and what came to nothing of them.
    pub(super) fn take_returned(&mut self) -> Vec<(Arc<str>, Vec<Entry>)> {
        if self.returned.is_empty() {
            return Vec::new();
        }
        let unsent = self.front() + self.handed as u64;
        let oldest = self.unanswered.keys().next();
        self.returned
            .take(oldest.map_or(unsent, |oldest| unsent.min(*oldest)))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.unanswered.len()
    }

    /// Whether something waits to be handed over.
    pub(super) fn has_unsent(&self) -> bool {
        self.handed < self.entries.len()
    }

    /// Sequence number of the first entry.
    fn front(&self) -> u64 {
        self.next - self.entries.len() as u64
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.handed = self.handed.saturating_sub(1);
        self.bytes -= entry.size();
        Some(entry)
    }

    fn check_invariants(&self) {
        debug_assert!(self.handed <= self.entries.len());
        debug_assert!(self.floor <= self.next);
        if cfg!(debug_assertions) && self.entries.len() <= 64 {
            let all = self.entries.iter().chain(self.unanswered.values());
            let bytes = all.map(Entry::size).sum::<usize>();
            assert_eq!(bytes, self.bytes, "bytes in flight");
            for (at, entry) in self.entries.iter().enumerate() {
                assert!(
                    at < self.handed || !entry.is_confirmed,
                    "confirmed, not sent"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flux_runtime::log::LogWriter;

    use super::super::super::Asker;
    use super::*;
    use crate::pubsub::MessageRef;

    fn message(n: u64) -> Content {
        let data = n.to_string();
        let message = MessageRef::data(data.as_bytes());
        Content::Message(message.store(&mut LogWriter::new(), "c"))
    }

    fn asker(command: u32) -> Option<Publisher> {
        let connection = 1;
        let asker = Asker {
            connection,
            command,
        };
        Some(ReplyTo::Shard(0, asker))
    }

    fn command(publisher: &Publisher) -> u32 {
        match publisher {
            ReplyTo::Shard(_, asker) => asker.command,
            ReplyTo::Caller(_) => panic!("no caller asked"),
        }
    }

    fn ledger_with(count: u32) -> Ledger {
        let mut ledger = Ledger::default();
        for n in 0..count {
            ledger
                .push(message(n.into()), asker(n))
                .expect("there is room");
        }
        ledger
    }

    fn commands(entries: impl Iterator<Item = Entry>) -> Vec<u32> {
        entries
            .filter_map(|entry| entry.asker.as_ref().map(command))
            .collect()
    }

    #[test]
    fn what_has_not_come_back_is_abandoned_once_and_its_echo_is_late() {
        let mut ledger = ledger_with(4);
        assert_eq!(ledger.hand_over(3, |_, _| {}), Some((0, 3)));
        let mut answered = Vec::new();
        let fresh = ledger.echo(0, &mut |asker| answered.push(command(&asker)));
        assert_eq!(fresh, Echo::Fresh { sent: None });
        assert_eq!(answered, [0]);
        assert!(ledger.confirm(1, Outcome::Taken).is_some());
        assert!(
            ledger.confirm(0, Outcome::Taken).is_none(),
            "its echo has answered it already"
        );
        let left: Vec<Entry> = ledger.abandon().collect();
        assert_eq!(left.len(), 3, "1 is confirmed, but has not come back");
        assert_eq!(commands(left.into_iter()), [2, 3], "1 is answered");
        for late in 0..4 {
            assert_eq!(ledger.echo(late, &mut |_| {}), Echo::Late);
        }
        assert_eq!(ledger.echo(4, &mut |_| {}), Echo::Unknown);
    }

    #[test]
    fn what_redis_refused_is_not_delivered_and_a_probe_clears_up_the_rest() {
        let mut ledger = ledger_with(2);
        let sent = Instant::now();
        ledger.push(Content::Probe { sent }, None).expect("room");
        ledger.hand_over(10, |_, _| {});
        assert!(ledger.confirm(0, Outcome::Refused).is_some());
        assert!(ledger.confirm(1, Outcome::Taken).is_some());
        assert_eq!(ledger.len(), 3, "they may still come back");
        let probe = ledger.echo(2, &mut |_| panic!("both are answered"));
        assert_eq!(probe, Echo::Fresh { sent: Some(sent) });
        assert_eq!((ledger.len(), ledger.bytes), (0, 0));
        assert_eq!(ledger.echo(2, &mut |_| {}), Echo::Late, "but only once");
    }

    #[test]
    fn an_echo_answers_for_those_before_it_that_never_come() {
        let mut ledger = ledger_with(3);
        ledger.hand_over(10, |_, _| {});
        let mut answered = Vec::new();
        ledger.echo(2, &mut |asker| answered.push(command(&asker)));
        assert_eq!(answered, [0, 1, 2]);
        assert_eq!((ledger.len(), ledger.bytes), (0, 0));
        assert_eq!(ledger.echo(1, &mut |_| {}), Echo::Late);
    }

    #[test]
    fn it_is_bounded_and_probes_always_fit() {
        let mut ledger = Ledger::default();
        for n in 0..REDIS_IN_FLIGHT_MAX {
            ledger
                .push(message(n as u64), None)
                .expect("below the limit");
        }
        assert!(matches!(
            ledger.push(message(0), None),
            Err(LedgerFull(None))
        ));
        let sent = Instant::now();
        ledger.push(Content::Probe { sent }, None).expect("a probe");
    }
}
