//! Where a client is in a channel's history.

use std::fmt;

/// Names one life of a channel's history: 8 ASCII letters. Offsets of different epochs have
/// nothing to do with one another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch([u8; Self::LEN]);

impl Epoch {
    /// Length of the text.
    pub const LEN: usize = 8;

    /// The epoch made of these random bits.
    #[must_use]
    pub fn from_random(bits: u64) -> Self {
        const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let mut rest = bits;
        Self(std::array::from_fn(|_| {
            let letter = LETTERS[(rest % 52) as usize];
            rest /= 52;
            letter
        }))
    }

    /// The epoch that a text names; none of ours looks like any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let letters: [u8; Self::LEN] = text.as_bytes().try_into().ok()?;
        letters
            .iter()
            .all(u8::is_ascii_alphabetic)
            .then_some(Self(letters))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // ASCII by construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A place in a channel's history: everything up to and including `offset` has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamPosition {
    /// Which life of the history.
    pub epoch: Epoch,
    /// From 1; 0 before the first publication.
    pub offset: u64,
}

/// The epoch that a client names along with its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KnownEpoch {
    /// None: whichever there is.
    Any,
    /// One that may be the channel's.
    Is(Epoch),
    /// Text that no epoch of ours looks like.
    Foreign,
}

impl KnownEpoch {
    /// What a client's text names.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match Epoch::parse(text) {
            _ if text.is_empty() => Self::Any,
            Some(epoch) => Self::Is(epoch),
            None => Self::Foreign,
        }
    }

    /// Whether the client's offset counts in `epoch`.
    #[must_use]
    pub fn matches(self, epoch: Epoch) -> bool {
        match self {
            Self::Any => true,
            Self::Is(known) => known == epoch,
            Self::Foreign => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_eight_letters_and_comes_back_from_its_text() {
        for bits in [0, 7, u64::MAX] {
            let epoch = Epoch::from_random(bits);
            assert_eq!(Epoch::parse(epoch.as_str()), Some(epoch));
            assert!(KnownEpoch::parse(epoch.as_str()).matches(epoch));
        }
        assert_ne!(Epoch::from_random(1), Epoch::from_random(2));
        for foreign in ["x", "1234abcd", "abcdefghi"] {
            assert_eq!(KnownEpoch::parse(foreign), KnownEpoch::Foreign, "{foreign}");
        }
        assert!(KnownEpoch::parse("").matches(Epoch::from_random(3)));
    }
}
