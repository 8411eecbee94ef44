//! What a shard counts. Written by its thread alone, read by the control thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flux_runtime::ring::RingStats;

use crate::health::FlowFailure;

/// A counter with one writer: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed) + more, Relaxed);
    }

    /// Another value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// As of now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! meters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// The counters of one shard; each is documented by its text in the metrics.
        #[derive(Debug, Default)]
        pub struct Meters {
            $($(#[$doc])* pub $name: Count,)+
            /// Attempts that failed, by [`FlowFailure`].
            pub failures: [Count; FlowFailure::ALL.len()],
        }
    };
}

meters! {
    /// Connections accepted.
    accepted,
    /// Accepts that failed because descriptors or memory were short.
    accept_shortages,
    /// Connections to nodes that could not be begun for want of descriptors or memory.
    socket_shortages,
    /// Times the listener rested because of the accept rate or the bound on flows.
    accept_pauses,
    /// Connections closed because the process has as many flows as it may.
    refused_full,
    /// Connections closed because their source has.
    refused_source_full,
    /// Flows at present.
    flows,
    /// Connections placed by `sid`.
    placed_by_sid,
    /// Connections placed by source address.
    placed_by_source,
    /// Connections without a usable head (too long, too slow, not HTTP), passed on by source.
    opaque_heads,
    /// Attempts on another node after one failed.
    retries,
    /// Connections that no node could be found for.
    no_node,
    /// Flows cut because their node is gone.
    cut,
    /// Flows ended because one side took nothing for too long.
    stalled,
    /// Flows ended because they stood half closed for too long.
    half_closed_expired,
    /// Flows ended by a reset or another socket error.
    reset,
    /// Flows cut at the end of the drain.
    drained,
    /// Times a side was not read because the other did not keep up.
    backpressure,
    /// Receive buffers copied because few were left.
    copied,
    /// `io_uring_enter` calls.
    enters,
    /// Bytes received.
    bytes_received,
    /// Bytes sent.
    bytes_sent,
    /// Receives that found no buffer.
    no_buffers,
}

impl Meters {
    /// Counts an attempt that failed.
    pub fn failed(&self, failure: FlowFailure) {
        if let Some(at) = FlowFailure::ALL.iter().position(|one| *one == failure) {
            self.failures[at].add(1);
        }
    }

    /// Takes over what the ring counts; `besides` are bytes received without it.
    pub fn take_ring(&self, stats: &RingStats, besides: u64) {
        self.enters.set(stats.enters);
        self.bytes_received.set(stats.bytes_received + besides);
        self.bytes_sent.set(stats.bytes_sent);
        self.no_buffers.set(stats.no_buffers);
    }
}
