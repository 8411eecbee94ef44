//! The ring's table of direct descriptors: sockets that only this ring knows.
//!
//! They cost no open file of the process, so that a process holds as many connections as its rings
//! have slots, and an operation on one looks up no descriptor.
//!
//! Invariants
//! - A slot is at any time either free, held by one `Socket`, or closing: the kernel has not yet
//!   said that it has closed it. Only then it is free again, so that no operation for the former
//!   socket can reach its successor.
//! - Every operation on a slot is one that the kernel begins while it takes the entry, and from
//!   then on it holds the file itself. Operations that it puts off to a worker look the slot up
//!   later, perhaps after it was given to somebody else: none of those may be used (this is why
//!   there is no `IORING_OP_SHUTDOWN` here).
//! - `entries` never moves. The kernel reads the descriptor to adopt from there.

use std::os::fd::RawFd;

/// Largest table. The kernel's own bound is the soft limit of open files.
pub(super) const SLOTS_MAX: u32 = 1 << 20;

const END: i32 = -1;
/// What stands in the entry of a slot that is being closed.
const CLOSING: i32 = -2;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Of a free slot the next free one; of one that is held the descriptor it was made from, which is
    /// nobody's any more once the kernel has taken it over.
    entries: Box<[i32]>,
    free: i32,
    /// Slots from here on were never used: neither their entries nor the kernel's were touched.
    used: u32,
}

impl Table {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            entries: vec![0; slots.min(SLOTS_MAX) as usize].into_boxed_slice(),
            free: END,
            used: 0,
        }
    }

    pub(super) fn slots(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Takes a free slot for a descriptor.
    pub(super) fn take(&mut self, descriptor: RawFd) -> Option<u32> {
        debug_assert!(descriptor >= 0);
        let slot = match u32::try_from(self.free) {
            Ok(slot) => {
                self.free = self.entries[slot as usize];
                slot
            }
            Err(_) if self.used < self.slots() => {
                self.used += 1;
                self.used - 1
            }
            Err(_) => return None,
        };
        self.entries[slot as usize] = descriptor;
        Some(slot)
    }

    /// Where the descriptor that a slot was taken for stands until the slot closes.
    pub(super) fn entry(&self, slot: u32) -> *const RawFd {
        &raw const self.entries[slot as usize]
    }

    /// The kernel was told to close it.
    pub(super) fn begin_close(&mut self, slot: u32) {
        self.entries[slot as usize] = CLOSING;
    }

    pub(super) fn is_closing(&self, slot: u32) -> bool {
        self.entries[slot as usize] == CLOSING
    }

    /// The kernel has closed it.
    pub(super) fn give_back(&mut self, slot: u32) {
        debug_assert!(self.is_closing(slot));
        self.entries[slot as usize] = self.free;
        self.free = slot as i32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_slot_is_held_twice() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut table = Table::new(16);
        let (mut held, mut closing) = (HashSet::new(), HashSet::new());
        for _ in 0..5_000 {
            match random.u8(..3) {
                0 => match table.take(random.i32(0..100)) {
                    Some(slot) => assert!(!closing.contains(&slot) && held.insert(slot)),
                    None => assert_eq!(held.len() + closing.len(), 16),
                },
                1 => {
                    if let Some(slot) = random.choice(held.clone()) {
                        held.remove(&slot);
                        table.begin_close(slot);
                        closing.insert(slot);
                    }
                }
                _ => {
                    if let Some(slot) = random.choice(closing.clone()) {
                        closing.remove(&slot);
                        table.give_back(slot);
                    }
                }
            }
            assert!(closing.iter().all(|slot| table.is_closing(*slot)));
            assert!(!held.iter().any(|slot| table.is_closing(*slot)));
        }
        assert_eq!(Table::new(0).take(1), None);
    }
}
