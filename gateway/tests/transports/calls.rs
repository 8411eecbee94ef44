//! What the control plane does to sessions, and asks about them.

use flux_gateway::protocol::ClientId;
use flux_gateway::shard::call::{Call, CallAnswers, Step, Target};
use tokio::sync::oneshot;

use super::client::{Client, Got, PATIENCE};
use super::exchange::{Emulated, STREAMS};
use super::node::Node;
use super::settings;

pub(crate) fn call<T: Send + 'static>(
    node: &Node,
    call: impl Fn(oneshot::Sender<T>) -> Call + Send + 'static,
) -> Vec<T> {
    let calls = node.shared.control.calls.clone();
    let answers: CallAnswers<T> =
        flux_runtime::control::run(async move { calls.all(PATIENCE, call).await })
            .expect("a runtime");
    assert_eq!(answers.missing, 0);
    answers.answers
}

fn of(client: ClientId) -> Target {
    Target {
        client: Some(client),
        ..Target::default()
    }
}

#[test]
fn a_call_reaches_the_client_it_names_on_whichever_shard_and_nobody_else() {
    let mut settings = settings();
    settings.shards = 3;
    let node = settings.start();
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(node.address)).collect();
    let target = of(clients[4].id());
    let done = call(&node, move |reply| Call::Sessions {
        target: target.clone(),
        step: Step::Disconnect {
            code: 3503,
            reason: "force disconnect".to_owned(),
            whitelist: Vec::new(),
        },
        reply,
    });
    assert_eq!(done.iter().sum::<usize>(), 1);
    assert_eq!(clients[4].next(), Got::Closed(3503));
    clients.remove(4);
    for client in &mut clients {
        client.ask(r#""publish":{"channel":"c","data":1}"#);
    }
}

#[test]
fn subscriptions_end_by_a_call_with_the_code_it_names() {
    let node = settings().start();
    let mut client = Client::connect(node.address);
    client.subscribe("a");
    client.subscribe("b");
    for (channel, code, reason, ended) in [("a", 2000, "server", 1), ("", 2500, "x", 1)] {
        let target = of(client.id());
        let done = call(&node, move |reply| Call::Sessions {
            target: target.clone(),
            step: Step::Unsubscribe {
                channel: channel.to_owned(),
                code,
                reason: reason.to_owned(),
            },
            reply,
        });
        assert_eq!(done, [1]);
        for _ in 0..ended {
            let push = client.wait(|line| line.contains("unsubscribe"));
            assert!(push.contains(&format!("\"code\":{code}")), "{push}");
        }
    }
    assert_eq!(node.count(|counters| &counters.subscriptions), 0);
}

#[test]
fn a_session_is_named_by_its_text() {
    let node = settings().start();
    let mut stream = Emulated::connect(node.address, STREAMS[0]);
    let named = |session: &str| Target {
        session: Some(session.to_owned()),
        ..Target::default()
    };
    for (target, expected) in [
        (named(""), 0),
        (named("x"), 0),
        (named(stream.session()), 1),
    ] {
        let done = call(&node, move |reply| Call::Sessions {
            target: target.clone(),
            step: Step::Disconnect {
                code: 3000,
                reason: String::new(),
                whitelist: Vec::new(),
            },
            reply,
        });
        assert_eq!(done, [expected]);
    }
    let push = stream.stream.wait(|document| document["push"].is_object());
    assert_eq!(push["push"]["disconnect"]["code"], 3000);
}

#[test]
fn nobody_is_meant_by_a_target_that_names_nobody() {
    let node = settings().start();
    let mut client = Client::connect(node.address);
    let done = call(&node, |reply| Call::Sessions {
        target: Target::default(),
        step: Step::Disconnect {
            code: 3000,
            reason: String::new(),
            whitelist: Vec::new(),
        },
        reply,
    });
    assert_eq!(done, [0]);
    client.ask(r#""publish":{"channel":"c","data":1}"#);
}

#[test]
fn channels_and_counts_are_told_over_all_shards() {
    let mut settings = settings();
    settings.shards = 2;
    let node = settings.start();
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(node.address)).collect();
    for client in &mut clients {
        client.subscribe("news");
    }
    // More than a shard looks at in one turn.
    for (n, client) in clients.iter_mut().enumerate() {
        for m in 0..100 {
            client.subscribe(&format!("many.{}", n * 100 + m));
        }
    }
    let channels = |pattern: &'static str| {
        let found = call(&node, move |reply| Call::Channels {
            pattern: pattern.to_owned(),
            reply,
        });
        assert!(found.iter().all(|found| !found.is_cut));
        let all = found.into_iter().flat_map(|found| found.channels);
        all.map(|(name, count)| (name.to_string(), count))
            .collect::<Vec<_>>()
    };
    let news: usize = channels("news").into_iter().map(|(_, count)| count).sum();
    assert_eq!(news, 50);
    assert_eq!(channels("many.*").len(), 5_000);
    assert_eq!(channels("many.?").len(), 10);
    assert_eq!(channels("[").len(), 0);
    let info = call(&node, |reply| Call::Info { reply });
    let clients: usize = info.iter().map(|info| info.clients).sum();
    let subscriptions: usize = info.iter().map(|info| info.subscriptions).sum();
    assert_eq!((clients, subscriptions), (50, 5_050));
}
