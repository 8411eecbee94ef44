//! A delta makes its target and is smaller; of text it is text. Bytes that are no delta make no panic, and no more memory
//! than source and delta account for.

use flux_gateway::protocol::delta;

/// The first two bytes are the length of the source (big endian), which is followed by the target.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&len, both)) = bytes.split_first_chunk() else {
        return;
    };
    let (source, target) = both.split_at(usize::from(u16::from_be_bytes(len)).min(both.len()));
    let mut out = Vec::new();
    if delta::Encoder::new().encode(source, target, &mut out) {
        assert!(out.len() < target.len());
        assert!(std::str::from_utf8(target).is_err() || std::str::from_utf8(&out).is_ok());
        assert_eq!(delta::apply(source, &out).as_deref(), Ok(target));
    } else {
        assert!(out.is_empty());
    }
    if let Ok(made) = delta::apply(source, target) {
        assert!(made.len() <= source.len() * target.len() + target.len());
    }
}
