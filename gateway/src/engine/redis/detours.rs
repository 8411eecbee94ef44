//! Publications of channels with history that wait until it is known which server takes them: a slot is on
//! its way to another server, a master to another place. A fault of this kind costs a publisher time
//! (at most [`REDIS_DETOUR_MAX`]), not an error. No I/O.
//!
//! ASK is not followed but waited out: whoever subscribes to the channel is at the server that gives the slot
//! away until that has given all of it, so a publication at the other one would be heard by nobody.
//!
//! Invariants
//! - What is here was certainly not carried out.
//! - While a channel is here, whatever is published in it joins the end of its queue. It leaves as a whole,
//!   in order, when no server has to answer for anything else of it.
//! - All of it is bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::ledger::{Append, Content, Entry, Publisher};
use crate::limits::{REDIS_DETOUR_MAX, REDIS_IN_FLIGHT_BYTES_MAX, REDIS_IN_FLIGHT_MAX};

/// How soon it is tried again; doubles with each attempt.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_DOUBLINGS_MAX: u32 = 3;
/// How often all of them are looked at.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How it has gone with one so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detour {
    expires: Instant,
    attempts: u32,
}

/// A publication, and who is to be answered.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) append: Box<Append>,
    pub(super) asker: Option<Publisher>,
}

#[derive(Debug)]
struct Lane {
    /// Servers that have not answered for all that they were sent of it.
    awaited: usize,
    queue: VecDeque<Waiting>,
    retry: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Detours {
    lanes: HashMap<Arc<str>, Lane, RandomState>,
    count: usize,
    bytes: usize,
    looked: Instant,
}

impl Detours {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            lanes: HashMap::default(),
            count: 0,
            bytes: 0,
            looked: now,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether what is published in `channel` has to wait behind what waits already.
    pub(super) fn has(&self, channel: &str) -> bool {
        !self.lanes.is_empty() && self.lanes.contains_key(channel)
    }

    /// A server has something of `channel` that it has not answered for, and gets nothing more of it.
    pub(super) fn close(&mut self, channel: &Arc<str>, now: Instant) {
        self.lane(channel, now).awaited += 1;
    }

    /// That server has answered for everything; `entries` came to nothing. Hands out whom it has taken too
    /// long for.
    pub(super) fn put_back(
        &mut self,
        channel: &Arc<str>,
        entries: Vec<Entry>,
        now: Instant,
    ) -> Vec<Publisher> {
        let mut late = Vec::new();
        let mut pause = Duration::ZERO;
        for entry in entries.into_iter().rev() {
            let (Content::Append(mut append), asker) = (entry.content, entry.asker) else {
                continue;
            };
            let detour = append.detour.get_or_insert(Detour::begin(now));
            pause = PAUSE_MIN * (1 << detour.attempts.min(PAUSE_DOUBLINGS_MAX));
            detour.attempts += 1;
            if detour.expires <= now {
                late.extend(asker);
                continue;
            }
            self.count += 1;
            self.bytes += append.message.size();
            let waiting = Waiting { append, asker };
            self.lane(channel, now).queue.push_front(waiting);
        }
        let lane = self.lane(channel, now);
        lane.awaited = lane.awaited.saturating_sub(1);
        lane.retry = lane.retry.max(now + pause);
        // Those that are late were the first.
        late.reverse();
        late
    }

    /// Puts a publication behind what waits in its channel. It comes back where there is no room.
    pub(super) fn add(&mut self, mut waiting: Waiting, now: Instant) -> Result<(), Waiting> {
        let size = waiting.append.message.size();
        if self.count >= REDIS_IN_FLIGHT_MAX || self.bytes + size > REDIS_IN_FLIGHT_BYTES_MAX {
            return Err(waiting);
        }
        self.count += 1;
        self.bytes += size;
        waiting.append.detour.get_or_insert(Detour::begin(now));
        let channel: Arc<str> = Arc::from(waiting.append.message.channel());
        self.lane(&channel, now).queue.push_back(waiting);
        Ok(())
    }

    /// It may be known better now where they belong: all are tried at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.looked = now.checked_sub(LOOK_INTERVAL).unwrap_or(now);
        for lane in self.lanes.values_mut() {
            lane.retry = now;
        }
    }

    /// Hands out what is to be tried now, where `is_ready`, and whom it has taken too long for.
    pub(super) fn look(
        &mut self,
        now: Instant,
        is_ready: impl Fn(&str) -> bool,
    ) -> (Vec<Waiting>, Vec<Publisher>) {
        let (mut due, mut late) = (Vec::new(), Vec::new());
        if self.lanes.is_empty() || now.saturating_duration_since(self.looked) < LOOK_INTERVAL {
            return (due, late);
        }
        self.looked = now;
        let (mut count, mut bytes) = (0, 0);
        self.lanes.retain(|channel, lane| {
            let mut drop = |waiting: &Waiting| {
                count += 1;
                bytes += waiting.append.message.size();
            };
            let is_late = |waiting: &Waiting| {
                let detour = waiting.append.detour;
                detour.is_some_and(|detour| detour.expires <= now)
            };
            while lane.queue.front().is_some_and(is_late)
                && let Some(waiting) = lane.queue.pop_front()
            {
                drop(&waiting);
                late.extend(waiting.asker);
            }
            if lane.awaited > 0 {
                return true;
            }
            if !lane.queue.is_empty() && (lane.retry > now || !is_ready(channel)) {
                return true;
            }
            lane.queue.iter().for_each(drop);
            due.extend(lane.queue.drain(..));
            false
        });
        self.count -= count;
        self.bytes -= bytes;
        (due, late)
    }

    fn lane(&mut self, channel: &Arc<str>, now: Instant) -> &mut Lane {
        self.lanes
            .entry(Arc::clone(channel))
            .or_insert_with(|| Lane {
                awaited: 0,
                queue: VecDeque::new(),
                retry: now,
            })
    }
}

impl Detour {
    fn begin(now: Instant) -> Self {
        Self {
            expires: now + REDIS_DETOUR_MAX,
            attempts: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use flux_runtime::log::LogWriter;

    use super::super::super::Asker;
    use super::super::super::history::HistoryOptions;
    use super::super::super::request::ReplyTo;
    use super::super::ledger::Ledger;
    use super::super::scripts::Outcome;
    use super::*;
    use crate::pubsub::{Epoch, MessageRef, StreamPosition};

    fn waiting(channel: &str, command: u32) -> Waiting {
        let history = HistoryOptions {
            size: 10,
            ttl: Duration::from_secs(60),
            meta_ttl: Duration::from_secs(60),
        };
        let message = MessageRef::data(b"1").store(&mut LogWriter::new(), channel);
        let connection = 1;
        let asker = Asker {
            connection,
            command,
        };
        Waiting {
            append: Append::new(message, history, None),
            asker: Some(ReplyTo::Shard(0, asker)),
        }
    }

    fn command(asker: &Publisher) -> u32 {
        match asker {
            ReplyTo::Shard(_, asker) => asker.command,
            ReplyTo::Caller(_) => panic!("no caller asked"),
        }
    }

    fn commands(list: &[Waiting]) -> Vec<u32> {
        let askers = list.iter().filter_map(|waiting| waiting.asker.as_ref());
        askers.map(command).collect()
    }

    fn push(ledger: &mut Ledger, waiting: Waiting) {
        let Waiting { append, asker } = waiting;
        let content = Content::Append(append);
        ledger.push(content, asker).expect("there is room");
    }

    /// A ledger that has sent 0 to `sent`, and has some more, all of one channel.
    fn ledger(sent: u32, all: u32) -> Ledger {
        let mut ledger = Ledger::default();
        for n in 0..all {
            push(&mut ledger, waiting("c", n));
        }
        ledger.hand_over(sent as usize, |_, _| {});
        ledger
    }

    /// What the engine does with it.
    fn take_back(ledger: &mut Ledger, detours: &mut Detours, now: Instant) -> Vec<Publisher> {
        for channel in ledger.returned().take_closed() {
            detours.close(&channel, now);
        }
        let returned = ledger.take_returned().into_iter();
        returned
            .flat_map(|(channel, entries)| detours.put_back(&channel, entries, now))
            .collect()
    }

    fn stored() -> Outcome {
        Outcome::Stored(StreamPosition {
            epoch: Epoch::from_random(1),
            offset: 1,
        })
    }

    #[test]
    fn what_was_refused_and_what_stands_behind_it_leaves_together_and_in_order() {
        let mut now = Instant::now();
        let (mut ledger, mut detours) = (ledger(3, 5), Detours::new(now));
        push(&mut ledger, waiting("other", 9));
        assert!(ledger.confirm(0, Outcome::Elsewhere).is_none());
        assert!(take_back(&mut ledger, &mut detours, now).is_empty());
        assert!(detours.has("c") && !detours.has("other"));
        detours.add(waiting("c", 5), now).expect("room");
        let mut sent = Vec::new();
        ledger.hand_over(9, |_, content| {
            sent.push(matches!(content, Content::Append(_)));
        });
        assert_eq!(sent, [false, false, true], "only that of the other channel");
        assert!(ledger.confirm(5, stored()).is_some(), "the other channel's");
        for sequence in [1, 2] {
            now += Duration::from_secs(1);
            assert!(
                detours.look(now, |_| true).0.is_empty(),
                "not all is answered"
            );
            assert!(ledger.confirm(sequence, Outcome::Elsewhere).is_none());
            take_back(&mut ledger, &mut detours, now);
        }
        now += PAUSE_MIN;
        assert!(
            detours.look(now, |_| false).0.is_empty(),
            "no server takes it"
        );
        now += LOOK_INTERVAL;
        let (due, late) = detours.look(now, |_| true);
        assert_eq!((commands(&due), late.len()), (vec![0, 1, 2, 3, 4, 5], 0));
        assert!(detours.is_empty() && detours.count == 0 && detours.bytes == 0);
        assert_eq!(ledger.len(), 6, "places, until something comes back");
    }

    #[test]
    fn what_was_overtaken_is_not_tried_again() {
        let now = Instant::now();
        let (mut ledger, mut detours) = (ledger(3, 3), Detours::new(now));
        assert!(ledger.confirm(0, Outcome::Elsewhere).is_none());
        assert!(ledger.confirm(1, stored()).is_some());
        let overtaken = ledger.returned().take_overtaken();
        assert_eq!(overtaken.iter().map(command).collect::<Vec<_>>(), [0]);
        assert!(ledger.confirm(2, Outcome::Elsewhere).is_none());
        take_back(&mut ledger, &mut detours, now);
        let (due, _) = detours.look(now + PAUSE_MIN, |_| true);
        assert_eq!(commands(&due), [2]);
    }

    #[test]
    fn what_was_not_sent_when_the_connection_was_lost_is_kept_and_the_rest_is_unclear() {
        let now = Instant::now();
        let (mut ledger, mut detours) = (ledger(2, 4), Detours::new(now));
        let unclear: Vec<u32> = ledger
            .abandon()
            .filter_map(|entry| entry.asker.as_ref().map(command))
            .collect();
        assert_eq!(unclear, [0, 1]);
        take_back(&mut ledger, &mut detours, now);
        let (due, _) = detours.look(now + PAUSE_MIN, |_| true);
        assert_eq!(commands(&due), [2, 3]);
    }

    #[test]
    fn nobody_waits_longer_than_the_limit_however_often_it_was_tried() {
        let mut now = Instant::now();
        let (until, mut attempts) = (now + REDIS_DETOUR_MAX, 0);
        let mut ledger = ledger(0, 1);
        let mut detours = Detours::new(now);
        loop {
            ledger.hand_over(1, |_, _| {});
            let sequence = attempts;
            assert!(ledger.confirm(sequence, Outcome::Elsewhere).is_none());
            let mut late = take_back(&mut ledger, &mut detours, now);
            let mut due = Vec::new();
            while due.is_empty() && late.is_empty() {
                now += LOOK_INTERVAL;
                (due, late) = detours.look(now, |_| true);
            }
            if !late.is_empty() {
                break;
            }
            attempts += 1;
            due.into_iter()
                .for_each(|waiting| push(&mut ledger, waiting));
        }
        assert!(now >= until && now < until + Duration::from_secs(1));
        assert!((5..20).contains(&attempts), "{attempts}");
        assert!(ledger.take_returned().is_empty() && detours.count == 0);
    }
}
