//! The JSON wire format: one document a line, several lines a message.

mod decode;
mod encode;
mod scan;

use std::borrow::Cow;

pub use decode::{Commands, decode};
pub use encode::{encode_client_info, encode_ping, encode_push, encode_reply};
pub use scan::Malformed;

/// A valid JSON value on one line. Line ends can only stand between its tokens; on the wire they
/// would end the line, or an event in a stream of server-sent events.
#[must_use]
pub fn on_one_line(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\r', b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut line = value.to_vec();
    for byte in &mut line {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_between_tokens_become_blanks() {
        assert!(matches!(on_one_line(b"{\"a\":1}"), Cow::Borrowed(_)));
        assert_eq!(&*on_one_line(b"{\r\n\"a\\n\":\n1}"), b"{  \"a\\n\": 1}");
    }
}
