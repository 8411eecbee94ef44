//! `client.proxy`, `channel.proxy`, `rpc` and `proxies`, with Centrifugo's names, defaults and
//! units; what Centrifugo has not (limits, breaker, lifecycle notices) stands beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::authority::{Named, Switched};
use crate::session::Naming;
use crate::token::Secret;

/// The name by which a channel option or RPC namespace refers to the event's own proxy.
pub const DEFAULT_PROXY: &str = "default";

/// Headers that describe a connection or a body, and so the gateway's own.
const NOT_FORWARDED: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
];

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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpcConfig {
    /// What `default` stands for in `proxy_name`.
    pub proxy: ProxyConfig,
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

impl Default for RpcOptions {
    fn default() -> Self {
        Self {
            proxy_enabled: false,
            proxy_name: DEFAULT_PROXY.to_owned(),
        }
    }
}

impl ProxyConfig {
    /// Checks what the types cannot say of an endpoint that is used. `section` is its key.
    ///
    /// # Errors
    /// One line that names the key, the value (never a secret) and the remedy.
    pub fn check(&self, section: &str) -> Result<(), String> {
        let refuse = |key: &str, what: String| Err(format!("config key `{section}.{key}`: {what}"));
        let endpoint = &self.endpoint;
        if endpoint.starts_with("grpc://") {
            return refuse(
                "endpoint",
                format!("`{endpoint}`: gRPC is not supported; use http:// or https://"),
            );
        }
        match reqwest::Url::parse(endpoint) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
            _ => {
                return refuse(
                    "endpoint",
                    format!("`{endpoint}` is no URL; use http://... or https://..."),
                );
            }
        }
        if self.timeout.is_zero() || self.timeout > Duration::from_secs(600) {
            return refuse(
                "timeout",
                format!(
                    "{:?} is not allowed; use more than 0s and at most 10m",
                    self.timeout
                ),
            );
        }
        if !(1..=65_536).contains(&self.concurrency) {
            return refuse(
                "concurrency",
                format!("{} is not allowed; use 1 to 65536", self.concurrency),
            );
        }
        if self.queue > 65_536 {
            return refuse(
                "queue",
                format!("{} is not allowed; use 0 to 65536", self.queue),
            );
        }
        if self.breaker.failures > 0
            && (self.breaker.pause.is_zero() || self.breaker.pause > self.breaker.pause_max)
        {
            return refuse(
                "breaker.pause",
                format!(
                    "{:?} is not allowed; use more than 0s and at most pause_max ({:?})",
                    self.breaker.pause, self.breaker.pause_max
                ),
            );
        }
        for name in &self.http_headers {
            if NOT_FORWARDED
                .iter()
                .any(|other| name.eq_ignore_ascii_case(other))
            {
                return refuse(
                    "http_headers",
                    format!("`{name}` belongs to the request to the backend itself; leave it out"),
                );
            }
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                return refuse(
                    "http_headers",
                    format!("`{name}` is no header name; correct it"),
                );
            }
        }
        for (name, value) in &self.http.static_headers {
            if HeaderName::from_bytes(name.as_bytes()).is_err()
                || HeaderValue::from_str(value.expose()).is_err()
            {
                return refuse(
                    "http.static_headers",
                    format!(
                        "`{name}` or its value cannot be sent; use a header name and visible ASCII"
                    ),
                );
            }
        }
        for transform in &self.http.status_to_code_transforms {
            self.check_transform(transform)
                .or_else(|what| refuse("http.status_to_code_transforms", what))?;
        }
        Ok(())
    }

    fn check_transform(&self, transform: &StatusTransform) -> Result<(), String> {
        let StatusTransform {
            status_code,
            to_error,
            to_disconnect,
        } = transform;
        if !(100..=599).contains(status_code) || *status_code == 200 {
            return Err(format!(
                "status_code {status_code} is not allowed; use 100 to 599, but not 200"
            ));
        }
        if to_error.code == 0 && to_disconnect.code == 0 {
            return Err(format!(
                "status_code {status_code} means nothing; set to_error or to_disconnect"
            ));
        }
        if to_disconnect.code != 0 && !(3000..=4999).contains(&to_disconnect.code) {
            return Err(format!(
                "to_disconnect.code {} is not allowed; use 3000 to 4999",
                to_disconnect.code
            ));
        }
        if to_disconnect.reason.len() > 123 {
            return Err(format!(
                "to_disconnect.reason of {} bytes is not allowed; use at most 123 bytes",
                to_disconnect.reason.len()
            ));
        }
        Ok(())
    }
}

impl BackendConfig {
    /// Checks every endpoint that is used, and that every name stands for one.
    ///
    /// # Errors
    /// One line that names the key, the value (never a secret) and the remedy.
    pub fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for Named { name, options } in &self.proxies {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.len() < 2 || !name.bytes().all(is_name) || name == DEFAULT_PROXY {
                return Err(format!(
                    "config key `proxies`: `{name}` is no name; use two or more of a-z A-Z 0-9 - _ . and not `{DEFAULT_PROXY}`"
                ));
            }
            if !names.insert(name.as_str()) {
                return Err(format!(
                    "config key `proxies`: `{name}` is there twice; rename one"
                ));
            }
            options.check(&format!("proxies.{name}"))?;
        }
        for (key, proxy) in [
            ("connect", &self.client.connect),
            ("refresh", &self.client.refresh),
            ("connected", &self.client.connected),
            ("disconnected", &self.client.disconnected),
            ("subscribed", &self.client.subscribed),
            ("unsubscribed", &self.client.unsubscribed),
        ] {
            if proxy.enabled {
                proxy.options.check(&format!("client.proxy.{key}"))?;
            }
        }
        self.check_channels(&names)?;
        self.check_rpc(&names)
    }

    fn check_channels(&self, names: &BTreeSet<&str>) -> Result<(), String> {
        let routes = std::iter::once(("without_namespace".to_owned(), &self.without_namespace))
            .chain(
                self.namespaces
                    .iter()
                    .map(|(name, route)| (format!("namespaces.{name}"), route)),
            );
        for (section, route) in routes {
            for (event, name, own) in [
                ("subscribe", &route.subscribe, &self.channel.subscribe),
                ("publish", &route.publish, &self.channel.publish),
                ("sub_refresh", &route.sub_refresh, &self.channel.sub_refresh),
            ] {
                let Some(name) = name else { continue };
                let key = format!("channel.{section}.{event}_proxy_name");
                check_reference(&key, name, names, own, &format!("channel.proxy.{event}"))?;
            }
        }
        Ok(())
    }

    fn check_rpc(&self, names: &BTreeSet<&str>) -> Result<(), String> {
        let rpc = &self.rpc;
        let mut seen = BTreeSet::new();
        for namespace in &rpc.namespaces {
            if namespace.name.is_empty() || !seen.insert(&namespace.name) {
                return Err(format!(
                    "config key `rpc.namespaces`: the name `{}` is empty or there twice; rename one",
                    namespace.name
                ));
            }
        }
        let options = std::iter::once(("without_namespace".to_owned(), &rpc.without_namespace))
            .chain(
                rpc.namespaces
                    .iter()
                    .map(|entry| (format!("namespaces.{}", entry.name), &entry.options)),
            );
        for (section, options) in options {
            if options.proxy_enabled {
                let key = format!("rpc.{section}.proxy_name");
                check_reference(&key, &options.proxy_name, names, &rpc.proxy, "rpc.proxy")?;
            }
        }
        Ok(())
    }
}

fn check_reference(
    key: &str,
    name: &str,
    names: &BTreeSet<&str>,
    own: &ProxyConfig,
    own_section: &str,
) -> Result<(), String> {
    if name == DEFAULT_PROXY {
        return own.check(own_section);
    }
    if names.contains(name) {
        return Ok(());
    }
    Err(format!(
        "config key `{key}`: there is no proxy `{name}`; add it to `proxies`, or use `{DEFAULT_PROXY}` for `{own_section}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(text: &str) -> ProxyConfig {
        serde_json::from_str(text).expect("known keys")
    }

    #[test]
    fn each_refusal_names_key_value_and_remedy() {
        for (text, names) in [
            (
                r#"{"endpoint":"grpc://x:1"}"#,
                "`grpc://x:1`: gRPC is not supported",
            ),
            (r#"{"endpoint":"x"}"#, "`x` is no URL"),
            (r#"{"endpoint":""}"#, "`` is no URL"),
            (r#"{"endpoint":"http://x","timeout":"0s"}"#, "timeout`: 0ns"),
            (
                r#"{"endpoint":"http://x","concurrency":0}"#,
                "use 1 to 65536",
            ),
            (r#"{"endpoint":"http://x","queue":70000}"#, "use 0 to 65536"),
            (
                r#"{"endpoint":"http://x","breaker":{"pause":"1m"}}"#,
                "breaker.pause`: 60s",
            ),
            (
                r#"{"endpoint":"http://x","http_headers":["a b"]}"#,
                "`a b` is no header name",
            ),
            (
                r#"{"endpoint":"http://x","http":{"static_headers":{"x":"\n"}}}"#,
                "`x` or its value",
            ),
            (
                r#"{"endpoint":"http://x","http":{"status_to_code_transforms":[{"status_code":404}]}}"#,
                "404 means nothing",
            ),
            (
                r#"{"endpoint":"http://x","http":{"status_to_code_transforms":[{"status_code":404,"to_disconnect":{"code":1000}}]}}"#,
                "1000 is not allowed",
            ),
        ] {
            let error = proxy(text).check("rpc.proxy").expect_err(text);
            assert!(
                error.contains(names) && error.contains("`rpc.proxy."),
                "{error}"
            );
        }
        assert_eq!(
            proxy(r#"{"endpoint":"https://example.com/x"}"#).check("a"),
            Ok(())
        );
    }

    #[test]
    fn headers_that_may_be_credentials_do_not_show() {
        let proxy = proxy(r#"{"http":{"static_headers":{"Authorization":"Bearer hush"}}}"#);
        let shown = format!("{proxy:?} {}", serde_json::to_string(&proxy).expect("text"));
        assert!(
            shown.contains("Authorization") && !shown.contains("hush"),
            "{shown}"
        );
    }

    #[test]
    fn a_name_has_to_stand_for_an_endpoint() {
        let mut config = BackendConfig::default();
        assert_eq!(config.check(), Ok(()));
        config.without_namespace.publish = Some("orders".to_owned());
        let error = config.check().expect_err("no such proxy");
        assert!(
            error.contains("channel.without_namespace.publish_proxy_name")
                && error.contains("`orders`"),
            "{error}"
        );
        let named = r#"[{"name":"orders","endpoint":"http://x"}]"#;
        config.proxies = serde_json::from_str(named).expect("known keys");
        assert_eq!(config.check(), Ok(()));
        config.namespaces.insert(
            "chat".to_owned(),
            ChannelRoute {
                subscribe: Some(DEFAULT_PROXY.to_owned()),
                ..ChannelRoute::default()
            },
        );
        let error = config.check().expect_err("it has no endpoint");
        assert!(
            error.contains("channel.proxy.subscribe.endpoint"),
            "{error}"
        );
        config.namespaces.clear();
        config.rpc.without_namespace.proxy_enabled = true;
        assert!(
            config
                .check()
                .expect_err("none")
                .contains("rpc.proxy.endpoint")
        );
        config.rpc.without_namespace.proxy_name = "orders".to_owned();
        assert_eq!(config.check(), Ok(()));
        config.proxies.push(config.proxies[0].clone());
        assert!(config.check().expect_err("twice").contains("twice"));
    }

    #[test]
    fn a_proxy_that_is_switched_off_needs_no_endpoint() {
        let text = r#"{"connect":{"enabled":false,"endpoint":""}}"#;
        let mut config = BackendConfig {
            client: serde_json::from_str(text).expect("known keys"),
            ..BackendConfig::default()
        };
        assert_eq!(config.check(), Ok(()));
        config.client.connect.enabled = true;
        assert!(
            config
                .check()
                .expect_err("on")
                .contains("client.proxy.connect.endpoint")
        );
    }
}
