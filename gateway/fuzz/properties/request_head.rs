//! A head that has ended gets the same verdict whole and byte by byte, and each refusal has a whole answer.

use flux_gateway::http::{
    AllowedOrigins, HEAD_BYTES_MAX, HeadScan, Policy, Progress, Request, Transports,
};

pub(crate) fn check(bytes: &[u8]) {
    let Ok(origins) = AllowedOrigins::new(&["https://*.example.com"]) else {
        return;
    };
    let transports = Transports {
        api: Some(1_024),
        ..Transports::all()
    };
    let policy = Policy {
        origins,
        echo: true,
        transports,
        ..Policy::default()
    };
    // The limit is the last occasion for a verdict.
    let mut bytes = bytes.to_vec();
    let given = bytes.len();
    bytes.resize(given.max(HEAD_BYTES_MAX), b'x');
    let whole = verdict(&bytes, usize::MAX, &policy);
    assert!(whole.is_some());
    let byte_by_byte = verdict(&bytes[..given], 1, &policy);
    assert!(byte_by_byte.is_none() || byte_by_byte == whole);
}

fn verdict(bytes: &[u8], piece: usize, policy: &Policy) -> Option<(String, usize)> {
    let mut scan = HeadScan::new();
    let mut end = 0;
    while end < bytes.len() {
        end = end.saturating_add(piece).min(bytes.len());
        if let Progress::Complete { request, head_len } = scan.advance(&bytes[..end], policy) {
            if let Request::Rejected(rejection) = request {
                assert!(rejection.answer().starts_with(b"HTTP/1.1 "));
            }
            return Some((format!("{request:?}"), head_len));
        }
    }
    None
}
