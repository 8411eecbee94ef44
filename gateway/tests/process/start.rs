//! Promise: what cannot work is refused before anything is started, with exit code 2 and one line that
//! names the key, the value and the remedy.

use std::net::TcpListener;

use serde_json::json;

use super::gateway::Plan;

fn assert_refused(plan: Plan, words: &[&str]) {
    let (code, text) = plan.refused();
    assert_eq!(code, Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn a_listener_that_others_reach_needs_allow_anonymous() {
    let plan = Plan::new(json!({ "listen": "0.0.0.0:0" }));
    assert_refused(plan, &["listen", "0.0.0.0:0", "--allow-anonymous"]);
}

#[test]
fn an_unknown_key_is_named() {
    assert_refused(Plan::new(json!({ "lisen": "127.0.0.1:0" })), &["lisen"]);
    let nested = json!({ "client": { "ping_intervall": "1s" } });
    assert_refused(Plan::new(nested), &["ping_intervall"]);
}

#[test]
fn a_bad_value_is_named_with_what_is_allowed() {
    assert_refused(
        Plan::new(json!({ "drain_seconds": 1 })),
        &["drain_seconds", "1", "3 to 3600"],
    );
    assert_refused(
        Plan::new(json!({ "client": { "ping_interval": "soon" } })),
        &["ping_interval", "soon"],
    );
    assert_refused(
        Plan::new(json!({ "shards": 5000 })),
        &["shards", "5000", "1024"],
    );
    assert_refused(
        Plan::new(json!({ "connections_max": 5000 })).descriptors(1000),
        &[
            "connections_max",
            "5000",
            "with 1000 descriptors",
            "LimitNOFILE",
        ],
    );
    // Its value is not shown: there may be a password in it.
    assert_refused(
        Plan::new(json!({ "redis": "http://127.0.0.1" })),
        &["redis", "redis://", "rediss://"],
    );
}

#[test]
fn a_taken_port_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    assert_refused(
        Plan::new(json!({ "listen": address })),
        &[&address, "--listen"],
    );
    assert_refused(
        Plan::new(json!({ "admin": address })),
        &[&address, "--admin"],
    );
}

#[test]
fn flags_win_over_the_file() {
    let gateway = Plan::new(json!({ "id": "from-file" }))
        .flag("--id", "from-flag")
        .start();
    assert_eq!(gateway.status()["id"], "from-flag");
}
