//! Whatever comes as a token or as claims, what it grants is what its client can be sent.

use std::time::{Duration, UNIX_EPOCH};

use flux_gateway::protocol::json::check_value;

pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for granted in flux_gateway::token::examine(text, now) {
        assert!(granted.is_empty() || check_value(&granted).is_ok());
    }
}
