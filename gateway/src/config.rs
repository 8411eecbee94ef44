//! The gateway's configuration, typed once at start.
//!
//! What Centrifugo v6 also has keeps its key, nesting, unit and default; what is ours (shards,
//! registry, drain, fan-out) stands beside it. Unknown keys are refused by name.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use flux_runtime::config::{ConfigError, Loaded};
use ipnet::IpNet;

use crate::session::{ChannelOptions, Namespace};
use serde::{Deserialize, Serialize};

/// The real-time WebSocket gateway.
#[derive(Parser, Debug, Serialize)]
#[command(name = "flux-gateway", version, about)]
pub struct Flags {
    /// Name of this node, unique in the cluster (default: the host's name).
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Address for clients, ip:port.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    /// Address for /live, /ready, /metrics and the API, ip:port.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
    /// Address that the registry names to balancers, ip:port (default: found from the socket that reaches Redis).
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<String>,
    /// Redis of the cluster, redis://[user:password@]host:port[/db] or rediss://; without it the node stands alone.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<String>,
    /// Shards, one pinned thread each; 0: one for each cpu that this process may use.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<usize>,
    /// Length of the drain on SIGTERM, in seconds.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_seconds: Option<u64>,
    /// Serve /echo, which returns every message as it came.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    echo: bool,
    /// Let clients without a token connect even where others than this machine can reach the listener.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_anonymous: bool,
    /// Configuration file: .toml, .json, .yaml.
    #[arg(long, env = "FLUX_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Print the effective configuration with the origin of each value, and exit.
    #[arg(long)]
    #[serde(skip)]
    pub check_config: bool,
    /// Print what this machine offers, what is missing with its remedy, and exit.
    #[arg(long)]
    #[serde(skip)]
    pub doctor: bool,
}

/// Everything that can be set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this node; empty: the host's name.
    pub id: String,
    /// Address for clients.
    pub listen: SocketAddr,
    /// Address for the admin pages.
    pub admin: SocketAddr,
    /// Address that the registry names; empty: found at each heartbeat.
    pub advertise: String,
    /// Redis of the cluster; empty: none.
    pub redis: String,
    /// File of PEM certificates to trust for `rediss://`; empty: the public authorities.
    pub redis_ca_file: String,
    /// Shards; 0: one for each usable cpu.
    pub shards: usize,
    /// Length of the drain in seconds.
    pub drain_seconds: u64,
    /// Whether `/echo` exists.
    pub echo: bool,
    /// Whether clients without a token may connect on an address that others can reach.
    pub allow_anonymous: bool,
    /// Client connections at most on this node; 0: what the descriptors allow.
    pub connections_max: u64,
    /// Peers whose PROXY protocol header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How the node shows itself to balancers.
    pub registry: RegistryConfig,
    /// When publications leave.
    pub fanout: FanoutConfig,
    /// What one client may do; Centrifugo's `client`.
    pub client: ClientConfig,
    /// Centrifugo's `websocket`.
    pub websocket: WebSocketConfig,
    /// Centrifugo's `channel`.
    pub channel: ChannelConfig,
}

/// The node's place in the registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// What the registry's keys begin with; `{gateway}` on Redis Cluster.
    pub prefix: String,
    /// Time between two heartbeats.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long a record lives without a heartbeat.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// Share of new clients relative to other nodes; 0: none.
    pub weight: u32,
    /// Where the node stands; shown, not yet used for routing.
    pub zone: String,
}

/// When publications leave.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FanoutConfig {
    /// Longest wait of a publication on a busy shard, so that several leave in one send.
    #[serde(with = "humantime_serde")]
    pub latency_budget: Duration,
    /// Longest time that a send may stay unfinished before the client counts as a slow consumer.
    #[serde(with = "humantime_serde")]
    pub lag_max: Duration,
}

/// What one client may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Origins of web pages that may connect (globs); none: only clients without an Origin header.
    pub allowed_origins: Vec<String>,
    /// Time between two pings to a client.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping.
    #[serde(with = "humantime_serde")]
    pub pong_timeout: Duration,
    /// How long a connection may stay without a connect command.
    #[serde(with = "humantime_serde")]
    pub stale_close_delay: Duration,
    /// Channels that one client may be subscribed to.
    pub channel_limit: usize,
    /// Bytes that a client may lag behind its channels and replies.
    pub queue_max_size: usize,
}

/// The WebSocket transport.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketConfig {
    /// Longest message from a client, in bytes.
    pub message_size_limit: usize,
}

/// Channels and their namespaces.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelConfig {
    /// Longest channel name, in bytes.
    pub max_length: usize,
    /// Options of channels without a namespace.
    pub without_namespace: ChannelOptions,
    /// Options of the channels of each namespace.
    pub namespaces: Vec<Namespace>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: String::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8100)),
            advertise: String::new(),
            redis: String::new(),
            redis_ca_file: String::new(),
            shards: 0,
            drain_seconds: 30,
            echo: false,
            allow_anonymous: false,
            connections_max: 0,
            trusted_proxies: vec![IpNet::from(IpAddr::from([127, 0, 0, 1]))],
            registry: RegistryConfig::default(),
            fanout: FanoutConfig::default(),
            client: ClientConfig::default(),
            websocket: WebSocketConfig::default(),
            channel: ChannelConfig::default(),
        }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            prefix: "gateway".to_owned(),
            heartbeat: Duration::from_secs(5),
            ttl: Duration::from_secs(15),
            weight: 1,
            zone: String::new(),
        }
    }
}

impl Default for FanoutConfig {
    fn default() -> Self {
        Self {
            latency_budget: Duration::from_millis(10),
            lag_max: Duration::from_secs(10),
        }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            stale_close_delay: Duration::from_secs(10),
            channel_limit: 128,
            queue_max_size: 1_048_576,
        }
    }
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            message_size_limit: 65_536,
        }
    }
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            max_length: 255,
            without_namespace: ChannelOptions::default(),
            namespaces: Vec::new(),
        }
    }
}

/// Flags over environment over file over defaults, checked for what the types cannot say.
///
/// # Errors
/// One line that names the key, the value, what is allowed and the remedy.
pub fn load(flags: &Flags) -> Result<Loaded<Config>, ConfigError> {
    let mut loaded: Loaded<Config> = flux_runtime::config::load(flags, flags.config.as_deref())?;
    if loaded.value.id.is_empty() {
        loaded.value.id = host_name();
    }
    check(&loaded.value).map_err(ConfigError::Key)?;
    Ok(loaded)
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "gateway".to_owned(), |name| name.trim().to_owned())
}

fn check(config: &Config) -> Result<(), String> {
    let refuse = |key: &str, value: &dyn std::fmt::Display, remedy: &str| {
        Err(format!(
            "config key `{key}`: {value} is not allowed; {remedy}"
        ))
    };
    if config.id.len() > 64
        || !config
            .id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        return refuse("id", &config.id, "use at most 64 of a-z A-Z 0-9 - _ .");
    }
    if config.shards > 1024 {
        return refuse("shards", &config.shards, "use 0 (one for each cpu) to 1024");
    }
    if !(3..=3600).contains(&config.drain_seconds) {
        return refuse(
            "drain_seconds",
            &config.drain_seconds,
            "use 3 to 3600 seconds",
        );
    }
    if !config.advertise.is_empty() && config.advertise.parse::<SocketAddr>().is_err() {
        return refuse(
            "advertise",
            &config.advertise,
            "use ip:port, or leave it empty",
        );
    }
    if config.registry.ttl < config.registry.heartbeat * 2 {
        let shown = format!("{:?}", config.registry.ttl);
        return refuse(
            "registry.ttl",
            &shown,
            "use at least twice registry.heartbeat",
        );
    }
    if config.websocket.message_size_limit == 0 || config.websocket.message_size_limit > 64 << 20 {
        let shown = config.websocket.message_size_limit;
        return refuse(
            "websocket.message_size_limit",
            &shown,
            "use 1 byte to 64 MiB",
        );
    }
    if config.client.queue_max_size < 4096 {
        return refuse(
            "client.queue_max_size",
            &config.client.queue_max_size,
            "use at least 4096 bytes",
        );
    }
    if config.client.pong_timeout >= config.client.ping_interval {
        let shown = format!("{:?}", config.client.pong_timeout);
        return refuse(
            "client.pong_timeout",
            &shown,
            "use less than client.ping_interval",
        );
    }
    if !config.listen.ip().is_loopback() && !config.allow_anonymous {
        return refuse(
            "listen",
            &config.listen,
            "others can reach this address and clients need no token yet: listen on a loopback address, \
             or say that you want this with --allow-anonymous",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Loaded<Config>, ConfigError> {
        load(&Flags::try_parse_from(arguments).expect("known flags"))
    }

    #[test]
    fn anonymous_clients_beyond_loopback_are_refused_with_the_remedy() {
        let error = parse(&["flux-gateway", "--listen", "0.0.0.0:8000"])
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("--allow-anonymous") && error.contains("0.0.0.0:8000"),
            "{error}"
        );
        assert!(
            parse(&[
                "flux-gateway",
                "--listen",
                "0.0.0.0:8000",
                "--allow-anonymous"
            ])
            .is_ok()
        );
        assert!(parse(&["flux-gateway", "--listen", "127.0.0.2:8000"]).is_ok());
    }

    #[test]
    fn each_refusal_names_key_value_and_what_is_allowed() {
        let error = parse(&["flux-gateway", "--drain-seconds", "1"])
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("drain_seconds") && error.contains('1') && error.contains("3 to 3600"),
            "{error}"
        );
    }

    #[test]
    fn a_namespace_refuses_options_that_do_not_exist() {
        let text = r#"{"name":"chat","join_leave":true}"#;
        let namespace: Namespace = serde_json::from_str(text).expect("known option");
        assert!(namespace.options.join_leave);
        let error = serde_json::from_str::<Namespace>(r#"{"name":"chat","joins":true}"#)
            .expect_err("unknown");
        assert!(error.to_string().contains("joins"), "{error}");
    }
}
