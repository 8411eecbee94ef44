//! A team brings its Centrifugo v6 configuration as it is, in each of the three formats.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flux_gateway::config::{Config, ErrorMode, load_with_env};
use flux_runtime::config::Loaded;
use serde::Serialize;

const SAMPLE: &str = include_str!("data/centrifugo.json");

#[derive(Serialize)]
struct NoFlags {}

fn load(file: &Path) -> Result<Loaded<Config>, String> {
    load_with_env(NoFlags {}, Some(file), std::iter::empty()).map_err(|error| error.to_string())
}

fn written(directory: &Path, extension: &str, text: &str) -> PathBuf {
    let path = directory.join(format!("config.{extension}"));
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    path
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn sample() -> serde_json::Value {
    serde_json::from_str(SAMPLE).expect("JSON")
}

fn holds(config: &Config) {
    assert_eq!(config.id, "node-a");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.admin.to_string(), "127.0.0.1:9000");
    assert_eq!(config.drain_seconds, 45);
    assert_eq!(config.connections_wanted(), 50_000);
    assert_eq!(config.client.ping_interval, Duration::from_secs(20));
    assert_eq!(config.client.history_max_publication_limit, 500);
    assert_eq!(
        config.channel.history_meta_ttl,
        Duration::from_secs(720 * 3600)
    );
    assert_eq!(config.channel.namespaces.len(), 2);
    assert!(config.channel.namespaces[0].options.force_push_join_leave);
    assert_eq!(config.websocket.message_size_limit, 131_072);
    assert!(config.sse.enabled && config.http_stream.enabled && !config.uni_sse.enabled);
    assert_eq!(config.http_api.key, "5a9d3c1e");
    assert_eq!(config.http_api.error_mode, ErrorMode::Transport);
    assert!(config.has_credentials() && !config.lets_anonymous_in());
    let chat = &config.channel.namespaces[0].options;
    assert_eq!(
        (chat.history_size, chat.history_ttl),
        (100, Duration::from_secs(300))
    );
    let rules = config.channel_rules();
    let history = rules.history(chat).expect("a history");
    assert_eq!(history.meta_ttl, Duration::from_secs(720 * 3600));
    let backend = config.backend();
    assert_eq!(
        backend.namespaces["chat"].publish.as_deref(),
        Some("orders")
    );
    assert_eq!(backend.proxies[0].options.timeout, Duration::from_secs(3));
    assert!(config.session_limits().validate().is_ok());
    assert_eq!(config.engine.redis.prefix, "app");
    assert!(config.redis_deployment().expect("one server").is_some());
}

#[test]
fn a_centrifugo_file_loads_in_every_format_and_means_the_same() {
    let directory = directory();
    let texts = [
        ("json", SAMPLE),
        ("yaml", include_str!("data/centrifugo.yaml")),
        ("toml", include_str!("data/centrifugo.toml")),
    ];
    for (extension, text) in texts {
        let path = written(directory.path(), extension, text);
        let loaded = load(&path).unwrap_or_else(|error| panic!("{extension}: {error}"));
        holds(&loaded.value);
    }
}

#[test]
fn the_effective_configuration_says_where_each_value_is_from_and_keeps_secrets() {
    let directory = directory();
    let path = written(directory.path(), "json", SAMPLE);
    let text = load(&path).expect("loads").to_string();
    for secret in [
        "5a9d3c1e",
        "swordfish",
        "herring",
        "bread-and-butter",
        "Bearer",
    ] {
        assert!(!text.contains(secret), "{text}");
    }
    let line = |key: &str| {
        text.lines()
            .find(|line| line.split_whitespace().next() == Some(key))
            .unwrap_or_else(|| panic!("{key} is not in {text}"))
    };
    assert!(line("http_api.key").contains("***") && line("http_api.key").contains("config.json"));
    assert!(line("drain_seconds").contains("45  (shutdown.timeout)"));
    assert!(line("fanout.lag_max").contains("(default)"));
}

#[test]
fn what_cannot_be_had_is_refused_by_name_wherever_it_stands() {
    let directory = directory();
    for (pointer, value, key) in [
        ("/admin/enabled", serde_json::json!(true), "`admin`"),
        ("/grpc_api/enabled", serde_json::json!(true), "`grpc_api`"),
        (
            "/websocket/compression",
            serde_json::json!(true),
            "`websocket.compression`",
        ),
        (
            "/client/presence_update_interval",
            serde_json::json!("1s"),
            "`client.presence_update_interval`",
        ),
        (
            "/channel/namespaces/0/subscription_type",
            serde_json::json!("map"),
            "`channel.namespaces[0].subscription_type`",
        ),
    ] {
        let mut changed = sample();
        *changed.pointer_mut(pointer).expect("in the sample") = value;
        let path = written(directory.path(), "json", &changed.to_string());
        let error = load(&path).expect_err(pointer);
        assert!(
            error.contains(key) && error.contains("not supported"),
            "{error}"
        );
    }
    // A key that nobody knows is a slip, and named too.
    let mut changed = sample();
    changed["client"]["chanel_limit"] = 1.into();
    let path = written(directory.path(), "json", &changed.to_string());
    assert!(load(&path).expect_err("unknown").contains("chanel_limit"));
}
