//! A slab whose handles carry a generation, so that a handle kept too long names nothing.
//!
//! Invariants: a free slot is on the free list exactly once; the generation of a slot changes
//! whenever it is freed; `len` counts the occupied slots.

/// Index and generation of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlotId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

#[derive(Debug)]
enum Entry<T> {
    Occupied(T),
    Free { next: u32 },
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Entry<T>,
}

const END: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    len: usize,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: END,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, value: T) -> SlotId {
        self.len += 1;
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let index = self.free;
            if let Entry::Free { next } = slot.entry {
                self.free = next;
            }
            slot.entry = Entry::Occupied(value);
            return SlotId {
                index,
                generation: slot.generation,
            };
        }
        let index = self.slots.len() as u32;
        self.slots.push(Slot {
            generation: 0,
            entry: Entry::Occupied(value),
        });
        SlotId {
            index,
            generation: 0,
        }
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        match self.slots.get_mut(id.index as usize) {
            Some(Slot {
                generation,
                entry: Entry::Occupied(value),
            }) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    pub(super) fn get(&self, id: SlotId) -> Option<&T> {
        match self.slots.get(id.index as usize) {
            Some(Slot {
                generation,
                entry: Entry::Occupied(value),
            }) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, id: SlotId) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation || matches!(slot.entry, Entry::Free { .. }) {
            return None;
        }
        let entry = std::mem::replace(&mut slot.entry, Entry::Free { next: self.free });
        slot.generation = slot.generation.wrapping_add(1);
        self.free = id.index;
        self.len -= 1;
        match entry {
            Entry::Occupied(value) => Some(value),
            Entry::Free { .. } => None,
        }
    }

    /// Removes the values that `keep` refuses.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for index in 0..self.slots.len() as u32 {
            let slot = &self.slots[index as usize];
            if let Entry::Occupied(value) = &slot.entry
                && !keep(value)
            {
                let generation = slot.generation;
                self.remove(SlotId { index, generation });
            }
        }
    }

    /// Everything that is still held, for the last resort of leaking it.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        self.free = END;
        self.len = 0;
        std::mem::take(&mut self.slots)
            .into_iter()
            .filter_map(|slot| match slot.entry {
                Entry::Occupied(value) => Some(value),
                Entry::Free { .. } => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn an_old_handle_names_nothing() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
    }

    #[test]
    fn random_inserts_and_removes_match_a_map() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut slots = Slots::new();
        let mut model = HashMap::new();
        for step in 0..20_000u32 {
            if model.is_empty() || random.u8(..) < 140 {
                let id = slots.insert(step);
                assert!(model.insert(id, step).is_none());
            } else {
                let nth = random.usize(..model.len());
                let id = *model.keys().nth(nth).expect("the model is not empty");
                assert_eq!(slots.remove(id), model.remove(&id));
            }
            assert_eq!(slots.len(), model.len());
        }
        for (id, value) in &model {
            assert_eq!(slots.get(*id), Some(value));
        }
        assert_eq!(slots.take_all().len(), model.len());
    }
}
