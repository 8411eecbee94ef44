//! `flux-gateway publish` and `flux-gateway token`.

use std::process::{Command, Output};

use serde_json::json;

use crate::support::{KEY, plan, push, subscribed};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flux-gateway"));
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("FLUX_")) {
        command.env_remove(key);
    }
    command.args(arguments).envs(environment.iter().copied());
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[test]
fn a_person_publishes_with_the_key_from_the_environment() {
    let node = plan("gateway-1", &json!({})).start();
    let (mut client, _) = subscribed(&node, "news");
    let address = format!("http://{}", node.admin);
    let publish = |data: &str, key: &str| {
        let arguments = ["publish", "news", data, "--address", &address];
        run(&arguments, &[("FLUX_HTTP_API_KEY", key)])
    };
    let output = publish(r#"{"a":1}"#, KEY);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "{}");
    assert_eq!(push(&mut client, "pub")["pub"]["data"], json!({"a": 1}));
    assert!(publish("just words", KEY).status.success());
    assert_eq!(push(&mut client, "pub")["pub"]["data"], "just words");
    for (key, remedy) in [
        ("", "set FLUX_HTTP_API_KEY"),
        ("wrong", "check FLUX_HTTP_API_KEY"),
    ] {
        let output = publish("1", key);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stderr).contains(remedy),
            "{}",
            text(&output.stderr)
        );
    }
    drop(node);
    let output = publish("1", KEY);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("--address"),
        "{}",
        text(&output.stderr)
    );
    assert!(!text(&output.stderr).contains(KEY));
}

#[test]
fn a_person_makes_a_token_with_the_secret_from_the_environment() {
    let secret = ("FLUX_CLIENT_TOKEN_HMAC_SECRET_KEY", "bread-and-butter");
    let output = run(&["token", "--user", "42"], &[secret]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).split('.').count(), 3);
    let output = run(&["token", "--user", "42"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("hmac_secret_key"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_subcommands_stand_in_the_help() {
    let help = text(&run(&["--help"], &[]).stdout);
    for word in ["publish", "token", "--check-config", "--config"] {
        assert!(help.contains(word), "{help}");
    }
}
