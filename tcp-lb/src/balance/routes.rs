//! What a shard places connections by: one copy each, replaced when a node's standing changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use flux_registry::{Choice, Placement, PlacementConfig};

use super::Node;

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
}

impl Routes {
    /// No node at all.
    pub fn none() -> Routes {
        Routes {
            placement: Placement::new(Vec::new(), PlacementConfig::default()),
            routes: Vec::new(),
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
        Routes { placement, routes }
    }

    /// Where a connection with this key goes, and where it goes when that fails.
    pub fn choose(&mut self, key: u64, now: Instant) -> Option<Choice> {
        for (index, route) in self.routes.iter().enumerate() {
            if let Some(member) = self.placement.member_at_mut(index) {
                member.load = route.node.load();
            }
        }
        self.placement.choose(key, now)
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
