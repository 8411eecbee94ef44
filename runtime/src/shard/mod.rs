//! A shard: one thread, pinned to a core, with a net ring and a service that owns everything it
//! touches.
//!
//! The thread runs a glommio executor. One long-lived task of it parks in the net ring; glommio's
//! own queues get a turn at most once a millisecond, and only while there is something in them
//! ([`spawn_local`]).
//!
//! Invariants
//! - A park lasts at most [`PARK_MAX`], so a shard whose turn counter stands still for longer
//!   after a wake is stuck.
//! - A panic in the service ends this shard only, and reaches whoever joins it.
//! - The service is dropped before the ring: payloads and sockets that it holds go first, then the
//!   ring cancels what is in flight.

mod tasks;
mod thread;

use std::io;
use std::time::{Duration, Instant};

use crate::ring::{Completion, NetRing, RingConfig, RingError};

pub use tasks::spawn_local;
pub use thread::{ShardThread, spawn};

/// Longest park: bounds how old the turn counter of a living shard can be.
pub const PARK_MAX: Duration = Duration::from_millis(500);

/// What a shard does. Everything runs on the shard's thread; nothing here may block.
pub trait Service {
    /// Takes one completion. `now` is the time of this turn, or a later one where it has many.
    fn on_completion(&mut self, ring: &mut NetRing, completion: Completion, now: Instant);

    /// Once per turn, after its completions: take mail, advance timers, queue sends; they are
    /// submitted together when this returns. `now` is when the completions were taken; while the ring is
    /// [behind](NetRing::is_behind) it stands still, so that no timer overtakes what had happened before it.
    fn on_turn(&mut self, ring: &mut NetRing, now: Instant) -> Turn;
}

/// What comes after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Wait for completions or a wake, at most until then (and at most [`PARK_MAX`]). A time in
    /// the past takes another turn at once.
    WaitUntil(Option<Instant>),
    /// The shard is done.
    Stop,
}

/// How to make a shard.
#[derive(Clone, Debug)]
pub struct ShardSpec {
    /// Its number, from 0.
    pub index: usize,
    /// The cpu to pin it to; `None` leaves it where the scheduler wants it.
    pub cpu: Option<usize>,
    /// Name of the thread (the kernel keeps 15 bytes).
    pub name: String,
    /// Sizes of its net ring.
    pub ring: RingConfig,
}

/// A shard cannot start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The thread could not be made.
    #[error("shard {index}: no thread: {source}")]
    Thread {
        /// The shard.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The net ring could not be made.
    #[error("shard {index}: {source}")]
    Ring {
        /// The shard.
        index: usize,
        /// Why, with the remedy.
        source: RingError,
    },
    /// glommio's executor could not be made; most often its cpu or memory is not allowed.
    #[error(
        "shard {index}: executor: {reason} (is the cpu in this process's set, and is memlock at least 512 KiB? try --doctor)"
    )]
    Executor {
        /// The shard.
        index: usize,
        /// What glommio said.
        reason: String,
    },
    /// The service could not be built.
    #[error("shard {index}: {source}")]
    Build {
        /// The shard.
        index: usize,
        /// What its `build` returned.
        source: io::Error,
    },
    /// The shard's thread panicked.
    #[error("shard {index} panicked: {message}")]
    Panicked {
        /// The shard.
        index: usize,
        /// The panic's message.
        message: String,
    },
}

#[cfg(test)]
mod tests;
