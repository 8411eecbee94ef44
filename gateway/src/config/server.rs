//! Centrifugo's `http_api`, `http_server`, `shutdown`, `node`, `health` and `prometheus`.
//!
//! Three of them say what a key of ours says as well; ours win where both are given.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use flux_runtime::config::Loaded;
use serde::{Deserialize, Deserializer, Serialize};

use super::Config;

/// The server API.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpApiConfig {
    /// Whether it is switched off.
    pub disabled: bool,
    /// What callers have to show; without one nobody is let in.
    pub key: String,
    /// Everybody who reaches it is let in without a key.
    pub insecure: bool,
    /// Whether it is also on the client port.
    pub external: bool,
    /// Where errors stand in an answer.
    pub error_mode: ErrorMode,
}

impl std::fmt::Debug for HttpApiConfig {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpApiConfig")
            .field("disabled", &self.disabled)
            .field("has_key", &!self.key.is_empty())
            .field("insecure", &self.insecure)
            .field("external", &self.external)
            .finish_non_exhaustive()
    }
}

/// Where errors stand in an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorMode {
    /// In the body of a 200.
    #[default]
    #[serde(rename = "")]
    Body,
    /// As the HTTP status that fits.
    #[serde(rename = "transport")]
    Transport,
}

/// Centrifugo's way to say where it listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpServerConfig {
    /// Interface for clients; empty: as in `listen`.
    pub address: String,
    /// Port for clients; none: as in `listen`.
    #[serde(deserialize_with = "port")]
    pub port: Option<u16>,
    /// Interface for the admin pages; empty: as in `admin`.
    pub internal_address: String,
    /// Port for the admin pages; none: as in `admin`.
    #[serde(deserialize_with = "port")]
    pub internal_port: Option<u16>,
}

/// Centrifugo's way to say how long a drain takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// As `drain_seconds`; none: as that says.
    #[serde(with = "humantime_serde")]
    pub timeout: Option<Duration>,
}

/// Centrifugo's way to name a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// As `id`; empty: as that says.
    pub name: String,
}

/// Something that is always on here and can be switched on in Centrifugo.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switch {
    /// Means nothing.
    pub enabled: bool,
}

/// A port, as number or text: Centrifugo takes the one for `port`, the other for `internal_port`.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u16),
        Text(String),
        Nothing,
    }
    match Written::deserialize(deserializer)? {
        Written::Number(port) => Ok(Some(port)),
        Written::Text(text) if text.is_empty() => Ok(None),
        Written::Text(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
        Written::Nothing => Ok(None),
    }
}

/// Puts what `http_server`, `shutdown` and `node` say where our own keys were not given.
pub(super) fn settle(loaded: &mut Loaded<Config>) -> Result<(), String> {
    let mut config = loaded.value.clone();
    let mut settled: Vec<(&str, &str)> = Vec::new();
    let given = |key: &str| {
        let entry = loaded.effective.iter().find(|(name, ..)| name == key);
        entry.is_some_and(|(.., origin)| origin != "default")
    };
    let server = &config.http_server;
    let places = [
        (
            "listen",
            "http_server",
            &server.address,
            server.port,
            config.listen,
        ),
        (
            "admin",
            "http_server.internal",
            &server.internal_address,
            server.internal_port,
            config.admin,
        ),
    ];
    let mut found = [config.listen, config.admin];
    for ((key, from, address, port, now), place) in places.into_iter().zip(&mut found) {
        if given(key) || (address.is_empty() && port.is_none()) {
            continue;
        }
        let ip: IpAddr = if address.is_empty() {
            now.ip()
        } else {
            address.parse().map_err(|_| {
                format!("config key `{from}_address`: {address} is not an IP address; give one, or `{key}` as ip:port")
            })?
        };
        *place = SocketAddr::new(ip, port.unwrap_or(now.port()));
        settled.push((key, from));
    }
    [config.listen, config.admin] = found;
    if let Some(timeout) = config.shutdown.timeout
        && !given("drain_seconds")
    {
        config.drain_seconds = timeout.as_secs();
        settled.push(("drain_seconds", "shutdown.timeout"));
    }
    if !config.node.name.is_empty() && !given("id") {
        config.id.clone_from(&config.node.name);
        settled.push(("id", "node.name"));
    }
    for (key, from) in settled {
        let value = match key {
            "listen" => serde_json::json!(config.listen),
            "admin" => serde_json::json!(config.admin),
            "drain_seconds" => serde_json::json!(config.drain_seconds),
            _ => serde_json::json!(config.id),
        };
        for (name, shown, origin) in &mut loaded.effective {
            if name == key {
                *shown = value.to_string();
                *origin = from.to_owned();
            }
        }
    }
    loaded.value = config;
    Ok(())
}
