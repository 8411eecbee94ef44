//! Configuration sections that have a key of their own beside the keys of another section, as
//! Centrifugo's have. (serde cannot refuse unknown keys of a flattened struct, so the key is taken
//! out first.)

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
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

/// An object of JSON. (serde takes an array for a struct too, field after field: what was meant as
/// nothing like it would be read as something.)
#[derive(Debug, Default)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_no_object() {
        let read = serde_json::from_str::<Object<Options>>;
        assert_eq!(
            read(r#"{"endpoint":"x"}"#).expect("an object").0.endpoint,
            "x"
        );
        for text in ["[]", r#"["x"]"#, "null", "1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

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
