//! Whatever the backend answers, what it grants is what its client can be sent.

use std::time::{Duration, UNIX_EPOCH};

use flux_gateway::protocol::json::check_value;

pub(crate) fn check(answer: &[u8]) {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for granted in flux_gateway::backend::examine(answer, now) {
        assert!(granted.is_empty() || check_value(&granted).is_ok());
    }
}
