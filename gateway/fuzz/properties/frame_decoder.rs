//! The events do not depend on how the bytes are cut, and memory stays within what has come.

use flux_gateway::websocket::{CloseReason, Decoder, Limits};

const LIMITS: Limits = Limits {
    message_bytes_max: 1024,
    message_fragments_max: 16,
};

/// The first byte is the length of the pieces that the rest is cut into.
pub(crate) fn check(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = decode(bytes, usize::MAX);
    assert_eq!(whole, decode(bytes, 1));
    assert_eq!(whole, decode(bytes, usize::from(*piece).max(1)));
}

fn decode(bytes: &[u8], piece: usize) -> (Vec<String>, Result<(), CloseReason>) {
    let mut decoder = Decoder::new();
    let mut bytes = bytes.to_vec();
    let mut events = Vec::new();
    let mut taken = 0;
    for piece in bytes.chunks_mut(piece) {
        taken += piece.len();
        let fed = decoder.feed(piece, &LIMITS, &mut |event| {
            events.push(format!("{event:?}"));
        });
        if let Err(reason) = fed {
            return (events, Err(reason));
        }
        assert!(decoder.heap_bytes() <= 512 + 2 * taken);
    }
    (events, Ok(()))
}
