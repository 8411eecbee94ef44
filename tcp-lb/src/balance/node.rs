//! What shards and control thread share of one node: counters, nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

/// One node, from the time it is first listed until it is gone for good. A node that comes back
/// after that is another `Node`, so that cutting the flows of the old one never hits the new one's.
///
/// Touched when a flow opens or ends, never for a message; each figure stands for itself, so that no
/// ordering between them is needed.
#[derive(Debug)]
pub struct Node {
    id: Arc<str>,
    reported: AtomicU64,
    since_report: AtomicI64,
    flows: AtomicU64,
    opened: AtomicU64,
    suspect: AtomicBool,
}

impl Node {
    /// A node without flows.
    pub fn new(id: Arc<str>) -> Arc<Node> {
        Arc::new(Node {
            id,
            reported: AtomicU64::new(0),
            since_report: AtomicI64::new(0),
            flows: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
        })
    }

    /// Its id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Takes the node's own count of its connections; what opens here from now on comes on top.
    pub fn report(&self, connections: u64) {
        self.reported.store(connections, Relaxed);
        self.since_report.store(0, Relaxed);
    }

    /// A flow to it begins (its connect is under way).
    pub fn flow_begins(&self) {
        self.flows.fetch_add(1, Relaxed);
        self.opened.fetch_add(1, Relaxed);
        self.since_report.fetch_add(1, Relaxed);
    }

    /// A flow to it is over.
    pub fn flow_ends(&self) {
        self.flows.fetch_sub(1, Relaxed);
        self.since_report.fetch_sub(1, Relaxed);
    }

    /// Flows of this balancer to it.
    pub fn flows(&self) -> u64 {
        self.flows.load(Relaxed)
    }

    /// Flows begun so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// A flow failed on its way to it.
    pub fn flow_failed(&self) {
        self.suspect.store(true, Relaxed);
    }

    /// A flow was answered; true if that clears a suspicion and is worth a report.
    pub fn flow_answered(&self) -> bool {
        self.suspect.load(Relaxed) && self.suspect.swap(false, Relaxed)
    }

    /// Its load: what it reported and what has changed here since.
    pub fn load(&self) -> u64 {
        self.reported
            .load(Relaxed)
            .saturating_add_signed(self.since_report.load(Relaxed))
    }
}
