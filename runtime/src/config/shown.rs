//! A configuration as people see it: every key with its value and origin, and no secret.

use std::fmt;

use super::Loaded;

impl<T> fmt::Display for Loaded<T> {
    /// One line a key: value and origin; secrets are masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .effective
            .iter()
            .map(|(key, ..)| key.len())
            .max()
            .unwrap_or(0);
        for (key, value, origin) in &self.effective {
            writeln!(f, "{key:width$}  {value}  ({origin})")?;
        }
        Ok(())
    }
}

/// Stands for a secret.
const MASK: &str = "***";

/// Keys whose values must not appear in output: their last segment names a credential.
pub(super) fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    ["secret", "password", "key", "token", "redis", "credentials_value", "key_pem"]
        .iter()
        .any(|word| last == *word || last.ends_with(&format!("_{word}")))
        // Where headers are set, the one that authorises is among them.
        || key.split('.').any(|segment| segment == "static_headers")
}

/// The value as it may be shown: secrets only as set, also those inside lists and in addresses.
pub(super) fn masked(key: &str, value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(name, inner)| {
                let inner = masked(&format!("{key}.{name}"), inner);
                (name, inner)
            })
            .collect(),
        Value::Array(list) => list.into_iter().map(|inner| masked(key, inner)).collect(),
        Value::String(text) if is_secret(key) && !text.is_empty() => MASK.into(),
        Value::String(text) => without_login(text).into(),
        other => other,
    }
}

/// An address without the user and password in it.
fn without_login(text: String) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text;
    };
    match rest.rsplit_once('@') {
        Some((_, place)) => format!("{scheme}://{MASK}@{place}"),
        None => text,
    }
}
