use super::*;
use serde::Deserialize;

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Example {
    listen: String,
    shards: usize,
    advertise: Option<String>,
    client: Client,
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Client {
    ping_interval: String,
    hmac_secret_key: String,
}

impl Default for Example {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8000".into(),
            shards: 0,
            advertise: None,
            client: Client::default(),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self {
            ping_interval: "25s".into(),
            hmac_secret_key: String::new(),
        }
    }
}

#[derive(Serialize)]
struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<usize>,
}

fn file(extension: &str, text: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!(
        "flux-config-{}-{:?}.{extension}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, text).expect("a temporary file can be written");
    path
}

fn env(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(String, String)> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect::<Vec<_>>()
        .into_iter()
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let path = file(
        "toml",
        "shards = 2\nlisten = \"127.0.0.1:1\"\n[client]\nping_interval = \"5s\"\n",
    );
    let loaded: Loaded<Example> = load_with_env(
        Flags { shards: Some(4) },
        Some(&path),
        env(&[
            ("FLUX_SHARDS", "3"),
            ("FLUX_LISTEN", "127.0.0.1:2"),
            ("FLUX_LOG", "debug"),
        ]),
    )
    .expect("all keys are known");
    std::fs::remove_file(path).expect("it was there");
    assert_eq!(loaded.value.shards, 4);
    assert_eq!(loaded.value.listen, "127.0.0.1:2");
    assert_eq!(loaded.value.client.ping_interval, "5s");
    assert_eq!(loaded.value.advertise, None);
    let text = loaded.to_string();
    assert!(
        text.contains("(flag)") && text.contains("(environment)"),
        "{text}"
    );
    assert!(
        text.contains("(file ") && text.contains("(default)"),
        "{text}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused_in_one_line_that_shows_nothing_of_it() {
    for (extension, text) in [
        (
            "toml",
            "shards = 2\n[client]\nhmac_secret_key = \"swordfish\n",
        ),
        ("json", "{\"client\":{\"hmac_secret_key\":\"swordfish"),
        ("yaml", "client:\n  hmac_secret_key: \"swordfish\n"),
    ] {
        let path = file(extension, text);
        let error = load_with_env::<Example>(Flags { shards: None }, Some(&path), env(&[]));
        std::fs::remove_file(path).expect("it was there");
        let error = error.expect_err(extension).to_string();
        assert!(
            !error.contains('\n') && !error.contains("swordfish"),
            "{error}"
        );
        assert!(error.contains("line"), "{error}");
    }
    let bad = load_with_env::<Example>(
        Flags { shards: None },
        None,
        env(&[("FLUX_SHARDS", "[\"two\\nlines\"]")]),
    );
    assert!(!bad.expect_err("a list").to_string().contains('\n'));
}

#[test]
fn unknown_keys_and_bad_values_are_refused_by_name() {
    let path = file("json", r#"{"client":{"pong":1}}"#);
    let error = load_with_env::<Example>(Flags { shards: None }, Some(&path), env(&[]))
        .expect_err("unknown");
    std::fs::remove_file(path).expect("it was there");
    assert!(error.to_string().contains("pong"), "{error}");
    let error = load_with_env::<Example>(
        Flags { shards: None },
        None,
        env(&[("FLUX_SHARDS", "many")]),
    )
    .expect_err("not a number");
    assert!(
        error.to_string().contains("shards") && error.to_string().contains("environment"),
        "{error}"
    );
    let error = load_with_env::<Example>(Flags { shards: None }, None, env(&[("FLUX_SHARD", "1")]))
        .expect_err("no such key");
    assert!(error.to_string().contains("FLUX_SHARD"), "{error}");
}

#[test]
fn text_that_looks_like_a_number_stays_text_where_the_key_is_text() {
    let loaded: Loaded<Example> = load_with_env(
        Flags { shards: None },
        None,
        env(&[("FLUX_LISTEN", "8000"), ("FLUX_ADVERTISE", "a:1")]),
    )
    .expect("fits");
    assert_eq!(loaded.value.listen, "8000");
    assert_eq!(loaded.value.advertise.as_deref(), Some("a:1"));
}

#[test]
fn a_secret_may_stand_in_a_file_that_the_environment_names() {
    let path = file("secret", "hush\n");
    let path_text = path.display().to_string();
    let variables = [("FLUX_CLIENT_HMAC_SECRET_KEY_FILE", path_text.as_str())];
    let loaded: Loaded<Example> =
        load_with_env(Flags { shards: None }, None, env(&variables)).expect("fits");
    assert_eq!(loaded.value.client.hmac_secret_key, "hush");
    std::fs::remove_file(path).expect("it was there");
    let error = load_with_env::<Example>(Flags { shards: None }, None, env(&variables))
        .expect_err("no file");
    assert!(
        error.to_string().contains("HMAC_SECRET_KEY_FILE"),
        "{error}"
    );
    // Only secrets are read so.
    let error = load_with_env::<Example>(
        Flags { shards: None },
        None,
        env(&[("FLUX_LISTEN_FILE", "/dev/null")]),
    );
    assert!(error.is_err());
}

#[test]
fn the_other_programs_variables_are_weaker_than_ours_and_reviewed() {
    let dialect = Dialect {
        env_prefix: "OTHER_",
        foreign_key: |name| (name == "EXTRA").then(|| "extra".to_owned()),
        review: |tree| match tree.as_object_mut().and_then(|map| map.remove("extra")) {
            Some(value) if value != false => Err(format!("extra: {value} cannot be had")),
            _ => Ok(()),
        },
    };
    let load = |variables: &[(&str, &str)]| {
        load_in::<Example>(Some(dialect), Flags { shards: None }, None, env(variables))
    };
    let loaded = load(&[
        ("OTHER_SHARDS", "2"),
        ("FLUX_SHARDS", "3"),
        ("OTHER_LISTEN", "[::1]:1"),
        ("OTHER_EXTRA", "false"),
        ("OTHER_PORT_8000_TCP_ADDR", "10.0.0.1"),
    ])
    .expect("all of it means something");
    assert_eq!((loaded.value.shards, &*loaded.value.listen), (3, "[::1]:1"));
    let error = load(&[("OTHER_EXTRA", "true")])
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("extra: true") && error.contains("environment"),
        "{error}"
    );
    assert!(load(&[("OTHER_THING", "1")]).is_err());
}

#[test]
fn a_secret_of_the_wrong_type_is_refused_without_showing_it() {
    let path = file("yaml", "client:\n  hmac_secret_key: 4711\n");
    let error = load_with_env::<Example>(Flags { shards: None }, Some(&path), env(&[]))
        .expect_err("a number");
    std::fs::remove_file(path).expect("it was there");
    let error = error.to_string();
    assert!(
        error.contains("hmac_secret_key") && !error.contains("4711"),
        "{error}"
    );
}

#[test]
fn secrets_in_lists_and_addresses_are_masked() {
    let value = serde_json::json!([{"name": "a", "http": {"static_headers": {"X": "hush"}}, "key": "hush"}]);
    let shown = masked("proxies", value).to_string();
    assert!(
        !shown.contains("hush") && shown.contains("\"a\""),
        "{shown}"
    );
    let shown = masked("address", serde_json::json!(["rediss://u:hush@h:1/0"])).to_string();
    assert_eq!(shown, r#"["rediss://***@h:1/0"]"#);
}

#[test]
fn secrets_are_masked_in_what_check_config_prints() {
    let loaded: Loaded<Example> = load_with_env(
        Flags { shards: None },
        None,
        env(&[("FLUX_CLIENT_HMAC_SECRET_KEY", "hush")]),
    )
    .expect("fits");
    assert_eq!(loaded.value.client.hmac_secret_key, "hush");
    assert!(!loaded.to_string().contains("hush"));
}
