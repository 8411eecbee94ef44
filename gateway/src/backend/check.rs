//! What the types of the backend's configuration cannot say.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};

use super::config::{BackendConfig, DEFAULT_PROXY, ProxyConfig, StatusTransform};
use super::http;
use crate::authority::Named;

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

    /// The HTTP client of an endpoint that has TLS of its own. Reads files.
    ///
    /// # Errors
    /// One line with the key and the remedy.
    pub fn client(&self, section: &str) -> Result<Option<reqwest::Client>, String> {
        let tls = &self.http.tls;
        let key = format!("{section}.http.tls");
        tls.enabled
            .then(|| http::client_with(&key, tls))
            .transpose()
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
    use super::super::config::ChannelRoute;
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
