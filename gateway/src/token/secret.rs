//! A value that nobody gets to see.

use std::fmt;

use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands for a secret wherever it would be shown.
const MASK: &str = "***";

/// A secret of the configuration. It comes from the file or the environment, never from a flag,
/// and neither `Debug` nor `Serialize` shows it: only whether there is one.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// A secret; an empty text is none.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// The secret itself, for whoever makes a key or a header of it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the secret, in a time that does not depend on how much of it is right.
    /// An unset secret is equal to nothing.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        // Two values are compared by their tags: neither length nor content shows in the time.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"flux-gateway: comparison of secrets");
        let expected = hmac::sign(&key, self.0.as_bytes());
        let is_equal = hmac::verify(&key, given, expected.as_ref()).is_ok();
        is_equal && self.is_set()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_set() { "set" } else { "unset" })
    }
}

impl Serialize for Secret {
    /// Empty where there is none, so that defaults survive the way through the layers of the
    /// configuration; else the mask.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_set() { MASK } else { "" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Somebody copied the output of --check-config: everybody would know that secret.
        if text == MASK {
            return Err(serde::de::Error::custom(
                "`***` stands for a secret that is not shown; give the secret itself",
            ));
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("hush");
        assert_eq!(format!("{secret:?} {:?}", Secret::default()), "set unset");
        assert_eq!(serde_json::to_string(&secret).expect("text"), r#""***""#);
        assert_eq!(
            serde_json::to_string(&Secret::default()).expect("text"),
            r#""""#
        );
    }

    #[test]
    fn the_mask_is_not_taken_for_a_secret() {
        assert!(serde_json::from_str::<Secret>(r#""***""#).is_err());
        let secret: Secret = serde_json::from_str(r#""hush""#).expect("a secret");
        assert_eq!(secret.expose(), "hush");
    }

    #[test]
    fn only_the_whole_secret_is_equal_and_an_unset_one_is_equal_to_nothing() {
        let secret = Secret::new("hush");
        assert!(secret.is(b"hush"));
        for other in [&b""[..], b"hus", b"hushh", b"HUSH"] {
            assert!(!secret.is(other));
        }
        assert!(!Secret::default().is(b""));
    }
}
