//! The events do not depend on how the bytes are cut, and memory stays within what has come.
#![no_main]

use flux_gateway::websocket::{CloseReason, Decoder, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { message_bytes_max: 1024, message_fragments_max: 16 };

fn decode(bytes: &[u8], piece: usize) -> (Vec<String>, Result<(), CloseReason>) {
    let mut decoder = Decoder::new();
    let mut bytes = bytes.to_vec();
    let mut events = Vec::new();
    let mut taken = 0;
    for piece in bytes.chunks_mut(piece) {
        taken += piece.len();
        if let Err(reason) = decoder.feed(piece, &LIMITS, &mut |event| events.push(format!("{event:?}"))) {
            return (events, Err(reason));
        }
        assert!(decoder.heap_bytes() <= 512 + 2 * taken);
    }
    (events, Ok(()))
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let whole = decode(bytes, usize::MAX);
    assert_eq!(whole, decode(bytes, 1));
    assert_eq!(whole, decode(bytes, usize::from(piece).max(1)));
});
