//! Centrifugo's keys that mean nothing here, or cannot be had.
//!
//! A team brings its file as it is. What switches something off that does not exist here is taken
//! out; what switches it on is refused by name, with what to do instead. Nothing is ignored
//! silently.

use flux_runtime::config::Dialect;
use serde_json::{Map, Value};

/// How a file of Centrifugo is read.
pub(super) const DIALECT: Dialect<'static> = Dialect {
    env_prefix: "CENTRIFUGO_",
    foreign_key,
    review,
};

/// When a key says no more than what holds here anyway.
enum Fine {
    /// Its value is empty, zero or false.
    Off,
    /// It is off, or this: Centrifugo's default, as JSON.
    Default(&'static str),
    /// It is a section with `enabled`, and that is off.
    Disabled,
    /// It is a proxy without an endpoint.
    NoEndpoint,
    /// It is what a proxy says of gRPC, and that is nothing.
    NoGrpc,
    /// Always: it tunes something that has no counterpart.
    Always,
}

use Fine::{Always, Default, Disabled, NoEndpoint, NoGrpc, Off};

/// A key that is not ours, when it is fine all the same, and what to do otherwise.
type Foreign = (&'static str, Fine, &'static str);

const POSITIONS: &str = "every node checks positions by itself; leave it out";
const PATH: &str = "paths are fixed; rewrite them in the proxy in front";
const DELIMITER: &str = "methods have Centrifugo's default delimiter; leave it out";
const COMPRESSION: &str = "messages are not compressed (permessage-deflate); use delta compression (channel option allowed_delta_types)";
const STUCK: &str = "use fanout.lag_max: how long a send may make no progress";
const BUFFERS: &str = "";
const TLS_HERE: &str = "clients' TLS ends at the load balancer in front; configure it there";
const DETAILS: &str = "only the standard answers exist; translate them in the client";

const TABLE: &[Foreign] = &[
    (
        "admin",
        Disabled,
        "there is no admin web page here; use the dashboard (flux-dashboard) and the server API",
    ),
    (
        "broker",
        Disabled,
        "use engine.type, which sets broker and presence together",
    ),
    (
        "presence_manager",
        Disabled,
        "use engine.type, which sets broker and presence together",
    ),
    (
        "map_broker",
        Default(r#"{"type":"memory"}"#),
        "map subscriptions do not exist here; use history with recovery in cache mode",
    ),
    ("grpc_api", Disabled, "use the HTTP server API (http_api)"),
    (
        "uni_grpc",
        Disabled,
        "use uni_sse, uni_http_stream or uni_websocket",
    ),
    (
        "webtransport",
        Disabled,
        "use websocket, http_stream or sse",
    ),
    (
        "consumers",
        Off,
        "nothing is read from queues or databases; publish through the server API",
    ),
    (
        "opentelemetry",
        Disabled,
        "use the Prometheus metrics at /metrics of the admin address",
    ),
    (
        "graphite",
        Disabled,
        "use the Prometheus metrics at /metrics of the admin address",
    ),
    ("usage_stats", Always, ""),
    (
        "swagger",
        Disabled,
        "the OpenAPI document is always at /api/openapi.json of the admin address",
    ),
    (
        "debug",
        Disabled,
        "use perf; /metrics of the admin address has the counters",
    ),
    ("dev", Disabled, "use ./start.sh and its dashboard"),
    ("init", Disabled, "connect directly"),
    (
        "pid_file",
        Off,
        "let the service manager keep the process id",
    ),
    ("enable_unreleased_features", Off, "there are none"),
    ("tls", Disabled, TLS_HERE),
    (
        "log.level",
        Default(r#""info""#),
        "set the environment variable FLUX_LOG, for example FLUX_LOG=debug",
    ),
    ("log.file", Off, "logs go to standard error; redirect it"),
    ("node.info_metrics_aggregate_interval", Always, ""),
    ("shutdown.termination_delay", Off, "use drain_seconds"),
    ("health.handler_prefix", Default(r#""/health""#), PATH),
    ("prometheus.handler_prefix", Default(r#""/metrics""#), PATH),
    (
        "prometheus.instrument_http_handlers",
        Off,
        "/metrics counts the server API by method",
    ),
    ("http_server.tls", Disabled, TLS_HERE),
    ("http_server.tls_autocert", Disabled, TLS_HERE),
    ("http_server.tls_external", Off, TLS_HERE),
    ("http_server.internal_tls", Disabled, TLS_HERE),
    (
        "http_server.http3",
        Disabled,
        "use HTTP/1.1 towards the gateway; the proxy in front may speak HTTP/3 to clients",
    ),
    ("http_api.handler_prefix", Default(r#""/api""#), PATH),
    (
        "websocket.handler_prefix",
        Default(r#""/connection/websocket""#),
        PATH,
    ),
    ("websocket.compression", Off, COMPRESSION),
    ("websocket.compression_min_size", Always, BUFFERS),
    ("websocket.compression_level", Always, BUFFERS),
    ("websocket.read_buffer_size", Always, BUFFERS),
    ("websocket.write_buffer_size", Always, BUFFERS),
    ("websocket.use_write_buffer_pool", Always, BUFFERS),
    ("websocket.write_timeout", Default(r#""1s""#), STUCK),
    (
        "uni_websocket.handler_prefix",
        Default(r#""/connection/uni_websocket""#),
        PATH,
    ),
    ("uni_websocket.compression", Off, COMPRESSION),
    ("uni_websocket.compression_min_size", Always, BUFFERS),
    ("uni_websocket.compression_level", Always, BUFFERS),
    ("uni_websocket.read_buffer_size", Always, BUFFERS),
    ("uni_websocket.write_buffer_size", Always, BUFFERS),
    ("uni_websocket.use_write_buffer_pool", Always, BUFFERS),
    ("uni_websocket.write_timeout", Default(r#""1s""#), STUCK),
    (
        "uni_websocket.join_push_messages",
        Off,
        "each push is a message of its own",
    ),
    ("sse.handler_prefix", Default(r#""/connection/sse""#), PATH),
    (
        "http_stream.handler_prefix",
        Default(r#""/connection/http_stream""#),
        PATH,
    ),
    (
        "uni_sse.handler_prefix",
        Default(r#""/connection/uni_sse""#),
        PATH,
    ),
    ("uni_sse.connect_code_to_http_response", Disabled, DETAILS),
    (
        "uni_http_stream.handler_prefix",
        Default(r#""/connection/uni_http_stream""#),
        PATH,
    ),
    (
        "uni_http_stream.connect_code_to_http_response",
        Disabled,
        DETAILS,
    ),
    ("emulation.handler_prefix", Default(r#""/emulation""#), PATH),
    (
        "client.presence_update_interval",
        Default(r#""27s""#),
        "presence lives as long as the client's node; leave it out",
    ),
    (
        "client.concurrency",
        Default("1"),
        "commands of one client are carried out in their order",
    ),
    ("client.channel_position_max_time_lag", Off, POSITIONS),
    (
        "client.user_connection_limit",
        Off,
        "limit a user's connections in the connect proxy",
    ),
    (
        "client.connection_rate_limit",
        Off,
        "limit the rate of connections at the load balancer",
    ),
    (
        "client.connect_include_server_time",
        Off,
        "send the time as data of the connect proxy or in the token's info",
    ),
    (
        "client.insecure_skip_token_signature_verify",
        Off,
        "a token whose signature is not checked proves nothing; use client.insecure to try things out",
    ),
    (
        "client.user_id_http_header",
        Off,
        "use the connect proxy with http_headers, or tokens",
    ),
    (
        "client.connect_code_to_unidirectional_disconnect",
        Disabled,
        DETAILS,
    ),
    ("rpc.namespace_boundary", Default(r#"":""#), DELIMITER),
    (
        "client.subscribe_to_user_personal_channel.single_connection",
        Off,
        "end a user's other connections with the server API's disconnect",
    ),
    (
        "rpc.ping",
        Disabled,
        "clients and server ping each other by the protocol; answer an RPC `ping` in the backend",
    ),
    ("rpc.namespace_boundary", Default(r#"":""#), DELIMITER),
    (
        "channel.proxy.subscribe_stream",
        NoEndpoint,
        "stream proxies need gRPC, which is not spoken: use the subscribe proxy and the server API",
    ),
    (
        "channel.proxy.cache_empty",
        NoEndpoint,
        "use the subscribe proxy",
    ),
    ("channel.proxy.state", NoEndpoint, "use the subscribe proxy"),
    (
        "engine.redis.client_name",
        Off,
        "connections have the names that the gateway gives them",
    ),
    (
        "engine.redis.sentinel_client_name",
        Off,
        "connections have the names that the gateway gives them",
    ),
    (
        "engine.redis.force_resp2",
        Off,
        "use a server that speaks RESP3 (Redis 6 or later, Valkey)",
    ),
    (
        "engine.redis.presence_ttl",
        Default(r#""60s""#),
        "presence lives as long as the registry's lease of the client's node: registry.ttl",
    ),
    (
        "engine.redis.presence_hash_field_ttl",
        Off,
        "presence lives as long as the registry's lease of the client's node",
    ),
    (
        "engine.redis.presence_user_mapping",
        Off,
        "user counts are exact without it",
    ),
    (
        "engine.redis.idempotent_result_ttl",
        Default(r#""5m""#),
        "results are remembered for 300 s; leave it out",
    ),
    (
        "engine.redis.pub_sub_num_shards",
        Off,
        "one connection reads each Redis server; leave it out",
    ),
    (
        "engine.redis.subscribe_on_replica",
        Off,
        "subscriptions are made at the master",
    ),
    (
        "engine.redis.replica_client",
        Disabled,
        "reads are made at the master",
    ),
    ("engine.redis.sharded_pub_sub", Always, ""),
    (
        "engine.redis.use_lists",
        Off,
        "histories are kept in streams; leave it out",
    ),
];

/// As [`TABLE`], inside `channel.without_namespace` and every namespace.
const OF_CHANNELS: &[Foreign] = &[
    (
        "subscription_type",
        Default(r#""stream""#),
        "only `stream` exists here: use history with recovery (force_recovery_mode `cache` for the newest state only)",
    ),
    (
        "subscription_types",
        Off,
        "only `stream` exists here: leave it out",
    ),
    (
        "map",
        Off,
        "map subscriptions do not exist here: use history with recovery in cache mode",
    ),
    (
        "shared_poll",
        Off,
        "shared polling does not exist here: publish through the server API when something changes",
    ),
    (
        "subscribe_stream_proxy_enabled",
        Off,
        "stream proxies need gRPC, which is not spoken: use the subscribe proxy and the server API",
    ),
    (
        "subscribe_stream_proxy_name",
        Default(r#""default""#),
        "stream proxies need gRPC, which is not spoken: use the subscribe proxy and the server API",
    ),
    (
        "subscribe_stream_bidirectional",
        Off,
        "stream proxies need gRPC, which is not spoken",
    ),
    ("cache_empty_proxy_enabled", Off, "use the subscribe proxy"),
    (
        "cache_empty_proxy_name",
        Default(r#""default""#),
        "use the subscribe proxy",
    ),
    ("state_proxy_enabled", Off, "use the subscribe proxy"),
    (
        "state_proxy_name",
        Default(r#""default""#),
        "use the subscribe proxy",
    ),
    ("shared_position_sync", Off, POSITIONS),
    (
        "keep_latest_publication",
        Off,
        "the newest publication is kept where there is history",
    ),
];

/// As [`TABLE`], inside every proxy.
const OF_PROXIES: &[Foreign] = &[
    (
        "grpc_metadata",
        Off,
        "gRPC is not spoken; use an http:// or https:// endpoint",
    ),
    (
        "grpc",
        NoGrpc,
        "gRPC is not spoken; use an http:// or https:// endpoint",
    ),
    (
        "http.tls",
        Disabled,
        "the authorities that the machine trusts are trusted; add yours there",
    ),
];

/// The key that a variable of Centrifugo names, where it is in [`TABLE`] or in a section of it.
fn foreign_key(variable: &str) -> Option<String> {
    let name = |key: &str| key.replace('.', "_").to_uppercase();
    let of_channels = OF_CHANNELS
        .iter()
        .map(|(key, ..)| format!("channel.without_namespace.{key}"));
    let keys = TABLE
        .iter()
        .map(|(key, ..)| (*key).to_owned())
        .chain(of_channels);
    keys.filter_map(|key| {
        let rest = variable.strip_prefix(&name(&key))?;
        match rest.strip_prefix('_') {
            Some(inner) => Some(format!("{key}.{}", inner.to_lowercase())),
            None => rest.is_empty().then_some(key),
        }
    })
    .max_by_key(String::len)
}

/// Takes out what means nothing here.
///
/// # Errors
/// One line with the key that cannot be had, its value and the remedy.
fn review(tree: &mut Value) -> Result<(), String> {
    let Value::Object(tree) = tree else {
        return Ok(());
    };
    // The admin address is ours, the section of that name is Centrifugo's.
    let our_admin = tree.get("admin").is_some_and(Value::is_string);
    let foreign = TABLE
        .iter()
        .filter(|(key, ..)| !(our_admin && *key == "admin"));
    for entry in foreign {
        take_out(tree, entry.0, entry, "")?;
    }
    review_proxies(tree)?;
    let Some(Value::Object(channel)) = tree.get_mut("channel") else {
        return Ok(());
    };
    if let Some(Value::Object(options)) = channel.get_mut("without_namespace") {
        review_channel(options, "channel.without_namespace")?;
    }
    if let Some(Value::Array(namespaces)) = channel.get_mut("namespaces") {
        for (at, namespace) in namespaces.iter_mut().enumerate() {
            if let Value::Object(options) = namespace {
                review_channel(options, &format!("channel.namespaces[{at}]"))?;
            }
        }
    }
    Ok(())
}

fn review_proxies(tree: &mut Map<String, Value>) -> Result<(), String> {
    for (section, names) in [
        ("client", &["connect", "refresh"][..]),
        ("channel", &["subscribe", "publish", "sub_refresh"]),
    ] {
        let Some(Value::Object(inner)) = tree.get_mut(section) else {
            continue;
        };
        let Some(Value::Object(proxies)) = inner.get_mut("proxy") else {
            continue;
        };
        for name in names {
            if let Some(Value::Object(proxy)) = proxies.get_mut(*name) {
                review_proxy(proxy, &format!("{section}.proxy.{name}"))?;
            }
        }
    }
    if let Some(Value::Object(rpc)) = tree.get_mut("rpc")
        && let Some(Value::Object(proxy)) = rpc.get_mut("proxy")
    {
        review_proxy(proxy, "rpc.proxy")?;
    }
    if let Some(Value::Array(proxies)) = tree.get_mut("proxies") {
        for (at, proxy) in proxies.iter_mut().enumerate() {
            if let Value::Object(proxy) = proxy {
                review_proxy(proxy, &format!("proxies[{at}]"))?;
            }
        }
    }
    Ok(())
}

fn review_proxy(proxy: &mut Map<String, Value>, place: &str) -> Result<(), String> {
    for entry in OF_PROXIES {
        take_out(proxy, entry.0, entry, place)?;
    }
    Ok(())
}

fn review_channel(options: &mut Map<String, Value>, place: &str) -> Result<(), String> {
    for entry in OF_CHANNELS {
        take_out(options, entry.0, entry, place)?;
    }
    Ok(())
}

/// Takes the value at the dotted key out, if there is one and it is fine.
fn take_out(
    tree: &mut Map<String, Value>,
    key: &str,
    entry: &Foreign,
    place: &str,
) -> Result<(), String> {
    if let Some((section, rest)) = key.split_once('.') {
        let Some(Value::Object(inner)) = tree.get_mut(section) else {
            return Ok(());
        };
        take_out(inner, rest, entry, place)?;
        if inner.is_empty() {
            tree.remove(section);
        }
        return Ok(());
    }
    let Some(value) = tree.remove(key) else {
        return Ok(());
    };
    let (full, fine, remedy) = entry;
    let is_fine = is_off(&value)
        || match fine {
            Off => false,
            Default(default) => {
                serde_json::from_str(default).is_ok_and(|default| is_same(&default, &value))
            }
            Disabled => value
                .as_object()
                .is_some_and(|section| section.get("enabled").is_none_or(is_off)),
            NoEndpoint => value
                .as_object()
                .is_some_and(|proxy| proxy.get("endpoint").is_none_or(is_off)),
            NoGrpc => value.as_object().is_some_and(|grpc| {
                grpc.iter().all(|(key, value)| match (key.as_str(), value) {
                    ("tls", Value::Object(tls)) => tls.get("enabled").is_none_or(is_off),
                    _ => is_off(value),
                })
            }),
            Always => true,
        };
    if is_fine {
        return Ok(());
    }
    let point = if place.is_empty() { "" } else { "." };
    // A section may hold secrets: only that it is on is shown.
    let shown = match &value {
        Value::Object(_) | Value::Array(_) => "what it sets".to_owned(),
        plain => plain.to_string(),
    };
    Err(format!(
        "config key `{place}{point}{full}`: {shown} is not supported; {remedy}"
    ))
}

/// Durations are the same however they are written (`1s`, `1000ms`).
fn is_same(default: &Value, value: &Value) -> bool {
    let duration =
        |value: &Value| humantime_serde::re::humantime::parse_duration(value.as_str()?).ok();
    match (duration(default), duration(value)) {
        (Some(default), Some(value)) => default == value,
        _ => default == value,
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reviewed(mut tree: Value) -> Result<Value, String> {
        review(&mut tree).map(|()| tree)
    }

    #[test]
    fn what_is_off_is_taken_out_and_what_is_on_is_refused_with_a_remedy() {
        let off = json!({
            "admin": {"enabled": false, "password": "hush", "secret": "hush"},
            "grpc_api": {"enabled": false, "port": 10000},
            "usage_stats": {"disabled": true},
            "consumers": [],
            "log": {"level": "info"},
            "websocket": {"compression": false, "write_timeout": "1000ms", "message_size_limit": 1024},
            "channel": {
                "without_namespace": {"map": {}, "presence": true},
                "namespaces": [{"name": "chat", "subscription_type": "stream"}],
            },
        });
        assert_eq!(
            reviewed(off),
            Ok(json!({
                "websocket": {"message_size_limit": 1024},
                "channel": {"without_namespace": {"presence": true}, "namespaces": [{"name": "chat"}]},
            }))
        );
        for (on, key) in [
            (
                json!({"admin": {"enabled": true, "password": "hush"}}),
                "`admin`",
            ),
            (json!({"grpc_api": {"enabled": true}}), "`grpc_api`"),
            (json!({"consumers": [{"name": "hush"}]}), "`consumers`"),
            (
                json!({"websocket": {"compression": true}}),
                "`websocket.compression`",
            ),
            (
                json!({"channel": {"namespaces": [{"name": "a"}, {"name": "b", "shared_poll": {"x": 1}}]}}),
                "`channel.namespaces[1].shared_poll`",
            ),
        ] {
            let error = reviewed(on).expect_err(key);
            assert!(error.contains(key) && !error.contains("hush"), "{error}");
            let (_, remedy) = error.split_once("not supported; ").expect("a remedy");
            assert!(!remedy.is_empty());
        }
    }

    #[test]
    fn our_admin_address_is_not_taken_for_their_section() {
        let ours = json!({"admin": "127.0.0.1:8100"});
        assert_eq!(reviewed(ours.clone()), Ok(ours));
    }

    #[test]
    fn a_variable_names_the_longest_key_that_fits() {
        let key = |variable| foreign_key(variable);
        assert_eq!(key("ADMIN_ENABLED").as_deref(), Some("admin.enabled"));
        assert_eq!(key("GRPC_API_PORT").as_deref(), Some("grpc_api.port"));
        assert_eq!(key("LOG_LEVEL").as_deref(), Some("log.level"));
        assert_eq!(
            key("HTTP_SERVER_TLS_AUTOCERT_ENABLED").as_deref(),
            Some("http_server.tls_autocert.enabled")
        );
        assert_eq!(
            key("CHANNEL_WITHOUT_NAMESPACE_MAP_MODE").as_deref(),
            Some("channel.without_namespace.map.mode")
        );
        assert_eq!(key("NOTHING"), None);
    }

    #[test]
    fn everything_that_can_be_refused_has_a_remedy_and_every_default_is_json() {
        for (key, fine, remedy) in TABLE.iter().chain(OF_CHANNELS).chain(OF_PROXIES) {
            assert!(matches!(fine, Always) || !remedy.is_empty(), "{key}");
            if let Default(text) = fine {
                assert!(serde_json::from_str::<Value>(text).is_ok(), "{key}");
            }
        }
    }
}
