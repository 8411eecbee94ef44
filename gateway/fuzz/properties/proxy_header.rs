//! The first verdict is the last, and what is written is read.

use std::net::SocketAddr;

use flux_runtime::proxy_protocol::{HEADER_BYTES_MAX, Parse, SIGNATURE, encode_v2, parse_v2};

/// An odd first byte puts the signature before the rest.
pub(crate) fn check(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let signature: &[u8] = if first % 2 == 1 { &SIGNATURE } else { b"" };
    let bytes = [signature, rest].concat();
    let whole = parse_v2(&bytes);
    let first = (0..=bytes.len())
        .map(|end| parse_v2(&bytes[..end]))
        .find(|verdict| *verdict != Parse::Incomplete);
    assert_eq!(first.unwrap_or(Parse::Incomplete), whole);
    if let Parse::Proxy { len, source } = whole {
        assert!(len <= bytes.len().min(HEADER_BYTES_MAX));
        if let Some(source) = source {
            let again = encode_v2(source, SocketAddr::from(([192, 0, 2, 1], 80)));
            let len = again.len();
            let source = Some(source);
            assert_eq!(parse_v2(&again), Parse::Proxy { len, source });
        }
    }
}
