//! A message that is not whole yet: what of it has come, with UTF-8 checked as it comes (RFC 6455 §5.4, §8.1).

use super::close::CloseReason;
use super::decoder::Event;
use super::header::OpenMessage;

/// An open message. Its memory grows with the bytes that have come, never with a length that was claimed.
#[derive(Debug)]
pub(super) struct Message {
    payload: Payload,
    /// Frames begun so far.
    fragments: u32,
}

#[derive(Debug)]
enum Payload {
    Text(Text),
    Binary(Vec<u8>),
}

impl Message {
    pub(super) fn text() -> Message {
        Message {
            payload: Payload::Text(Text::default()),
            fragments: 1,
        }
    }

    pub(super) fn binary() -> Message {
        Message {
            payload: Payload::Binary(Vec::new()),
            fragments: 1,
        }
    }

    /// A further frame of this message has begun.
    pub(super) fn continued(&mut self) {
        self.fragments = self.fragments.saturating_add(1);
    }

    pub(super) fn open(&self) -> OpenMessage {
        let bytes = match &self.payload {
            Payload::Text(text) => text.valid.len() + usize::from(text.tail_len),
            Payload::Binary(bytes) => bytes.len(),
        };
        OpenMessage {
            bytes,
            fragments: self.fragments,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        match &mut self.payload {
            Payload::Text(text) => text.push(bytes),
            Payload::Binary(all) => {
                all.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// The last frame is complete.
    pub(super) fn finish(&self) -> Result<Event<'_>, CloseReason> {
        match &self.payload {
            Payload::Text(text) if text.tail_len > 0 => Err(CloseReason::InvalidUtf8),
            Payload::Text(text) => Ok(Event::Text(&text.valid)),
            Payload::Binary(bytes) => Ok(Event::Binary(bytes)),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match &self.payload {
            Payload::Text(text) => text.valid.capacity(),
            Payload::Binary(bytes) => bytes.capacity(),
        }
    }
}

/// Text so far. Invariants: `tail` holds the first `tail_len` (0-3) bytes of a character whose end has not come, and
/// they can still become a character; no byte is looked at twice but those.
#[derive(Debug, Default)]
struct Text {
    valid: String,
    tail: [u8; 4],
    tail_len: u8,
}

impl Text {
    /// Fails at the first byte that no text can contain, even in the middle of a frame.
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), CloseReason> {
        while self.tail_len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return Ok(());
            };
            bytes = rest;
            let len = usize::from(self.tail_len);
            self.tail[len] = byte;
            match std::str::from_utf8(&self.tail[..=len]) {
                Ok(character) => {
                    self.valid.push_str(character);
                    self.tail_len = 0;
                }
                // Three bytes can be incomplete, four cannot: the index stays within the array.
                Err(error) if error.error_len().is_none() => self.tail_len += 1,
                Err(_) => return Err(CloseReason::InvalidUtf8),
            }
        }

        let (whole, tail) = bytes.split_at(bytes.len() - incomplete_tail(bytes));
        let whole = simdutf8::basic::from_utf8(whole).map_err(|_| CloseReason::InvalidUtf8)?;
        self.valid.push_str(whole);
        if !tail.is_empty() {
            match std::str::from_utf8(tail) {
                Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => {}
                _ => return Err(CloseReason::InvalidUtf8),
            }
            self.tail[..tail.len()].copy_from_slice(tail);
            self.tail_len = tail.len() as u8;
        }
        Ok(())
    }
}

/// How many of the last bytes (0-3) begin a character that goes on beyond them.
fn incomplete_tail(bytes: &[u8]) -> usize {
    for (behind, &byte) in bytes.iter().rev().take(3).enumerate() {
        let wanted = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            _ => return 0,
        };
        return if wanted > behind + 1 { behind + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push_in_two(bytes: &[u8], cut: usize) -> Result<(String, u8), CloseReason> {
        let mut text = Text::default();
        text.push(&bytes[..cut])?;
        text.push(&bytes[cut..])?;
        Ok((text.valid, text.tail_len))
    }

    #[test]
    fn text_is_the_same_however_it_is_cut() {
        let source = "κόσμε z\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff} end";
        for cut in 0..=source.len() {
            assert_eq!(
                push_in_two(source.as_bytes(), cut),
                Ok((source.to_owned(), 0)),
                "cut {cut}"
            );
        }
    }

    #[test]
    fn invalid_text_fails_at_its_first_impossible_byte() {
        // (bytes, how many of them can still become text)
        let cases: [(&[u8], usize); 9] = [
            (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90", 12),
            (b"ab\x80", 2),
            (b"\xc0\x80", 0),
            (b"\xc1", 0),
            (b"\xe0\x9f\x80", 1),
            (b"\xed\xa0\x80", 1),
            (b"\xf0\x8f\x80\x80", 1),
            (b"\xf5", 0),
            (b"\xf0\x9f\x98a", 3),
        ];
        for (bytes, possible) in cases {
            let mut text = Text::default();
            for (at, byte) in bytes.iter().enumerate() {
                let verdict = text.push(std::slice::from_ref(byte));
                assert_eq!(verdict.is_err(), at == possible, "{bytes:x?} at {at}");
                if verdict.is_err() {
                    break;
                }
            }
            for cut in 0..=bytes.len() {
                assert!(push_in_two(bytes, cut).is_err(), "{bytes:x?} cut at {cut}");
            }
        }
    }
}
