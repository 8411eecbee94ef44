//! Sockets as a ring holds them: by a descriptor of the process, or by a slot of its own table.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use io_uring::squeue;
use io_uring::types::Fd;

/// A connection's socket in the hands of one ring.
///
/// [`NetRing::adopt`](super::NetRing::adopt) makes it and [`NetRing::close`](super::NetRing::close)
/// ends it. One that is dropped instead closes its descriptor, but a slot stays open until the ring
/// itself goes.
#[derive(Debug)]
pub struct Socket(pub(super) Place);

#[derive(Debug)]
pub(super) enum Place {
    /// An open file of the process.
    Descriptor(OwnedFd),
    /// A direct descriptor: known to the ring only, and no open file of the process.
    Slot(u32),
}

impl Socket {
    /// Whether it is a direct descriptor, which does not count against the process's open files.
    pub fn is_direct(&self) -> bool {
        matches!(self.0, Place::Slot(_))
    }

    /// Its open file, if it is one: what options are set on.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Place::Descriptor(descriptor) => Some(descriptor.as_fd()),
            Place::Slot(_) => None,
        }
    }
}

impl From<OwnedFd> for Socket {
    /// Keeps the descriptor.
    fn from(descriptor: OwnedFd) -> Self {
        Self(Place::Descriptor(descriptor))
    }
}

/// What an operation works on: a [`Socket`], or anything that has a descriptor.
///
/// Four bytes, since every armed receive has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target(i32);

impl Target {
    /// Names no socket.
    pub(super) const NONE: Self = Self(-1);

    pub(super) fn slot(slot: u32) -> Self {
        debug_assert!(slot < super::direct::SLOTS_MAX);
        Self(-2 - slot as i32)
    }

    /// The descriptor, where it is one.
    pub(super) fn descriptor(self) -> Option<RawFd> {
        (self.0 >= 0).then_some(self.0)
    }

    /// The slot, where it is one.
    pub(super) fn as_slot(self) -> Option<u32> {
        u32::try_from(-2 - self.0).ok()
    }

    /// How an entry names it.
    pub(super) fn entry_parts(self) -> (Fd, squeue::Flags) {
        match self.as_slot() {
            Some(slot) => (Fd(slot as RawFd), squeue::Flags::FIXED_FILE),
            None => (Fd(self.0), squeue::Flags::empty()),
        }
    }
}

impl From<&Socket> for Target {
    fn from(socket: &Socket) -> Self {
        match &socket.0 {
            Place::Descriptor(descriptor) => Self(descriptor.as_raw_fd()),
            Place::Slot(slot) => Self::slot(*slot),
        }
    }
}

impl<T: AsFd> From<&T> for Target {
    fn from(descriptor: &T) -> Self {
        Self(descriptor.as_fd().as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_descriptors_are_never_taken_for_one_another() {
        let (file, flags) = Target::from(&std::io::stdin()).entry_parts();
        assert_eq!((file.0, flags), (0, squeue::Flags::empty()));
        for slot in [0, 1, super::super::direct::SLOTS_MAX - 1] {
            let target = Target::slot(slot);
            assert_ne!(target, Target::NONE);
            assert_eq!((target.descriptor(), target.as_slot()), (None, Some(slot)));
            let (file, flags) = target.entry_parts();
            assert_eq!((file.0, flags), (slot as i32, squeue::Flags::FIXED_FILE));
        }
        assert_eq!(
            (Target::NONE.descriptor(), Target::NONE.as_slot()),
            (None, None)
        );
        assert_eq!(size_of::<Socket>(), 8);
    }
}
