//! Channels with history: where this node's subscribers are in each, and what is read so that they
//! miss nothing. No I/O.
//!
//! | what | file |
//! |---|---|
//! | the channels: who listens, what is pushed, when they are lost | here |
//! | one channel's state | `stream` |
//! | reads: when, of what, and what follows from the answer | `read` |
//! | subscribers that want what they missed | `recovery` |
//! | the newest publications, for recoveries that need no read | `recent` |
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
//! - `recent` holds nothing that Redis is known to keep no longer: what has expired, was removed (the
//!   word of that is pushed), or did not show in a read. A node that is cut off from Redis does not hear of
//!   removals: until it is found to be (`REDIS_PROBE_DEADLINE`), connected anew, and the channel read, it may
//!   answer a recovery with publications that others have removed.
//! - `recent` is contiguous, of `epoch`, and while there is a position it ends there or is empty.

mod read;
mod recent;
mod recovery;
#[cfg(test)]
mod simulation;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::super::history::HistoryOptions;
use super::interest::Waiter;
use super::record::Mark;
use super::shards::Shards;
use crate::limits::{
    REDIS_READ_INTERVAL, REDIS_RECENT_BYTES_ALL_MAX, REDIS_RECENT_BYTES_MAX, REDIS_STREAM_LINGER,
};
use crate::protocol::ErrorCode;
use crate::pubsub::{MessageRef, StreamPosition};

use self::read::Read;
use self::recovery::Recoverer;
use self::stream::Place;

pub(super) use self::read::Wanted;
pub(super) use self::stream::Stream;

/// The channels with history of one server.
pub(super) struct Streams {
    channels: HashMap<Arc<str>, Stream, RandomState>,
    wanted: BTreeSet<(Instant, Arc<str>)>,
    due: BTreeSet<(Instant, Arc<str>)>,
    is_connected: bool,
    check_delay: Duration,
    recent_bytes: usize,
}

/// How long a channel may be quiet until its position is compared. Each comparison makes Redis keep epoch and
/// newest offset for `meta_ttl` more: they must not end while somebody listens.
fn check_delay(delay: Duration, options: &HistoryOptions) -> Duration {
    let half = options.meta_ttl.max(options.ttl) / 2;
    delay.min(half).max(REDIS_READ_INTERVAL)
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
        let delay = check_delay(self.check_delay, &options);
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
        let is_lost = !self.is_connected && stream.has_listeners && stream.position.is_none();
        if !self.is_connected && !is_lost {
            stream.refuse_recoverers(shards);
        }
        if let Some(old) = self.channels.remove(channel) {
            // Only a memory of earlier: listeners are at one server.
            self.recent_bytes -= old.counted;
            self.due.remove(&(old.due, Arc::clone(channel)));
        }
        self.due.insert((stream.due, Arc::clone(channel)));
        self.channels.insert(Arc::clone(channel), *stream);
        if is_lost {
            // Who wants to recover is answered behind the refusal of its subscription.
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
            stream.remove();
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

    /// Time has passed: channels that were quiet for long are compared, those that nobody has
    /// listened to for long are forgotten.
    pub(super) fn tick(&mut self, now: Instant) {
        while self.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, channel)) = self.due.pop_first()
        {
            let Some(stream) = self.channels.get_mut(&channel) else {
                continue;
            };
            stream.expire(now, &mut self.recent_bytes);
            let quiet = now.saturating_duration_since(stream.heard);
            if stream.has_listeners {
                let delay = check_delay(self.check_delay, &stream.options);
                let is_due = quiet >= delay;
                let next = if is_due { now } else { stream.heard } + delay;
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
            // What is over does not come back with a new one.
            stream.expire(stream.heard, &mut self.recent_bytes);
            stream.recent.push(position.offset, message);
            stream.expires = stream.heard.checked_add(stream.options.ttl);
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
