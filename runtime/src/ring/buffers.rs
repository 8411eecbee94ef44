//! Receive buffers: one mapping, handed to the kernel through a provided-buffer ring
//! (`IORING_REGISTER_PBUF_RING`), so that an idle connection holds none.
//!
//! Invariants
//! - A buffer id is at any time in exactly one place: in the buffer ring (the kernel may write to
//!   it) or in one `RecvBuffer` (its owner may).
//! - Only ids below `provided` were ever handed out; the rest of the mapping is untouched and
//!   costs address space only.
//! - The mapping outlives the ring's registration: `NetRing` unregisters before it drops its
//!   `Rc`, and a `RecvBuffer` that lives longer keeps the mapping alive.
#![allow(
    unsafe_code,
    reason = "memory shared with the kernel: the buffer ring and its buffers"
)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Group id of the one buffer ring of a net ring.
pub(super) const GROUP: u16 = 0;

/// An anonymous private mapping, unmapped on drop.
struct Mapping {
    address: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing
        // that exists.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast())
            .map(|address| Self { address, len })
            .ok_or_else(|| io::Error::other("mmap returned the null page"))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, unmapped once; by the module's invariants
        // neither the kernel nor a `RecvBuffer` uses it any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

pub(super) struct Pool {
    entries: Mapping,
    memory: Mapping,
    buffer_len: u32,
    /// Slots of the ring (a power of two) and highest number of buffers.
    count_max: u16,
    /// Buffers in use so far; grows up to `count_max`.
    provided: Cell<u16>,
    /// Buffers that a `RecvBuffer` owns.
    lent: Cell<u16>,
    tail: Cell<u16>,
}

impl Pool {
    /// `count` buffers now, up to `count_max` later (both powers of two, at most 32,768).
    pub(super) fn new(buffer_len: u32, count: u16, count_max: u16) -> io::Result<Rc<Self>> {
        let pool = Self {
            entries: Mapping::new(usize::from(count_max) * size_of::<BufRingEntry>())?,
            memory: Mapping::new(usize::from(count_max) * buffer_len as usize)?,
            buffer_len,
            count_max,
            provided: Cell::new(0),
            lent: Cell::new(0),
            tail: Cell::new(0),
        };
        pool.provide_up_to(count);
        Ok(Rc::new(pool))
    }

    pub(super) fn ring_address(&self) -> u64 {
        self.entries.address.as_ptr() as u64
    }

    pub(super) fn ring_entries(&self) -> u16 {
        self.count_max
    }

    /// Buffers that are not lent out. The kernel may have filled some of them already, in
    /// completions that were not looked at yet.
    pub(super) fn available(&self) -> u16 {
        self.provided.get() - self.lent.get()
    }

    pub(super) fn lent(&self) -> u16 {
        self.lent.get()
    }

    pub(super) fn provided(&self) -> u16 {
        self.provided.get()
    }

    /// Doubles the buffers. False when there are as many as there may be.
    pub(super) fn grow(&self) -> bool {
        let provided = self.provided.get();
        if provided >= self.count_max {
            return false;
        }
        self.provide_up_to(provided.saturating_mul(2).min(self.count_max));
        true
    }

    fn provide_up_to(&self, count: u16) {
        for id in self.provided.get()..count {
            self.write_entry(id);
        }
        self.provided.set(count);
        self.publish_tail();
    }

    fn address_of(&self, id: u16) -> NonNull<u8> {
        debug_assert!(id < self.count_max);
        // SAFETY: `id < count_max`, so the address lies inside the mapping of
        // `count_max * buffer_len` bytes.
        unsafe {
            self.memory
                .address
                .add(usize::from(id) * self.buffer_len as usize)
        }
    }

    /// Puts a buffer behind the tail; the kernel sees it after [`Self::publish_tail`].
    fn write_entry(&self, id: u16) {
        let slot = self.tail.get() & (self.count_max - 1);
        // SAFETY: the slot lies inside the mapping. The kernel reads slots only up to the
        // published tail, so this one is ours: there are no more buffers than slots, hence the
        // kernel has consumed what was here before.
        let entry = unsafe {
            &mut *self
                .entries
                .address
                .as_ptr()
                .cast::<BufRingEntry>()
                .add(usize::from(slot))
        };
        entry.set_addr(self.address_of(id).as_ptr() as u64);
        entry.set_len(self.buffer_len);
        entry.set_bid(id);
        self.tail.set(self.tail.get().wrapping_add(1));
    }

    fn publish_tail(&self) {
        // SAFETY: the tail lives in the reserved field of the first entry, inside the mapping,
        // two-byte aligned; the kernel only reads it, with acquire semantics.
        let tail = unsafe {
            let address = BufRingEntry::tail(self.entries.address.as_ptr().cast());
            AtomicU16::from_ptr(address.cast_mut())
        };
        tail.store(self.tail.get(), Ordering::Release);
    }

    /// Takes over the buffer that a completion names.
    pub(super) fn take(self: &Rc<Self>, id: u16, len: u32) -> RecvBuffer {
        debug_assert!(id < self.provided.get() && len <= self.buffer_len);
        self.lent.set(self.lent.get() + 1);
        RecvBuffer {
            pool: Rc::clone(self),
            len: len.min(self.buffer_len),
            id,
        }
    }

    fn give_back(&self, id: u16) {
        self.lent.set(self.lent.get() - 1);
        self.write_entry(id);
        self.publish_tail();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("provided", &self.provided.get())
            .field("lent", &self.lent.get())
            .finish_non_exhaustive()
    }
}

/// Received bytes in a buffer of the ring; dropping it gives the buffer back to the kernel.
///
/// Hold it only as long as needed (a relay until its send completes): buffers are shared by all
/// connections of the shard.
pub struct RecvBuffer {
    pool: Rc<Pool>,
    len: u32,
    id: u16,
}

impl Deref for RecvBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer is out of the buffer ring until this value drops, so nobody writes;
        // `len` bytes at its start were written by the kernel and lie inside the mapping.
        unsafe {
            std::slice::from_raw_parts(self.pool.address_of(self.id).as_ptr(), self.len as usize)
        }
    }
}

impl DerefMut for RecvBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; this value is the buffer's only owner.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.pool.address_of(self.id).as_ptr(),
                self.len as usize,
            )
        }
    }
}

impl Drop for RecvBuffer {
    fn drop(&mut self) {
        self.pool.give_back(self.id);
    }
}

impl fmt::Debug for RecvBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBuffer")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_the_pool_grows_to_its_limit() {
        let pool = Pool::new(64, 2, 8).expect("a small mapping");
        assert_eq!(pool.available(), 2);
        let mut first = pool.take(0, 3);
        first.copy_from_slice(b"abc");
        let second = pool.take(1, 64);
        assert_eq!(pool.available(), 0);
        assert_eq!(&*first, b"abc");
        drop(second);
        assert_eq!(pool.available(), 1);
        assert!(pool.grow());
        assert!(pool.grow());
        assert!(!pool.grow());
        assert_eq!((pool.provided(), pool.lent()), (8, 1));
        drop(pool);
        assert_eq!(&*first, b"abc", "a buffer keeps its mapping alive");
    }
}
