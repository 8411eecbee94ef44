//! A named set of channel options.

use serde::{Deserialize, Serialize};

use super::ChannelOptions;

/// A named set of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Map<String, serde_json::Value>")]
pub struct Namespace {
    /// What stands before the first `:` of its channels.
    pub name: String,
    /// What applies there.
    #[serde(flatten)]
    pub options: ChannelOptions,
}

impl TryFrom<serde_json::Map<String, serde_json::Value>> for Namespace {
    type Error = String;

    /// serde cannot refuse unknown fields of a flattened struct, so the name is taken out first.
    fn try_from(mut map: serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        let Some(serde_json::Value::String(name)) = map.remove("name") else {
            return Err("a namespace needs a `name`".to_owned());
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.len() < 2 || !name.bytes().all(allowed) {
            return Err(format!(
                "namespace `{name}`: a name is at least two of a-z A-Z 0-9 - _ ."
            ));
        }
        let options = serde_json::from_value(serde_json::Value::Object(map))
            .map_err(|error| format!("namespace `{name}`: {error}"))?;
        Ok(Self { name, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_refuses_what_it_does_not_know() {
        let read = |text: &str| serde_json::from_str::<Namespace>(text).map_err(|e| e.to_string());
        let namespace = read(r#"{"name":"chat","join_leave":true}"#).expect("valid");
        assert!(namespace.options.join_leave);
        for (text, names) in [
            (r#"{"name":"chat","histroy_size":1}"#, "histroy_size"),
            (r#"{"name":"c"}"#, "`c`"),
            (r#"{"name":"a b"}"#, "`a b`"),
            (r#"{"join_leave":true}"#, "name"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(names), "{error}");
        }
    }
}
