//! Commands for a session from another connection.

use super::client::wait_for;
use super::exchange::{Emulated, Exchange, STREAMS, emulate};
use super::settings;
use flux_gateway::http::Rejection;

#[test]
fn commands_find_their_session_from_whichever_shard_they_come_to() {
    let mut settings = settings();
    settings.shards = 3;
    let node = settings.start();
    let mut client = Emulated::connect(node.address, STREAMS[0]);
    for id in 2..30 {
        // Each request is a connection of its own, on a shard of the kernel's choice.
        let reply = client.ask(id, r#""publish":{"channel":"c","data":1}"#);
        assert!(reply["publish"].is_object(), "{reply}");
    }
    assert_eq!(node.count(|counters| &counters.emulated_unknown), 0);
}

#[test]
fn whoever_guesses_a_session_is_told_what_everybody_is_and_does_nothing() {
    let mut settings = settings();
    settings.shards = 2;
    let node = settings.start();
    let mut client = Emulated::connect(node.address, STREAMS[1]);
    let session = client.session().to_owned();
    let last = if session.ends_with('0') { '1' } else { '0' };
    let guesses = [
        String::new(),
        "x".repeat(52),
        client.connected["connect"]["client"]
            .as_str()
            .expect("an id")
            .to_owned(),
        format!("{}{last}", &session[..session.len() - 1]),
        format!("{}{}", &session[..20], "0".repeat(32)),
        format!("ffff{}", &session[4..]),
        format!("{}{}{}", &session[..4], "f".repeat(16), &session[20..]),
    ];
    for guess in &guesses {
        let (head, body) = emulate(
            node.address,
            "node-1",
            guess,
            r#"{"id":9,"subscribe":{"channel":"c"}}"#,
        )
        .answer();
        assert_eq!((head.status, &*body), (204, ""), "{guess}");
    }
    // A shard that does not exist is known at once, the others when the commands get there.
    wait_for("the guesses to be counted", || {
        node.count(|counters| &counters.emulated_unknown) >= guesses.len() as u64 - 1
    });
    client.ask(2, r#""publish":{"channel":"c","data":1}"#);
    assert_eq!(node.count(|counters| &counters.subscriptions), 0);
}

#[test]
fn a_session_that_is_over_takes_no_more_commands() {
    let node = settings().start();
    let client = Emulated::connect(node.address, STREAMS[1]);
    let session = client.session().to_owned();
    drop(client);
    wait_for("the session's end", || {
        node.count(|counters| &counters.clients) == 0
    });
    let (head, _) = emulate(node.address, "node-1", &session, "{}").answer();
    assert_eq!(head.status, 204);
    assert_eq!(node.count(|counters| &counters.emulated_unknown), 1);
}

#[test]
fn commands_that_are_none_end_their_session_alone() {
    let node = settings().start();
    let mut client = Emulated::connect(node.address, STREAMS[0]);
    let mut other = Emulated::connect(node.address, STREAMS[0]);
    client.emulate("nonsense");
    let push = client.stream.wait(|document| document["push"].is_object());
    assert_eq!(push["push"]["disconnect"]["code"], 3501);
    other.ask(2, r#""publish":{"channel":"c","data":1}"#);
}

#[test]
fn a_body_that_is_no_emulation_request_is_refused_and_counted() {
    let node = settings().start();
    for body in [
        "",
        "{}",
        "[]",
        r#"{"node":"node-1","session":"s","data":7}"#,
    ] {
        let (head, _) = Exchange::post(node.address, "/emulation", body).answer();
        assert_eq!(head.status, 400, "{body}");
    }
    let fields = "Content-Type: application/octet-stream\r\n";
    let (head, _) =
        Exchange::post_with(node.address, "/emulation", fields, b"\x0a\xff\xff").answer();
    assert_eq!(head.status, 400);
    let at = Rejection::ALL
        .iter()
        .position(|rejection| *rejection == Rejection::Emulation)
        .expect("listed");
    assert_eq!(node.count(|counters| &counters.rejections[at]), 5);
}
