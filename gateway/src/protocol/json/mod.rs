//! The JSON wire format: one document a line, several lines a message.

mod decode;
mod encode;
mod scan;
mod write;

use std::borrow::Cow;

pub use decode::{Commands, decode, decode_connect_request};
pub use encode::{encode_bare_push, encode_client_info, encode_ping, encode_push, encode_reply};
pub use scan::Malformed;
pub use write::encode_text;

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

/// Checks that `bytes` are one JSON value on one line, nested no deeper than is let through from
/// clients: what another process says is data must not break the frame that it is put into.
///
/// # Errors
/// Where they are not.
pub fn check_value(bytes: &[u8]) -> Result<(), Malformed> {
    check(bytes)?;
    match memchr::memchr2(b'\r', b'\n', bytes) {
        None => Ok(()),
        Some(at) => Err(Malformed { at, expected: LINE }),
    }
}

/// Whether `bytes` are one JSON value, as `check_value` has it but on any number of lines: what
/// [`on_one_line`] may be used on.
#[must_use]
pub fn is_value(bytes: &[u8]) -> bool {
    check(bytes).is_ok()
}

const LINE: &str = "JSON on one line";

fn check(bytes: &[u8]) -> Result<(), Malformed> {
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| Malformed {
        at: 0,
        expected: LINE,
    })?;
    let mut scanner = scan::Scanner::new(text);
    scanner.value()?;
    scanner.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_on_one_line() {
        for good in [&b"{\"a\":[1]}"[..], b" 1 ", b"\"\\n\""] {
            assert_eq!(check_value(good), Ok(()));
        }
        for bad in [&b""[..], b"{", b"1 2", b"[\n]", b"\"\xff\"", b"{}\r"] {
            assert!(check_value(bad).is_err(), "{bad:?}");
        }
        assert!(is_value(b"[\n1]\r") && !is_value(b"[\n"));
    }

    #[test]
    fn line_ends_between_tokens_become_blanks() {
        assert!(matches!(on_one_line(b"{\"a\":1}"), Cow::Borrowed(_)));
        assert_eq!(&*on_one_line(b"{\r\n\"a\\n\":\n1}"), b"{  \"a\\n\": 1}");
    }
}
