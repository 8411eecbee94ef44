//! Where a new connection goes (pure): what the registry says of each node, crossed with what its
//! probes and flows say, on top of the ring and the placement of `flux_registry`.

mod node;
mod routes;
mod table;

pub use node::Node;
pub use routes::{Route, Routes};
pub use table::{Changes, NodeStatus, Placed, ProbeTarget, Table};

#[cfg(test)]
mod tests;
