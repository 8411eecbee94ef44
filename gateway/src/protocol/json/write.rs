//! JSON as it is written: values, fields of an object, and what stands between them.

use crate::protocol::client_id::ClientId;

/// The fields of an object; those with a zero value are left out.
pub(super) struct Fields<'o> {
    pub(super) out: &'o mut Vec<u8>,
    is_first: bool,
}

impl<'o> Fields<'o> {
    /// Opens the object.
    pub(super) fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self {
            out,
            is_first: true,
        }
    }

    /// Goes on in an object that has fields.
    pub(super) fn more(out: &'o mut Vec<u8>) -> Self {
        Self {
            out,
            is_first: false,
        }
    }

    pub(super) fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.name(name);
            string(self.out, text);
        }
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        if value > 0 {
            self.name(name);
            number(self.out, value);
        }
    }

    pub(super) fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            self.name(name);
            self.out.extend_from_slice(b"true");
        }
    }

    /// JSON as it is.
    pub(super) fn raw(&mut self, name: &str, json: &[u8]) {
        if !json.is_empty() {
            self.name(name);
            self.out.extend_from_slice(json);
        }
    }

    pub(super) fn expiry(&mut self, ttl_seconds: Option<u32>) {
        if let Some(seconds) = ttl_seconds {
            self.flag("expires", true);
            self.number("ttl", u64::from(seconds));
        }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }
}

pub(super) fn comma(out: &mut Vec<u8>, at: usize) {
    if at > 0 {
        out.push(b',');
    }
}

pub(super) fn separate(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b'\n');
    }
}

pub(super) fn client(out: &mut Vec<u8>, client: ClientId) {
    out.push(b'"');
    out.extend_from_slice(&client.text());
    out.push(b'"');
}

pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends text as a JSON string.
pub fn encode_text(out: &mut Vec<u8>, text: &str) {
    string(out, text);
}

/// A JSON string (RFC 8259, 7): quotes, backslashes and control characters escaped, nothing else.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 0x0f)]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(text in ".*") {
            let json = written(|out| string(out, &text));
            proptest::prop_assert!(!json.contains(['\r', '\n']));
            let back: String = serde_json::from_str(&json).expect("valid JSON");
            proptest::prop_assert_eq!(back, text);
        }

        #[test]
        fn any_number_is_read_back_as_it_was(value: u64) {
            let json = written(|out| number(out, value));
            proptest::prop_assert_eq!(json, value.to_string());
        }
    }
}
