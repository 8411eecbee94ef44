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

mod environment;
mod named;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use figment::providers::{Format, Json, Serialized, Toml, Yaml};
use figment::{Figment, Metadata};
use serde::Serialize;
use serde::de::DeserializeOwned;

use environment::environment;
use named::Named;
use shown::{is_secret, masked};

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
