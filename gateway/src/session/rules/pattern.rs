//! `channel_regex`: what the names of a namespace's channels look like.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Largest compiled pattern, in bytes; beyond it the configuration is refused.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A regular expression, compiled once at start; empty: none. Matching takes time in proportion to
/// the name, whatever the pattern.
///
/// As in Centrifugo, it need not match from the beginning to the end unless it says so, and `\w`,
/// `\d`, `\s` are ASCII, unless the pattern names characters beyond ASCII.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelPattern {
    text: String,
    regex: Option<Regex>,
}

impl ChannelPattern {
    /// Compiles the pattern.
    ///
    /// # Errors
    /// Where it is not a regular expression, or too large.
    pub fn new(text: &str) -> Result<Self, String> {
        let regex = if text.is_empty() {
            None
        } else {
            let build = |unicode| {
                RegexBuilder::new(text)
                    .unicode(unicode)
                    .size_limit(PATTERN_BYTES_MAX)
                    .build()
            };
            let regex = build(false)
                .or_else(|_| build(true))
                .map_err(|error| format!("channel_regex `{text}`: {error}"))?;
            Some(regex)
        };
        Ok(Self {
            text: text.to_owned(),
            regex,
        })
    }

    /// Whether a name fits; none where there is no pattern.
    #[must_use]
    pub fn matches(&self, name: &str) -> Option<bool> {
        self.regex
            .as_ref()
            .map(|regex| regex.is_match(name.as_bytes()))
    }
}

impl PartialEq for ChannelPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ChannelPattern {}

impl fmt::Debug for ChannelPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(formatter)
    }
}

impl TryFrom<String> for ChannelPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl From<ChannelPattern> for String {
    fn from(pattern: ChannelPattern) -> Self {
        pattern.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_anywhere_and_its_classes_are_ascii() {
        let matches =
            |pattern: &str, name: &str| ChannelPattern::new(pattern).expect(pattern).matches(name);
        assert_eq!(matches("", "anything"), None);
        assert_eq!(matches("[0-9]", "room-1"), Some(true));
        assert_eq!(matches("^[a-z]+$", "room-1"), Some(false));
        assert_eq!(matches(r"^\d+$", "42"), Some(true));
        assert_eq!(matches(r"^\d+$", "\u{664}\u{662}"), Some(false));
        assert_eq!(matches("^[а-я]+$", "комната"), Some(true));
        assert!(ChannelPattern::new("(").is_err());
        assert!(ChannelPattern::new("(a{1000}){1000}").is_err());
    }
}
