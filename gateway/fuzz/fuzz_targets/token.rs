//! Whatever comes as a token, as claims or as a key set: the parsers do not panic.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    flux_gateway::token::examine(text, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
});
