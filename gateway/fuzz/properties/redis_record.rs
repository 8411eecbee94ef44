//! Whatever comes out of Redis as a message or as somebody who is present, it is refused or comes back as it was.

pub(crate) fn check(bytes: &[u8]) {
    assert!(flux_gateway::engine::redis::examine(bytes));
}
