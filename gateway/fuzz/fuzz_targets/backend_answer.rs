//! Whatever the backend answers: the parsers do not panic.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;

fuzz_target!(|answer: &[u8]| {
    flux_gateway::backend::examine(answer, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
});
