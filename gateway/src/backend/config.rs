//! `client.proxy`, `channel.proxy`, `rpc` and `proxies`, with Centrifugo's names, defaults and
//! units; what Centrifugo has not (limits, breaker, lifecycle notices) stands beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::authority::{Named, Switched};
use crate::config::TlsConfig;
use crate::session::Naming;
use crate::token::Secret;

/// The name by which a channel option or RPC namespace refers to the event's own proxy.
pub const DEFAULT_PROXY: &str = "default";

/// One endpoint of the backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// `http://` or `https://`; asked by POST with a JSON body.
    pub endpoint: String,
    /// Longest wait for the answer; before that, a question waits as long at most for a free place.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Headers of the client's own request that are passed on, in whatever case.
    pub http_headers: Vec<String>,
    /// Whether payloads travel as base64, for those that are not JSON.
    pub binary_encoding: bool,
    /// Whether the `meta` of the connection's credentials is sent along.
    pub include_connection_meta: bool,
    /// What belongs to HTTP alone.
    pub http: ProxyHttpConfig,
    /// Questions under way at the same time; ours.
    pub concurrency: usize,
    /// Questions that wait for a free place; beyond it they are answered with error 111. Ours.
    pub queue: usize,
    /// When a failing endpoint is left alone; ours.
    pub breaker: BreakerConfig,
}

/// What belongs to HTTP alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyHttpConfig {
    /// Headers of every request. They often carry credentials, so they are never shown.
    pub static_headers: BTreeMap<String, Secret>,
    /// What an HTTP status other than 200 means; one that is not listed is error 100.
    pub status_to_code_transforms: Vec<StatusTransform>,
    /// Whom to trust and who we are, for `https://`; without it the authorities of the machine.
    pub tls: TlsConfig,
}

/// What an HTTP status means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatusTransform {
    /// The status.
    pub status_code: u16,
    /// The command's error, where its code is not 0.
    pub to_error: TransformError,
    /// Else the end of the session, where its code is not 0.
    pub to_disconnect: TransformDisconnect,
}

/// An error for the client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformError {
    /// 0: none.
    pub code: u32,
    /// For people.
    pub message: String,
    /// Whether the client may try again.
    pub temporary: bool,
}

/// The end of the session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformDisconnect {
    /// 0: none.
    pub code: u16,
    /// At most 123 bytes.
    pub reason: String,
}

/// When a failing endpoint is left alone. Ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Failures (no connection, timeout, status 5xx) in a row after which nothing is sent for a
    /// while; 0: never.
    pub failures: u32,
    /// The first such while; it doubles with each probe that fails.
    #[serde(with = "humantime_serde")]
    pub pause: Duration,
    /// The longest such while.
    #[serde(with = "humantime_serde")]
    pub pause_max: Duration,
}

/// `client.proxy`. Connect and refresh are Centrifugo's; the others are told, not asked: at most
/// once each, in order for each client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientProxyConfig {
    /// Asked where a client connects without a token.
    pub connect: Switched<ProxyConfig>,
    /// Asked when a connection's credentials expire.
    pub refresh: Switched<ProxyConfig>,
    /// Told when a client has connected.
    pub connected: Switched<ProxyConfig>,
    /// Told when a connection has ended.
    pub disconnected: Switched<ProxyConfig>,
    /// Told when a client has subscribed.
    pub subscribed: Switched<ProxyConfig>,
    /// Told when a subscription has ended.
    pub unsubscribed: Switched<ProxyConfig>,
}

/// `channel.proxy`: what `default` stands for in the channel options `{event}_proxy_name`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelProxyConfig {
    /// Asked when a client subscribes.
    pub subscribe: ProxyConfig,
    /// Asked when a client publishes.
    pub publish: ProxyConfig,
    /// Asked when a subscription's credentials expire.
    pub sub_refresh: ProxyConfig,
}

/// `rpc`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpcConfig {
    /// What `default` stands for in `proxy_name`.
    pub proxy: ProxyConfig,
    /// Ends the namespace of a method; empty: methods have none.
    pub namespace_boundary: String,
    /// For methods without a namespace.
    pub without_namespace: RpcOptions,
    /// For the others; a method of an unknown namespace is error 104.
    pub namespaces: Vec<Named<RpcOptions>>,
}

/// What holds for the methods of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpcOptions {
    /// Whether they go to the backend; else error 108.
    pub proxy_enabled: bool,
    /// To which endpoint: one of `proxies`, or `default`.
    pub proxy_name: String,
}

/// Which proxies the channels of one namespace use: names, none where an event has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelRoute {
    /// `subscribe_proxy_name` where `subscribe_proxy_enabled`.
    pub subscribe: Option<String>,
    /// `publish_proxy_name` where `publish_proxy_enabled`.
    pub publish: Option<String>,
    /// `sub_refresh_proxy_name` where `sub_refresh_proxy_enabled`.
    pub sub_refresh: Option<String>,
}

/// Everything about the backend, from all over the configuration.
#[derive(Clone, Debug, Default)]
pub struct BackendConfig {
    /// `client.proxy`.
    pub client: ClientProxyConfig,
    /// `channel.proxy`.
    pub channel: ChannelProxyConfig,
    /// `rpc`.
    pub rpc: RpcConfig,
    /// `proxies`.
    pub proxies: Vec<Named<ProxyConfig>>,
    /// Of `channel.without_namespace`.
    pub without_namespace: ChannelRoute,
    /// Of `channel.namespaces`, by name.
    pub namespaces: BTreeMap<String, ChannelRoute>,
    /// How a channel's name begins with its namespace.
    pub naming: Naming,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            timeout: Duration::from_secs(1),
            http_headers: Vec::new(),
            binary_encoding: false,
            include_connection_meta: false,
            http: ProxyHttpConfig::default(),
            concurrency: 256,
            queue: 512,
            breaker: BreakerConfig::default(),
        }
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 10,
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(10),
        }
    }
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            proxy: ProxyConfig::default(),
            namespace_boundary: ":".to_owned(),
            without_namespace: RpcOptions::default(),
            namespaces: Vec::new(),
        }
    }
}

impl Default for RpcOptions {
    fn default() -> Self {
        Self {
            proxy_enabled: false,
            proxy_name: DEFAULT_PROXY.to_owned(),
        }
    }
}
