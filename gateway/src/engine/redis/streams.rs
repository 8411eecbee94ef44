//! Channels with history: where this node's subscribers are in each, and what is read so that they
//! miss nothing. No I/O.
//!
//! ```text
//!              first subscriber                         read: position
//!   (nothing) ────────────────▶ SUBSCRIBE ──confirmed──▶ wanted ──▶ live
//!                                                                    │ ▲
//!                  a gap, a new connection, a long silence           ▼ │ read: what was missed
//!                                                                   filling ──too short──▶ lost
//! ```
//! Invariants
//! - What a channel's listeners are handed is contiguous in offsets, within one epoch, from the
//!   position that their `Subscribed` named; `position` is the last that they were handed.
//! - A publication arrives by a push or by a read, whichever is first; offsets tell which it is.
//! - Until a read that was made after Redis has confirmed the subscription has shown that nothing
//!   is missing, pushes are held back (bounded: what does not fit is read again).
//! - A channel has at most one read under way, and at least `REDIS_READ_INTERVAL` between two.
//! - What cannot be filled is announced: the channel is lost for all its listeners here.
//! - `recent` is contiguous, of `epoch`, and while there is a position it ends there or is empty.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_runtime::log::LogWriter;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::super::history::{HistoryOptions, Recovery, RecoveryMode, RecoveryRequest};
use super::super::{Asker, Event};
use super::interest::Waiter;
use super::recent::{Recent, Settled, not_recovered};
use super::record::Mark;
use super::scripts::{LastSeen, Range, Stretch};
use super::shards::Shards;
use crate::limits::{
    REDIS_HELD_BYTES_MAX, REDIS_READ_INTERVAL, REDIS_READ_PUBLICATIONS_MAX,
    REDIS_RECENT_BYTES_ALL_MAX, REDIS_RECENT_BYTES_MAX, REDIS_STREAM_LINGER,
};
use crate::protocol::ErrorCode;
use crate::pubsub::{ChannelKey, Epoch, Message, MessageRef, ShardIndex, StreamPosition};

/// A recovery that waits for a read.
#[derive(Debug)]
struct Recoverer {
    shard: ShardIndex,
    key: ChannelKey,
    request: RecoveryRequest,
    asker: Asker,
}

/// What a read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Nobody has a position yet. Newest first, down to what recoveries want.
    First,
    /// What is missing behind the position that was held when it was sent.
    Fill(StreamPosition),
    /// What recoveries want of the time before `recent`. Newest first.
    Older,
    /// It was sent before Redis has confirmed the subscription that now counts.
    Outdated,
}

/// A read on its way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    purpose: Purpose,
    range: Range,
}

#[derive(Debug, Default)]
enum Read {
    #[default]
    None,
    /// At this time.
    Wanted(Instant),
    UnderWay(Sent),
}

/// One channel, as this node sees it.
pub(super) struct Stream {
    options: HistoryOptions,
    has_listeners: bool,
    /// Redis has confirmed the subscription, on this connection.
    is_confirmed: bool,
    /// A read has shown that nothing is missing, on this connection.
    is_live: bool,
    position: Option<StreamPosition>,
    /// Which publication stands there, where that is known.
    mark: Option<Mark>,
    epoch: Option<Epoch>,
    recent: Recent,
    /// Its bytes, as they stand in the sum of all.
    counted: usize,
    held: VecDeque<(StreamPosition, Mark, Message)>,
    held_bytes: usize,
    /// Some could not be held.
    has_dropped: bool,
    read: Read,
    /// When the last read was sent.
    read_at: Option<Instant>,
    subscribers: Vec<Waiter>,
    recoverers: Vec<Recoverer>,
    /// When something was last heard, or the last listener left.
    heard: Instant,
    /// When it is looked at again.
    due: Instant,
}

/// The channels with history of one server.
pub(super) struct Streams {
    channels: HashMap<Arc<str>, Stream, RandomState>,
    wanted: BTreeSet<(Instant, Arc<str>)>,
    due: BTreeSet<(Instant, Arc<str>)>,
    is_connected: bool,
    check_delay: Duration,
    recent_bytes: usize,
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Taken,
    /// The channel has lost its last listener by it.
    Ended,
    /// Nobody here tracks this channel's positions.
    Untracked,
}

/// A read to be made.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) channel: Arc<str>,
    pub(super) range: Range,
    /// What the channel's listeners were handed last, where they are to be handed what follows.
    pub(super) seen: Option<LastSeen>,
    pub(super) meta_ttl: Duration,
}

impl Streams {
    pub(super) fn new(check_delay: Duration) -> Self {
        Self {
            channels: HashMap::default(),
            wanted: BTreeSet::new(),
            due: BTreeSet::new(),
            is_connected: false,
            check_delay,
            recent_bytes: 0,
        }
    }

    /// Whether somebody can subscribe to `channel` now: there is a position, or one can be read.
    pub(super) fn can_join(&self, channel: &str) -> bool {
        let has_position = |stream: &Stream| stream.position.is_some();
        self.is_connected || self.channels.get(channel).is_some_and(has_position)
    }

    /// Somebody listens, and is among the listeners of `shards` already. `is_confirmed` when Redis
    /// delivers the channel already.
    pub(super) fn join(
        &mut self,
        channel: &Arc<str>,
        waiter: Waiter,
        options: HistoryOptions,
        is_confirmed: bool,
        now: Instant,
        shards: &mut Shards,
    ) {
        let due = &mut self.due;
        let delay = self.check_delay;
        let stream = self.channels.entry(Arc::clone(channel)).or_insert_with(|| {
            // Not all at the same time, if all begin at the same time.
            let spread = (xxhash_rust::xxh3::xxh3_64(channel.as_bytes()) >> 32) as f64;
            let first = now + delay.mul_f64(0.5 + 0.5 * spread / f64::from(u32::MAX));
            due.insert((first, Arc::clone(channel)));
            Stream::new(options, now, first)
        });
        stream.options = options;
        stream.has_listeners = true;
        match stream.position {
            Some(position) => shards.subscribed(waiter, Ok(Some(position))),
            None => {
                stream.subscribers.push(waiter);
                if is_confirmed {
                    stream.is_confirmed = true;
                    self.want_read(channel, now);
                }
            }
        }
    }

    /// Somebody who listens wants what it missed.
    pub(super) fn recover(
        &mut self,
        channel: &str,
        (shard, key): Waiter,
        request: RecoveryRequest,
        asker: Asker,
        now: Instant,
        shards: &mut Shards,
    ) {
        let recoverer = Recoverer {
            shard,
            key,
            request,
            asker,
        };
        let stream = self.channels.get_mut(channel);
        let Some(stream) = stream.filter(|stream| stream.has_listeners) else {
            return recoverer.answer(Err(ErrorCode::Internal), shards);
        };
        if let Some(position) = stream.position {
            if let Settled::Answer(recovery) = stream.recent.settle(&request, position) {
                shards.metrics.redis_recovered_from_memory.add(1);
                return recoverer.answer(Ok(recovery), shards);
            }
            if !self.is_connected {
                return recoverer.answer(Err(ErrorCode::Internal), shards);
            }
        }
        stream.recoverers.push(recoverer);
        self.want_read(channel, now);
    }

    /// One listener is gone; the channel's last one if `has_ended`.
    pub(super) fn leave(
        &mut self,
        channel: &str,
        waiter: Waiter,
        has_ended: bool,
        now: Instant,
        shards: &mut Shards,
    ) {
        let Some(stream) = self.channels.get_mut(channel) else {
            return;
        };
        stream.subscribers.retain(|other| *other != waiter);
        let is_gone = |other: &mut Recoverer| (other.shard, other.key) == waiter;
        for gone in stream.recoverers.extract_if(.., is_gone) {
            gone.answer(Err(ErrorCode::Internal), shards);
        }
        if has_ended {
            self.end(channel, now, shards);
        }
    }

    /// Redis has confirmed the subscription to `channel`.
    pub(super) fn confirmed(&mut self, channel: &str, now: Instant) {
        if let Some(stream) = self.channels.get_mut(channel)
            && stream.has_listeners
        {
            stream.is_confirmed = true;
            stream.is_live = false;
            stream.outdate_read();
            self.want_read(channel, now);
        }
    }

    /// Redis has pushed a publication that has a place.
    pub(super) fn push(
        &mut self,
        channel: &str,
        (position, mark): (StreamPosition, Mark),
        message: MessageRef<'_>,
        now: Instant,
        shards: &mut Shards,
    ) -> Pushed {
        let stream = self.channels.get_mut(channel);
        let Some(stream) = stream.filter(|stream| stream.has_listeners) else {
            return Pushed::Untracked;
        };
        stream.heard = now;
        if !stream.is_live || !stream.held.is_empty() {
            stream.hold(channel, (position, mark), message);
            return Pushed::Taken;
        }
        match stream.place(position) {
            Place::Known => {
                shards.metrics.redis_stale.add(1);
                Pushed::Taken
            }
            Place::Next => match self.deliver(channel, (position, mark), message, shards) {
                true => {
                    self.end(channel, now, shards);
                    Pushed::Ended
                }
                false => Pushed::Taken,
            },
            Place::Gap => {
                shards.metrics.redis_gaps.add(1);
                stream.is_live = false;
                stream.hold(channel, (position, mark), message);
                self.want_read(channel, now);
                Pushed::Taken
            }
            Place::Elsewhere => {
                self.lose(channel, now, shards);
                Pushed::Ended
            }
        }
    }

    /// Redis has ended the subscription to `channel` by itself.
    pub(super) fn dropped(&mut self, channel: &str) {
        if let Some(stream) = self.channels.get_mut(channel) {
            stream.is_confirmed = false;
            stream.is_live = false;
            stream.outdate_read();
        }
    }

    /// A read has come to nothing, and is to be made again.
    pub(super) fn retry(&mut self, channel: &str, now: Instant) {
        if let Some(stream) = self.channels.get_mut(channel) {
            stream.read = Read::None;
            self.want_read(channel, now);
        }
    }

    /// `channel` goes to another server, where its subscription is confirmed anew.
    pub(super) fn release(&mut self, channel: &str, shards: &mut Shards) -> Option<Box<Stream>> {
        let (name, mut stream) = self.channels.remove_entry(channel)?;
        if let Read::Wanted(at) = stream.read {
            self.wanted.remove(&(at, Arc::clone(&name)));
        }
        self.due.remove(&(stream.due, name));
        self.recent_bytes -= stream.counted;
        stream.counted = 0;
        stream.read = Read::None;
        stream.is_confirmed = false;
        stream.is_live = false;
        stream.drop_held();
        if !self.is_connected {
            stream.refuse_recoverers(shards);
        }
        Some(Box::new(stream))
    }

    /// `channel` comes from another server. True when it has no listeners left: who waits for a
    /// position is refused while there is no connection.
    pub(super) fn adopt(
        &mut self,
        channel: &Arc<str>,
        mut stream: Box<Stream>,
        now: Instant,
        shards: &mut Shards,
    ) -> bool {
        stream.count(&mut self.recent_bytes);
        if !self.is_connected {
            stream.refuse_recoverers(shards);
        }
        let is_lost = !self.is_connected && stream.has_listeners && stream.position.is_none();
        if let Some(old) = self.channels.remove(channel) {
            // Only a memory of earlier: listeners are at one server.
            self.recent_bytes -= old.counted;
            self.due.remove(&(old.due, Arc::clone(channel)));
        }
        self.due.insert((stream.due, Arc::clone(channel)));
        self.channels.insert(Arc::clone(channel), *stream);
        if is_lost {
            self.lose(channel, now, shards);
        }
        is_lost
    }

    /// Redis refuses to deliver `channel`: `waiters` and everybody else who listens is told.
    pub(super) fn refused(
        &mut self,
        channel: &str,
        mut waiters: Vec<Waiter>,
        now: Instant,
        shards: &mut Shards,
    ) {
        if let Some(stream) = self.channels.get_mut(channel) {
            waiters.append(&mut stream.subscribers);
        }
        shards.lose(channel, &waiters);
        self.end(channel, now, shards);
    }

    /// The last listener of `channel` is gone.
    pub(super) fn ended(&mut self, channel: &str, shards: &mut Shards) {
        if let Some(stream) = self.channels.get(channel) {
            let now = stream.heard;
            self.end(channel, now, shards);
        }
    }

    /// The history of `channel` was removed; its position stays.
    pub(super) fn removed(&mut self, channel: &str) {
        if let Some(stream) = self.channels.get_mut(channel) {
            stream.recent.clear();
            stream.count(&mut self.recent_bytes);
        }
    }

    /// There is a connection again; confirmations follow.
    pub(super) fn connect(&mut self) {
        self.is_connected = true;
    }

    /// The connection is lost. Positions stay; who waits for a read is refused. Hands out the
    /// channels that have no listeners left.
    pub(super) fn disconnect(&mut self, now: Instant, shards: &mut Shards) -> Vec<Arc<str>> {
        self.is_connected = false;
        self.wanted.clear();
        let mut ended = Vec::new();
        for (name, stream) in &mut self.channels {
            stream.is_confirmed = false;
            stream.is_live = false;
            stream.read = Read::None;
            stream.drop_held();
            if stream.has_listeners && stream.position.is_none() {
                // Who wants to recover is answered behind the refusal of its subscription.
                ended.push(Arc::clone(name));
            } else {
                stream.refuse_recoverers(shards);
            }
        }
        for name in &ended {
            self.lose(name, now, shards);
        }
        ended
    }

    /// The next reads, at most so many. Each is answered by [`Self::read`] or [`Self::failed`],
    /// unless the connection is lost.
    pub(super) fn next_reads(&mut self, count: usize, now: Instant) -> Vec<Wanted> {
        let mut reads = Vec::new();
        while reads.len() < count
            && self.wanted.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, channel)) = self.wanted.pop_first()
        {
            let Some(stream) = self.channels.get_mut(&channel) else {
                continue;
            };
            stream.read = Read::None;
            let Some(sent) = stream.plan() else { continue };
            let seen = match sent.purpose {
                Purpose::Fill(position) => Some(LastSeen {
                    position,
                    mark: stream.mark,
                }),
                _ => None,
            };
            stream.read = Read::UnderWay(sent);
            stream.read_at = Some(now);
            reads.push(Wanted {
                channel,
                range: sent.range,
                seen,
                meta_ttl: stream.options.meta_ttl,
            });
        }
        reads
    }

    /// Whether [`Self::next_reads`] would give any.
    pub(super) fn has_reads(&self, now: Instant) -> bool {
        self.wanted.first().is_some_and(|(at, _)| *at <= now)
    }

    /// Redis has answered a read. True when the channel has no listeners left.
    pub(super) fn read(
        &mut self,
        channel: &str,
        stretch: &Stretch<'_>,
        now: Instant,
        shards: &mut Shards,
    ) -> bool {
        let Some(stream) = self.channels.get_mut(channel) else {
            return false;
        };
        let Read::UnderWay(sent) = std::mem::take(&mut stream.read) else {
            return false;
        };
        if sent.purpose == Purpose::Outdated || !stream.has_listeners {
            self.want_read(channel, now);
            return false;
        }
        stream.heard = now;
        let is_whole = match sent.purpose {
            Purpose::First => {
                self.begin(channel, stretch);
                true
            }
            Purpose::Fill(from) => match self.fill(channel, from, stretch, now, shards) {
                Filled::Whole => true,
                Filled::InPart => false,
                Filled::Lost => return true,
            },
            Purpose::Older | Purpose::Outdated => {
                self.add_older(channel, stretch);
                true
            }
        };
        self.answer(channel, sent, now, shards);
        let has_ended = is_whole && self.resume(channel, now, shards);
        self.trim(channel);
        has_ended
    }

    /// Redis does not give what was to be read. True when the channel has no listeners left.
    pub(super) fn failed(&mut self, channel: &str, now: Instant, shards: &mut Shards) -> bool {
        let Some(stream) = self.channels.get_mut(channel) else {
            return false;
        };
        let Read::UnderWay(sent) = std::mem::take(&mut stream.read) else {
            return false;
        };
        for recoverer in stream.recoverers.drain(..) {
            recoverer.answer(Err(ErrorCode::Internal), shards);
        }
        match sent.purpose {
            Purpose::First | Purpose::Fill(_) if stream.has_listeners => {
                self.lose(channel, now, shards);
                true
            }
            Purpose::Outdated => {
                self.want_read(channel, now);
                false
            }
            _ => false,
        }
    }

    /// Time has passed: channels that were quiet for long are compared, those that nobody has
    /// listened to for long are forgotten.
    pub(super) fn tick(&mut self, now: Instant) {
        while self.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, channel)) = self.due.pop_first()
        {
            let Some(stream) = self.channels.get_mut(&channel) else {
                continue;
            };
            let quiet = now.saturating_duration_since(stream.heard);
            if stream.has_listeners {
                let is_due = quiet >= self.check_delay;
                let next = if is_due { now } else { stream.heard } + self.check_delay;
                stream.due = next;
                let wants_check = is_due && stream.is_live;
                self.due.insert((next, Arc::clone(&channel)));
                if wants_check {
                    self.want_read(&channel, now);
                }
            } else if quiet >= REDIS_STREAM_LINGER {
                self.recent_bytes -= stream.counted;
                if let Read::Wanted(at) = stream.read {
                    self.wanted.remove(&(at, Arc::clone(&channel)));
                }
                self.channels.remove(&channel);
            } else {
                let next = stream.heard + REDIS_STREAM_LINGER;
                stream.due = next;
                self.due.insert((next, channel));
            }
        }
        // Those that are looked at next have been quiet for longest.
        if self.recent_bytes > REDIS_RECENT_BYTES_ALL_MAX {
            for (_, channel) in &self.due {
                if self.recent_bytes <= REDIS_RECENT_BYTES_ALL_MAX {
                    break;
                }
                if let Some(stream) = self.channels.get_mut(channel) {
                    stream.recent.clear();
                    stream.count(&mut self.recent_bytes);
                }
            }
        }
        self.check_invariants();
    }

    /// Bytes of publications that are remembered.
    pub(super) fn recent_bytes(&self) -> usize {
        self.recent_bytes
    }

    fn want_read(&mut self, channel: &str, now: Instant) {
        let Some((name, stream)) = self.channels.get_key_value_mut(channel) else {
            return;
        };
        let is_possible = self.is_connected && stream.is_confirmed;
        if is_possible && matches!(stream.read, Read::None) {
            let earliest = stream.read_at.map(|at| at + REDIS_READ_INTERVAL);
            let at = earliest.map_or(now, |earliest| earliest.max(now));
            stream.read = Read::Wanted(at);
            self.wanted.insert((at, Arc::clone(name)));
        }
    }

    /// Everything begins at what the first read has found.
    fn begin(&mut self, channel: &str, stretch: &Stretch<'_>) {
        let Some(stream) = self.channels.get_mut(channel) else {
            return;
        };
        let top = stretch.position;
        let is_continued = stream.epoch == Some(top.epoch)
            && stream.recent.end().is_some_and(|end| {
                let oldest = stretch.entries.last();
                let reaches_back = oldest.map_or(top.offset, |(offset, _)| offset - 1);
                end <= top.offset && reaches_back <= end && contiguous(&stretch.entries, top.offset)
            });
        if is_continued {
            let end = stream.recent.end().unwrap_or_default();
            for (offset, message) in stretch.entries.iter().rev() {
                if *offset > end {
                    stream.recent.push(*offset, *message);
                }
            }
        } else {
            stream.recent = Recent::new(top.offset);
        }
        stream.recent.put_before(&stretch.entries);
        stream.count(&mut self.recent_bytes);
        stream.epoch = Some(top.epoch);
        stream.position = Some(top);
        let mut seen = stretch.entries.iter().zip(&stretch.marks);
        let newest = seen.find(|((offset, _), _)| *offset == top.offset);
        stream.mark = newest.map(|(_, mark)| *mark);
    }

    /// Delivers what was missing behind `from`.
    fn fill(
        &mut self,
        channel: &str,
        from: StreamPosition,
        stretch: &Stretch<'_>,
        now: Instant,
        shards: &mut Shards,
    ) -> Filled {
        let top = stretch.position;
        // The read was sent when `from` had been reached: a history that ends before it is another
        // one, or has lost what was in it.
        if top.epoch != from.epoch || top.offset < from.offset {
            self.lose(channel, now, shards);
            return Filled::Lost;
        }
        let mut count = 0;
        for ((offset, message), mark) in stretch.entries.iter().zip(&stretch.marks) {
            let position = StreamPosition {
                epoch: top.epoch,
                offset: *offset,
            };
            let Some(stream) = self.channels.get_mut(channel) else {
                return Filled::Lost;
            };
            match stream.place(position) {
                Place::Known => {}
                Place::Next => {
                    count += 1;
                    if self.deliver(channel, (position, *mark), *message, shards) {
                        self.end(channel, now, shards);
                        return Filled::Lost;
                    }
                }
                Place::Gap | Place::Elsewhere => {
                    self.lose(channel, now, shards);
                    return Filled::Lost;
                }
            }
        }
        shards.metrics.redis_filled.add(count);
        let Some(stream) = self.channels.get_mut(channel) else {
            return Filled::Lost;
        };
        let reached = stream.position.map_or(0, |position| position.offset);
        if reached >= top.offset {
            Filled::Whole
        } else if count > 0 && stretch.rejected.is_empty() {
            stream.is_live = false;
            self.want_read(channel, now);
            Filled::InPart
        } else {
            self.lose(channel, now, shards);
            Filled::Lost
        }
    }

    /// Remembers what recoveries want of the time before.
    fn add_older(&mut self, channel: &str, stretch: &Stretch<'_>) {
        if let Some(stream) = self.channels.get_mut(channel)
            && let Some(position) = stream.position
            && position.epoch == stretch.position.epoch
        {
            stream.recent.put_before(&stretch.entries);
            stream.count(&mut self.recent_bytes);
        }
    }

    /// Answers who has waited for a read and can be answered now.
    fn answer(&mut self, channel: &str, sent: Sent, now: Instant, shards: &mut Shards) {
        let Some(stream) = self.channels.get_mut(channel) else {
            return;
        };
        let Some(position) = stream.position else {
            return;
        };
        for waiter in stream.subscribers.drain(..) {
            shards.subscribed(waiter, Ok(Some(position)));
        }
        for recoverer in std::mem::take(&mut stream.recoverers) {
            let request = recoverer.request;
            match stream.recent.settle(&request, position) {
                Settled::Answer(recovery) => recoverer.answer(Ok(recovery), shards),
                Settled::Unknown if sent.covers(&request) => {
                    let recovery = not_recovered(position);
                    recoverer.answer(Ok(recovery), shards);
                }
                Settled::Unknown => stream.recoverers.push(recoverer),
            }
        }
        if !stream.recoverers.is_empty() {
            self.want_read(channel, now);
        }
    }

    /// From now on pushes are delivered as they come; first those that were held back. True when
    /// the channel has no listeners left.
    fn resume(&mut self, channel: &str, now: Instant, shards: &mut Shards) -> bool {
        let Some(stream) = self.channels.get_mut(channel) else {
            return false;
        };
        if !stream.is_confirmed {
            return false;
        }
        stream.is_live = true;
        let held = std::mem::take(&mut stream.held);
        let has_dropped = std::mem::take(&mut stream.has_dropped);
        stream.held_bytes = 0;
        for (position, mark, message) in held {
            match self.push(channel, (position, mark), message.as_ref(), now, shards) {
                Pushed::Ended => return true,
                Pushed::Taken | Pushed::Untracked => {}
            }
        }
        if has_dropped && let Some(stream) = self.channels.get_mut(channel) {
            stream.is_live = false;
            self.want_read(channel, now);
        }
        false
    }

    /// Hands a publication to the listeners. True when there are none left.
    fn deliver(
        &mut self,
        channel: &str,
        (position, mark): (StreamPosition, Mark),
        message: MessageRef<'_>,
        shards: &mut Shards,
    ) -> bool {
        if let Some(stream) = self.channels.get_mut(channel) {
            stream.position = Some(position);
            stream.mark = Some(mark);
            stream.recent.push(position.offset, message);
            stream.count(&mut self.recent_bytes);
            if !matches!(stream.read, Read::UnderWay(_)) {
                self.trim(channel);
            }
        }
        shards.sequence(channel, message, Some(position))
    }

    fn trim(&mut self, channel: &str) {
        if let Some(stream) = self.channels.get_mut(channel) {
            let count_max = stream.options.size as usize;
            stream.recent.trim(count_max, REDIS_RECENT_BYTES_MAX);
            stream.count(&mut self.recent_bytes);
        }
    }

    /// Something is missing and cannot be had: all listeners are told, and are gone.
    fn lose(&mut self, channel: &str, now: Instant, shards: &mut Shards) {
        if let Some(stream) = self.channels.get_mut(channel) {
            if stream.position.is_some() {
                shards.metrics.redis_insufficient.add(1);
            }
            let waiters = std::mem::take(&mut stream.subscribers);
            shards.lose(channel, &waiters);
            stream.recent.clear();
            stream.count(&mut self.recent_bytes);
            self.end(channel, now, shards);
        }
    }

    /// Nobody listens any more.
    fn end(&mut self, channel: &str, now: Instant, shards: &mut Shards) {
        let Some(stream) = self.channels.get_mut(channel) else {
            return;
        };
        stream.has_listeners = false;
        stream.is_live = false;
        stream.is_confirmed = false;
        stream.position = None;
        stream.heard = now;
        stream.subscribers.clear();
        stream.drop_held();
        for recoverer in stream.recoverers.drain(..) {
            recoverer.answer(Err(ErrorCode::Internal), shards);
        }
        stream.outdate_read();
        if let Read::Wanted(at) = stream.read {
            stream.read = Read::None;
            self.wanted.remove(&(at, Arc::from(channel)));
        }
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.channels.len() <= 64 {
            let mut bytes = 0;
            for (name, stream) in &self.channels {
                bytes += stream.counted;
                assert!(!stream.is_live || stream.position.is_some(), "{name}");
                assert!(stream.has_listeners || stream.position.is_none(), "{name}");
                assert!(self.due.contains(&(stream.due, Arc::clone(name))), "{name}");
                let wanted = |at| self.wanted.contains(&(at, Arc::clone(name)));
                if let Read::Wanted(at) = stream.read {
                    assert!(wanted(at), "{name}");
                }
                if let (Some(position), Some(end)) = (stream.position, stream.recent.end()) {
                    assert_eq!(position.offset, end, "{name}");
                }
            }
            assert_eq!(bytes, self.recent_bytes);
        }
    }
}

enum Filled {
    /// Nothing is missing.
    Whole,
    /// More has to be read.
    InPart,
    /// There are no listeners left.
    Lost,
}

/// Where a publication stands beside the position.
enum Place {
    Known,
    Next,
    Gap,
    /// In another epoch, or there is no position.
    Elsewhere,
}

impl Stream {
    fn new(options: HistoryOptions, now: Instant, due: Instant) -> Self {
        Self {
            options,
            has_listeners: true,
            is_confirmed: false,
            is_live: false,
            position: None,
            mark: None,
            epoch: None,
            recent: Recent::default(),
            counted: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            has_dropped: false,
            read: Read::None,
            read_at: None,
            subscribers: Vec::new(),
            recoverers: Vec::new(),
            heard: now,
            due,
        }
    }

    fn place(&self, position: StreamPosition) -> Place {
        match self.position {
            Some(last) if last.epoch == position.epoch => {
                if position.offset <= last.offset {
                    Place::Known
                } else if position.offset == last.offset + 1 {
                    Place::Next
                } else {
                    Place::Gap
                }
            }
            _ => Place::Elsewhere,
        }
    }

    /// Keeps the sum of all channels' bytes right.
    fn count(&mut self, all: &mut usize) {
        let bytes = self.recent.bytes();
        *all = *all - self.counted + bytes;
        self.counted = bytes;
    }

    fn hold(
        &mut self,
        channel: &str,
        (position, mark): (StreamPosition, Mark),
        message: MessageRef<'_>,
    ) {
        if self.held_bytes + message.size() > REDIS_HELD_BYTES_MAX {
            self.has_dropped = true;
            return;
        }
        let message = message.store(&mut LogWriter::new(), channel);
        self.held_bytes += message.size();
        self.held.push_back((position, mark, message));
    }

    fn drop_held(&mut self) {
        self.held = VecDeque::new();
        self.held_bytes = 0;
        self.has_dropped = false;
    }

    fn refuse_recoverers(&mut self, shards: &mut Shards) {
        for recoverer in self.recoverers.drain(..) {
            recoverer.answer(Err(ErrorCode::Internal), shards);
        }
    }

    fn outdate_read(&mut self) {
        if let Read::UnderWay(sent) = &mut self.read {
            sent.purpose = Purpose::Outdated;
        }
    }

    /// What is to be read now, if anything.
    fn plan(&self) -> Option<Sent> {
        if !self.has_listeners || !self.is_confirmed {
            return None;
        }
        let Some(position) = self.position else {
            let wanted = self.recoverers.iter().map(|waiting| {
                let request = &waiting.request;
                match (request.mode, self.recent.end()) {
                    (RecoveryMode::Cache, _) => 0,
                    (_, Some(end)) if self.recent.reaches(request.offset) => end,
                    _ => request.offset,
                }
            });
            let range = match wanted.chain(self.recent.end()).min() {
                None => Range::NEWEST,
                Some(after) => Range {
                    after,
                    before: None,
                    limit: self.limit_of_recoveries(),
                    reverse: true,
                },
            };
            return Some(Sent {
                purpose: Purpose::First,
                range,
            });
        };
        let is_check = self.recoverers.is_empty();
        if !self.is_live || is_check {
            return Some(Sent {
                purpose: Purpose::Fill(position),
                range: Range::after(position.offset),
            });
        }
        let before = position.offset.saturating_sub(1);
        let wanted = self
            .recoverers
            .iter()
            .map(|waiting| match waiting.request.mode {
                RecoveryMode::Stream => waiting.request.offset,
                RecoveryMode::Cache => before,
            });
        Some(Sent {
            purpose: Purpose::Older,
            range: Range {
                after: wanted.min().unwrap_or(before),
                before: Some(self.recent.start()),
                limit: self.limit_of_recoveries(),
                reverse: true,
            },
        })
    }

    fn limit_of_recoveries(&self) -> u32 {
        let limits = self
            .recoverers
            .iter()
            .map(|waiting| limit_of(&waiting.request));
        limits.max().unwrap_or(1)
    }
}

/// How many publications a recovery may need.
fn limit_of(request: &RecoveryRequest) -> u32 {
    match request.mode {
        RecoveryMode::Stream => request
            .publications_max
            .clamp(1, REDIS_READ_PUBLICATIONS_MAX),
        RecoveryMode::Cache => 1,
    }
}

impl Sent {
    /// Whether what `request` wants would have been in the answer, if it were there.
    fn covers(&self, request: &RecoveryRequest) -> bool {
        let reaches = self.range.limit >= limit_of(request)
            && (request.mode == RecoveryMode::Cache || self.range.after <= request.offset);
        match self.purpose {
            Purpose::Fill(_) | Purpose::Outdated => false,
            Purpose::First | Purpose::Older => reaches,
        }
    }
}

impl Recoverer {
    fn answer(self, result: Result<Recovery, ErrorCode>, shards: &mut Shards) {
        let Self {
            shard, key, asker, ..
        } = self;
        shards.tell(shard, Event::Recovered { key, asker, result });
    }
}

/// Whether entries, newest first, have no gap and end at `end`.
fn contiguous(newest_first: &[(u64, MessageRef<'_>)], end: u64) -> bool {
    let offsets = newest_first.iter().map(|(offset, _)| *offset);
    offsets.eq((1..=end).rev().take(newest_first.len()))
}
