//! What the types cannot say.

use std::net::SocketAddr;

use super::Config;

pub(super) fn check(config: &Config) -> Result<(), String> {
    check_alone(config)?;
    // As at the start: files of certificates are read.
    let backend = config.backend();
    if backend.has_tls() {
        let client = crate::backend::http::client()?;
        crate::backend::Routes::new(&backend, &client)?;
    }
    config.redis_deployment().map(|_| ())
}

/// As [`check`], without what other files have to say.
pub(super) fn check_alone(config: &Config) -> Result<(), String> {
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
    let bodies = [
        (
            "sse.max_request_body_size",
            config.sse.max_request_body_size,
        ),
        (
            "http_stream.max_request_body_size",
            config.http_stream.max_request_body_size,
        ),
        (
            "uni_sse.max_request_body_size",
            config.uni_sse.max_request_body_size,
        ),
        (
            "uni_http_stream.max_request_body_size",
            config.uni_http_stream.max_request_body_size,
        ),
        (
            "emulation.max_request_body_size",
            config.emulation.max_request_body_size,
        ),
        (
            "uni_websocket.message_size_limit",
            config.uni_websocket.message_size_limit,
        ),
    ];
    for (key, bytes) in bodies {
        if !(1..=64 << 20).contains(&bytes) {
            return refuse(key, &bytes, "use 1 byte to 64 MiB");
        }
    }
    check_access(config)?;
    let invalid = |what: String| format!("config key {what}");
    config.session_limits().validate().map_err(invalid)?;
    config.channel_rules().validate().map_err(invalid)?;
    config.backend().check()?;
    config.client.token.check("client.token")?;
    if config.client.subscription_token.enabled {
        let token = &config.client.subscription_token.options;
        token.check("client.subscription_token")?;
    }
    Ok(())
}

/// Nobody gets in unasked where others than this machine can try.
fn check_access(config: &Config) -> Result<(), String> {
    let is_open = !config.has_credentials() || config.client.insecure;
    if !config.listen.ip().is_loopback() && is_open && !config.allow_anonymous {
        let listen = config.listen;
        return Err(format!(
            "config key `listen`: {listen} is not allowed; others can reach this address and clients need no \
             token: set client.token (a key or a JWKS address) or the connect proxy, listen on a loopback \
             address, or say that you want this with --allow-anonymous"
        ));
    }
    let api = &config.http_api;
    let is_reachable =
        !config.admin.ip().is_loopback() || (api.external && !config.listen.ip().is_loopback());
    if api.insecure && !api.disabled && is_reachable {
        return Err(
            "config key `http_api.insecure`: true is not allowed; others can reach the address where the server \
             API is: set http_api.key instead, or listen on a loopback address"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use flux_runtime::config::{ConfigError, Loaded};

    use super::*;
    use crate::config::{Flags, load_with_env};

    fn parse(arguments: &[&str]) -> Result<Loaded<Config>, ConfigError> {
        let flags = Flags::try_parse_from(arguments).expect("known flags");
        load_with_env(&flags, None, std::iter::empty())
    }

    fn with_env(variables: &[(&str, &str)]) -> Result<Config, String> {
        let flags = Flags::try_parse_from(["flux-gateway"]).expect("no flags");
        let env = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load_with_env(&flags, None, env.collect::<Vec<_>>().into_iter())
            .map(|loaded| loaded.value)
            .map_err(|error| error.to_string())
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
        let allowed = [
            "flux-gateway",
            "--listen",
            "0.0.0.0:8000",
            "--allow-anonymous",
        ];
        assert!(parse(&allowed).is_ok());
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
    fn an_open_server_api_is_for_this_machine_only() {
        let open = ("FLUX_HTTP_API_INSECURE", "true");
        assert!(with_env(&[open]).is_ok());
        let error = with_env(&[open, ("FLUX_ADMIN", "0.0.0.0:8100")]).expect_err("refused");
        assert!(error.contains("http_api.key"), "{error}");
        assert!(with_env(&[("FLUX_HTTP_API_KEY", "k"), ("FLUX_ADMIN", "0.0.0.0:8100")]).is_ok());
    }

    #[test]
    fn what_centrifugo_says_in_other_words_holds_where_our_key_was_not_given() {
        let config = with_env(&[
            ("CENTRIFUGO_HTTP_SERVER_PORT", "9000"),
            ("CENTRIFUGO_HTTP_SERVER_INTERNAL_PORT", "9001"),
            ("CENTRIFUGO_HTTP_SERVER_INTERNAL_ADDRESS", "127.0.0.9"),
            ("CENTRIFUGO_SHUTDOWN_TIMEOUT", "1m"),
            ("CENTRIFUGO_NODE_NAME", "one"),
        ])
        .expect("allowed");
        assert_eq!(config.listen.to_string(), "127.0.0.1:9000");
        assert_eq!(config.admin.to_string(), "127.0.0.9:9001");
        assert_eq!((config.drain_seconds, &*config.id), (60, "one"));
        let config = with_env(&[
            ("CENTRIFUGO_HTTP_SERVER_PORT", "9000"),
            ("FLUX_LISTEN", "127.0.0.1:7000"),
            ("FLUX_ID", "two"),
            ("CENTRIFUGO_NODE_NAME", "one"),
        ])
        .expect("allowed");
        assert_eq!((config.listen.port(), &*config.id), (7000, "two"));
    }

    #[test]
    fn redis_is_named_in_one_place() {
        let deployment = |variables: &[(&str, &str)]| {
            with_env(variables).map(|config| config.redis_deployment().expect("checked").is_some())
        };
        assert_eq!(deployment(&[]), Ok(false));
        assert_eq!(
            deployment(&[("FLUX_REDIS", "redis://127.0.0.1:1")]),
            Ok(true)
        );
        assert_eq!(deployment(&[("CENTRIFUGO_ENGINE_TYPE", "redis")]), Ok(true));
        let sentinels = [
            ("CENTRIFUGO_ENGINE_TYPE", "redis"),
            ("CENTRIFUGO_ENGINE_REDIS_SENTINEL_ADDRESS", "a:1,b:2"),
            ("CENTRIFUGO_ENGINE_REDIS_SENTINEL_MASTER_NAME", "main"),
        ];
        assert_eq!(deployment(&sentinels), Ok(true));
        let both = [
            ("FLUX_REDIS", "redis://127.0.0.1:1"),
            ("FLUX_ENGINE_REDIS_ADDRESS", "127.0.0.1:2"),
        ];
        assert!(
            deployment(&both)
                .expect_err("both")
                .contains("engine.redis")
        );
        let secret = [
            ("FLUX_ENGINE_TYPE", "redis"),
            ("FLUX_ENGINE_REDIS_ADDRESS", "http://:hush@h:1"),
        ];
        assert!(
            !deployment(&secret)
                .expect_err("no Redis URL")
                .contains("hush")
        );
    }
}
