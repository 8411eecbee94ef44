//! Messages from any thread to a shard: a bounded lock-free queue, and a wake through the shard's
//! net ring that costs a system call only when the shard is parked.
//!
//! Invariants
//! - What a sender pushed before its wake is seen by the receiver's turn after that wake: no wake
//!   is lost (see `wake`).
//! - A full mailbox refuses; it never blocks and never grows.

mod signal;
mod wake;

use std::fmt;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

pub use wake::{WakeSource, Waker, wake_pair};

/// The mailbox is full: the message comes back.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the mailbox is full")]
pub struct Full<T>(pub T);

/// Puts messages into a shard's mailbox, from any thread.
pub struct Sender<T> {
    queue: Arc<ArrayQueue<T>>,
    waker: Waker,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            queue: Arc::clone(&self.queue),
            waker: self.waker.clone(),
        }
    }
}

impl<T> Sender<T> {
    /// Puts a message in and wakes the shard.
    ///
    /// # Errors
    /// [`Full`] with the message; the shard is woken all the same, as it has work to do.
    pub fn try_send(&self, message: T) -> Result<(), Full<T>> {
        let result = self.queue.push(message).map_err(Full);
        self.waker.wake();
        result
    }

    /// Puts a message in without waking; follow a batch of these with one [`Self::wake`].
    ///
    /// # Errors
    /// [`Full`] with the message.
    pub fn push(&self, message: T) -> Result<(), Full<T>> {
        self.queue.push(message).map_err(Full)
    }

    /// Wakes the shard.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True when no message waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("len", &self.queue.len())
            .finish_non_exhaustive()
    }
}

/// Takes messages out, on the shard's thread, once per turn.
pub struct Receiver<T> {
    queue: Arc<ArrayQueue<T>>,
}

impl<T> Receiver<T> {
    /// The oldest message.
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True when no message waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Messages that fit in.
    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("len", &self.queue.len())
            .finish_non_exhaustive()
    }
}

/// A mailbox for at most `capacity` messages (at least 1) whose senders wake through `waker`.
pub fn mailbox<T>(capacity: usize, waker: Waker) -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(ArrayQueue::new(capacity.max(1)));
    (
        Sender {
            queue: Arc::clone(&queue),
            waker,
        },
        Receiver { queue },
    )
}

#[cfg(all(test, flux_loom))]
mod model;
#[cfg(all(test, not(flux_loom)))]
mod tests;
