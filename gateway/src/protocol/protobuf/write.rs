//! The fields of a message into bytes.
//!
//! A message stands behind its length, which is known when its fields have been written: so they
//! are written once, behind room for the length, and nothing is gone through before to be counted.
//! How much room, the message's payload tells ([`Encode::len_min`]); where its other fields make the
//! length a byte longer than that, the message moves.

/// Where fields go.
pub(super) struct Fields<'o> {
    out: &'o mut Vec<u8>,
}

/// A message that can be written.
pub(super) trait Encode {
    /// Hands its fields out, in the order of their numbers.
    fn fields(&self, to: &mut Fields<'_>);

    /// Bytes that its fields take at least: those of its payload, for a message that has a large one.
    fn len_min(&self) -> usize {
        0
    }
}

/// Appends a message behind its length.
pub(super) fn delimited(out: &mut Vec<u8>, message: &impl Encode) {
    Fields { out }.delimited(message);
}

/// Inlined is what takes a field's number: where that is known its key is one byte, without a loop.
impl Fields<'_> {
    /// A message, whether it has fields or not.
    pub(super) fn message(&mut self, number: u32, message: &impl Encode) {
        self.key(number, 2);
        self.delimited(message);
    }

    /// Bytes, but for none.
    #[inline]
    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.key(number, 2);
            self.varint(bytes.len() as u64);
            self.out.extend_from_slice(bytes);
        }
    }

    /// Text, but for none.
    pub(super) fn text(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    /// A number, but for 0.
    #[inline]
    pub(super) fn number(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.key(number, 0);
            self.varint(value);
        }
    }

    /// True, but for false.
    pub(super) fn flag(&mut self, number: u32, is_set: bool) {
        self.number(number, u64::from(is_set));
    }

    fn key(&mut self, number: u32, kind: u32) {
        self.varint(u64::from(number << 3 | kind));
    }

    /// A number in groups of seven bits, the lowest first.
    #[inline]
    fn varint(&mut self, number: u64) {
        match number {
            0..=0x7f => self.out.push(number as u8),
            0x80..=0x3fff => self.out.extend_from_slice(&two_bytes(number)),
            _ => self.long_varint(number),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self, number: u64) {
        let mut rest = number;
        while rest > 0x7f {
            self.out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.out.push(rest as u8);
    }

    fn delimited(&mut self, message: &impl Encode) {
        let start = self.out.len();
        let len_min = message.len_min();
        self.varint(len_min as u64);
        let body = self.out.len();
        message.fields(self);
        let len = self.out.len() - body;
        debug_assert!(len >= len_min, "room for too long a length");
        match (body - start, len) {
            (1, 0..=0x7f) => self.out[start] = len as u8,
            (2, 0x80..=0x3fff) => self.out[start..body].copy_from_slice(&two_bytes(len as u64)),
            _ => self.long_length(start, body, len),
        }
    }

    /// A length of several bytes from `start` on, before the body that stands already. Apart, so
    /// that what writes a short message stays small enough to be inlined.
    #[inline(never)]
    fn long_length(&mut self, start: usize, body: usize, len: usize) {
        let (mut at, mut rest) = (start, len);
        while at < body {
            self.out[at] = rest as u8 | 0x80;
            rest >>= 7;
            at += 1;
        }
        // More than the payload told: the body moves.
        while rest > 0 {
            self.out.insert(at, rest as u8 | 0x80);
            rest >>= 7;
            at += 1;
        }
        self.out[at - 1] &= 0x7f;
    }
}

/// A number of 8 to 14 bits.
fn two_bytes(number: u64) -> [u8; 2] {
    [number as u8 | 0x80, (number >> 7) as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in messages in a message, which say that they take `len_min` bytes.
    struct Nested<'a> {
        bytes: &'a [u8],
        depth: u32,
        len_min: usize,
    }

    impl Encode for Nested<'_> {
        fn fields(&self, to: &mut Fields<'_>) {
            match self.depth {
                0 => to.bytes(1, self.bytes),
                depth => to.message(
                    1,
                    &Nested {
                        depth: depth - 1,
                        ..*self
                    },
                ),
            }
        }

        fn len_min(&self) -> usize {
            self.len_min
        }
    }

    /// The same by hand, from the inside to the outside.
    fn by_hand(bytes: &[u8], depth: u32) -> Vec<u8> {
        let mut message = bytes.to_vec();
        for _ in 0..=depth {
            let mut field = vec![0x0a];
            Fields { out: &mut field }.varint(message.len() as u64);
            field.append(&mut message);
            message = field;
        }
        let mut out = Vec::new();
        Fields { out: &mut out }.varint(message.len() as u64);
        out.append(&mut message);
        out
    }

    #[test]
    fn a_message_stands_behind_its_length_whatever_room_was_left_for_it() {
        let bytes = vec![7; (1 << 14) + 3];
        for len in (1..300).chain((1 << 14) - 20..=bytes.len()) {
            let bytes = &bytes[..len];
            for len_min in [0, 1, len / 2, len] {
                let mut out = b"before".to_vec();
                let depth = 2;
                let nested = Nested {
                    bytes,
                    depth,
                    len_min,
                };
                delimited(&mut out, &nested);
                assert_eq!(out[6..], by_hand(bytes, depth), "{len} bytes, {len_min}");
                assert_eq!(&out[..6], b"before");
            }
        }
    }

    #[test]
    fn numbers_take_seven_bits_a_byte() {
        for (number, expected) in [
            (0, &b"\x00"[..]),
            (0x7f, b"\x7f"),
            (0x80, b"\x80\x01"),
            (300, b"\xac\x02"),
            (0x3fff, b"\xff\x7f"),
            (0x4000, b"\x80\x80\x01"),
            (u64::MAX, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ] {
            let mut out = Vec::new();
            Fields { out: &mut out }.varint(number);
            assert_eq!(out, expected, "{number}");
        }
    }
}
