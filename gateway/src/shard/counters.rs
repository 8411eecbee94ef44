//! What one shard counts, readable from the control plane.
//!
//! Each counter has one writer, its shard, so an increment is a plain load and store: no locked
//! instruction on the data path.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::http::Rejection;
use crate::websocket::CloseReason;

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. Only the owning shard may call this.
    pub fn add(&self, count: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Replaces it. Only the owning shard may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Why a connection ended, as far as the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Ended {
    /// The client closed it with a close frame.
    ClientClosed,
    /// The client's side went away without one.
    ClientGone,
    /// It broke the protocol of the commands.
    Disconnected,
    /// It broke the framing rules.
    ProtocolError,
    /// It was too slow.
    Slow,
    /// It did not answer a ping.
    NoPong,
    /// It did not finish its request head, or never sent a connect command.
    Stale,
    /// It was closed by the drain.
    Drained,
    /// The drain had to cut it.
    Forced,
    /// A plain request was answered, or an upgrade refused.
    Answered,
}

impl Ended {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// Label values for the metric, in the order of the variants.
    pub const LABELS: [&'static str; Self::COUNT] = [
        "client_closed",
        "client_gone",
        "disconnected",
        "protocol_error",
        "slow",
        "no_pong",
        "stale",
        "drained",
        "forced",
        "answered",
    ];
}

/// The counters of one shard.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections now, in whatever phase.
    pub connections: Counter,
    /// Connections now that are in their last phase.
    pub closing: Counter,
    /// Clients now: connections that have finished their handshake, and streams.
    pub clients: Counter,
    /// Requests to `/emulation` with commands for this node.
    pub emulated: Counter,
    /// Of these, those that named a session that is not here, or not theirs.
    pub emulated_unknown: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Accepts that failed because the machine was out of something.
    pub accept_failures: Counter,
    /// Requests refused, by [`Rejection::ALL`].
    pub rejections: [Counter; Rejection::ALL.len()],
    /// Frames refused, by [`CloseReason::ALL`].
    pub frame_errors: [Counter; CloseReason::ALL.len()],
    /// PROXY headers refused.
    pub proxy_errors: Counter,
    /// Connections ended, by [`Ended`].
    pub ended: [Counter; Ended::COUNT],
    /// Messages received from clients.
    pub messages_in: Counter,
    /// Bytes received from clients.
    pub bytes_in: Counter,
    /// Publications taken from clients.
    pub published: Counter,
    /// Publications that clients were told could not be taken.
    pub publish_failures: Counter,
    /// Questions that found no room at the authority's door.
    pub questions_refused: Counter,
    /// Clients turned away because their user had as many connections as it may.
    pub user_limit_refusals: Counter,
    /// Messages to the backend, which nobody takes.
    pub messages_dropped: Counter,
    /// Sends given to the kernel.
    pub sends: Counter,
    /// Bytes sent to clients.
    pub bytes_out: Counter,
    /// Channels with subscribers.
    pub channels: Counter,
    /// Subscriptions.
    pub subscriptions: Counter,
    /// Publications times the subscribers they were for.
    pub deliveries: Counter,
    /// Channels whose subscribers were told that they missed something, because the engine had left
    /// it out.
    pub gaps: Counter,
    /// Slow consumers, by bytes.
    pub slow_bytes: Counter,
    /// Slow consumers, by time.
    pub slow_stuck: Counter,
    /// Rounds of fan-out.
    pub rounds: Counter,
    /// How long a connection rests between two sends of publications, in microseconds.
    pub rest_us: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Receives that found no buffer and had to wait for one.
    pub receive_buffer_shortages: Counter,
    /// Overflows of the completion queue.
    pub completion_overflows: Counter,
    /// Times that the ring was entered.
    pub ring_enters: Counter,
}

impl Counters {
    /// One client more. Only the owning shard may call this.
    pub(super) fn client_came(&self) {
        self.clients.set(self.clients.get() + 1);
    }

    /// One client less. Only the owning shard may call this.
    pub(super) fn client_left(&self) {
        self.clients.set(self.clients.get().saturating_sub(1));
    }
}
