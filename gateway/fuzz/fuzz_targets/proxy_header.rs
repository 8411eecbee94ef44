//! The first verdict is the last, and what is written is read.
#![no_main]

use std::net::SocketAddr;

use flux_runtime::proxy_protocol::{HEADER_BYTES_MAX, Parse, SIGNATURE, encode_v2, parse_v2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (signed, noise) = input;
    let bytes = if signed { [&SIGNATURE[..], &noise].concat() } else { noise };
    let whole = parse_v2(&bytes);
    let first = (0..=bytes.len()).map(|end| parse_v2(&bytes[..end])).find(|verdict| *verdict != Parse::Incomplete);
    assert_eq!(first.unwrap_or(Parse::Incomplete), whole);
    if let Parse::Proxy { len, source } = whole {
        assert!(len <= bytes.len().min(HEADER_BYTES_MAX));
        if let Some(source) = source {
            let again = encode_v2(source, SocketAddr::from(([192, 0, 2, 1], 80)));
            assert_eq!(parse_v2(&again), Parse::Proxy { len: again.len(), source: Some(source) });
        }
    }
});
