//! One way to configure every process: flags over environment over file over defaults.
//!
//! A configuration is one plain struct `T` (serde, `deny_unknown_fields`). Its defaults define
//! the known keys; the environment variable of key `client.ping_interval` is
//! `FLUX_CLIENT_PING_INTERVAL`. A key that holds a secret is also read from the file that
//! `FLUX_..._FILE` names. Files are TOML, JSON or YAML by their extension.
//!
//! A process that reads the files of another program too says how with a [`Dialect`].
//!
//! Secrets stand in no output: neither in [`Loaded`]'s text nor in an error.

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
    #[error("{}", one_line(.0))]
    Key(String),
}

/// What a configuration takes besides its own keys.
#[derive(Clone, Copy)]
pub struct Dialect<'a> {
    /// What the other program's environment variables begin with; they are weaker than ours.
    pub env_prefix: &'a str,
    /// The dotted key that the rest of such a variable names (`ADMIN_ENABLED`), if it is none of
    /// ours: [`Dialect::review`] gets it to judge.
    pub foreign_key: fn(&str) -> Option<String>,
    /// Looks at what a file or the environment says before it is matched with our keys: takes out
    /// what means nothing here, refuses what cannot be had.
    pub review: fn(&mut serde_json::Value) -> Result<(), String>,
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
    load_in(None, flags, file, env)
}

/// [`load_with_env`], and what `dialect` takes besides.
///
/// # Errors
/// As [`load`].
pub fn load_in<T>(
    dialect: Option<Dialect<'_>>,
    flags: impl Serialize,
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Loaded<T>, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let Some(path) = file else {
        return load_text(dialect, flags, None, env);
    };
    let text = std::fs::read_to_string(path).map_err(|error| file_error(path, &error))?;
    load_text(dialect, flags, Some((path, &text)), env)
}

/// [`load_in`] with what stands in the file given by the caller.
///
/// # Errors
/// As [`load`].
pub fn load_text<T>(
    dialect: Option<Dialect<'_>>,
    flags: impl Serialize,
    file: Option<(&Path, &str)>,
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
    if let Some((path, text)) = file {
        figment = merge_file(figment, path, text, dialect)?;
    }
    let (theirs, ours): (Vec<_>, Vec<_>) = env
        .filter(|(name, _)| !ENV_RESERVED.contains(&name.as_str()))
        .filter(|(name, _)| {
            name.starts_with(ENV_PREFIX) || dialect.is_some_and(|d| name.starts_with(d.env_prefix))
        })
        .partition(|(name, _)| !name.starts_with(ENV_PREFIX));
    if let Some(dialect) = dialect {
        let mut tree = environment(
            &leaves,
            dialect.env_prefix,
            Some(dialect.foreign_key),
            theirs,
        )?;
        (dialect.review)(&mut tree).map_err(|why| refused(&why, "environment"))?;
        figment = figment.merge(Named::new("environment", Serialized::defaults(tree)));
    }
    let tree = environment(&leaves, ENV_PREFIX, None, ours)?;
    figment = figment.merge(Named::new("environment", Serialized::defaults(tree)));
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
            (key.clone(), masked(&key, value).to_string(), origin)
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

/// Stands for a secret.
const MASK: &str = "***";

/// Keys whose values must not appear in output: their last segment names a credential.
fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    ["secret", "password", "key", "token", "redis", "credentials_value", "key_pem"]
        .iter()
        .any(|word| last == *word || last.ends_with(&format!("_{word}")))
        // Where headers are set, the one that authorises is among them.
        || key.split('.').any(|segment| segment == "static_headers")
}

/// The value as it may be shown: secrets only as set, also those inside lists and in addresses.
fn masked(key: &str, value: serde_json::Value) -> serde_json::Value {
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

fn refused(why: &str, origin: &str) -> ConfigError {
    ConfigError::Key(format!("{why} (from {origin})"))
}

fn file_error(path: &Path, what: &dyn fmt::Display) -> ConfigError {
    ConfigError::File {
        path: path.display().to_string(),
        what: what.to_string(),
    }
}

fn merge_file(
    figment: Figment,
    path: &Path,
    text: &str,
    dialect: Option<Dialect<'_>>,
) -> Result<Figment, ConfigError> {
    let name = format!("file {}", path.display());
    let read = match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Figment::from(Named::new(name.clone(), Toml::string(text))),
        Some("json") => Figment::from(Named::new(name.clone(), Json::string(text))),
        Some("yaml" | "yml") => Figment::from(Named::new(name.clone(), Yaml::string(text))),
        _ => return Err(file_error(path, &"unknown format")),
    };
    let Some(dialect) = dialect else {
        return Ok(figment.merge(read));
    };
    let mut tree: serde_json::Value = read
        .extract()
        .map_err(|error| ConfigError::Key(explain(&error)))?;
    (dialect.review)(&mut tree).map_err(|why| refused(&why, &name))?;
    Ok(figment.merge(Named::new(name, Serialized::defaults(tree))))
}

/// The variables that name known keys, typed as the default of their key is.
fn environment(
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
    // What was found is quoted, and must not be where it is a secret.
    let what = match &error.kind {
        figment::error::Kind::InvalidType(_, expected)
        | figment::error::Kind::InvalidValue(_, expected)
            if is_secret(&key) =>
        {
            format!("not what is expected here: {expected}")
        }
        figment::error::Kind::Message(text) => without_excerpt(text),
        kind => kind.to_string(),
    };
    if key.is_empty() {
        format!("config: {what}{origin}; --check-config lists the known keys")
    } else {
        format!("config key `{key}`: {what}{origin}; --check-config shows keys and defaults")
    }
}

/// The text of an error of a reader of TOML, without the lines of the file that it shows: they may
/// hold a secret.
fn without_excerpt(text: &str) -> String {
    let is_excerpt = |line: &&str| {
        let line = line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit());
        line.starts_with('|')
    };
    let lines = text.lines().filter(|line| !is_excerpt(line));
    lines.collect::<Vec<_>>().join(": ")
}

/// What was quoted in an error must not make two lines of it.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
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
    fn a_file_that_cannot_be_read_is_refused_in_one_line_that_shows_nothing_of_it() {
        for (extension, text) in [
            (
                "toml",
                "shards = 2\n[client]\nhmac_secret_key = \"swordfish\n",
            ),
            ("json", "{\"client\":{\"hmac_secret_key\":\"swordfish"),
            ("yaml", "client:\n  hmac_secret_key: \"swordfish\n"),
        ] {
            let path = file(extension, text);
            let error = load_with_env::<Example>(Flags { shards: None }, Some(&path), env(&[]));
            std::fs::remove_file(path).expect("it was there");
            let error = error.expect_err(extension).to_string();
            assert!(
                !error.contains('\n') && !error.contains("swordfish"),
                "{error}"
            );
            assert!(error.contains("line"), "{error}");
        }
        let bad = load_with_env::<Example>(
            Flags { shards: None },
            None,
            env(&[("FLUX_SHARDS", "[\"two\\nlines\"]")]),
        );
        assert!(!bad.expect_err("a list").to_string().contains('\n'));
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
    fn a_secret_may_stand_in_a_file_that_the_environment_names() {
        let path = file("secret", "hush\n");
        let path_text = path.display().to_string();
        let variables = [("FLUX_CLIENT_HMAC_SECRET_KEY_FILE", path_text.as_str())];
        let loaded: Loaded<Example> =
            load_with_env(Flags { shards: None }, None, env(&variables)).expect("fits");
        assert_eq!(loaded.value.client.hmac_secret_key, "hush");
        std::fs::remove_file(path).expect("it was there");
        let error = load_with_env::<Example>(Flags { shards: None }, None, env(&variables))
            .expect_err("no file");
        assert!(
            error.to_string().contains("HMAC_SECRET_KEY_FILE"),
            "{error}"
        );
        // Only secrets are read so.
        let error = load_with_env::<Example>(
            Flags { shards: None },
            None,
            env(&[("FLUX_LISTEN_FILE", "/dev/null")]),
        );
        assert!(error.is_err());
    }

    #[test]
    fn the_other_programs_variables_are_weaker_than_ours_and_reviewed() {
        let dialect = Dialect {
            env_prefix: "OTHER_",
            foreign_key: |name| (name == "EXTRA").then(|| "extra".to_owned()),
            review: |tree| match tree.as_object_mut().and_then(|map| map.remove("extra")) {
                Some(value) if value != false => Err(format!("extra: {value} cannot be had")),
                _ => Ok(()),
            },
        };
        let load = |variables: &[(&str, &str)]| {
            load_in::<Example>(Some(dialect), Flags { shards: None }, None, env(variables))
        };
        let loaded = load(&[
            ("OTHER_SHARDS", "2"),
            ("FLUX_SHARDS", "3"),
            ("OTHER_LISTEN", "[::1]:1"),
            ("OTHER_EXTRA", "false"),
            ("OTHER_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ])
        .expect("all of it means something");
        assert_eq!((loaded.value.shards, &*loaded.value.listen), (3, "[::1]:1"));
        let error = load(&[("OTHER_EXTRA", "true")])
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("extra: true") && error.contains("environment"),
            "{error}"
        );
        assert!(load(&[("OTHER_THING", "1")]).is_err());
    }

    #[test]
    fn a_secret_of_the_wrong_type_is_refused_without_showing_it() {
        let path = file("yaml", "client:\n  hmac_secret_key: 4711\n");
        let error = load_with_env::<Example>(Flags { shards: None }, Some(&path), env(&[]))
            .expect_err("a number");
        std::fs::remove_file(path).expect("it was there");
        let error = error.to_string();
        assert!(
            error.contains("hmac_secret_key") && !error.contains("4711"),
            "{error}"
        );
    }

    #[test]
    fn secrets_in_lists_and_addresses_are_masked() {
        let value = serde_json::json!([{"name": "a", "http": {"static_headers": {"X": "hush"}}, "key": "hush"}]);
        let shown = masked("proxies", value).to_string();
        assert!(
            !shown.contains("hush") && shown.contains("\"a\""),
            "{shown}"
        );
        let shown = masked("address", serde_json::json!(["rediss://u:hush@h:1/0"])).to_string();
        assert_eq!(shown, r#"["rediss://***@h:1/0"]"#);
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
