//! The pure parts of the registry's client. Within a module of their own: they have limits too.
#![allow(dead_code, unreachable_pub, reason = "as much as the cases need")]

#[path = "../../registry-client/src/limits.rs"]
pub(crate) mod limits;
#[path = "../../registry-client/src/placement.rs"]
pub(crate) mod placement;
#[path = "../../registry-client/src/ring.rs"]
pub(crate) mod ring;
