//! Clients with tokens: they are found by their user, and by nobody else's.

use std::time::{Duration, SystemTime};

use flux_gateway::shard::call::{Call, ShardInfo, Step, Target};
use flux_gateway::token::{IssueArgs, Secret, TokenConfig, issue};

use super::calls::call;
use super::client::wait_for;
use super::exchange::{Emulated, Exchange, STREAMS};
use super::node::{Node, Settings};

fn tokens() -> TokenConfig {
    TokenConfig {
        hmac_secret_key: Secret::new("a secret of the tests"),
        ..TokenConfig::default()
    }
}

fn settings() -> Settings {
    Settings {
        token: tokens(),
        ..super::settings()
    }
}

fn token(user: &str) -> String {
    let args = IssueArgs {
        user: user.to_owned(),
        ttl: Duration::from_secs(3_600),
        channel: None,
        info: None,
    };
    issue(&tokens(), "client.token", &args, SystemTime::now()).expect("a token")
}

fn connect(node: &Node, token: &str) -> Exchange {
    let body = format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#);
    Exchange::post(node.address, STREAMS[1], &body)
}

fn connected(node: &Node, user: &str) -> Emulated {
    Emulated::over(node.address, connect(node, &token(user)))
}

fn of(user: &str) -> Target {
    Target {
        user: user.to_owned(),
        ..Target::default()
    }
}

fn users(node: &Node) -> usize {
    let info: Vec<ShardInfo> = call(node, |reply| Call::Info { reply });
    info.iter().map(|info| info.users).sum()
}

#[test]
fn all_connections_of_a_user_are_reached_however_many_and_nobody_elses() {
    // More than a shard reaches in one turn.
    const COUNT: usize = 300;
    let node = settings().start();
    let mut others = [connected(&node, "other"), connected(&node, "")];
    let mut clients: Vec<Emulated> = (0..COUNT).map(|_| connected(&node, "one")).collect();
    assert_eq!(users(&node), 2);
    let names: Vec<Vec<Box<str>>> = call(&node, |reply| Call::Users { reply });
    let mut names: Vec<Box<str>> = names.into_iter().flatten().collect();
    names.sort();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    assert_eq!(names, ["one", "other"]);
    let spared = clients.swap_remove(7);
    let spared_id = spared.connected["connect"]["client"].as_str();
    let spared_id = flux_gateway::protocol::ClientId::parse(spared_id.expect("an id"));
    let whitelist = Vec::from_iter(spared_id);
    let done = call(&node, move |reply| Call::Sessions {
        target: of("one"),
        step: Step::Disconnect {
            code: 3503,
            reason: "force disconnect".to_owned(),
            whitelist: whitelist.clone(),
        },
        reply,
    });
    assert_eq!(done, [COUNT - 1]);
    for client in &mut clients {
        let push = client.stream.wait(|document| document["push"].is_object());
        assert_eq!(push["push"]["disconnect"]["code"], 3503);
    }
    for client in others.iter_mut().chain([&mut { spared }]) {
        client.ask(2, r#""publish":{"channel":"c","data":1}"#);
    }
    drop(others);
    wait_for("the users to be forgotten", || users(&node) == 0);
}

#[test]
fn a_token_that_is_none_ends_the_stream_with_its_code() {
    let node = settings().start();
    for bad in ["nonsense", &token("one")[1..]] {
        let mut stream = connect(&node, bad);
        stream.head();
        let push = stream.next().expect("the reason");
        assert_eq!(push["push"]["disconnect"]["code"], 3500, "{push}");
        assert_eq!(stream.next(), None);
    }
    assert_eq!(users(&node), 0);
}

#[test]
fn credentials_that_the_server_ends_close_the_session() {
    let node = settings().start();
    let mut client = connected(&node, "one");
    let done = call(&node, |reply| Call::Sessions {
        target: of("one"),
        step: Step::Refresh {
            expired: true,
            expires_in: None,
            info: None,
        },
        reply,
    });
    assert_eq!(done, [1]);
    let push = client.stream.wait(|document| document["push"].is_object());
    assert_eq!(push["push"]["disconnect"]["code"], 3005);
}
