//! What the engine says of a shard's channels: that it delivers them, what it delivers, what it has
//! lost.

use std::sync::Arc;

use flux_runtime::log::LogSlice;

use super::fanout::LAG_SHARE;
use super::subscriptions::Subscriptions;
use super::{ChannelKey, Slot, StreamPosition, Whole};

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Appended {
    /// It is sent in the next round, or nobody is there any more to whom it could be.
    Taken,
    /// Publications before it are missing: nobody may get it, and [`Subscriptions::lose`] must
    /// follow.
    Gap,
}

impl Subscriptions {
    /// The engine delivers the channel from now on, where `position` is the newest of its history.
    /// `confirmed` gets slot and command of everybody who waited for that. A late word about an
    /// earlier channel in the same place changes nothing.
    pub fn confirm(
        &mut self,
        key: ChannelKey,
        position: Option<StreamPosition>,
        confirmed: &mut impl FnMut(Slot, u32),
    ) {
        let head = self.heads.get(key.index as usize).copied();
        let Some(found) = self.channel_mut(key) else {
            return;
        };
        let Some(waiting) = found.waiting.take() else {
            return;
        };
        found.position = position;
        for waiter in &waiting {
            found.begin(waiter.slot);
        }
        for waiter in waiting {
            if let Some(at) = self.entry_in(waiter.slot, key.index) {
                let entries = &mut self.connections[waiter.slot as usize].entries;
                entries[at].cursor = head.unwrap_or_default();
            }
            confirmed(waiter.slot, waiter.command);
        }
        self.check_invariants();
    }

    /// The engine has told what a subscriber missed up to what it has delivered here: what comes
    /// from now on is the subscriber's too. False when it does not wait for that any more.
    pub fn recovered(&mut self, key: ChannelKey, slot: Slot, command: u32) -> bool {
        let head = self.heads.get(key.index as usize).copied();
        let Some(found) = self.channel_mut(key) else {
            return false;
        };
        if !found.is_confirmed() || !found.take_recovering(slot, command) {
            return false;
        }
        found.begin(slot);
        if let Some(at) = self.entry_in(slot, key.index) {
            let entries = &mut self.connections[slot as usize].entries;
            entries[at].cursor = head.unwrap_or_default();
        }
        self.check_invariants();
        true
    }

    /// The engine will not deliver the channel: everybody who waited is told, and it is gone.
    pub fn refuse(&mut self, key: ChannelKey, refused: &mut impl FnMut(Slot, u32)) {
        let Some(found) = self.channel_mut(key) else {
            return;
        };
        let Some(waiting) = found.waiting.take() else {
            return;
        };
        let rare = found.rare.take();
        self.drop_channel(key, &mut |_| {});
        for waiter in waiting {
            refused(waiter.slot, waiter.command);
        }
        for (slot, command) in rare.into_iter().flat_map(|rare| rare.recovering) {
            refused(slot, command);
        }
        self.check_invariants();
    }

    /// Something of this channel was lost on its way to this shard, and the engine delivers it no
    /// longer: every subscription to it ends. `ended` gets the connections that must be told (their
    /// position is insufficient state: code 2500, upon which a client subscribes anew).
    /// Returns the channel's name.
    pub fn lose(&mut self, key: ChannelKey, ended: &mut impl FnMut(Slot)) -> Option<Arc<str>> {
        let name = Arc::clone(&self.channel_mut(key)?.name);
        self.drop_channel(key, ended);
        self.check_invariants();
        Some(name)
    }

    /// Takes what the engine delivered. `whole`: the message, where `slice` is a delta.
    /// `offset`: its place in the channel's history, 0 for what has none.
    pub fn append(
        &mut self,
        key: ChannelKey,
        slice: &LogSlice,
        whole: Option<&Whole>,
        offset: u64,
    ) -> Appended {
        let lag_bytes_max = self.config.lag_bytes_max;
        let index = key.index as usize;
        let head = self.heads.get(index).copied().unwrap_or_default();
        let Some(found) = self.channel_mut(key).filter(|found| found.is_confirmed()) else {
            self.stats.late += 1;
            return Appended::Taken;
        };
        if let Some(position) = found.position.as_mut().filter(|_| offset > 0) {
            match offset {
                offset if offset == position.offset + 1 => position.offset = offset,
                offset if offset <= position.offset => {
                    self.stats.late += 1;
                    return Appended::Taken;
                }
                _ => return Appended::Gap,
            }
        }
        if slice.is_empty() {
            return Appended::Taken;
        }
        let (start, head) = (head, head + slice.len() as u64);
        let subscribers = found.subscribers.len() - found.recovering_count();
        if subscribers == 0 {
            // Everybody who is here gets it with the answer that is waited for.
            found.trim(head, head);
            found.rounded = head;
            self.heads[index] = head;
            self.stats.publications += 1;
            self.check_invariants();
            return Appended::Taken;
        }
        found.append(start, slice);
        match whole {
            Some(whole) => found.put_aside(start, head, || whole.encode(offset)),
            None => found.passed_whole(offset > 0),
        }
        found.lagging = subscribers as u32;
        let is_first = !std::mem::replace(&mut found.has_advanced, true);
        // Much of one channel in one turn: send before more is taken, else those who keep up
        // would be judged by what they had no chance to take.
        let is_urgent = head - found.rounded > lag_bytes_max / LAG_SHARE;
        let wants_trim = found.wants_trim(head) || head - found.tail() > lag_bytes_max;
        self.heads[index] = head;
        self.is_urgent |= is_urgent;
        self.stats.publications += 1;
        self.stats.deliveries += subscribers as u64;
        if is_first {
            self.advanced.push(key.index);
        }
        if wants_trim {
            self.trim(key.index, slice.len() as u64);
        }
        self.check_invariants();
        Appended::Taken
    }

    /// Where the channel is in its history, as far as this shard has heard.
    pub fn position(&self, key: ChannelKey) -> Option<StreamPosition> {
        let place = self.places.get(key.index as usize)?;
        let found = place.channel.as_ref()?;
        found
            .position
            .filter(|_| place.generation == key.generation)
    }
}
