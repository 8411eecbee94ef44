//! Who on this shard listens to what, and how far each has read.
//!
//! A subscription costs 8 bytes in its channel (who) and 16 bytes in its connection (which channel,
//! where among its subscribers, and a cursor); both lists are dense and point at each other, so
//! leaving is a swap and a repair. Heads of all channels lie side by side, so finding out what a
//! connection has pending touches nothing else.
//!
//! Invariants
//! - `channels[e.channel].subscribers[e.place]` points back at each entry `e`, and the other way.
//! - A connection has at most one entry per channel name, whatever the variant.
//! - A channel is in the table exactly while it has subscribers.
//! - A connection is in `ready` at most once, exactly while its `is_ready` is set; likewise `prompt`.
//! - A connection that rests is in `resting`.
//! - Urgency needs a channel that has advanced: only the round that takes it up ends the urgency.
//! - Those of `channel`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::channel::{Channel, Subscriber, UNCONFIRMED, Waiter};
use super::fanout::SlowReason;
use super::spans::Spans;
use super::{ChannelKey, Slot, StreamPosition, Variant};

/// Bounds of what a connection may lag.
#[derive(Debug, Clone, Copy)]
pub struct SubscriptionsConfig {
    /// Most bytes that a connection may be behind by, over all its channels and in any one of them
    /// (Centrifugo's `client.queue_max_size`).
    pub lag_bytes_max: u64,
    /// Longest time that a send may make no progress.
    pub stuck_max: Duration,
}

impl Default for SubscriptionsConfig {
    fn default() -> Self {
        Self {
            lag_bytes_max: crate::limits::LAG_BYTES_MAX,
            stuck_max: crate::limits::SEND_STUCK_MAX,
        }
    }
}

/// One subscription in its connection's list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) channel: u32,
    pub(super) place: u32,
    pub(super) cursor: u64,
}

/// What is known of a connection here; without subscriptions it owns no heap memory.
#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) entries: SmallVec<[Entry; 1]>,
    /// When the send in flight last made progress, in ms since `started`, plus one; 0 without.
    pub(super) progress_ms: u32,
    /// In `ready`.
    pub(super) is_ready: bool,
    /// In `prompt`.
    pub(super) is_prompt: bool,
    /// Was sent publications a moment ago, on a busy shard: in `resting`.
    pub(super) is_resting: bool,
    pub(super) is_evicted: bool,
}

// An idle connection with one subscription keeps both inside this.
const _: () = assert!(size_of::<Connection>() <= 32 && size_of::<Entry>() == 16);

/// A connection that was sent publications a moment ago.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resting {
    pub(super) slot: Slot,
    pub(super) since: Instant,
}

/// Counters since start; the shard exports them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Channels with subscribers now.
    pub channels: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Slices of log received for channels that have subscribers here.
    pub publications: u64,
    /// Slices received for channels that nobody here listens to any more.
    pub late: u64,
    /// Publications times the subscribers they were for.
    pub deliveries: u64,
    /// Connections found too slow, by bytes.
    pub slow_bytes: u64,
    /// Connections found too slow, by time.
    pub slow_stuck: u64,
}

/// Answer to [`Subscriptions::subscribe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscribed {
    /// In effect: everything that arrives from now on is delivered.
    Active {
        /// Where the subscriber begins in the channel's history, where it has one.
        position: Option<StreamPosition>,
    },
    /// In effect once the engine has confirmed the channel, which it was already asked for.
    Waiting,
    /// As `Waiting`, and the engine must be asked now: it is the first subscription.
    First {
        /// To be given to the engine, and to come back from it.
        key: ChannelKey,
        /// The channel's name, shared.
        name: Arc<str>,
    },
    /// In effect once the engine has told what the subscriber has missed, which it must be asked
    /// for now; the channel was asked for already.
    Recovering {
        /// What the engine knows the channel by.
        key: ChannelKey,
        /// The channel's name, shared.
        name: Arc<str>,
    },
    /// The connection has a subscription to this channel (in effect or waiting).
    Duplicate,
}

/// Answer to [`Subscriptions::unsubscribe`].
#[derive(Debug, PartialEq, Eq)]
pub enum Unsubscribed {
    /// There was no such subscription.
    NotSubscribed,
    /// It is gone; with the channel, if it was the last one.
    Left(Option<Released>),
}

/// A channel without subscribers on this shard: the engine need not deliver it any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// What the engine knew it by.
    pub key: ChannelKey,
    /// Its name.
    pub name: Arc<str>,
    /// Which of its logs was listened to.
    pub variant: Variant,
}

/// A place in the table of channels.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) generation: u32,
    pub(super) channel: Option<Box<Channel>>,
}

/// The subscriptions of one shard.
pub struct Subscriptions {
    pub(super) config: SubscriptionsConfig,
    started: Instant,
    /// The time that was asked for last, with its milliseconds since `started`: a round has one time
    /// for all its sends.
    asked: (Instant, u32),
    pub(super) hasher: RandomState,
    pub(super) by_name: HashTable<u32>,
    pub(super) places: Vec<Place>,
    /// Head of each channel, by place.
    pub(super) heads: Vec<u64>,
    pub(super) free: Vec<u32>,
    pub(super) connections: Vec<Connection>,
    /// Channels that got something since the last round.
    pub(super) advanced: Vec<u32>,
    /// Of connections with many subscriptions: which of them may have something pending.
    pub(super) spans: Spans,
    /// Connections that a round has found to have something pending, in its order.
    pub(super) ready: VecDeque<Slot>,
    /// Connections for which the caller has bytes, or that are behind by much: they do not wait for
    /// those in `ready`.
    pub(super) prompt: VecDeque<Slot>,
    /// Connections that rest, by when they began to. Places of closed connections may be among them.
    pub(super) resting: VecDeque<Resting>,
    pub(super) evicted: Vec<(Slot, SlowReason)>,
    pub(super) is_urgent: bool,
    pub(super) swept_to: usize,
    pub(super) stats: Stats,
}

impl Subscriptions {
    /// Nothing subscribed. `now` is any moment at or before those that later calls are given.
    pub fn new(config: SubscriptionsConfig, now: Instant) -> Self {
        Self {
            config,
            started: now,
            asked: (now, 0),
            hasher: RandomState::default(),
            by_name: HashTable::new(),
            places: Vec::new(),
            heads: Vec::new(),
            free: Vec::new(),
            connections: Vec::new(),
            advanced: Vec::new(),
            spans: Spans::default(),
            ready: VecDeque::new(),
            prompt: VecDeque::new(),
            resting: VecDeque::new(),
            evicted: Vec::new(),
            is_urgent: false,
            swept_to: 0,
            stats: Stats::default(),
        }
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Forgets everything about the connection in `slot`; `released` hears of each channel that
    /// has lost its last subscriber by it.
    pub fn close(&mut self, slot: Slot, released: &mut impl FnMut(Released)) {
        while let Some(entry) = self
            .connection(slot)
            .and_then(|connection| connection.entries.last().copied())
        {
            let at = self.connections[slot as usize].entries.len() - 1;
            if let Some(gone) = self.remove_entry(slot, at, entry) {
                released(gone);
            }
        }
        if let Some(connection) = self.connections.get_mut(slot as usize) {
            let was = std::mem::take(connection);
            if was.is_ready {
                self.ready.retain(|ready| *ready != slot);
            }
            if was.is_prompt {
                self.prompt.retain(|prompt| *prompt != slot);
            }
        }
        self.evicted.retain(|(evicted, _)| *evicted != slot);
        self.check_invariants();
    }

    /// Subscribes the connection in `slot`. `command` comes back from [`Self::confirm`] or
    /// [`Self::refuse`] when the answer is `Waiting` or `First`. A subscriber that `recovers` is
    /// not confirmed with its channel, but by [`Self::recovered`], for which it names `command`.
    pub fn subscribe(
        &mut self,
        slot: Slot,
        channel: &str,
        variant: Variant,
        command: u32,
        recovers: bool,
    ) -> Subscribed {
        if self.is_subscribed(slot, channel) {
            return Subscribed::Duplicate;
        }
        let (index, is_new) = match self.find(channel, variant) {
            Some(index) => (index, false),
            None => (self.insert(channel, variant), true),
        };
        if self.connections.len() <= slot as usize {
            self.connections
                .resize_with(slot as usize + 1, Connection::default);
        }
        let head = self.heads[index as usize];
        let generation = self.places[index as usize].generation;
        let key = ChannelKey { index, generation };
        let found = self.places[index as usize]
            .channel
            .as_mut()
            .expect("a channel just found is in its place");
        let is_active = found.is_confirmed() && !recovers;
        let entries = &mut self.connections[slot as usize].entries;
        found.subscribers.push(Subscriber {
            slot,
            entry: entries.len() as u32,
        });
        entries.push(Entry {
            channel: index,
            place: found.subscribers.len() as u32 - 1,
            cursor: if is_active { head } else { UNCONFIRMED },
        });
        self.spans.grown(slot, entries.len());
        self.stats.subscriptions += 1;
        let name = Arc::clone(&found.name);
        if recovers {
            found.recover(slot, command);
        } else if let Some(waiting) = &mut found.waiting {
            waiting.push(Waiter { slot, command });
        } else {
            found.begin(slot);
        }
        let answer = if is_new {
            Subscribed::First { key, name }
        } else if recovers {
            Subscribed::Recovering { key, name }
        } else if is_active {
            let position = found.position;
            Subscribed::Active { position }
        } else {
            Subscribed::Waiting
        };
        self.check_invariants();
        answer
    }

    /// Ends a subscription, in effect or waiting. What it had pending is not sent any more.
    pub fn unsubscribe(&mut self, slot: Slot, channel: &str) -> Unsubscribed {
        let Some(at) = self.entry_of(slot, channel) else {
            return Unsubscribed::NotSubscribed;
        };
        let entry = self.connections[slot as usize].entries[at];
        let released = self.remove_entry(slot, at, entry);
        self.check_invariants();
        Unsubscribed::Left(released)
    }

    /// Channels from place `from` on, at most `count` places: names and subscribers, whatever the
    /// variant. Returns the place to go on from; `None` at the end.
    pub fn list(
        &self,
        from: usize,
        count: usize,
        found: &mut impl FnMut(&Arc<str>, usize),
    ) -> Option<usize> {
        let end = self.places.len().min(from + count);
        for place in self.places.get(from..end)? {
            if let Some(channel) = &place.channel {
                found(&channel.name, channel.subscribers.len());
            }
        }
        (end < self.places.len()).then_some(end)
    }

    /// Whether the connection has a subscription to `channel`, in effect or waiting.
    pub fn is_subscribed(&self, slot: Slot, channel: &str) -> bool {
        self.entry_of(slot, channel).is_some()
    }

    /// How many subscriptions the connection has.
    pub fn count_of(&self, slot: Slot) -> usize {
        self.connection(slot)
            .map_or(0, |connection| connection.entries.len())
    }

    /// Names and variants of what the connection is subscribed to (waiting ones included).
    pub fn channels_of(&self, slot: Slot) -> impl Iterator<Item = (&Arc<str>, Variant)> {
        self.connection(slot)
            .into_iter()
            .flat_map(|connection| connection.entries.iter())
            .filter_map(|entry| self.places[entry.channel as usize].channel.as_ref())
            .map(|found| (&found.name, found.variant))
    }

    /// Name of a channel; `None` when it is gone.
    pub fn name(&self, key: ChannelKey) -> Option<&Arc<str>> {
        let place = self.places.get(key.index as usize)?;
        let found = place.channel.as_ref()?;
        (place.generation == key.generation).then_some(&found.name)
    }

    /// Name and variant of a channel; `None` when it is gone.
    pub fn names(&self, key: ChannelKey) -> Option<(Arc<str>, Variant)> {
        let place = self.places.get(key.index as usize)?;
        let found = place.channel.as_ref()?;
        (place.generation == key.generation).then(|| (Arc::clone(&found.name), found.variant))
    }

    /// How many connections on this shard are subscribed to `channel`.
    pub fn subscribers_of(&self, channel: &str) -> usize {
        self.variants_of(channel)
            .map(|(_, found)| found.subscribers.len())
            .sum()
    }

    pub(super) fn ms(&mut self, now: Instant) -> u32 {
        if now != self.asked.0 {
            let since = now.saturating_duration_since(self.started);
            self.asked = (now, since.as_millis() as u32);
        }
        self.asked.1
    }

    pub(super) fn connection(&self, slot: Slot) -> Option<&Connection> {
        self.connections.get(slot as usize)
    }
}
