//! The fields of a message into bytes.
//!
//! A message stands behind its length, so each is described once ([`Encode::fields`]) and gone
//! through twice: counted, then written. Counting touches lengths only, and what is nested `n` deep
//! is counted `n` times, with `n` at most four in this schema.

/// Where fields go.
pub(super) trait Sink: Sized {
    fn raw(&mut self, bytes: &[u8]);

    /// A number in groups of seven bits, the lowest first.
    fn varint(&mut self, number: u64);

    /// A message behind its length.
    fn delimited(&mut self, message: &impl Encode);

    /// A message, whether it has fields or not.
    fn message(&mut self, number: u32, message: &impl Encode) {
        self.key(number, 2);
        self.delimited(message);
    }

    /// Bytes, but for none.
    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.key(number, 2);
            self.varint(bytes.len() as u64);
            self.raw(bytes);
        }
    }

    /// Text, but for none.
    fn text(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    /// A number, but for 0.
    fn number(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.key(number, 0);
            self.varint(value);
        }
    }

    /// True, but for false.
    fn flag(&mut self, number: u32, is_set: bool) {
        self.number(number, u64::from(is_set));
    }

    fn key(&mut self, number: u32, kind: u32) {
        self.varint(u64::from(number << 3 | kind));
    }
}

/// A message that can be written.
pub(super) trait Encode {
    /// Hands its fields out, in the order of their numbers.
    fn fields(&self, to: &mut impl Sink);
}

/// Counts bytes.
struct Count(usize);

impl Sink for Count {
    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn varint(&mut self, number: u64) {
        // Seven bits a byte; 0 takes one.
        let bits = 64 - (number | 1).leading_zeros() as usize;
        self.0 += bits.div_ceil(7);
    }

    fn delimited(&mut self, message: &impl Encode) {
        let before = self.0;
        message.fields(self);
        self.varint((self.0 - before) as u64);
    }
}

impl Sink for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn varint(&mut self, number: u64) {
        let mut rest = number;
        while rest > 0x7f {
            self.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.push(rest as u8);
    }

    fn delimited(&mut self, message: &impl Encode) {
        let mut count = Count(0);
        message.fields(&mut count);
        self.reserve(count.0 + 10);
        self.varint(count.0 as u64);
        message.fields(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_takes_the_bytes_that_were_counted() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit]);
        for number in edges.chain([u64::MAX]) {
            let (mut count, mut out) = (Count(0), Vec::new());
            count.varint(number);
            out.varint(number);
            assert_eq!(count.0, out.len(), "{number}");
        }
    }
}
