//! Which channels this node is subscribed to at Redis, and which it should be.
//!
//! Interest follows what the shards' clients listen to. One SUBSCRIBE or UNSUBSCRIBE is under way
//! at a time, for many channels at once; what changes meanwhile goes into the next one.
//!
//! Invariants
//! - A channel is here while somebody on this node listens to it, or Redis may still think so.
//! - Somebody waits only where Redis has not confirmed, and never while Redis is away.
//! - `owed` counts the channels that have listeners who were told that all is well, and that Redis
//!   has not confirmed: after it was away. Nothing is published through Redis until that is 0,
//!   else those listeners would miss it.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::limits::REDIS_SUBSCRIBE_BATCH;
use crate::pubsub::{ChannelKey, ShardIndex};

/// Who waits for a channel.
pub(super) type Waiter = (ShardIndex, ChannelKey);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtRedis {
    No,
    /// SUBSCRIBE is under way.
    Coming,
    Yes,
    /// UNSUBSCRIBE is under way.
    Going,
}

#[derive(Debug)]
struct Channel {
    has_listeners: bool,
    at_redis: AtRedis,
    is_owed: bool,
    waiters: Vec<Waiter>,
}

/// What of a channel goes with it to another server.
#[derive(Debug)]
pub(super) struct Released {
    has_listeners: bool,
    waiters: Vec<Waiter>,
}

/// A command for many channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Subscribe,
    Unsubscribe,
}

#[derive(Debug, Default)]
pub(super) struct Interest {
    channels: HashMap<Arc<str>, Channel, RandomState>,
    /// Channels whose state at Redis may have to change. An entry that is out of date by its turn
    /// is skipped.
    to_subscribe: VecDeque<Arc<str>>,
    to_unsubscribe: VecDeque<Arc<str>>,
    /// To be subscribed one by one: Redis refused the batch that they were in.
    alone: VecDeque<Arc<str>>,
    /// Not this server's to deliver, it says; whose they are has to be found out first.
    stray: Vec<Arc<str>>,
    owed: usize,
    subscribed: usize,
    is_connected: bool,
}

impl Interest {
    /// Somebody listens to `channel`. True when that is in effect; otherwise `waiter` will be
    /// handed out when it is.
    pub(super) fn join(&mut self, channel: &Arc<str>, waiter: Waiter) -> bool {
        self.add(channel, Some(waiter))
    }

    /// Somebody listens to `channel`, and waits for more than its subscription. True when Redis
    /// delivers it already.
    pub(super) fn want(&mut self, channel: &Arc<str>) -> bool {
        self.add(channel, None);
        let entry = self.channels.get(channel);
        entry.is_some_and(|entry| entry.at_redis == AtRedis::Yes)
    }

    fn add(&mut self, channel: &Arc<str>, waiter: Option<Waiter>) -> bool {
        let entry = self
            .channels
            .entry(Arc::clone(channel))
            .or_insert_with(|| Channel {
                has_listeners: false,
                at_redis: AtRedis::No,
                is_owed: false,
                waiters: Vec::new(),
            });
        let is_first = !std::mem::replace(&mut entry.has_listeners, true);
        if !self.is_connected {
            if !std::mem::replace(&mut entry.is_owed, true) {
                self.owed += 1;
            }
            return true;
        }
        if entry.is_owed || entry.at_redis == AtRedis::Yes {
            return true;
        }
        entry.waiters.extend(waiter);
        if is_first && entry.at_redis == AtRedis::No {
            self.to_subscribe.push_back(Arc::clone(channel));
        }
        self.check_invariants();
        false
    }

    /// One listener, `waiter` when it still waits, is gone; `has_ended` when it was the last.
    pub(super) fn leave(&mut self, channel: &str, waiter: Waiter, has_ended: bool) {
        let Some((name, entry)) = self.channels.get_key_value_mut(channel) else {
            return;
        };
        entry.waiters.retain(|other| *other != waiter);
        if has_ended {
            entry.has_listeners = false;
            entry.waiters.clear();
            if std::mem::take(&mut entry.is_owed) {
                self.owed -= 1;
            }
            match entry.at_redis {
                AtRedis::No => {
                    self.channels.remove(channel);
                }
                AtRedis::Yes => self.to_unsubscribe.push_back(Arc::clone(name)),
                AtRedis::Coming | AtRedis::Going => {}
            }
        }
        self.check_invariants();
    }

    /// Nobody listens to `channel` any more.
    pub(super) fn forget(&mut self, channel: &str) {
        let nobody = ChannelKey {
            index: u32::MAX,
            generation: 0,
        };
        self.leave(channel, (ShardIndex::MAX, nobody), true);
    }

    /// The next command and its channels.
    pub(super) fn next_batch(&mut self) -> Option<(Command, Vec<Arc<str>>)> {
        if !self.is_connected {
            return None;
        }
        let mut batch = Vec::new();
        while batch.is_empty() {
            let Some(name) = self.alone.pop_front() else {
                break;
            };
            self.begin_subscribe(name, &mut batch);
        }
        if !batch.is_empty() {
            return Some((Command::Subscribe, batch));
        }
        while batch.len() < REDIS_SUBSCRIBE_BATCH {
            let Some(name) = self.to_subscribe.pop_front() else {
                break;
            };
            self.begin_subscribe(name, &mut batch);
        }
        if !batch.is_empty() {
            self.check_invariants();
            return Some((Command::Subscribe, batch));
        }
        while batch.len() < REDIS_SUBSCRIBE_BATCH {
            let Some(name) = self.to_unsubscribe.pop_front() else {
                break;
            };
            if let Some(entry) = self.channels.get_mut(&name)
                && !entry.has_listeners
                && entry.at_redis == AtRedis::Yes
            {
                entry.at_redis = AtRedis::Going;
                self.subscribed -= 1;
                batch.push(name);
            }
        }
        self.check_invariants();
        (!batch.is_empty()).then_some((Command::Unsubscribe, batch))
    }

    fn begin_subscribe(&mut self, name: Arc<str>, batch: &mut Vec<Arc<str>>) {
        if let Some(entry) = self.channels.get_mut(&name)
            && entry.has_listeners
            && entry.at_redis == AtRedis::No
        {
            entry.at_redis = AtRedis::Coming;
            batch.push(name);
        }
    }

    /// Redis has confirmed the subscription to `channel`; hands out who has waited for it.
    pub(super) fn subscribed(&mut self, channel: &str) -> Vec<Waiter> {
        let Some((name, entry)) = self.channels.get_key_value_mut(channel) else {
            return Vec::new();
        };
        if entry.at_redis != AtRedis::Coming {
            return Vec::new();
        }
        entry.at_redis = AtRedis::Yes;
        self.subscribed += 1;
        if std::mem::take(&mut entry.is_owed) {
            self.owed -= 1;
        }
        if !entry.has_listeners {
            self.to_unsubscribe.push_back(Arc::clone(name));
        }
        let waiters = std::mem::take(&mut entry.waiters);
        self.check_invariants();
        waiters
    }

    /// Redis has confirmed that the subscription to `channel` has ended.
    pub(super) fn unsubscribed(&mut self, channel: &str) {
        let Some((name, entry)) = self.channels.get_key_value_mut(channel) else {
            return;
        };
        if entry.at_redis != AtRedis::Going {
            return;
        }
        entry.at_redis = AtRedis::No;
        if entry.has_listeners {
            self.to_subscribe.push_back(Arc::clone(name));
        } else {
            self.channels.remove(channel);
        }
        self.check_invariants();
    }

    /// Redis has refused to subscribe to `batch`. Tried again one by one; a channel that was alone
    /// is given up: it is handed out, with those who have waited.
    pub(super) fn refused(&mut self, batch: &[Arc<str>]) -> Option<(Arc<str>, Vec<Waiter>)> {
        for name in batch {
            if let Some(entry) = self.channels.get_mut(name)
                && entry.at_redis == AtRedis::Coming
            {
                entry.at_redis = AtRedis::No;
                if !entry.has_listeners {
                    self.channels.remove(name);
                } else if batch.len() > 1 {
                    self.alone.push_back(Arc::clone(name));
                } else if let Some(gone) = self.channels.remove(name) {
                    self.owed -= usize::from(gone.is_owed);
                    return Some((Arc::clone(name), gone.waiters));
                }
            }
        }
        self.check_invariants();
        None
    }

    /// Whether the end of the subscription to `channel` was asked for.
    pub(super) fn is_going(&self, channel: &str) -> bool {
        let entry = self.channels.get(channel);
        entry.is_none_or(|entry| entry.at_redis == AtRedis::Going)
    }

    /// Redis has ended the subscription to `channel` by itself: it belongs to another server now.
    pub(super) fn dropped(&mut self, channel: &str) {
        let Some((name, entry)) = self.channels.get_key_value_mut(channel) else {
            return;
        };
        if entry.at_redis != AtRedis::Yes {
            return;
        }
        entry.at_redis = AtRedis::No;
        self.subscribed -= 1;
        if !entry.has_listeners {
            self.channels.remove(channel);
        } else {
            if !std::mem::replace(&mut entry.is_owed, true) {
                self.owed += 1;
            }
            self.stray.push(Arc::clone(name));
        }
        self.check_invariants();
    }

    /// Redis has answered that those of `batch` that it has not confirmed belong to another server.
    pub(super) fn elsewhere(&mut self, batch: &[Arc<str>]) {
        for name in batch {
            if let Some(entry) = self.channels.get_mut(name)
                && matches!(entry.at_redis, AtRedis::Coming | AtRedis::Going)
            {
                entry.at_redis = AtRedis::No;
                if entry.has_listeners {
                    self.stray.push(Arc::clone(name));
                } else {
                    self.channels.remove(name);
                }
            }
        }
        self.check_invariants();
    }

    /// What was found out about stray channels has been acted upon: those that are still here are
    /// tried here again.
    pub(super) fn settle(&mut self) {
        self.to_subscribe.extend(self.stray.drain(..));
    }

    /// All channels.
    pub(super) fn channels(&self) -> impl Iterator<Item = &Arc<str>> {
        self.channels.keys()
    }

    /// `channel` goes to another server.
    pub(super) fn release(&mut self, channel: &str) -> Option<Released> {
        let entry = self.channels.remove(channel)?;
        self.owed -= usize::from(entry.is_owed);
        self.subscribed -= usize::from(entry.at_redis == AtRedis::Yes);
        self.check_invariants();
        Some(Released {
            has_listeners: entry.has_listeners,
            waiters: entry.waiters,
        })
    }

    /// `channel` comes from another server. Hands out who is served locally, as this one is away.
    pub(super) fn adopt(&mut self, channel: &Arc<str>, released: Released) -> Vec<Waiter> {
        if !released.has_listeners || self.channels.contains_key(channel) {
            return released.waiters;
        }
        let (waiters, served) = match self.is_connected {
            true => (released.waiters, Vec::new()),
            false => (Vec::new(), released.waiters),
        };
        // Where nobody waits, all were told that they listen.
        let is_owed = waiters.is_empty();
        self.owed += usize::from(is_owed);
        let entry = Channel {
            has_listeners: true,
            at_redis: AtRedis::No,
            is_owed,
            waiters,
        };
        self.channels.insert(Arc::clone(channel), entry);
        if self.is_connected {
            self.to_subscribe.push_back(Arc::clone(channel));
        }
        self.check_invariants();
        served
    }

    /// There is a connection again: everything that is listened to is to be subscribed.
    pub(super) fn connect(&mut self) {
        self.is_connected = true;
        self.to_subscribe = self.channels.keys().cloned().collect();
        self.check_invariants();
    }

    /// Redis is away. Who has waited is handed out: they are served locally.
    pub(super) fn disconnect(&mut self) -> Vec<Waiter> {
        let mut waiters = Vec::new();
        self.is_connected = false;
        self.to_subscribe.clear();
        self.to_unsubscribe.clear();
        self.alone.clear();
        self.stray.clear();
        self.subscribed = 0;
        self.channels.retain(|_, entry| {
            entry.at_redis = AtRedis::No;
            entry.is_owed = entry.has_listeners;
            waiters.append(&mut entry.waiters);
            entry.has_listeners
        });
        self.owed = self.channels.len();
        self.check_invariants();
        waiters
    }

    /// Whether everybody who was told that all is well is right.
    pub(super) fn is_restored(&self) -> bool {
        self.owed == 0
    }

    /// How many subscriptions Redis has confirmed.
    pub(super) fn subscriptions(&self) -> usize {
        self.subscribed
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.channels.len() <= 64 {
            let (mut owed, mut subscribed) = (0, 0);
            for (name, entry) in &self.channels {
                owed += usize::from(entry.is_owed);
                subscribed += usize::from(entry.at_redis == AtRedis::Yes);
                assert!(
                    entry.has_listeners || entry.at_redis != AtRedis::No,
                    "{name}"
                );
                assert!(entry.waiters.is_empty() || entry.has_listeners, "{name}");
                assert!(
                    entry.waiters.is_empty() || entry.at_redis != AtRedis::Yes,
                    "{name}"
                );
                let is_told = !entry.is_owed || entry.waiters.is_empty();
                assert!(is_told, "{name}: owed, and somebody waits");
                if !self.is_connected {
                    assert!(entry.is_owed, "{name}: nobody waits while Redis is away");
                }
            }
            assert_eq!((owed, subscribed), (self.owed, self.subscribed));
        }
    }
}
