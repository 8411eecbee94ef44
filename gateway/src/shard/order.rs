//! What the control plane tells a shard to do.

use std::time::Instant;

use flux_runtime::ring::NetRing;

use super::Shard;

/// Orders that may wait for a shard; the drain sends a few a second.
pub const ORDERS_MAX: usize = 256;

/// One order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Take what the kernel has queued, then accept nobody any more.
    StopAccepting,
    /// Close that many clients, chosen at random, so that they reconnect elsewhere.
    Close(usize),
    /// Cut every connection that is left.
    CutAll,
    /// End the shard.
    Stop,
}

impl Shard {
    pub(super) fn follow_orders(&mut self, ring: &mut NetRing, now: Instant) {
        while let Some(order) = self.orders.pop() {
            match order {
                Order::StopAccepting => self.stop_accepting(ring, now),
                Order::Close(count) => self.drain(ring, count, now),
                Order::CutAll => self.cut_all(ring),
                Order::Stop => self.is_stopping = true,
            }
        }
    }
}
