//! One fuzz target for every property: `FLUX_FUZZ_TARGET` names the one that is run.
#![no_main]

use std::sync::OnceLock;

#[path = "../properties/mod.rs"]
mod properties;

static CHOSEN: OnceLock<fn(&[u8])> = OnceLock::new();

fn choose() -> fn(&[u8]) {
    let name = std::env::var("FLUX_FUZZ_TARGET").unwrap_or_default();
    let found = properties::ALL.iter().find(|(known, _)| *known == name);
    let names: Vec<_> = properties::ALL.iter().map(|(known, _)| *known).collect();
    found
        .unwrap_or_else(|| panic!("FLUX_FUZZ_TARGET is `{name}`; use one of {names:?}"))
        .1
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| CHOSEN.get_or_init(choose)(bytes));
