//! The fields of a message, one by one, where they stand.

/// Bytes that are not the message that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A message or field ends before its length.
    #[error("a message that ends too early")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("a number that does not fit")]
    Overlong,
    /// A field without a number, or of a kind that the format does not have.
    #[error("a field that cannot be")]
    Field,
    /// A known field with another kind of value than the schema's.
    #[error("a field of the wrong kind")]
    Kind,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Text,
}

/// A place in a message. Each method reads one thing from there and leaves the place behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// What stands in a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// 32 or 64 bits without a length: no field of the schema.
    Fixed,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub(super) const fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field: its number and its value; none at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.number()?).map_err(|_| Malformed::Field)?;
        let number = key >> 3;
        if number == 0 {
            return Err(Malformed::Field);
        }
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => {
                self.take(8)?;
                Value::Fixed
            }
            2 => Value::Bytes(self.delimited()?),
            5 => {
                self.take(4)?;
                Value::Fixed
            }
            // 3 and 4 are groups, which no version of the schema has: without them nothing nests
            // that the schema does not name.
            _ => return Err(Malformed::Field),
        };
        Ok(Some((number, value)))
    }

    /// Bytes with their length before them.
    pub(super) fn delimited(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.number()?).map_err(|_| Malformed::Truncated)?;
        self.take(len)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A number in groups of seven bits, the lowest first.
    #[inline]
    fn number(&mut self) -> Result<u64, Malformed> {
        match self.rest {
            // Keys, flags and most lengths.
            [byte @ 0..=0x7f, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_number(),
        }
    }

    #[inline(never)]
    fn long_number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0u64;
        for (at, byte) in self.rest.iter().enumerate() {
            // The tenth byte holds the last of 64 bits.
            if at == 9 && *byte > 1 {
                return Err(Malformed::Overlong);
            }
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(number);
            }
        }
        Err(Malformed::Truncated)
    }
}

impl<'a> Value<'a> {
    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        simdutf8::basic::from_utf8(self.bytes()?).map_err(|_| Malformed::Text)
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Fixed => Err(Malformed::Kind),
        }
    }

    pub(super) fn message(self) -> Result<Reader<'a>, Malformed> {
        self.bytes().map(Reader::new)
    }

    /// A number; a field of fewer bits takes its lowest (`as` at the caller).
    pub(super) fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) | Self::Fixed => Err(Malformed::Kind),
        }
    }

    pub(super) fn flag(self) -> Result<bool, Malformed> {
        self.number().map(|number| number != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_at_most_64_bits_and_ten_bytes() {
        let number = |bytes: &[u8]| Reader::new(bytes).number();
        assert_eq!(number(b"\x00"), Ok(0));
        assert_eq!(number(b"\xac\x02"), Ok(300));
        assert_eq!(number(b"\x80\x00"), Ok(0), "longer than need be is allowed");
        let all = [&[0xff; 9][..], &[1]].concat();
        assert_eq!(number(&all), Ok(u64::MAX));
        let more = [&[0xff; 9][..], &[2]].concat();
        assert_eq!(number(&more), Err(Malformed::Overlong));
        assert_eq!(number(&[0x80; 11]), Err(Malformed::Overlong));
        assert_eq!(number(b"\xff"), Err(Malformed::Truncated));
        assert_eq!(number(b""), Err(Malformed::Truncated));
    }

    #[test]
    fn a_field_that_cannot_be_is_refused() {
        for (bytes, error) in [
            (&b"\x00\x00"[..], Malformed::Field),
            (b"\x0b", Malformed::Field),
            (b"\x0c", Malformed::Field),
            (b"\x0e", Malformed::Field),
            (b"\x80\x80\x80\x80\x80\x01\x00", Malformed::Field),
            (b"\x0a\x02a", Malformed::Truncated),
            (
                b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                Malformed::Truncated,
            ),
            (b"\x0d123", Malformed::Truncated),
            (b"\x09123", Malformed::Truncated),
            (b"\x08", Malformed::Truncated),
        ] {
            assert_eq!(Reader::new(bytes).field().err(), Some(error), "{bytes:?}");
        }
    }
}
