//! The id of a client's connection: 16 random bytes, text only when printed.

use std::fmt;

/// Names one connection of one client. On the wire it is UUID text (RFC 9562, version 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId([u8; 16]);

impl ClientId {
    /// Length of the text.
    pub const TEXT_LEN: usize = 36;

    /// The id made of 128 random bits, of which a UUID keeps 122.
    #[must_use]
    pub const fn from_random(bits: u128) -> Self {
        let mut bytes = bits.to_be_bytes();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// The id from the bytes of another process's record of it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id that a text names, as [`ClientId::text`] writes it; upper case is taken too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != Self::TEXT_LEN {
            return None;
        }
        let mut bits: u128 = 0;
        for (at, byte) in text.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return None;
                }
                continue;
            }
            bits = bits << 4 | u128::from(char::from(*byte).to_digit(16)?);
        }
        Some(Self(bits.to_be_bytes()))
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The text, lower case, without allocation.
    #[must_use]
    pub fn text(&self) -> [u8; Self::TEXT_LEN] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; Self::TEXT_LEN];
        let mut at = 0;
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = DIGITS[usize::from(byte >> 4)];
            text[at + 1] = DIGITS[usize::from(byte & 0x0f)];
            at += 2;
        }
        text
    }

    /// 32 of its random bits, for what must differ from client to client.
    #[must_use]
    pub(crate) const fn random_bits(&self) -> u32 {
        let bytes = &self.0;
        u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.text()))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_back_and_nothing_else_is() {
        let id = ClientId::from_random(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(ClientId::parse(&id.to_string()), Some(id));
        for bad in [
            "",
            "00112233-4455-4677-8899-aabbccddeef",
            "00112233+4455-4677-8899-aabbccddeeff",
        ] {
            assert_eq!(ClientId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn prints_as_a_version_4_uuid() {
        let id = ClientId::from_random(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(id.to_string(), "00112233-4455-4677-8899-aabbccddeeff");
        let id = ClientId::from_random(u128::MAX);
        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
