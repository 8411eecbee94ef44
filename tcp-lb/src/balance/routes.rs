//! What a shard places connections by: one copy each, replaced when a node's standing changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_registry::{Choice, Placement, PlacementConfig};

use super::Node;

/// The loads of all nodes are looked at again after so long for each of them. Others write them all the time, so a
/// look finds most of them gone from the cache: with 1,000 nodes that was a quarter of what a new connection cost.
const LOOK_AGAIN_PER_NODE: Duration = Duration::from_micros(10);

/// How to reach one node.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its counters.
    pub node: Arc<Node>,
    /// Where its clients connect.
    pub addr: SocketAddr,
}

/// Placement and addresses. `routes` are in the order of the placement's members.
#[derive(Debug, Clone)]
pub struct Routes {
    placement: Placement,
    routes: Vec<Route>,
    /// When the loads were looked at.
    looked: Option<Instant>,
}

impl Routes {
    /// No node at all.
    pub fn none() -> Routes {
        Routes {
            placement: Placement::new(Vec::new(), PlacementConfig::default()),
            routes: Vec::new(),
            looked: None,
        }
    }

    pub(super) fn new(placement: Placement, routes: Vec<Route>) -> Routes {
        debug_assert!(
            placement
                .members()
                .iter()
                .map(|member| &member.id)
                .eq(routes.iter().map(|route| route.node.id())),
            "routes are in the placement's order"
        );
        Routes {
            placement,
            routes,
            looked: None,
        }
    }

    /// Where a connection with this key goes, and where it goes when that fails. What other shards and the nodes say
    /// of the loads is at most [`LOOK_AGAIN_PER_NODE`] for each node old.
    pub fn choose(&mut self, key: u64, now: Instant) -> Option<Choice> {
        let hold = LOOK_AGAIN_PER_NODE * self.routes.len() as u32;
        if self.looked.is_none_or(|at| now >= at + hold) {
            self.looked = Some(now);
            self.look();
        }
        let choice = self.placement.choose(key, now)?;
        // Counts at once, so that a crowd behind one key is spread also between two looks.
        if let Some(member) = self.placement.member_at_mut(choice.member) {
            member.load = member.load.saturating_add(1);
        }
        Some(choice)
    }

    fn look(&mut self) {
        for (index, route) in self.routes.iter().enumerate() {
            if let Some(member) = self.placement.member_at_mut(index) {
                member.load = route.node.load();
            }
        }
    }

    /// The node at an index of a [`Choice`].
    pub fn route(&self, index: usize) -> Option<&Route> {
        self.routes.get(index)
    }

    /// All of them.
    pub fn all(&self) -> &[Route] {
        &self.routes
    }

    /// The placement as it was last used.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }
}
