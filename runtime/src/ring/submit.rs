//! The way into the kernel: a queue that never refuses, and the headers that vectored sends need.
//!
//! Contract for every entry pushed here: memory that it points to stays valid
//! - until the entry was consumed by an enter, for headers, iovecs and socket addresses (the
//!   kernel copies these when it takes the entry: `IORING_FEAT_SUBMIT_STABLE`, Linux 5.5), and
//! - until its last completion, for payload bytes: these are owned by the operation's slot, which
//!   is freed only by that completion (or leaked, see `teardown.rs`).
#![allow(
    unsafe_code,
    reason = "pushing submission entries whose memory the ring owns"
)]

use std::io;

use io_uring::squeue;

use super::NetRing;
use super::sys::{self, Wait};

/// Pieces of one vectored send; what is beyond goes out with the continuation of a partial send.
pub(super) const PIECES_MAX: usize = 256;

const HEADERS: usize = 128;
const IOVECS: usize = 1024;
const _: () = assert!(PIECES_MAX <= IOVECS, "a send's list fits into one block");

/// Headers and iovecs of the sends that the kernel has not yet taken over.
///
/// Blocks never move, and are reused once nothing is waiting for submission.
#[derive(Default)]
pub(super) struct Headers {
    headers: Vec<Box<[libc::msghdr]>>,
    headers_used: usize,
    iovecs: Vec<Box<[libc::iovec]>>,
    iovec_block: usize,
    iovecs_used: usize,
}

impl Headers {
    /// Writes the list of chunks and a header for it; both stay in place until [`Self::reset`].
    pub(super) fn message<'a>(
        &mut self,
        chunks: impl Iterator<Item = &'a [u8]>,
        count: usize,
    ) -> *const libc::msghdr {
        let count = count.min(PIECES_MAX);
        if self.iovecs_used + count > IOVECS {
            self.iovec_block += 1;
            self.iovecs_used = 0;
        }
        if self.iovec_block == self.iovecs.len() {
            let empty = libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            };
            self.iovecs.push(vec![empty; IOVECS].into_boxed_slice());
        }
        let block = &mut self.iovecs[self.iovec_block];
        let list = &mut block[self.iovecs_used..self.iovecs_used + count];
        self.iovecs_used += count;
        for (entry, chunk) in list.iter_mut().zip(chunks) {
            entry.iov_base = chunk.as_ptr().cast_mut().cast();
            entry.iov_len = chunk.len();
        }
        let iovecs = list.as_mut_ptr();

        let block = self.headers_used / HEADERS;
        if block == self.headers.len() {
            // SAFETY: a header of zeroes is a valid header of nothing.
            let empty: libc::msghdr = unsafe { std::mem::zeroed() };
            self.headers.push(vec![empty; HEADERS].into_boxed_slice());
        }
        let header = &mut self.headers[block][self.headers_used % HEADERS];
        self.headers_used += 1;
        header.msg_iov = iovecs;
        header.msg_iovlen = count as _;
        header
    }

    /// Forgets every message: nothing that points here waits for submission any more.
    pub(super) fn reset(&mut self) {
        self.headers_used = 0;
        self.iovec_block = 0;
        self.iovecs_used = 0;
    }
}

impl NetRing {
    /// Queues an entry. When the queue is full what is in it is submitted; when the kernel takes
    /// nothing (it is short of memory), the entry waits in the backlog, in order.
    ///
    /// The caller keeps the contract at the head of this file.
    pub(super) fn push(&mut self, entry: &squeue::Entry) {
        self.stats.submissions += 1;
        if self.backlog.is_empty() {
            if self.push_now(entry) {
                return;
            }
            self.stats.submission_full += 1;
            // An error leaves the entries where they are; the next turn tries again.
            let _ = self.submit();
            if self.push_now(entry) {
                return;
            }
        }
        self.backlog.push_back(entry.clone());
    }

    fn push_now(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: by the contract at the head of this file the entry's memory is valid for as
        // long as the kernel uses it.
        unsafe { self.kernel.submission().push(entry).is_ok() }
    }

    /// Gives what is queued to the kernel in the middle of a turn. What it does not take goes with the
    /// next wait.
    pub(crate) fn submit_queued(&mut self) {
        if !self.kernel.submission().is_empty() {
            let _ = self.submit();
        }
    }

    /// Gives everything queued to the kernel without waiting.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.enter(None)
    }

    /// One enter; with `wait` it also runs the kernel's deferred work and waits.
    pub(super) fn enter(&mut self, wait: Option<Wait>) -> io::Result<()> {
        let queued = self.kernel.submission().len() as u32;
        self.stats.enters += 1;
        let result = sys::enter(self.enter_fd, queued, self.enter_flags, wait);
        if self.nothing_queued() {
            self.unsubmitted_sends.clear();
        }
        result.map(drop)
    }

    /// True when the kernel has taken every entry.
    pub(super) fn nothing_queued(&mut self) -> bool {
        self.backlog.is_empty() && self.kernel.submission().is_empty()
    }

    /// Moves the backlog into the submission queue as far as the kernel takes it.
    pub(super) fn work_off_backlog(&mut self) {
        while let Some(entry) = self.backlog.front().cloned() {
            if !self.push_now(&entry) && (self.submit().is_err() || !self.push_now(&entry)) {
                return;
            }
            self.backlog.pop_front();
        }
    }
}
