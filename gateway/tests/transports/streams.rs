//! Server-sent events and HTTP streams: sessions as over a WebSocket.

use std::time::Duration;

use flux_gateway::pubsub::SubscriptionsConfig;
use flux_gateway::shard::{Ended, Order};
use serde_json::Value;

use super::client::{Client, wait_for};
use super::exchange::{Emulated, Exchange, STREAMS};
use super::settings;

#[test]
fn a_stream_is_a_session_whose_commands_come_over_emulation() {
    let node = settings().start();
    for path in STREAMS {
        let mut client = Emulated::connect(node.address, path);
        assert_eq!(client.head.status, 200);
        for (field, value) in [
            ("Transfer-Encoding", "chunked"),
            ("Cache-Control", "no-cache"),
            ("X-Accel-Buffering", "no"),
        ] {
            assert_eq!(client.head.field(field), value, "{path}");
        }
        assert_eq!(client.connected["connect"]["node"], "node-1");
        assert!(client.session().len() >= 32, "128 random bits");
        let reply = client.ask(2, r#""subscribe":{"channel":"c"}"#);
        assert!(reply["subscribe"].is_object(), "{reply}");
        let mut other = Client::connect(node.address);
        other.send_publish("c", r#"{"from":"a WebSocket"}"#);
        let push = client.stream.wait(|document| document["push"].is_object());
        assert_eq!(push["push"]["pub"]["data"]["from"], "a WebSocket");
        other.subscribe("d");
        let reply = client.ask(3, r#""publish":{"channel":"d","data":7}"#);
        assert!(reply["publish"].is_object(), "{reply}");
        let line = other.wait(|line| line.contains("push"));
        assert!(line.contains("\"data\":7"), "{line}");
    }
}

#[test]
fn events_may_begin_with_a_command_in_the_query_and_begin_with_an_empty_event() {
    let node = settings().start();
    let target = "/connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D&sid=x";
    let mut stream = Exchange::get(node.address, target);
    let head = stream.head();
    assert_eq!(head.status, 200);
    assert!(head.field("Content-Type").starts_with("text/event-stream"));
    assert_eq!(stream.chunk().as_deref(), Some(b"\r\n".as_slice()));
    let event = stream.chunk().expect("the reply");
    assert!(event.starts_with(b"data: {\"id\":1,\"connect\":{"));
    assert!(event.ends_with(b"}\n\n"));
}

#[test]
fn pings_keep_a_stream_and_the_pong_comes_over_emulation() {
    let mut settings = settings();
    settings.session.limits.ping_interval = Duration::from_secs(1);
    settings.session.limits.pong_timeout = Duration::from_millis(500);
    let node = settings.start();
    let is_ping = |document: &Value| *document == serde_json::json!({});
    let mut client = Emulated::connect(node.address, STREAMS[0]);
    for _ in 0..2 {
        client.stream.wait(is_ping);
        client.emulate("{}");
    }
    client.stream.wait(is_ping);
    let push = client.stream.next().expect("the reason");
    assert_eq!(push["push"]["disconnect"]["code"], 3012, "no pong");
    assert_eq!(client.stream.next(), None, "the last chunk");
    assert!(client.stream.rest().is_empty());
    wait_for("the end to be counted", || {
        node.count(|counters| &counters.ended[Ended::NoPong as usize]) == 1
    });
}

#[test]
fn a_drain_ends_streams_with_a_push_and_their_last_chunk() {
    let node = settings().start();
    let mut clients = STREAMS.map(|path| Emulated::connect(node.address, path));
    node.order(Order::Close(2));
    for client in &mut clients {
        let push = client.stream.wait(|document| document["push"].is_object());
        assert_eq!(push["push"]["disconnect"]["code"], 3001);
        assert_eq!(push["push"]["disconnect"]["reason"], "shutdown");
        assert_eq!(client.stream.next(), None);
    }
    wait_for("everybody to be gone", || {
        node.count(|counters| &counters.ended[Ended::Drained as usize]) == 2
            && node.count(|counters| &counters.clients) == 0
    });
}

#[test]
fn a_session_ends_with_its_stream_half_closed_or_cut() {
    let node = settings().start();
    for cut in [false, true] {
        let mut clients = STREAMS.map(|path| Emulated::connect(node.address, path));
        for client in &mut clients {
            client.ask(2, r#""subscribe":{"channel":"c"}"#);
        }
        wait_for("the clients to be counted", || {
            node.count(|counters| &counters.clients) == 2
                && node.count(|counters| &counters.subscriptions) == 2
        });
        if cut {
            drop(clients);
        } else {
            for client in &clients {
                client.stream.finish_sending();
            }
        }
        wait_for("the sessions to end", || {
            node.count(|counters| &counters.clients) == 0
                && node.count(|counters| &counters.subscriptions) == 0
        });
    }
}

#[test]
fn a_slow_reader_of_a_stream_is_evicted_and_told_so() {
    let mut settings = settings();
    settings.subscriptions = SubscriptionsConfig {
        lag_bytes_max: 40_000,
        ..SubscriptionsConfig::default()
    };
    let node = settings.start();
    let connect = r#"{"id":1,"connect":{}}"#;
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{connect}",
        STREAMS[1],
        connect.len()
    );
    let stream = Exchange::send_narrow(node.address, request.as_bytes());
    let mut slow = Emulated::over(node.address, stream);
    slow.ask(2, r#""subscribe":{"channel":"busy"}"#);
    let mut publisher = Client::connect(node.address);
    let data = format!("\"{}\"", "x".repeat(30_000));
    wait_for("the slow consumer to be found", || {
        publisher.ask(&format!(r#""publish":{{"channel":"busy","data":{data}}}"#));
        node.count(|counters| &counters.slow_bytes) == 1
    });
    let push = slow
        .stream
        .wait(|document| document["push"]["disconnect"].is_object());
    assert_eq!(push["push"]["disconnect"]["code"], 3008);
    assert_eq!(slow.stream.next(), None);
}

#[test]
fn what_is_no_command_ends_the_stream_with_its_code() {
    let node = settings().start();
    for path in STREAMS {
        for body in [
            "",
            "nonsense",
            "{}",
            r#"{"id":1,"subscribe":{"channel":"c"}}"#,
        ] {
            let mut stream = Exchange::post(node.address, path, body);
            assert_eq!(stream.head().status, 200);
            let push = stream.next();
            let push = push.unwrap_or_else(|| panic!("{path}, {body:?}: ended without a word"));
            assert_eq!(push["push"]["disconnect"]["code"], 3501, "{path}, {body:?}");
            assert_eq!(stream.next(), None);
        }
    }
}
