//! The gateway's configuration, typed once at start.
//!
//! | what | file |
//! |---|---|
//! | command line | `flags` |
//! | what is ours: registry, fan-out | `ours` |
//! | Centrifugo's `client` and `channel` | `client` |
//! | Centrifugo's `websocket`, `sse`, `http_stream`, `uni_*`, `emulation` | `transports` |
//! | Centrifugo's `http_api`, `http_server`, `shutdown`, `node`, `health`, `prometheus` | `server` |
//! | Centrifugo's `engine` | `engine` |
//! | Centrifugo's keys that mean nothing here or cannot be had | `foreign` |
//! | what the types cannot say | `check` |
//!
//! What Centrifugo v6 also has keeps its key, nesting, unit and default; what is ours (shards,
//! registry, drain, fan-out) stands beside it. Unknown keys are refused by name, and so is what
//! Centrifugo has and this gateway has not, with what to do instead.

mod check;
mod client;
mod engine;
mod flags;
mod foreign;
mod ours;
mod server;
mod tls;
mod transports;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use flux_runtime::config::{ConfigError, Loaded};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::authority::{AuthorityConfig, Named};
use crate::backend::{BackendConfig, ChannelRoute, DEFAULT_PROXY, ProxyConfig, RpcConfig};
use crate::limits::SessionLimits;
use crate::session::{ChannelOptions, ChannelRules, Naming};

pub use client::{ChannelConfig, ClientConfig, PersonalChannel};
pub use engine::{EngineConfig, EngineKind, RedisEngineConfig};
pub use flags::{Command, Flags};
pub use ours::{FanoutConfig, RateConfig, RatesConfig, RegistryConfig};
pub use server::{ErrorMode, HttpApiConfig, HttpServerConfig, NodeConfig, ShutdownConfig, Switch};
pub use tls::TlsConfig;
pub use transports::{EmulationConfig, StreamConfig, UniWebSocketConfig, WebSocketConfig};

/// Everything that can be set.
#[derive(Clone, Serialize, Deserialize)]
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
    /// Redis of the cluster, the short way; empty: as `engine` says.
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
    /// Client connections at most on this node; 0: what the descriptors and the shards' rings allow.
    pub connections_max: u64,
    /// Peers whose PROXY protocol header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How the node shows itself to balancers.
    pub registry: RegistryConfig,
    /// When publications leave.
    pub fanout: FanoutConfig,
    /// How fast one client may speak.
    pub rates: RatesConfig,
    /// What one client may do; Centrifugo's `client`.
    pub client: ClientConfig,
    /// Channels and their namespaces; Centrifugo's `channel`.
    pub channel: ChannelConfig,
    /// Calls of clients to the backend; Centrifugo's `rpc`.
    pub rpc: RpcConfig,
    /// Endpoints of the backend that channels and methods refer to by name.
    pub proxies: Vec<Named<ProxyConfig>>,
    /// How shards and nodes are joined; Centrifugo's `engine`.
    pub engine: EngineConfig,
    /// The server API; Centrifugo's `http_api`.
    pub http_api: HttpApiConfig,
    /// Another way to say `listen` and `admin`; Centrifugo's `http_server`.
    pub http_server: HttpServerConfig,
    /// Another way to say `drain_seconds`; Centrifugo's `shutdown`.
    pub shutdown: ShutdownConfig,
    /// Another way to say `id`; Centrifugo's `node`.
    pub node: NodeConfig,
    /// `/health`, `/live` and `/ready` are always there, at the admin address.
    pub health: Switch,
    /// `/metrics` is always there, at the admin address.
    pub prometheus: Switch,
    /// Centrifugo's `websocket`.
    pub websocket: WebSocketConfig,
    /// Server-sent events, with `/emulation` as the way back.
    pub sse: StreamConfig,
    /// A streamed HTTP answer, with `/emulation` as the way back.
    pub http_stream: StreamConfig,
    /// WebSocket that only delivers.
    pub uni_websocket: UniWebSocketConfig,
    /// Server-sent events without a way back.
    pub uni_sse: StreamConfig,
    /// A streamed HTTP answer without a way back.
    pub uni_http_stream: StreamConfig,
    /// The way back of `sse` and `http_stream`.
    pub emulation: EmulationConfig,
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
            rates: RatesConfig::default(),
            client: ClientConfig::default(),
            channel: ChannelConfig::default(),
            rpc: RpcConfig::default(),
            proxies: Vec::new(),
            engine: EngineConfig::default(),
            http_api: HttpApiConfig::default(),
            http_server: HttpServerConfig::default(),
            shutdown: ShutdownConfig::default(),
            node: NodeConfig::default(),
            health: Switch::default(),
            prometheus: Switch::default(),
            websocket: WebSocketConfig::default(),
            sse: StreamConfig::default(),
            http_stream: StreamConfig::default(),
            uni_websocket: UniWebSocketConfig::default(),
            uni_sse: StreamConfig::default(),
            uni_http_stream: StreamConfig::default(),
            emulation: EmulationConfig::default(),
        }
    }
}

/// Flags over environment over file over defaults, checked for what the types cannot say.
///
/// # Errors
/// One line that names the key, the value, what is allowed and the remedy.
pub fn load(flags: &Flags) -> Result<Loaded<Config>, ConfigError> {
    load_with_env(flags, flags.config.as_deref(), std::env::vars())
}

/// [`load`] with file and environment given by the caller.
///
/// # Errors
/// As [`load`].
pub fn load_with_env(
    flags: impl Serialize,
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Loaded<Config>, ConfigError> {
    let mut loaded: Loaded<Config> =
        flux_runtime::config::load_in(Some(foreign::DIALECT), flags, file, env)?;
    server::settle(&mut loaded).map_err(ConfigError::Key)?;
    if loaded.value.id.is_empty() {
        loaded.value.id = host_name();
    }
    check::check(&loaded.value).map_err(ConfigError::Key)?;
    Ok(loaded)
}

/// A file's text alone, by the extension of its path, over defaults; what the types cannot say is
/// checked but for what would be read from other files.
///
/// # Errors
/// As [`load`].
pub fn read(path: &Path, text: &str) -> Result<Loaded<Config>, ConfigError> {
    let file = Some((path, text));
    let mut loaded: Loaded<Config> = flux_runtime::config::load_text(
        Some(foreign::DIALECT),
        NoFlags {},
        file,
        std::iter::empty(),
    )?;
    server::settle(&mut loaded).map_err(ConfigError::Key)?;
    check::check_alone(&loaded.value).map_err(ConfigError::Key)?;
    Ok(loaded)
}

/// Nothing from the command line.
#[derive(Serialize)]
struct NoFlags {}

/// The configuration for a command that runs no node: what it says of listeners and the machine
/// does not have to hold where the command runs.
///
/// # Errors
/// As [`load`].
pub fn load_unchecked(file: Option<&Path>) -> Result<Config, ConfigError> {
    let dialect = Some(foreign::DIALECT);
    let env = std::env::vars();
    let loaded = flux_runtime::config::load_in(dialect, NoFlags {}, file, env)?;
    Ok(loaded.value)
}

impl std::fmt::Debug for Config {
    /// Without its secrets; [`Loaded`] shows the rest.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("id", &self.id)
            .field("listen", &self.listen)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Whether something decides who a client is: a token's key, or the backend.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.client.token.has_keys() || self.client.proxy.connect.enabled
    }

    /// What bounds a session.
    #[must_use]
    pub fn session_limits(&self) -> SessionLimits {
        let client = &self.client;
        SessionLimits {
            channels_max: client.channel_limit,
            channel_length_max_bytes: self.channel.max_length,
            stale_close_delay: client.stale_close_delay,
            ping_interval: client.ping_interval,
            pong_timeout: client.pong_timeout,
            expired_close_delay: client.expired_close_delay,
            expired_sub_close_delay: client.expired_sub_close_delay,
            history_publications_max: client.history_max_publication_limit,
            recovery_publications_max: client.recovery_max_publication_limit,
            commands_rate: self.rates.commands.rate(),
            publishes_rate: self.rates.publishes.rate(),
            ..SessionLimits::DEFAULT
        }
    }

    /// Which channels there are.
    #[must_use]
    pub fn channel_rules(&self) -> ChannelRules {
        let channel = &self.channel;
        ChannelRules {
            without_namespace: channel.without_namespace.clone(),
            namespaces: channel.namespaces.clone(),
            naming: self.naming(),
            history_meta_ttl: channel.history_meta_ttl,
        }
    }

    fn naming(&self) -> Naming {
        let channel = &self.channel;
        Naming {
            private_prefix: channel.private_prefix.clone(),
            namespace_boundary: channel.namespace_boundary.clone(),
            user_boundary: channel.user_boundary.clone(),
            user_separator: channel.user_separator.clone(),
        }
    }

    /// Who decides what clients may do.
    #[must_use]
    pub fn authority(&self) -> AuthorityConfig {
        AuthorityConfig {
            token: self.client.token.clone(),
            subscription_token: self.client.subscription_token.clone(),
            allow_anonymous: self.lets_anonymous_in(),
            backend: self.backend(),
        }
    }

    /// Everything about the backend.
    #[must_use]
    pub fn backend(&self) -> BackendConfig {
        let route = |options: &ChannelOptions| {
            let name = |enabled: bool, name: &str| match (enabled, name) {
                (false, _) => None,
                (true, "") => Some(DEFAULT_PROXY.to_owned()),
                (true, name) => Some(name.to_owned()),
            };
            ChannelRoute {
                subscribe: name(
                    options.subscribe_proxy_enabled,
                    &options.subscribe_proxy_name,
                ),
                publish: name(options.publish_proxy_enabled, &options.publish_proxy_name),
                sub_refresh: name(
                    options.sub_refresh_proxy_enabled,
                    &options.sub_refresh_proxy_name,
                ),
            }
        };
        let namespaces = self.channel.namespaces.iter();
        BackendConfig {
            client: self.client.proxy.clone(),
            channel: self.channel.proxy.clone(),
            rpc: self.rpc.clone(),
            proxies: self.proxies.clone(),
            without_namespace: route(&self.channel.without_namespace),
            namespaces: namespaces
                .map(|namespace| (namespace.name.clone(), route(&namespace.options)))
                .collect(),
            naming: self.naming(),
        }
    }

    /// Client connections at most, by the stricter of the two keys that say so; 0: as many as can
    /// be had.
    #[must_use]
    pub fn connections_wanted(&self) -> u64 {
        match (self.connections_max, self.client.connection_limit) {
            (0, limit) => limit,
            (max, 0) => max,
            (max, limit) => max.min(limit),
        }
    }

    /// Whether clients without a token may connect. Where nothing decides who a client is, all are
    /// anonymous; `check` keeps such a node from addresses that others can reach.
    #[must_use]
    pub fn lets_anonymous_in(&self) -> bool {
        !self.has_credentials()
            || self.allow_anonymous
            || self.client.allow_anonymous_connect_without_token
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "gateway".to_owned(), |name| name.trim().to_owned())
}
