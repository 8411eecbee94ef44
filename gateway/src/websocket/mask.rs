//! The masking key (RFC 6455 §5.3): an exclusive or with four bytes, over and over.

/// Removes (or applies) the mask in place. `key` is the key as it applies to the first byte of `payload`: for the
/// continuation of a payload it comes from [`rotate`].
///
/// The work goes in blocks of 32 bytes, which the compiler turns into vector instructions; what is left is at most one
/// step of 16, 8 and 4 bytes and three single bytes, so short messages do not pay for the width.
#[inline]
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let word = u64::from(u32::from_ne_bytes(key));
    let word = word << 32 | word;

    let (blocks, rest) = payload.as_chunks_mut::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks_mut::<8>();
        for bytes in words {
            *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
        }
    }
    let (words, rest) = rest.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    let rest = match rest.split_first_chunk_mut::<4>() {
        Some((bytes, rest)) => {
            *bytes = (u32::from_ne_bytes(*bytes) ^ u32::from_ne_bytes(key)).to_ne_bytes();
            rest
        }
        None => rest,
    };
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// The key as it applies `consumed` bytes further on.
#[inline]
pub(super) fn rotate(mut key: [u8; 4], consumed: usize) -> [u8; 4] {
    key.rotate_left(consumed % 4);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte_by_byte(payload: &mut [u8], key: [u8; 4]) {
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[index % 4];
        }
    }

    #[test]
    fn wide_words_give_what_single_bytes_give_at_every_length_offset_and_cut() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let source: Vec<u8> = (0..200u32).map(|n| (n * 7 + 3) as u8).collect();
        for offset in 0..33 {
            for len in 0..(source.len() - offset) {
                let mut expected = source[offset..offset + len].to_vec();
                byte_by_byte(&mut expected, key);
                let mut whole = source.clone();
                unmask(&mut whole[offset..offset + len], key);
                assert_eq!(
                    whole[offset..offset + len],
                    expected,
                    "offset {offset} len {len}"
                );
            }
        }
        for cut in 0..=source.len() {
            let mut expected = source.clone();
            byte_by_byte(&mut expected, key);
            let mut parts = source.clone();
            let (first, second) = parts.split_at_mut(cut);
            unmask(first, key);
            unmask(second, rotate(key, cut));
            assert_eq!(parts, expected, "cut {cut}");
        }
    }
}
