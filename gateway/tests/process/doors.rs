//! Promises of the client port: plain pages, PROXY headers, the connection limit.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use flux_runtime::proxy_protocol::encode_v2;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::client::Client;
use super::gateway::{Gateway, PATIENCE, Plan, request};

const UPGRADE: &str = "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A connection from another address of this machine.
fn connect_from(source: [u8; 4], gateway: &Gateway) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&SocketAddr::from((source, 0)).into())
        .expect("a loopback address");
    socket.connect(&gateway.clients.into()).expect("a listener");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

fn proxy_header(gateway: &Gateway) -> Vec<u8> {
    encode_v2(SocketAddr::from(([203, 0, 113, 7], 4711)), gateway.clients).to_vec()
}

fn first_line(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|count| count == 1) && byte[0] != b'\n' {
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

#[test]
fn plain_requests_get_pages() {
    let gateway = Plan::new(json!({})).start();
    let ask = |line: &str| {
        request(
            gateway.clients,
            &format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        )
    };
    let (status, head, body) = ask("GET /");
    assert_eq!((status, body.lines().count()), (200, 1), "{body}");
    assert!(head.to_lowercase().contains("connection: close"), "{head}");
    assert_eq!(ask("GET /live").0, 200);
    let (status, _, body) = ask("GET /ready");
    assert_eq!(status, 200);
    assert_eq!(body.trim(), r#"{"ready":true,"reasons":[],"degraded":[]}"#);
    assert_eq!(ask("HEAD /").0, 200);
    assert_eq!(ask("HEAD /").2, "", "no body for HEAD");
    assert_eq!(
        ask("GET /metrics").0,
        404,
        "what is for operators is on the admin port"
    );
    assert_eq!(ask("GET /../etc/passwd").0, 404);
    assert_eq!(ask("POST /").0, 405);
    assert_eq!(ask("GET /connection/websocket").0, 426);
    for path in ["/live", "/ready", "/metrics", "/api/status"] {
        assert_eq!(gateway.ask(path).0, 200, "{path}");
    }
    gateway.settles_at(0);
}

#[test]
fn pages_are_answered_one_after_the_other_on_one_connection() {
    let gateway = Plan::new(json!({})).start();
    let mut stream = connect_from([127, 0, 0, 1], &gateway);
    let get = "GET /live HTTP/1.1\r\nHost: x\r\n\r\n";
    let answers = |stream: &mut TcpStream, count: usize| {
        for _ in 0..count {
            assert_eq!(first_line(stream), "HTTP/1.1 200 OK");
            while !first_line(stream).is_empty() {}
            assert_eq!(first_line(stream), "live");
        }
    };
    // One, several at once, and one that is torn behind another.
    stream.write_all(get.as_bytes()).expect("written");
    answers(&mut stream, 1);
    stream
        .write_all(get.repeat(100).as_bytes())
        .expect("written");
    answers(&mut stream, 100);
    let torn = format!("{get}{}", &get[..20]);
    stream.write_all(torn.as_bytes()).expect("written");
    answers(&mut stream, 1);
    stream.write_all(&get.as_bytes()[20..]).expect("written");
    answers(&mut stream, 1);
    // What is no page ends the connection behind its answer; so does a client that has ended its side.
    stream
        .write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("written");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an orderly end");
    assert!(rest.starts_with("HTTP/1.1 404 "), "{rest}");
    let mut stream = connect_from([127, 0, 0, 1], &gateway);
    stream.write_all(get.as_bytes()).expect("written");
    stream.shutdown(Shutdown::Write).expect("a socket");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an orderly end");
    assert!(rest.ends_with("\r\n\r\nlive\n"), "{rest}");
    gateway.settles_at(0);
}

#[test]
fn who_takes_no_pages_is_not_answered_for_ever() {
    let gateway = Plan::new(json!({})).start();
    let mut stream = connect_from([127, 0, 0, 1], &gateway);
    let many = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    for _ in 0..500 {
        // An error: the gateway has ended the connection already.
        let _ = stream.write_all(many.as_bytes());
    }
    gateway.settles_at(0);
    drop(stream);
}

#[test]
fn a_proxy_header_is_read_from_a_trusted_peer_in_whatever_pieces_it_comes() {
    let gateway = Plan::new(json!({})).start();
    let mut bytes = proxy_header(&gateway);
    bytes.extend_from_slice(UPGRADE.as_bytes());
    for piece in [bytes.len(), 1, 20] {
        let mut stream = connect_from([127, 0, 0, 1], &gateway);
        stream.set_nodelay(true).expect("a socket");
        for part in bytes.chunks(piece) {
            stream.write_all(part).expect("written");
        }
        assert_eq!(
            first_line(&mut stream),
            "HTTP/1.1 101 Switching Protocols",
            "pieces of {piece}"
        );
    }
    // Without a header the same peer is a plain client.
    let mut plain = connect_from([127, 0, 0, 1], &gateway);
    plain.write_all(UPGRADE.as_bytes()).expect("written");
    assert_eq!(first_line(&mut plain), "HTTP/1.1 101 Switching Protocols");
    assert_eq!(gateway.metric("flux_proxy_header_errors", ""), 0);
}

#[test]
fn a_proxy_header_from_anybody_else_is_a_bad_request() {
    let gateway = Plan::new(json!({})).start();
    let mut stream = connect_from([127, 0, 0, 2], &gateway);
    let mut bytes = proxy_header(&gateway);
    bytes.extend_from_slice(UPGRADE.as_bytes());
    stream.write_all(&bytes).expect("written");
    assert_eq!(first_line(&mut stream), "HTTP/1.1 400 Bad Request");
    // Without it that peer is as welcome as others.
    let mut plain = connect_from([127, 0, 0, 2], &gateway);
    plain.write_all(UPGRADE.as_bytes()).expect("written");
    assert_eq!(first_line(&mut plain), "HTTP/1.1 101 Switching Protocols");
}

#[test]
fn a_broken_proxy_header_of_a_trusted_peer_ends_the_connection_and_is_counted() {
    let gateway = Plan::new(json!({})).start();
    let mut header = proxy_header(&gateway);
    header[12] = 0x31; // version 3
    let mut stream = connect_from([127, 0, 0, 1], &gateway);
    stream.write_all(&header).expect("written");
    stream.write_all(UPGRADE.as_bytes()).expect("written");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    assert_eq!(gateway.metric("flux_proxy_header_errors", ""), 1);
}

#[test]
fn beyond_the_connection_limit_the_answer_is_503_until_somebody_leaves() {
    let gateway = Plan::new(json!({ "connections_max": 3 })).start();
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(&gateway)).collect();
    gateway.settles_at(3);
    let (status, _, body) = request(gateway.clients, UPGRADE);
    assert_eq!(status, 503, "{body}");
    assert!(gateway.metric("flux_requests_refused", "connection_limit") >= 1);
    assert_eq!(
        gateway.ask("/live").0,
        200,
        "the admin port has its own descriptors"
    );
    drop(clients.pop());
    gateway.settles_at(2);
    clients.push(Client::connect(&gateway));
    for client in &mut clients {
        client.publish("still", json!("there"));
    }
}

#[test]
fn the_client_port_listens_where_it_was_told_only() {
    let gateway = Plan::new(json!({})).start();
    assert_eq!(gateway.clients.ip(), IpAddr::from([127, 0, 0, 1]));
    assert!(
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 3], gateway.clients.port()))).is_err()
    );
}
