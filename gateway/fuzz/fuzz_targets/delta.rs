//! A delta makes its target and is smaller; of text it is text. Bytes that are no delta make no panic, and no more memory
//! than source and delta account for.
#![no_main]

use flux_gateway::protocol::delta;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pair: (Vec<u8>, Vec<u8>)| {
    let (source, target) = pair;
    let mut out = Vec::new();
    if delta::Encoder::new().encode(&source, &target, &mut out) {
        assert!(out.len() < target.len());
        assert!(std::str::from_utf8(&target).is_err() || std::str::from_utf8(&out).is_ok());
        assert_eq!(delta::apply(&source, &out).as_deref(), Ok(&*target));
    } else {
        assert!(out.is_empty());
    }
    if let Ok(made) = delta::apply(&source, &target) {
        assert!(made.len() <= source.len() * target.len() + target.len());
    }
});
