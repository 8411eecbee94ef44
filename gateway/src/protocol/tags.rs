//! Tags of a publication: pairs of text, packed into bytes that travel as they are.

/// The most that tags may take, packed, in bytes.
pub const TAGS_BYTES_MAX: usize = u16::MAX as usize;

/// Packed tags: for each, key and value with their lengths (two bytes, big-endian) before them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Tags<'a>(&'a [u8]);

impl<'a> Tags<'a> {
    /// No tags.
    pub const NONE: Tags<'static> = Tags(b"");

    /// Tags that another process, or this one earlier, has packed. `None` when they are broken.
    #[must_use]
    pub fn from_packed(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > TAGS_BYTES_MAX {
            return None;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            for _ in 0..2 {
                let (text, after) = text(rest)?;
                std::str::from_utf8(text).ok()?;
                rest = after;
            }
        }
        Some(Self(bytes))
    }

    /// Tags that have been in a [`Tags`] of this process before, which need no second look.
    #[must_use]
    pub(crate) const fn packed_before(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The packed form.
    #[must_use]
    pub const fn packed(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (key, after) = text(rest)?;
            let (value, after) = text(after)?;
            rest = after;
            // Both were text when they were packed or checked.
            Some((
                std::str::from_utf8(key).unwrap_or_default(),
                std::str::from_utf8(value).unwrap_or_default(),
            ))
        })
    }
}

impl std::fmt::Debug for Tags<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

/// Packs tags.
///
/// Returns `None` when they take more than [`TAGS_BYTES_MAX`].
pub fn pack<'t>(tags: impl IntoIterator<Item = (&'t str, &'t str)>) -> Option<Vec<u8>> {
    let mut packed = Vec::new();
    for (key, value) in tags {
        for text in [key, value] {
            packed.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
            packed.extend_from_slice(text.as_bytes());
        }
        if packed.len() > TAGS_BYTES_MAX {
            return None;
        }
    }
    Some(packed)
}

fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_back_as_they_were_packed_and_broken_ones_are_refused() {
        let tags = [("a", "1"), ("", "ü"), ("long", "")];
        let packed = pack(tags).expect("few");
        let read = Tags::from_packed(&packed).expect("as packed");
        assert!(read.iter().eq(tags));
        for end in 1..packed.len() {
            let cut = Tags::from_packed(&packed[..end]);
            assert!(cut.is_none_or(|cut| cut.iter().count() < tags.len()));
        }
        assert_eq!(Tags::from_packed(b"\0\x01\xff\0\0"), None);
        let long = "x".repeat(40_000);
        assert_eq!(pack([("a", &*long), ("b", &*long)]), None);
    }
}
