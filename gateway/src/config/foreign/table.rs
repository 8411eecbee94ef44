//! Which keys of Centrifugo mean nothing here, when that is fine, and what to do instead otherwise.

/// When a key says no more than what holds here anyway.
pub(super) enum Fine {
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
pub(super) type Foreign = (&'static str, Fine, &'static str);

pub(super) const POSITIONS: &str = "every node checks positions by itself; leave it out";
pub(super) const PATH: &str = "paths are fixed; rewrite them in the proxy in front";
pub(super) const COMPRESSION: &str = "messages are not compressed (permessage-deflate); use delta compression (channel option allowed_delta_types)";
pub(super) const STUCK: &str = "use fanout.lag_max: how long a send may make no progress";
pub(super) const BUFFERS: &str = "";
pub(super) const TLS_HERE: &str =
    "clients' TLS ends at the load balancer in front; configure it there";
pub(super) const DETAILS: &str = "only the standard answers exist; translate them in the client";

pub(super) const TABLE: &[Foreign] = &[
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
pub(super) const OF_CHANNELS: &[Foreign] = &[
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
pub(super) const OF_PROXIES: &[Foreign] = &[
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
        "http.tls.insecure_skip_verify",
        Off,
        "name the authority of the endpoint's certificate in server_ca_pem",
    ),
    (
        "http.tls.server_name",
        Off,
        "write the name that the certificate has into the endpoint",
    ),
    (
        "http.tls.client_ca_pem",
        Off,
        "it is for servers; leave it out",
    ),
];
