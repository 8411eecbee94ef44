//! Keys from environment variables.

use std::collections::BTreeMap;

use super::ConfigError;
use super::shown::is_secret;

/// The variables that name known keys, typed as the default of their key is.
pub(super) fn environment(
    leaves: &BTreeMap<String, serde_json::Value>,
    prefix: &str,
    foreign_key: Option<fn(&str) -> Option<String>>,
    env: Vec<(String, String)>,
) -> Result<serde_json::Value, ConfigError> {
    let by_name: BTreeMap<String, &String> = leaves
        .keys()
        .map(|key| (key.replace('.', "_").to_uppercase(), key))
        .collect();
    let secret_in_file = |name: &str| {
        let key = by_name.get(name.strip_suffix("_FILE")?)?;
        is_secret(key).then_some(*key)
    };
    let mut tree = serde_json::Value::Object(serde_json::Map::new());
    for (variable, text) in env {
        let name = variable.strip_prefix(prefix).unwrap_or(&variable);
        if let Some(key) = by_name.get(name) {
            insert_at(&mut tree, key, typed(leaves.get(*key), text));
        } else if let Some(key) = secret_in_file(name) {
            let secret = std::fs::read_to_string(&text).map_err(|error| ConfigError::File {
                path: text,
                what: format!("{error} (named by {variable})"),
            })?;
            insert_at(&mut tree, key, secret.trim_end_matches(['\r', '\n']).into());
        } else if let Some(key) = foreign_key.and_then(|find| find(name)) {
            insert_at(&mut tree, &key, typed(None, text));
        } else if foreign_key.is_none() || !is_service_link(name) {
            return Err(ConfigError::UnknownVariable { variable });
        }
    }
    Ok(tree)
}

/// The text of a variable as the type of its key's default.
fn typed(default: Option<&serde_json::Value>, text: String) -> serde_json::Value {
    use serde_json::Value;
    match (default, serde_json::from_str(&text)) {
        (Some(Value::String(_)), _) => Value::String(text),
        (_, Ok(value)) => value,
        // Lists of words are written without brackets.
        (Some(Value::Array(_)), Err(_)) => text.split_whitespace().collect(),
        (_, Err(_)) => Value::String(text),
    }
}

/// Kubernetes tells every container of the services around it: `NAME_SERVICE_HOST`, `NAME_PORT`,
/// `NAME_PORT_8000_TCP_ADDR`. One that has the other program's name must not keep us from starting.
fn is_service_link(name: &str) -> bool {
    name == "PORT"
        || name.contains("SERVICE_HOST")
        || name.contains("SERVICE_PORT")
        || name
            .split_once("PORT_")
            .is_some_and(|(_, rest)| rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn insert_at(tree: &mut serde_json::Value, key: &str, value: serde_json::Value) {
    let mut at = tree;
    for segment in key.split('.') {
        if !at.is_object() {
            *at = serde_json::Value::Object(serde_json::Map::new());
        }
        at = &mut at[segment];
    }
    *at = value;
}
