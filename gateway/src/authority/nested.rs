//! Configuration sections that have a key of their own beside the keys of another section, as
//! Centrifugo's have. (serde cannot refuse unknown keys of a flattened struct, so the key is taken
//! out first.)

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// `{enabled, ...}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Switched<T> {
    /// Whether it is used at all.
    pub enabled: bool,
    /// The other keys.
    #[serde(flatten)]
    pub options: T,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Switched<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut map = Map::deserialize(deserializer)?;
        let enabled = match map.remove("enabled") {
            None => false,
            Some(Value::Bool(enabled)) => enabled,
            Some(other) => {
                return Err(D::Error::custom(format!(
                    "`enabled` = {other}: use true or false"
                )));
            }
        };
        let options = serde_json::from_value(Value::Object(map)).map_err(D::Error::custom)?;
        Ok(Self { enabled, options })
    }
}

/// `{name, ...}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Named<T> {
    /// What it is referred to by.
    pub name: String,
    /// The other keys.
    #[serde(flatten)]
    pub options: T,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut map = Map::deserialize(deserializer)?;
        let Some(Value::String(name)) = map.remove("name") else {
            return Err(D::Error::custom("an entry needs a `name`"));
        };
        let options = serde_json::from_value(Value::Object(map))
            .map_err(|error| D::Error::custom(format!("`{name}`: {error}")))?;
        Ok(Self { name, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Options {
        endpoint: String,
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let read = serde_json::from_str::<Switched<Options>>;
        let both = read(r#"{"enabled":true,"endpoint":"x"}"#).expect("known keys");
        assert!(both.enabled && both.options.endpoint == "x");
        assert!(!read("{}").expect("defaults").enabled);
        for (text, names) in [
            (r#"{"endpont":"x"}"#, "endpont"),
            (r#"{"enabled":"yes"}"#, "enabled"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(names), "{error}");
        }
        let read = serde_json::from_str::<Named<Options>>;
        assert_eq!(read(r#"{"name":"a"}"#).expect("known keys").name, "a");
        for (text, names) in [
            (r#"{"name":"a","x":1}"#, "`a`: unknown field `x`"),
            ("{}", "name"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(names), "{error}");
        }
    }
}
