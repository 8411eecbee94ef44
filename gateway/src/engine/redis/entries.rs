//! An entry of a channel's presence hash: who is there, on which node, in which generation of it.

use redis::Value;

use super::record::{Rejected, client_info, put_info};
use super::scripts::bytes;
use crate::protocol::ClientInfo;
use crate::pubsub::OwnedClientInfo;

const MAGIC: &[u8; 4] = b"FLP1";

/// Fields and values of a hash, in either form that Redis may give it.
pub(super) fn fields(answer: &Value) -> impl Iterator<Item = (&[u8], &[u8])> {
    let (pairs, flat) = match answer {
        Value::Map(pairs) => (&pairs[..], &[][..]),
        Value::Array(flat) => (&[][..], &flat[..]),
        _ => (&[][..], &[][..]),
    };
    let pairs = pairs.iter().map(|(field, value)| (field, value));
    let flat = flat.chunks_exact(2).map(|pair| (&pair[0], &pair[1]));
    pairs
        .chain(flat)
        .filter_map(|(field, value)| Some((bytes(field)?, bytes(value)?)))
}

/// An entry, as [`entry`] reads it.
pub(super) fn written(node: &str, generation: u64, info: ClientInfo<'_>) -> Vec<u8> {
    let mut entry = MAGIC.to_vec();
    // The registry's limit for ids is far below.
    let node = &node.as_bytes()[..node.len().min(usize::from(u8::MAX))];
    entry.push(node.len() as u8);
    entry.extend_from_slice(node);
    entry.extend_from_slice(&generation.to_be_bytes());
    put_info(&mut entry, info);
    entry
}

/// An entry, taken apart: node, its generation, the client.
pub(super) fn entry(value: &[u8]) -> Result<(&str, u64, OwnedClientInfo), Rejected> {
    let rest = value.strip_prefix(MAGIC).ok_or(Rejected::Format)?;
    let (len, rest) = rest.split_first().ok_or(Rejected::Content)?;
    let (node, rest) = rest
        .split_at_checked(usize::from(*len))
        .ok_or(Rejected::Content)?;
    let node = std::str::from_utf8(node).map_err(|_| Rejected::Content)?;
    let (generation, rest) = rest.split_first_chunk().ok_or(Rejected::Content)?;
    match client_info(rest)? {
        (info, b"") => Ok((node, u64::from_be_bytes(*generation), info.into())),
        _ => Err(Rejected::Content),
    }
}

/// Whether an entry that is accepted is, written again, the same entry.
pub(super) fn examine(value: &[u8]) -> bool {
    match entry(value) {
        Ok((node, generation, info)) => written(node, generation, info.as_ref()) == value,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_entry_makes_it_panic(rest: Vec<u8>) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&rest);
            let _ = entry(&bytes);
        }
    }
}
