//! Centrifugo's keys that mean nothing here, or cannot be had.
//!
//! A team brings its file as it is. What switches something off that does not exist here is taken
//! out; what switches it on is refused by name, with what to do instead. Nothing is ignored
//! silently.

mod table;

use flux_runtime::config::Dialect;
use serde_json::{Map, Value};

use table::{Fine, Foreign, OF_CHANNELS, OF_PROXIES, TABLE};

/// How a file of Centrifugo is read.
pub(super) const DIALECT: Dialect<'static> = Dialect {
    env_prefix: "CENTRIFUGO_",
    foreign_key,
    review,
};

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
            Fine::Off => false,
            Fine::Default(default) => {
                serde_json::from_str(default).is_ok_and(|default| is_same(&default, &value))
            }
            Fine::Disabled => value
                .as_object()
                .is_some_and(|section| section.get("enabled").is_none_or(is_off)),
            Fine::NoEndpoint => value
                .as_object()
                .is_some_and(|proxy| proxy.get("endpoint").is_none_or(is_off)),
            Fine::NoGrpc => value.as_object().is_some_and(|grpc| {
                grpc.iter().all(|(key, value)| match (key.as_str(), value) {
                    ("tls", Value::Object(tls)) => tls.get("enabled").is_none_or(is_off),
                    _ => is_off(value),
                })
            }),
            Fine::Always => true,
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
            assert!(matches!(fine, Fine::Always) || !remedy.is_empty(), "{key}");
            if let Fine::Default(text) = fine {
                assert!(serde_json::from_str::<Value>(text).is_ok(), "{key}");
            }
        }
    }
}
