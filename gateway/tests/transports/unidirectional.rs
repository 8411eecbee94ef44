//! Clients that only listen.

use std::net::TcpStream;
use std::time::Duration;

use flux_gateway::authority::SubscribeGrant;
use flux_gateway::shard::Order;
use flux_gateway::shard::call::{Call, CallAnswers, Step, Target};
use serde_json::Value;
use tungstenite::Message;

use super::client::{Client, PATIENCE};
use super::exchange::Exchange;
use super::node::Node;
use super::settings;

const STREAMS: [&str; 2] = ["/connection/uni_sse", "/connection/uni_http_stream"];

/// Subscribes a client as the server's API does.
pub(super) fn subscribe(node: &Node, connected: &Value, channel: &str) -> usize {
    let client = connected["connect"]["client"].as_str().expect("an id");
    let target = Target {
        client: flux_gateway::protocol::ClientId::parse(client),
        ..Target::default()
    };
    let calls = node.shared.control.calls.clone();
    let channel = channel.to_owned();
    let answers: CallAnswers<usize> = flux_runtime::control::run(async move {
        calls
            .all(PATIENCE, |reply| Call::Sessions {
                target: target.clone(),
                step: Step::Subscribe {
                    channel: channel.clone(),
                    grant: SubscribeGrant::default(),
                    recover_since: None,
                },
                reply,
            })
            .await
    })
    .expect("a runtime");
    assert_eq!(answers.missing, 0);
    answers.answers.iter().sum()
}

#[test]
fn a_stream_that_only_listens_gets_bare_pushes() {
    let node = settings().start();
    for path in STREAMS {
        let mut stream = Exchange::post(node.address, path, "{}");
        assert_eq!(stream.head().status, 200);
        let connected = stream.next().expect("a push");
        assert!(connected["connect"]["client"].is_string(), "{connected}");
        assert_eq!(subscribe(&node, &connected, "c"), 1);
        let push = stream.next().expect("a push");
        assert_eq!(push["channel"], "c");
        assert!(push["subscribe"].is_object(), "{push}");
        Client::connect(node.address).send_publish("c", "7");
        let push = stream.next().expect("a push");
        assert_eq!(push["pub"]["data"], 7, "{push}");
    }
    node.order(Order::Close(usize::MAX));
}

#[test]
fn events_that_only_listen_need_no_request_at_all() {
    let node = settings().start();
    for target in [
        "/connection/uni_sse",
        "/connection/uni_sse?cf_connect=%7B%22name%22%3A%22n%22%7D",
    ] {
        let mut stream = Exchange::get(node.address, target);
        assert_eq!(stream.head().status, 200);
        let connected = stream.next().expect("a push");
        assert!(connected["connect"].is_object());
    }
    let mut stream = Exchange::get(node.address, "/connection/uni_sse?cf_connect=nonsense");
    stream.head();
    let push = stream.next().expect("a push");
    assert_eq!(push["disconnect"]["code"], 3501, "{push}");
    assert_eq!(stream.next(), None);
}

#[test]
fn a_drain_and_a_missing_pong_are_told_apart() {
    let mut settings = settings();
    settings.session.limits.ping_interval = Duration::from_secs(1);
    settings.session.limits.pong_timeout = Duration::from_millis(100);
    let node = settings.start();
    let mut stream = Exchange::get(node.address, STREAMS[0]);
    stream.head();
    stream.next().expect("the connect push");
    for _ in 0..2 {
        // Nobody waits for a pong of a client that cannot send one.
        assert_eq!(stream.next().expect("a ping"), serde_json::json!({}));
    }
    node.order(Order::Close(1));
    let push = stream.wait(|document| document["disconnect"].is_object());
    assert_eq!(push["disconnect"]["code"], 3001);
    assert_eq!(stream.next(), None);
}

fn websocket(node: &Node, query: &str) -> tungstenite::WebSocket<TcpStream> {
    let stream = TcpStream::connect(node.address).expect("somebody listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket option");
    let url = format!("ws://{}/connection/uni_websocket{query}", node.address);
    tungstenite::client(url, stream).expect("an upgrade").0
}

fn next(socket: &mut tungstenite::WebSocket<TcpStream>) -> Value {
    match socket.read().expect("a frame in time") {
        Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_websocket_that_only_listens_connects_with_its_first_message_or_the_query() {
    let node = settings().start();
    let mut by_message = websocket(&node, "");
    by_message.send(Message::text("{}")).expect("open");
    let mut by_query = websocket(&node, "?cf_connect=%7B%7D");
    for socket in [&mut by_message, &mut by_query] {
        let connected = next(socket);
        assert_eq!(subscribe(&node, &connected, "c"), 1);
        assert!(next(socket)["subscribe"].is_object());
        // What it says later changes nothing.
        socket.send(Message::text("nonsense")).expect("open");
    }
    Client::connect(node.address).send_publish("c", "7");
    for socket in [&mut by_message, &mut by_query] {
        assert_eq!(next(socket)["pub"]["data"], 7);
    }
    let mut bad = websocket(&node, "");
    bad.send(Message::text("nonsense")).expect("open");
    match bad.read().expect("a frame in time") {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 3501),
        other => panic!("{other:?}"),
    }
}
