//! Reads JSON (RFC 8259) where it stands, without recursion and without memory of its own.
//!
//! Why not a library's parser: for data that is only passed on it would have to be validated and
//! measured, not read, and `serde_json` keeps the levels of such data on the heap, one allocation
//! a message. What is accepted is the same, and a test holds the two against each other.

use std::borrow::Cow;

use crate::limits::JSON_DEPTH_MAX;

/// Text that is not the JSON that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {expected} expected")]
pub struct Malformed {
    /// Where it stands in its line.
    pub at: usize,
    /// What should have stood there.
    pub expected: &'static str,
}

/// A place in JSON text. Each method reads one thing from there and leaves the place behind it.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// The levels that are open around a place; a bit each, set for an object.
struct Levels {
    objects: u128,
    depth: u32,
}

const _: () = assert!(JSON_DEPTH_MAX <= u128::BITS);

impl Levels {
    fn open(&mut self, object: bool) -> bool {
        self.objects = (self.objects << 1) | u128::from(object);
        self.depth += 1;
        self.depth <= JSON_DEPTH_MAX
    }

    fn close(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end")),
        }
    }

    /// An object, whose fields `field` is called for with their names; it reads the value. False
    /// for null.
    pub(super) fn object(
        &mut self,
        mut field: impl FnMut(&mut Self, &str) -> Result<(), Malformed>,
    ) -> Result<bool, Malformed> {
        match self.peek() {
            Some(b'{') => self.at += 1,
            Some(b'n') => {
                self.literal("null")?;
                return Ok(false);
            }
            _ => return Err(self.expected("an object")),
        }
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(true);
        }
        loop {
            let name = self.name()?;
            field(self, &name)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(true);
                }
                _ => return Err(self.expected("a comma or a brace")),
            }
        }
    }

    /// Text; empty for null. Borrowed unless it has escapes.
    pub(super) fn text(&mut self) -> Result<Cow<'a, str>, Malformed> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'n') => {
                self.literal("null")?;
                Ok(Cow::Borrowed(""))
            }
            _ => Err(self.expected("text")),
        }
    }

    /// Text whose opening quote stands here.
    fn quoted(&mut self) -> Result<Cow<'a, str>, Malformed> {
        let start = self.at;
        if self.string()? {
            return Ok(Cow::Borrowed(&self.text[start + 1..self.at - 1]));
        }
        match serde_json::from_str(&self.text[start..self.at]) {
            Ok(text) => Ok(Cow::Owned(text)),
            Err(_) => Err(Malformed {
                at: start,
                expected: "text of whole characters",
            }),
        }
    }

    /// A whole number; 0 for null.
    pub(super) fn integer<T: std::str::FromStr + Default>(&mut self) -> Result<T, Malformed> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => {
                let start = self.at;
                self.number()?;
                self.text[start..self.at].parse().map_err(|_| Malformed {
                    at: start,
                    expected: "a whole number of the right size",
                })
            }
            Some(b'n') => {
                self.literal("null")?;
                Ok(T::default())
            }
            _ => Err(self.expected("a number")),
        }
    }

    /// True or false; false for null.
    pub(super) fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.peek() {
            Some(b't') => self.literal("true").map(|()| true),
            Some(b'f') => self.literal("false").map(|()| false),
            Some(b'n') => self.literal("null").map(|()| false),
            _ => Err(self.expected("true or false")),
        }
    }

    /// Any value, as it stands.
    pub(super) fn value(&mut self) -> Result<&'a str, Malformed> {
        self.peek();
        let start = self.at;
        let mut levels = Levels {
            objects: 0,
            depth: 0,
        };
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(open @ (b'{' | b'[')) => {
                    if !levels.open(open == b'{') {
                        return Err(self.expected("a value less deep"));
                    }
                    self.at += 1;
                    // `]` is 2 behind `[`, and `}` behind `{`.
                    if self.peek() == Some(open + 2) {
                        self.at += 1;
                        levels.close();
                    } else {
                        if levels.in_object() {
                            self.any_name()?;
                        }
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                _ => return Err(self.expected("a value")),
            }
            // A value has ended; so may the levels around it.
            loop {
                if levels.depth == 0 {
                    return Ok(&self.text[start..self.at]);
                }
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if levels.in_object() {
                            self.any_name()?;
                        }
                        break;
                    }
                    Some(b'}') if levels.in_object() => {}
                    Some(b']') if !levels.in_object() => {}
                    _ => return Err(self.expected("a comma or the end of a level")),
                }
                self.at += 1;
                levels.close();
            }
        }
    }

    /// The name of a field with its colon.
    fn name(&mut self) -> Result<Cow<'a, str>, Malformed> {
        self.at_name()?;
        let name = self.quoted()?;
        self.colon()?;
        Ok(name)
    }

    /// The same where nobody asks what it is.
    fn any_name(&mut self) -> Result<(), Malformed> {
        self.at_name()?;
        self.string()?;
        self.colon()
    }

    fn at_name(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'"') => Ok(()),
            _ => Err(self.expected("the name of a field")),
        }
    }

    fn colon(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(b':') => {
                self.at += 1;
                Ok(())
            }
            _ => Err(self.expected("a colon")),
        }
    }

    /// A string whose opening quote stands here; whether it has no escapes.
    fn string(&mut self) -> Result<bool, Malformed> {
        self.at += 1;
        self.plain();
        if self.here() == Some(b'"') {
            self.at += 1;
            return Ok(true);
        }
        self.escaped().map(|()| false)
    }

    /// The rest of a string behind its first plain part. Apart, because most strings have no more.
    #[inline(never)]
    fn escaped(&mut self) -> Result<(), Malformed> {
        let bytes = self.text.as_bytes();
        loop {
            match self.here() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let long = match bytes.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                        Some(b'u') => 6,
                        _ => return Err(self.expected("an escape")),
                    };
                    let digits = bytes.get(self.at + 2..self.at + long);
                    if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                        return Err(self.expected("four hexadecimal digits"));
                    }
                    self.at += long;
                }
                _ => return Err(self.expected("a quote")),
            }
            self.plain();
        }
    }

    /// What stands before the next quote, backslash or control character.
    fn plain(&mut self) {
        self.at += plain_prefix(&self.text.as_bytes()[self.at..]);
    }

    /// A number that begins here.
    fn number(&mut self) -> Result<(), Malformed> {
        if self.here() == Some(b'-') {
            self.at += 1;
        }
        match self.here() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.here() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.here() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.here() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.here() {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.expected("a digit"));
        }
        Ok(())
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), Malformed> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.expected(literal));
        }
        self.at += literal.len();
        Ok(())
    }

    /// The byte behind the blanks that stand here.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.here() {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn here(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> Malformed {
        Malformed {
            at: self.at,
            expected,
        }
    }
}

/// How many bytes stand before the first quote, backslash or control character. Most strings are
/// names and short values: only what is longer is worth the vectors.
fn plain_prefix(bytes: &[u8]) -> usize {
    const SHORT: usize = 16;
    let Some((short, rest)) = bytes.split_at_checked(SHORT) else {
        return plain_by_words(bytes);
    };
    let plain = plain_by_words(short);
    if plain < SHORT {
        return plain;
    }
    let plain = SHORT + plain_blocks(rest);
    plain + plain_by_words(&bytes[plain..])
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// How many bytes the blocks take that stand before the first with a special byte. It is not asked
/// which byte that is: so the compiler makes vector instructions of it.
#[inline(never)]
fn plain_blocks(bytes: &[u8]) -> usize {
    const LEN: usize = 32;
    let (blocks, _) = bytes.as_chunks::<LEN>();
    let is_plain = |block: &&[u8; LEN]| {
        let mark = |found, byte: &u8| found | is_special(*byte);
        !block.iter().fold(false, mark)
    };
    LEN * blocks.iter().take_while(is_plain).count()
}

/// The same as [`plain_prefix`], eight bytes at a time.
fn plain_by_words(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    // The high bit of each byte that is zero, and perhaps of zero's upper neighbours.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, chunk) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let backslashes = zeros(word ^ (ONES * u64::from(b'\\')));
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = quotes | backslashes | controls;
        if found != 0 {
            // A borrow only reaches upwards, so the lowest bit is always true.
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let behind = rest.iter().position(|byte| is_special(*byte));
    words.len() * 8 + behind.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// Text that is nearly JSON.
    fn nearly_json() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            Just("{".to_owned()),
            Just("}".to_owned()),
            Just("[".to_owned()),
            Just("]".to_owned()),
            Just(",".to_owned()),
            Just(":".to_owned()),
            Just(" ".to_owned()),
            Just("\r\n\t".to_owned()),
            Just("true".to_owned()),
            Just("null".to_owned()),
            Just("fals".to_owned()),
            Just("\"a\":".to_owned()),
            Just("\"".to_owned()),
            "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?",
            "[-+.0-9eE]{1,4}",
            "\"(\\\\(u[0-9a-fA-F]{3,4}|[\"\\\\/bfnrtux])|[ -~é\u{1F600}\u{1}]){0,12}\"",
        ];
        proptest::collection::vec(token, 1..12).prop_map(|tokens| tokens.concat())
    }

    fn valid_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,30}".prop_map(Into::into),
        ];
        let value = leaf.prop_recursive(6, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::vec((".{0,9}", inner), 0..6)
                    .prop_map(|fields| { serde_json::Value::Object(fields.into_iter().collect()) }),
            ]
        });
        (value, any::<bool>()).prop_map(|(value, pretty)| {
            let text = if pretty {
                serde_json::to_string_pretty(&value)
            } else {
                serde_json::to_string(&value)
            };
            text.expect("a value is JSON")
        })
    }

    fn ours(text: &str) -> Option<&str> {
        let mut scanner = Scanner::new(text);
        let value = scanner.value().ok()?;
        scanner.end().ok()?;
        Some(value)
    }

    fn theirs(text: &str) -> Option<&str> {
        serde_json::from_str::<&RawValue>(text)
            .ok()
            .map(RawValue::get)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn values_are_what_serde_json_takes_for_values(text in nearly_json()) {
            prop_assert_eq!(ours(&text), theirs(&text));
        }

        #[test]
        fn valid_values_are_taken_whole(text in valid_json()) {
            prop_assert_eq!(ours(&text), Some(text.as_str()));
        }

        #[test]
        fn text_is_what_serde_json_takes_for_text(text in nearly_json()) {
            let mut scanner = Scanner::new(&text);
            let ours = scanner.text().and_then(|text| scanner.end().map(|()| text.into_owned()));
            let theirs = serde_json::from_str::<Option<String>>(&text);
            prop_assert_eq!(ours.ok(), theirs.ok().map(Option::unwrap_or_default));
        }

        #[test]
        fn whole_numbers_are_what_serde_json_takes_for_them(text in "-?[0-9]{1,11}(\\.0)?(e1)?") {
            let mut scanner = Scanner::new(&text);
            let ours = scanner.integer::<u32>().and_then(|id| scanner.end().map(|()| id));
            prop_assert_eq!(ours.ok(), serde_json::from_str::<u32>(&text).ok());
        }

        #[test]
        fn plain_text_ends_where_it_does(bytes: Vec<u8>) {
            let end = bytes
                .iter()
                .position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\')
                .unwrap_or(bytes.len());
            prop_assert_eq!(plain_prefix(&bytes), end);
        }
    }

    #[test]
    fn plain_text_of_any_length_ends_where_it_does() {
        // The neighbours of the bytes that are looked for, and bytes of long characters.
        let plain = [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff];
        let text: Vec<u8> = plain.into_iter().cycle().take(150).collect();
        for len in 0..text.len() {
            assert_eq!(plain_prefix(&text[..len]), len);
            for special in [b'"', b'\\', 0, 0x1f] {
                let ended = [&text[..len], &[special], &text].concat();
                assert_eq!(plain_prefix(&ended), len, "{special}");
            }
        }
    }

    #[test]
    fn names_in_values_may_have_escapes_of_half_characters_as_text_in_values_may() {
        for text in [r#"{"\ud800":"\ud800"}"#, r#"[{"a":1,"\udc00\n":2}]"#] {
            assert_eq!(ours(text), Some(text));
            assert_eq!(theirs(text), Some(text));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: u32| {
                let depth = depth as usize;
                format!("{}1{}", open.repeat(depth), close.repeat(depth))
            };
            assert!(ours(&nested(JSON_DEPTH_MAX)).is_some());
            assert!(ours(&nested(JSON_DEPTH_MAX + 1)).is_none());
            assert!(ours(&nested(100_000)).is_none());
        }
        let wide = format!("[{}0]", "[[]],{},".repeat(1_000));
        assert!(ours(&wide).is_some());
    }
}
