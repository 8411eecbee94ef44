//! The wake protocol, without its system call.
//!
//! One word: `IDLE`, `NOTIFIED` or `PARKED`. A sender makes its message visible and then swaps in
//! `NOTIFIED`; if it found `PARKED` it owes the system call. The shard clears the word before it
//! looks at its mailboxes and may park only if it is still clear. All accesses are
//! read-modify-writes of one word, so they are totally ordered: a notify either precedes the
//! clear, then the shard looks afterwards and sees the message, or it follows it, then the shard
//! does not park or the sender finds it parked.

#[cfg(not(flux_loom))]
use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(flux_loom)]
use loom::sync::atomic::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const NOTIFIED: u8 = 1;
const PARKED: u8 = 2;

#[derive(Debug)]
pub(super) struct Signal {
    word: AtomicU8,
}

impl Signal {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU8::new(IDLE),
        }
    }

    /// True when the caller owes the parked shard a system call.
    pub(super) fn notify(&self) -> bool {
        self.word.swap(NOTIFIED, Ordering::AcqRel) == PARKED
    }

    /// True when the shard may wait. False when it was notified since the last [`Self::clear`].
    pub(super) fn park(&self) -> bool {
        self.word
            .compare_exchange(IDLE, PARKED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// After a wait, before looking at the mailboxes.
    pub(super) fn clear(&self) {
        self.word.swap(IDLE, Ordering::AcqRel);
    }
}
