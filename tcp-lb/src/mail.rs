//! What control thread and shards tell each other.

use std::sync::Arc;
use std::time::Instant;

use crate::balance::{Node, Routes};
use crate::health::FlowFailure;

/// To a shard.
#[derive(Debug)]
pub enum Mail {
    /// Place new connections by these from now on.
    Routes(Box<Routes>),
    /// This node is gone: cut its flows, so that their clients reconnect.
    Cut(Arc<Node>),
    /// Accept nothing more; cut what is left evenly until then, and stop.
    Drain {
        /// When the last flow is cut.
        until: Instant,
    },
}

/// From a shard. Lost when the control thread does not keep up: each repeats itself while it matters.
#[derive(Debug)]
pub enum Report {
    /// A flow failed on its way to a node.
    Failed(Arc<Node>, FlowFailure),
    /// The first flow since then that the node answered.
    Answered(Arc<Node>),
}
