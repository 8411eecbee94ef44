//! The table of channels, and the two lists of each subscription that point at each other.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::channel::{Channel, UNCONFIRMED};
use super::subscriptions::{Entry, Place, Released, Subscriptions};
use super::{ChannelKey, Slot, Variant};

impl Subscriptions {
    pub(super) fn channel_mut(&mut self, key: ChannelKey) -> Option<&mut Channel> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        place.channel.as_deref_mut()
    }

    pub(super) fn find(&self, channel: &str, variant: Variant) -> Option<u32> {
        self.variants_of(channel)
            .find(|(_, found)| found.variant == variant)
            .map(|(index, _)| index)
    }

    pub(super) fn entry_of(&self, slot: Slot, channel: &str) -> Option<usize> {
        if self.connection(slot)?.entries.is_empty() {
            return None;
        }
        self.variants_of(channel)
            .find_map(|(index, _)| self.entry_in(slot, index))
    }

    /// Place of the connection's entry for the channel in place `index`.
    pub(super) fn entry_in(&self, slot: Slot, index: u32) -> Option<usize> {
        let entries = &self.connection(slot)?.entries;
        let found = self.places.get(index as usize)?.channel.as_deref()?;
        // Both lists know; the shorter one tells sooner.
        if found.subscribers.len() < entries.len() {
            let mut subscribers = found.subscribers.iter();
            let own = subscribers.find(|subscriber| subscriber.slot == slot)?;
            return Some(own.entry as usize);
        }
        entries.iter().position(|entry| entry.channel == index)
    }

    /// All variants of the channel with this name.
    pub(super) fn variants_of(&self, channel: &str) -> impl Iterator<Item = (u32, &Channel)> {
        let hash = self.hasher.hash_one(channel);
        self.by_name.iter_hash(hash).filter_map(move |index| {
            let found = self.places[*index as usize].channel.as_deref()?;
            (*found.name == *channel).then_some((*index, found))
        })
    }

    pub(super) fn insert(&mut self, channel: &str, variant: Variant) -> u32 {
        // The name as another variant of the channel holds it, else a new copy.
        let name: Arc<str> = match self.variants_of(channel).next() {
            Some((_, found)) => Arc::clone(&found.name),
            None => Arc::from(channel),
        };
        let new = Box::new(Channel::new(name, variant));
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index as usize].channel = Some(new);
                index
            }
            None => {
                self.places.push(Place {
                    generation: 0,
                    channel: Some(new),
                });
                self.heads.push(0);
                self.places.len() as u32 - 1
            }
        };
        self.heads[index as usize] = 0;
        let (places, hasher) = (&self.places, &self.hasher);
        let hash = hasher.hash_one(channel);
        self.by_name.insert_unique(hash, index, |index| {
            places[*index as usize]
                .channel
                .as_ref()
                .map_or(0, |found| hasher.hash_one(&*found.name))
        });
        self.stats.channels += 1;
        index
    }

    /// Takes entry number `at` out of the connection and of its channel.
    pub(super) fn remove_entry(&mut self, slot: Slot, at: usize, entry: Entry) -> Option<Released> {
        self.detach_from_connection(slot, at);
        let index = entry.channel as usize;
        let head = self.heads[index];
        let found = self.places[index].channel.as_mut()?;
        found.forget(slot);
        found.subscribers.swap_remove(entry.place as usize);
        if let Some(moved) = found.subscribers.get(entry.place as usize) {
            self.connections[moved.slot as usize].entries[moved.entry as usize].place = entry.place;
        }
        self.stats.subscriptions -= 1;
        if entry.cursor < head {
            found.lagging -= 1;
        }
        if found.lagging == 0 {
            found.trim(head, head);
        }
        if !found.subscribers.is_empty() {
            return None;
        }
        Some(self.free_channel(entry.channel))
    }

    fn detach_from_connection(&mut self, slot: Slot, at: usize) {
        let connection = &mut self.connections[slot as usize];
        connection.entries.swap_remove(at);
        self.spans.shrunk(slot, at, connection.entries.len());
        if let Some(moved) = connection.entries.get(at)
            && let Some(other) = self.places[moved.channel as usize].channel.as_mut()
        {
            other.subscribers[moved.place as usize].entry = at as u32;
        }
        // A connection that once had many subscriptions does not keep the memory for them.
        let connection = &mut self.connections[slot as usize];
        if connection.entries.spilled()
            && connection.entries.len() * 4 <= connection.entries.capacity()
        {
            connection.entries.shrink_to_fit();
        }
    }

    pub(super) fn drop_channel(&mut self, key: ChannelKey, ended: &mut impl FnMut(Slot)) {
        while let Some(subscriber) = self
            .channel_mut(key)
            .and_then(|found| found.subscribers.pop())
        {
            self.detach_from_connection(subscriber.slot, subscriber.entry as usize);
            self.stats.subscriptions -= 1;
            ended(subscriber.slot);
        }
        self.free_channel(key.index);
    }

    fn free_channel(&mut self, index: u32) -> Released {
        let place = &mut self.places[index as usize];
        let found = place
            .channel
            .take()
            .expect("only a channel in the table is freed");
        let released = Released {
            key: ChannelKey {
                index,
                generation: place.generation,
            },
            name: Arc::clone(&found.name),
            variant: found.variant,
        };
        place.generation = place.generation.wrapping_add(1);
        let hash = self.hasher.hash_one(&*found.name);
        if let Ok(in_table) = self.by_name.find_entry(hash, |other| *other == index) {
            in_table.remove();
        }
        if found.has_advanced {
            self.advanced.retain(|other| *other != index);
            // No round will come for it, and until one comes no mail would be taken.
            self.is_urgent &= !self.advanced.is_empty();
        }
        self.heads[index as usize] = 0;
        self.free.push(index);
        self.stats.channels -= 1;
        released
    }

    /// Checked after each mutation in debug builds while the tables are small enough for it.
    #[inline]
    pub(super) fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.connections.len() + self.places.len() <= 256 {
            self.check_all();
        }
    }

    fn check_all(&self) {
        let mut channels = 0;
        let mut subscriptions = 0;
        for (index, place) in self.places.iter().enumerate() {
            let Some(found) = &place.channel else {
                continue;
            };
            channels += 1;
            let head = self.heads[index];
            found.check_invariants(head);
            assert_eq!(self.find(&found.name, found.variant), Some(index as u32));
            assert_eq!(
                found.has_advanced,
                self.advanced.contains(&(index as u32)),
                "{}: advanced, or not",
                found.name
            );
            let mut lagging = 0;
            let mut recovering = 0;
            for (place, subscriber) in found.subscribers.iter().enumerate() {
                let connection = &self.connections[subscriber.slot as usize];
                let entry = connection.entries[subscriber.entry as usize];
                assert_eq!((entry.channel, entry.place), (index as u32, place as u32));
                let waits = found.is_recovering(subscriber.slot);
                recovering += usize::from(waits);
                if found.is_confirmed() && !waits {
                    assert!(entry.cursor >= found.tail() && entry.cursor <= head);
                    lagging += u32::from(entry.cursor < head);
                } else {
                    assert_eq!(entry.cursor, UNCONFIRMED);
                }
            }
            assert_eq!(lagging, found.lagging, "{}: lagging", found.name);
            assert_eq!(
                recovering,
                found.recovering_count(),
                "{}: who recovers subscribes",
                found.name
            );
        }
        let (mut ready, mut prompt) = (0, 0);
        for (slot, connection) in self.connections.iter().enumerate() {
            subscriptions += connection.entries.len() as u64;
            ready += usize::from(connection.is_ready);
            prompt += usize::from(connection.is_prompt);
            assert!(
                !connection.is_resting || self.resting.iter().any(|one| one.slot as usize == slot),
                "{slot} rests, and nobody will wake it"
            );
            let span = self.spans.of(slot as Slot, connection.entries.len());
            for (at, entry) in connection.entries.iter().enumerate() {
                let found = self.places[entry.channel as usize].channel.as_ref();
                let found = found.expect("an entry's channel is in the table");
                let back = found.subscribers[entry.place as usize];
                assert_eq!((back.slot as usize, back.entry as usize), (slot, at));
                assert!(
                    entry.cursor >= self.heads[entry.channel as usize]
                        || found.has_advanced
                        || span.contains(&at),
                    "{slot}: {at} is pending, and no send would look there"
                );
            }
        }
        assert_eq!(prompt, self.prompt.len(), "prompt connections");
        assert!(
            self.prompt
                .iter()
                .all(|slot| self.connections[*slot as usize].is_prompt)
        );
        assert_eq!(ready, self.ready.len(), "ready connections");
        assert!(
            self.ready
                .iter()
                .all(|slot| self.connections[*slot as usize].is_ready)
        );
        assert!(
            !self.is_urgent || self.has_advanced(),
            "urgent, and no round will end it"
        );
        assert_eq!(self.stats.channels, channels);
        assert_eq!(self.stats.subscriptions, subscriptions);
        assert_eq!(self.by_name.len() as u64, channels);
    }
}
