//! Which connections a user has on this shard: for the server API, and for the bound on how many a
//! user may have on the node.
//!
//! Only users with an id are here. A connection costs 8 bytes, a user its name and a list.
//!
//! Invariants
//! - `users[seats[s].user - 1].slots[seats[s].place] == s` for each slot `s` that is taken.
//! - A user is here exactly while it has a connection.
//! - Each connection here has been taken from the limit, and is given back when it goes.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

use crate::pubsub::Slot;

use super::admission::UserLimit;

#[derive(Default)]
pub(super) struct Users {
    hasher: RandomState,
    by_name: HashTable<usize>,
    users: Slab<User>,
    /// By slot; as long as the highest slot that ever had a user.
    seats: Vec<Seat>,
    /// Over all shards; none: a user may have as many as it likes.
    limit: Option<Arc<UserLimit>>,
}

struct User {
    name: Box<str>,
    slots: SmallVec<[Slot; 2]>,
}

/// Whose a connection is, and where it stands in the user's list.
#[derive(Clone, Copy, Default)]
struct Seat {
    /// The user's key plus one; 0: nobody's.
    user: u32,
    place: u32,
}

impl Users {
    /// Nobody yet.
    pub(super) fn new(limit: Option<Arc<UserLimit>>) -> Self {
        let mut users = Self::default();
        users.limit = limit;
        users
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// The connection in `slot` is the user's; an empty name is nobody's. False where the user has
    /// as many on the node as it may: then it is nobody's.
    #[must_use]
    pub(super) fn insert(&mut self, name: &str, slot: Slot) -> bool {
        if self.is_at(name, slot) {
            return true;
        }
        self.remove(slot);
        if name.is_empty() {
            return true;
        }
        if self.limit.as_ref().is_some_and(|limit| !limit.take(name)) {
            return false;
        }
        let user = self.find(name).unwrap_or_else(|| self.add(name));
        let slots = &mut self.users[user].slots;
        let place = slots.len() as u32;
        slots.push(slot);
        let at = slot as usize;
        if self.seats.len() <= at {
            self.seats.resize(at + 1, Seat::default());
        }
        self.seats[at] = Seat {
            user: user as u32 + 1,
            place,
        };
        self.check_invariants();
        true
    }

    fn is_at(&self, name: &str, slot: Slot) -> bool {
        let seat = self.seats.get(slot as usize);
        let user = seat.and_then(|seat| (seat.user as usize).checked_sub(1));
        user.is_some_and(|user| *self.users[user].name == *name)
    }

    /// The connection in `slot` is nobody's any more.
    pub(super) fn remove(&mut self, slot: Slot) {
        let Some(seat) = self.seats.get_mut(slot as usize) else {
            return;
        };
        let Seat { user, place } = std::mem::take(seat);
        let Some(key) = (user as usize).checked_sub(1) else {
            return;
        };
        if let Some(limit) = &self.limit {
            limit.give_back(&self.users[key].name);
        }
        let slots = &mut self.users[key].slots;
        slots.swap_remove(place as usize);
        if let Some(moved) = slots.get(place as usize) {
            self.seats[*moved as usize].place = place;
        }
        if slots.is_empty() {
            let hash = self.hasher.hash_one(&*self.users[key].name);
            if let Ok(found) = self.by_name.find_entry(hash, |other| *other == key) {
                found.remove();
            }
            self.users.remove(key);
        } else if slots.spilled() && slots.len() * 4 <= slots.capacity() {
            slots.shrink_to_fit();
        }
        self.check_invariants();
    }

    /// The connections of a user, in no order.
    pub(super) fn slots(&self, name: &str) -> &[Slot] {
        self.find(name).map_or(&[], |user| &self.users[user].slots)
    }

    /// The names, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.users.iter().map(|(_, user)| &*user.name)
    }

    fn find(&self, name: &str) -> Option<usize> {
        let hash = self.hasher.hash_one(name);
        let is_its = |user: &usize| *self.users[*user].name == *name;
        self.by_name.find(hash, is_its).copied()
    }

    fn add(&mut self, name: &str) -> usize {
        let user = self.users.insert(User {
            name: name.into(),
            slots: SmallVec::new(),
        });
        let (users, hasher) = (&self.users, &self.hasher);
        let hash = hasher.hash_one(name);
        self.by_name
            .insert_unique(hash, user, |other| hasher.hash_one(&*users[*other].name));
        user
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.seats.len() <= 64 {
            let seated = self.seats.iter().filter(|seat| seat.user > 0).count();
            let listed: usize = self.users.iter().map(|(_, user)| user.slots.len()).sum();
            assert_eq!(seated, listed, "each connection stands in one list");
            for (slot, seat) in self.seats.iter().enumerate() {
                if let Some(key) = (seat.user as usize).checked_sub(1) {
                    assert_eq!(self.users[key].slots[seat.place as usize] as usize, slot);
                }
            }
            assert!(self.users.iter().all(|(_, user)| !user.slots.is_empty()));
            assert_eq!(self.by_name.len(), self.users.len());
        }
    }
}

impl Drop for Users {
    /// However the shard ends, also by a panic: what its connections have taken is given back.
    fn drop(&mut self) {
        if let Some(limit) = &self.limit {
            for (_, user) in &self.users {
                for _ in &user.slots {
                    limit.give_back(&user.name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn a_user_is_there_exactly_while_it_has_connections() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let limit = Arc::new(UserLimit::new(15).expect("a bound"));
        let mut users = Users::new(Some(Arc::clone(&limit)));
        let mut model: BTreeMap<Slot, String> = BTreeMap::new();
        for _ in 0..5_000 {
            let slot = rng.u32(..40);
            if rng.bool() {
                let name = ["", "a", "b", "c"][rng.usize(..4)];
                let is_in = users.insert(name, slot);
                model.remove(&slot);
                let has = model.values().filter(|user| *user == name).count();
                assert_eq!(is_in, name.is_empty() || has < 15, "{name} has {has}");
                if is_in && !name.is_empty() {
                    model.insert(slot, name.to_owned());
                }
            } else {
                users.remove(slot);
                model.remove(&slot);
            }
            for name in ["a", "b", "c"] {
                let expected: BTreeSet<Slot> = model
                    .iter()
                    .filter(|(_, user)| *user == name)
                    .map(|(slot, _)| *slot)
                    .collect();
                let found: BTreeSet<Slot> = users.slots(name).iter().copied().collect();
                assert_eq!(found, expected, "{name}");
            }
            let names: BTreeSet<&str> = model.values().map(String::as_str).collect();
            assert_eq!(users.names().collect::<BTreeSet<_>>(), names);
            assert_eq!(users.len(), names.len());
        }
        drop(users);
        assert_eq!(
            format!("{limit:?}"),
            format!("{:?}", UserLimit::new(15).expect("a bound"))
        );
    }
}
