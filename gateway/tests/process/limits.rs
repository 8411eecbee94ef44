//! What a node allows in all: connections a second, connections of a user, bytes of a message.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use flux_gateway::token::{IssueArgs, Secret, TokenConfig, issue};
use serde_json::{Value, json};
use tungstenite::{HandshakeError, Message};

use super::client::{Client, End};
use super::gateway::{Plan, request, until};

const SECRET: &str = "of the tests";

/// Connects as a user: the reply, or how the connection ended instead.
fn connect(address: SocketAddr, user: &str) -> (Client, Result<Value, End>) {
    let config = TokenConfig {
        hmac_secret_key: Secret::new(SECRET),
        ..TokenConfig::default()
    };
    let args = IssueArgs {
        user: user.to_owned(),
        ttl: Duration::from_secs(600),
        channel: None,
        info: None,
    };
    let token = issue(&config, "client.token", &args, SystemTime::now()).expect("made");
    let mut client = Client::open(address, "/connection/websocket");
    client.tell(&json!({ "connect": { "token": token } }));
    let reply = client.line();
    (client, reply)
}

/// The status that a WebSocket handshake is answered with; the connection ends with it.
fn handshake(address: SocketAddr) -> u16 {
    let stream = TcpStream::connect(address).expect("a listener");
    let url = format!("ws://{address}/connection/websocket");
    match tungstenite::client(url, stream) {
        Ok(_) => 101,
        Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => answer.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_user_has_as_many_connections_on_a_node_as_it_may_whatever_the_shard() {
    let gateway = Plan::new(json!({
        "client": { "token": { "hmac_secret_key": SECRET }, "user_connection_limit": 3 }
    }))
    .start();
    let full = Err(End::Closed(3504, "connection limit".to_owned()));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (client, reply) = connect(gateway.clients, "42");
        assert!(reply.is_ok(), "{reply:?}");
        clients.push(client);
    }
    for _ in 0..8 {
        let (_, reply) = connect(gateway.clients, "42");
        assert_eq!(reply, full);
    }
    assert_eq!(gateway.metric("flux_user_limit_refusals", ""), 8);
    // Neither another user nor one without a name is concerned.
    for user in ["43", "", "", "", ""] {
        let (client, reply) = connect(gateway.clients, user);
        assert!(reply.is_ok(), "{user}: {reply:?}");
        clients.push(client);
    }
    // One that goes makes room for one.
    clients.swap_remove(0);
    let _in_its_place = until("there is room again", || {
        let (client, reply) = connect(gateway.clients, "42");
        reply.is_ok().then_some(client)
    });
    assert_eq!(connect(gateway.clients, "42").1, full);
}

#[test]
fn connections_come_in_at_the_rate_that_is_configured_and_other_requests_at_any() {
    const RATE: u64 = 2;
    let gateway = Plan::new(json!({ "client": { "connection_rate_limit": RATE } })).start();
    let began = Instant::now();
    let (mut admitted, mut refused) = (0, 0);
    while refused == 0 || admitted <= RATE {
        match handshake(gateway.clients) {
            101 => admitted += 1,
            503 => refused += 1,
            status => panic!("{status}"),
        }
        let page = "GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert_eq!(request(gateway.clients, page).0, 200);
    }
    let most = RATE + began.elapsed().as_millis() as u64 * RATE / 1000 + 1;
    assert!(admitted <= most, "{admitted} within {:?}", began.elapsed());
    let counted = gateway.metric("flux_requests_refused", "connection_rate");
    assert_eq!(counted, refused);
}

#[test]
fn a_client_that_only_listens_has_a_bound_of_its_own_for_its_message() {
    let gateway = Plan::new(json!({
        "uni_websocket": { "enabled": true, "message_size_limit": 100 }
    }))
    .start();
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(200));
    let mut listener = Client::open(gateway.clients, "/connection/uni_websocket");
    listener.send(Message::text(long.clone()));
    assert!(matches!(listener.end(), End::Closed(1009, _)));
    let mut listener = Client::open(gateway.clients, "/connection/uni_websocket");
    listener.send(Message::text("{}"));
    let push = listener.line().expect("a push");
    assert!(push.get("connect").is_some(), "{push}");
    let mut client = Client::open(gateway.clients, "/connection/websocket");
    client.send(Message::text(format!(r#"{{"id":1,"connect":{long}}}"#)));
    let reply = client.line().expect("a reply");
    assert!(reply.get("connect").is_some(), "{reply}");
}
