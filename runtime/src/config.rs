//! One way to configure every process: flags over environment over file over defaults.
//!
//! A configuration is one plain struct `T` (serde, `deny_unknown_fields`). Its defaults define
//! the known keys; the environment variable of key `client.ping_interval` is
//! `FLUX_CLIENT_PING_INTERVAL`. Files are TOML, JSON or YAML by their extension.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use figment::providers::{Format, Json, Serialized, Toml, Yaml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What environment variables of ours begin with.
pub const ENV_PREFIX: &str = "FLUX_";
/// Variables with the prefix that are not configuration keys: the log filter and the file itself.
const ENV_RESERVED: [&str; 2] = ["FLUX_LOG", "FLUX_CONFIG"];

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The effective configuration.
    pub value: T,
    /// Key (dotted), effective value as JSON, origin for a person.
    pub effective: Vec<(String, String, String)>,
}

/// Why a configuration was refused; one line with the key, the value and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or has an extension that names no format.
    #[error("config file {path}: {what}; give a readable .toml, .json, .yaml or .yml file")]
    File {
        /// As given.
        path: String,
        /// The cause.
        what: String,
    },
    /// A variable with our prefix that names no key.
    #[error(
        "environment {variable}: no such key; known keys: --check-config lists them, or unset it"
    )]
    UnknownVariable {
        /// Its name.
        variable: String,
    },
    /// A key that does not exist or a value that does not fit.
    #[error("{0}")]
    Key(String),
}

/// Reads `T` from flags over environment over `file` over `T::default()`.
///
/// `flags` serialises to the keys that were given on the command line and leaves out the others.
///
/// # Errors
/// The first key, variable or file that is refused, with its remedy.
pub fn load<T>(flags: impl Serialize, file: Option<&Path>) -> Result<Loaded<T>, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    load_with_env(flags, file, std::env::vars())
}

/// [`load`] with the environment given by the caller.
///
/// # Errors
/// As [`load`].
pub fn load_with_env<T>(
    flags: impl Serialize,
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Loaded<T>, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let defaults = serde_json::to_value(T::default())
        .map_err(|error| ConfigError::Key(format!("defaults: {error}")))?;
    let mut leaves = BTreeMap::new();
    collect_leaves("", &defaults, &mut leaves);

    let mut figment = Figment::from(Named::new("default", Serialized::defaults(T::default())));
    if let Some(path) = file {
        figment = merge_file(figment, path)?;
    }
    figment = figment.merge(environment(&leaves, env)?);
    figment = figment.merge(Named::new("flag", Serialized::defaults(flags)));

    let value: T = figment
        .extract()
        .map_err(|error| ConfigError::Key(explain(&error)))?;
    let effective_value = serde_json::to_value(&value)
        .map_err(|error| ConfigError::Key(format!("effective values: {error}")))?;
    let mut effective_leaves = BTreeMap::new();
    collect_leaves("", &effective_value, &mut effective_leaves);
    let effective = effective_leaves
        .into_iter()
        .map(|(key, value)| {
            let origin = figment
                .find_metadata(&key)
                .map_or_else(|| "default".to_owned(), describe);
            let shown = if is_secret(&key) && value.as_str().is_some_and(|s| !s.is_empty()) {
                "\"***\"".to_owned()
            } else {
                value.to_string()
            };
            (key, shown, origin)
        })
        .collect();
    Ok(Loaded { value, effective })
}

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

/// Keys whose values must not appear in output: their last segment names a credential.
fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    ["secret", "password", "key", "token", "redis"]
        .iter()
        .any(|word| last == *word || last.ends_with(&format!("_{word}")))
}

fn merge_file(figment: Figment, path: &Path) -> Result<Figment, ConfigError> {
    let refuse = |what: String| ConfigError::File {
        path: path.display().to_string(),
        what,
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let name = format!("file {}", path.display());
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Ok(figment.merge(Named::new(name, Toml::string(&text)))),
        Some("json") => Ok(figment.merge(Named::new(name, Json::string(&text)))),
        Some("yaml" | "yml") => Ok(figment.merge(Named::new(name, Yaml::string(&text)))),
        _ => Err(refuse("unknown format".to_owned())),
    }
}

/// The variables that name known keys, typed as the default of their key is.
fn environment(
    leaves: &BTreeMap<String, serde_json::Value>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Named<Serialized<serde_json::Value>>, ConfigError> {
    let by_variable: BTreeMap<String, &String> = leaves
        .keys()
        .map(|key| {
            (
                format!("{ENV_PREFIX}{}", key.replace('.', "_").to_uppercase()),
                key,
            )
        })
        .collect();
    let mut tree = serde_json::Value::Object(serde_json::Map::new());
    for (variable, text) in env {
        if !variable.starts_with(ENV_PREFIX) || ENV_RESERVED.contains(&variable.as_str()) {
            continue;
        }
        let Some(key) = by_variable.get(&variable) else {
            return Err(ConfigError::UnknownVariable { variable });
        };
        let value = match leaves.get(*key) {
            Some(serde_json::Value::String(_)) => serde_json::Value::String(text),
            _ => serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
        };
        insert_at(&mut tree, key, value);
    }
    Ok(Named::new("environment", Serialized::defaults(tree)))
}

fn insert_at(tree: &mut serde_json::Value, key: &str, value: serde_json::Value) {
    let mut at = tree;
    for segment in key.split('.') {
        at = &mut at[segment];
    }
    *at = value;
}

/// Dotted keys of everything that is not an object; an empty object is a leaf of its own.
fn collect_leaves(
    prefix: &str,
    value: &serde_json::Value,
    leaves: &mut BTreeMap<String, serde_json::Value>,
) {
    match value {
        serde_json::Value::Object(map) if !map.is_empty() => {
            for (key, inner) in map {
                let path = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                collect_leaves(&path, inner, leaves);
            }
        }
        leaf if !prefix.is_empty() => {
            leaves.insert(prefix.to_owned(), leaf.clone());
        }
        _ => {}
    }
}

fn describe(metadata: &Metadata) -> String {
    metadata.name.to_string()
}

/// One line: the key, what is wrong with it, where it came from.
fn explain(error: &figment::Error) -> String {
    let key = error.path.join(".");
    let origin = error
        .metadata
        .as_ref()
        .map_or_else(String::new, |m| format!(" (from {})", m.name));
    let what = error.kind.to_string();
    if key.is_empty() {
        format!("config: {what}{origin}; --check-config lists the known keys")
    } else {
        format!("config key `{key}`: {what}{origin}; --check-config shows keys and defaults")
    }
}

/// A provider under a name that a person recognises.
struct Named<P> {
    name: String,
    inner: P,
}

impl<P> Named<P> {
    fn new(name: impl Into<String>, inner: P) -> Self {
        Self {
            name: name.into(),
            inner,
        }
    }
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut data = self.inner.data()?;
        // A null means "not given" and must not cover a lower layer.
        for dict in data.values_mut() {
            drop_empty(dict);
        }
        Ok(data)
    }
}

fn drop_empty(dict: &mut Dict) {
    dict.retain(|_, value| !matches!(value, Value::Empty(..)));
    for value in dict.values_mut() {
        if let Value::Dict(_, inner) = value {
            drop_empty(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        listen: String,
        shards: usize,
        advertise: Option<String>,
        client: Client,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Client {
        ping_interval: String,
        hmac_secret_key: String,
    }

    impl Default for Example {
        fn default() -> Self {
            Self {
                listen: "127.0.0.1:8000".into(),
                shards: 0,
                advertise: None,
                client: Client::default(),
            }
        }
    }

    impl Default for Client {
        fn default() -> Self {
            Self {
                ping_interval: "25s".into(),
                hmac_secret_key: String::new(),
            }
        }
    }

    #[derive(Serialize)]
    struct Flags {
        #[serde(skip_serializing_if = "Option::is_none")]
        shards: Option<usize>,
    }

    fn file(extension: &str, text: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!(
            "flux-config-{}-{:?}.{extension}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, text).expect("a temporary file can be written");
        path
    }

    fn env(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let path = file(
            "toml",
            "shards = 2\nlisten = \"127.0.0.1:1\"\n[client]\nping_interval = \"5s\"\n",
        );
        let loaded: Loaded<Example> = load_with_env(
            Flags { shards: Some(4) },
            Some(&path),
            env(&[
                ("FLUX_SHARDS", "3"),
                ("FLUX_LISTEN", "127.0.0.1:2"),
                ("FLUX_LOG", "debug"),
            ]),
        )
        .expect("all keys are known");
        std::fs::remove_file(path).expect("it was there");
        assert_eq!(loaded.value.shards, 4);
        assert_eq!(loaded.value.listen, "127.0.0.1:2");
        assert_eq!(loaded.value.client.ping_interval, "5s");
        assert_eq!(loaded.value.advertise, None);
        let text = loaded.to_string();
        assert!(
            text.contains("(flag)") && text.contains("(environment)"),
            "{text}"
        );
        assert!(
            text.contains("(file ") && text.contains("(default)"),
            "{text}"
        );
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused_by_name() {
        let path = file("json", r#"{"client":{"pong":1}}"#);
        let error = load_with_env::<Example>(Flags { shards: None }, Some(&path), env(&[]))
            .expect_err("unknown");
        std::fs::remove_file(path).expect("it was there");
        assert!(error.to_string().contains("pong"), "{error}");
        let error = load_with_env::<Example>(
            Flags { shards: None },
            None,
            env(&[("FLUX_SHARDS", "many")]),
        )
        .expect_err("not a number");
        assert!(
            error.to_string().contains("shards") && error.to_string().contains("environment"),
            "{error}"
        );
        let error =
            load_with_env::<Example>(Flags { shards: None }, None, env(&[("FLUX_SHARD", "1")]))
                .expect_err("no such key");
        assert!(error.to_string().contains("FLUX_SHARD"), "{error}");
    }

    #[test]
    fn text_that_looks_like_a_number_stays_text_where_the_key_is_text() {
        let loaded: Loaded<Example> = load_with_env(
            Flags { shards: None },
            None,
            env(&[("FLUX_LISTEN", "8000"), ("FLUX_ADVERTISE", "a:1")]),
        )
        .expect("fits");
        assert_eq!(loaded.value.listen, "8000");
        assert_eq!(loaded.value.advertise.as_deref(), Some("a:1"));
    }

    #[test]
    fn secrets_are_masked_in_what_check_config_prints() {
        let loaded: Loaded<Example> = load_with_env(
            Flags { shards: None },
            None,
            env(&[("FLUX_CLIENT_HMAC_SECRET_KEY", "hush")]),
        )
        .expect("fits");
        assert_eq!(loaded.value.client.hmac_secret_key, "hush");
        assert!(!loaded.to_string().contains("hush"));
    }
}
