//! Frames that were seen before: every subscriber of a channel is sent the same bytes, so a frame that was parsed
//! and checked for one is only compared for the others.

/// Frames that are kept: at thousands of publications a second those of the last half second.
const FRAMES: usize = 4096;

/// The frames of the latest publications, by their sequence numbers.
#[derive(Debug)]
pub(crate) struct Twins(Vec<(u64, Vec<u8>)>);

impl Twins {
    pub(crate) fn new() -> Self {
        Self(vec![(u64::MAX, Vec::new()); FRAMES])
    }

    /// Bytes of the frame of publication `sequence`, if it stands at the start of `bytes`, whole and as it was seen.
    pub(crate) fn find(&self, sequence: u64, bytes: &[u8]) -> Option<usize> {
        let (number, frame) = &self.0[sequence as usize % FRAMES];
        (*number == sequence && bytes.starts_with(frame)).then_some(frame.len())
    }

    /// Keeps the frame of publication `sequence`, in place of one that came `FRAMES` before.
    pub(crate) fn keep(&mut self, sequence: u64, frame: &[u8]) {
        let kept = &mut self.0[sequence as usize % FRAMES];
        kept.0 = sequence;
        kept.1.clear();
        kept.1.extend_from_slice(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_of_the_same_publication_are_a_twin() {
        let mut twins = Twins::new();
        assert_eq!(twins.find(0, b"frame"), None);
        twins.keep(7, b"frame");
        assert_eq!(twins.find(7, b"frame and more"), Some(5));
        assert_eq!(twins.find(7, b"fram"), None);
        assert_eq!(twins.find(7, b"other"), None);
        assert_eq!(twins.find(8, b"frame"), None);
        twins.keep(7 + FRAMES as u64, b"later");
        assert_eq!(twins.find(7, b"frame"), None);
    }
}
