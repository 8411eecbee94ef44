//! The order in which places of a table were used last, in constant time: a doubly linked list by
//! index.
//!
//! Invariant: a place is in at most one list at a time; following `newer` from the oldest of a list
//! visits exactly its places.

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
}

/// The ends of one list.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    newest: u32,
    oldest: u32,
}

impl Default for List {
    fn default() -> Self {
        Self {
            newest: NONE,
            oldest: NONE,
        }
    }
}

impl List {
    /// The place that was used longest ago.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }
}

/// The links of all lists over one table.
#[derive(Debug, Default)]
pub(super) struct Recency {
    links: Vec<Link>,
}

impl Recency {
    /// Puts `place`, which is in no list, in front: it was used just now.
    pub(super) fn push(&mut self, list: &mut List, place: u32) {
        if self.links.len() <= place as usize {
            let unlinked = Link {
                newer: NONE,
                older: NONE,
            };
            self.links.resize(place as usize + 1, unlinked);
        }
        self.links[place as usize] = Link {
            newer: NONE,
            older: list.newest,
        };
        match list.newest {
            NONE => list.oldest = place,
            before => self.links[before as usize].newer = place,
        }
        list.newest = place;
    }

    /// Takes `place` out of the list that it is in.
    pub(super) fn remove(&mut self, list: &mut List, place: u32) {
        let Link { newer, older } = self.links[place as usize];
        match newer {
            NONE => list.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        match older {
            NONE => list.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
    }

    /// Gives back memory for places from `len` on, of which none is in a list.
    pub(super) fn shrink(&mut self, len: usize) {
        self.links.truncate(len);
        self.links.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(recency: &Recency, list: &List) -> Vec<u32> {
        let next = |place: &u32| {
            let newer = recency.links[*place as usize].newer;
            (newer != NONE).then_some(newer)
        };
        std::iter::successors(list.oldest(), next).collect()
    }

    #[test]
    fn places_come_out_in_the_order_of_their_last_use() {
        let (mut recency, mut list) = (Recency::default(), List::default());
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut model: Vec<u32> = Vec::new();
        for _ in 0..2_000 {
            let place = rng.u32(..20);
            let was_in = model.iter().position(|other| *other == place);
            if let Some(at) = was_in {
                recency.remove(&mut list, place);
                model.remove(at);
            }
            if was_in.is_none() || rng.bool() {
                recency.push(&mut list, place);
                model.push(place);
            }
            assert_eq!(all(&recency, &list), model, "seed {seed}");
        }
    }
}
