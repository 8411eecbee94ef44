//! Fossil deltas: a publication told by how it differs from the one before in its channel.
//!
//! | what | file |
//! |---|---|
//! | a delta from two payloads | `create` |
//! | a payload from the one before and a delta | `apply` |
//!
//! The format, as text: the target's length and a line end; then commands, `LENGTH@OFFSET,` for a
//! stretch of the source and `LENGTH:BYTES` for new bytes; then `SUM;`, a checksum of the target.
//! Numbers are in base 64 with the digits `0-9A-Z_a-z~`, the most significant first. The checksum
//! is the sum, modulo 2^32, of the target's 32-bit big-endian words, the last one filled up with
//! zeros.

mod apply;
mod create;

pub use apply::{Malformed, apply};
pub use create::Encoder;

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

fn checksum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words
        .iter()
        .chain([&last])
        .fold(0, |sum, word| sum.wrapping_add(u32::from_be_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delta(source: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let is_smaller = Encoder::new().encode(source, target, &mut out);
        assert!(out.starts_with(b"before"));
        assert!(is_smaller || out == b"before");
        is_smaller.then(|| out.split_off(6))
    }

    #[test]
    fn deltas_made_by_hand() {
        // Worked out on paper from the format's description.
        for (source, delta, target) in [
            (&b""[..], &b"0\n0;"[..], &b""[..]),
            (b"", b"5\n5:hello3NPMmh;", b"hello"),
            (b"hello world", b"B\nB@0,19x_VR;", b"hello world"),
            (b"hello world", b"5\n5@6,3RRs9h;", b"world"),
            (b"abc", b"6\n3@0,3@0,33mMDX;", b"abcabc"),
        ] {
            match apply(source, delta) {
                Ok(made) => assert_eq!(made, target),
                Err(error) => {
                    let sum = checksum(target);
                    panic!("{error} in {}: {sum}", String::from_utf8_lossy(delta))
                }
            }
        }
    }

    #[test]
    fn a_changed_number_in_a_document_costs_a_few_bytes() {
        let fields: String = (0..50).map(|n| format!("\"field{n}\":{n},")).collect();
        let source = format!("{{{fields}\"price\":100,\"name\":\"x\"}}");
        let target = source.replace("100", "101");
        let delta = delta(source.as_bytes(), target.as_bytes()).expect("smaller");
        assert!(delta.len() < 30, "{}", String::from_utf8_lossy(&delta));
        assert_eq!(apply(source.as_bytes(), &delta), Ok(target.into_bytes()));
    }

    #[test]
    fn stretches_that_moved_are_found() {
        let stretch = |n: u32| -> Vec<u8> {
            (0..200)
                .map(|at| (at * n * 7 + at * at + n) as u8)
                .collect()
        };
        let source = [stretch(1), stretch(2), stretch(3)].concat();
        let target = [stretch(3), stretch(1), stretch(2)].concat();
        let delta = delta(&source, &target).expect("smaller");
        assert!(delta.len() < 100, "{} bytes", delta.len());
        assert_eq!(apply(&source, &delta), Ok(target));
    }

    #[test]
    fn what_has_nothing_in_common_has_no_delta() {
        assert_eq!(delta(b"", b""), None);
        assert_eq!(delta(b"", b"abc"), None);
        assert_eq!(delta(&[b'a'; 100], &[b'b'; 100]), None);
    }

    #[test]
    fn what_is_longer_than_the_bound_has_no_delta() {
        let long = vec![b'x'; crate::limits::DELTA_BYTES_MAX + 1];
        assert_eq!(delta(&long, &long), None);
        assert!(delta(&long[1..], &long[1..]).is_some());
    }

    /// Data in which every place looks like every other.
    #[test]
    fn repetitive_data_takes_time_in_proportion_to_its_length() {
        let mut source = b"0123456789abcdef".repeat(4_096);
        let mut target = source.clone();
        for at in (0..target.len()).step_by(61) {
            target[at] = b'!';
        }
        source.rotate_left(5);
        let started = std::time::Instant::now();
        let made = delta(&source, &target);
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
        if let Some(delta) = made {
            assert_eq!(apply(&source, &delta), Ok(target));
        }
    }

    /// Pairs of texts or bytes that have much in common.
    fn pair() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let piece = prop_oneof![
            "[a-c]{0,40}".prop_map(String::into_bytes),
            "[ü\u{1F600}€a]{0,20}".prop_map(String::into_bytes),
            "\\PC{0,60}".prop_map(String::into_bytes),
        ];
        let bytes = prop_oneof![
            8 => piece,
            1 => prop::collection::vec(any::<u8>(), 0..60),
        ];
        let pieces = prop::collection::vec(bytes, 1..8);
        (
            pieces,
            prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..12),
        )
            .prop_map(|(pieces, order)| {
                let source = pieces.concat();
                let mut target = Vec::new();
                for (index, cut) in order {
                    let piece = index.get(&pieces);
                    target.extend_from_slice(if cut {
                        &piece[piece.len() / 3..]
                    } else {
                        piece
                    });
                }
                (source, target)
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn a_delta_makes_the_target_of_the_source_and_is_smaller((source, target) in pair()) {
            if let Some(delta) = delta(&source, &target) {
                prop_assert!(delta.len() < target.len());
                if std::str::from_utf8(&target).is_ok() {
                    prop_assert!(std::str::from_utf8(&delta).is_ok(), "a delta of text is text");
                }
                prop_assert_eq!(apply(&source, &delta), Ok(target));
            }
        }

        #[test]
        fn an_encoder_forgets_what_it_has_seen(pairs in prop::collection::vec(pair(), 1..4)) {
            let mut encoder = Encoder::new();
            for (source, target) in pairs {
                let mut out = Vec::new();
                let is_smaller = encoder.encode(&source, &target, &mut out);
                prop_assert_eq!(is_smaller.then_some(out), delta(&source, &target));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(source: Vec<u8>, delta in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "[0-9A-Z_a-z~]{1,3}\n([0-9A-Za-z]{1,2}@[0-9]{1,2},|[0-9]:[a-z]{0,9}){0,5}[0-9A-Z]{0,6};".prop_map(String::into_bytes),
        ]) {
            if let Ok(target) = apply(&source, &delta) {
                prop_assert!(target.len() <= source.len() * delta.len() + delta.len());
            }
        }
    }
}
