//! Spare byte vectors: connections borrow one while they have something to send.

/// Spare vectors kept at most.
const SPARES_MAX: usize = 256;
/// A vector that grew beyond this is given back to the allocator, in bytes.
const SPARE_CAPACITY_MAX: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Spares(Vec<Vec<u8>>);

impl Spares {
    /// Gives a vector without memory that of a spare one, where there is one.
    pub(super) fn lend(&mut self, vec: &mut Vec<u8>) {
        if vec.capacity() == 0
            && let Some(spare) = self.0.pop()
        {
            *vec = spare;
        }
    }

    /// Keeps a vector for the next one who needs it.
    pub(super) fn give(&mut self, mut vec: Vec<u8>) {
        if vec.capacity() > 0 && vec.capacity() <= SPARE_CAPACITY_MAX && self.0.len() < SPARES_MAX {
            vec.clear();
            self.0.push(vec);
        }
    }
}
