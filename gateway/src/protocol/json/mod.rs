//! The JSON wire format: one document a line, several lines a message.

mod decode;
mod encode;

use std::borrow::Cow;

pub use decode::{Commands, decode};
pub use encode::{encode_client_info, encode_ping, encode_push, encode_reply};

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

/// Whether arrays and objects stand inside one another deeper than `depth_max` in valid JSON.
#[must_use]
pub fn is_deeper_than(value: &[u8], depth_max: usize) -> bool {
    // Each level takes an opening and a closing byte.
    if value.len() / 2 <= depth_max {
        return false;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in value {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(!is_deeper_than(&nested(128), 128));
        assert!(is_deeper_than(&nested(129), 128));
        let quoted = format!(r#"["{}","\"{}"]"#, "[".repeat(500), "{".repeat(500));
        assert!(!is_deeper_than(quoted.as_bytes(), 128));
        let wide = format!("[{}0]", "[],{},".repeat(500));
        assert!(!is_deeper_than(wide.as_bytes(), 2));
        assert!(is_deeper_than(wide.as_bytes(), 1));
    }

    #[test]
    fn line_ends_between_tokens_become_blanks() {
        assert!(matches!(on_one_line(b"{\"a\":1}"), Cow::Borrowed(_)));
        assert_eq!(&*on_one_line(b"{\r\n\"a\\n\":\n1}"), b"{  \"a\\n\": 1}");
    }
}
