//! Clients that speak Protobuf, over a WebSocket and over a stream.

use std::net::TcpStream;

use super::client::{Client, PATIENCE};
use super::exchange::Exchange;
use super::node::Node;
use super::settings;
use super::unidirectional::subscribe;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

/// `Command { id: 1, connect: {} }` with its length.
const CONNECT: &[u8] = b"\x04\x08\x01\x22\x00";
/// `Command { id: 2, subscribe: { channel: "c" } }` with its length.
const SUBSCRIBE: &[u8] = b"\x07\x08\x02\x2a\x03\x0a\x01c";
/// `Command { id: 3, publish: { channel: "c", data: "{}" } }` with its length.
const PUBLISH: &[u8] = b"\x0b\x08\x03\x3a\x07\x0a\x01c\x12\x02{}";

/// The messages of one frame or chunk.
fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (mut len, mut shift) = (0, 0);
        loop {
            let (byte, rest) = bytes.split_first().expect("a whole length");
            bytes = rest;
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        found.push(bytes[..len].to_vec());
        bytes = &bytes[len..];
    }
    found
}

fn is_reply(message: &[u8], id: u8) -> bool {
    message.starts_with(&[0x08, id])
}

fn is_push(message: &[u8]) -> bool {
    message.first() == Some(&0x22)
}

fn websocket(node: &Node, query: &str, subprotocol: Option<&str>) -> WebSocket<TcpStream> {
    websocket_at(node, &format!("/connection/websocket{query}"), subprotocol)
}

fn websocket_at(node: &Node, target: &str, subprotocol: Option<&str>) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(node.address).expect("somebody listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket option");
    let url = format!("ws://{}{target}", node.address);
    let mut request = url.into_client_request().expect("a request");
    if let Some(subprotocol) = subprotocol {
        let value = subprotocol.parse().expect("a value");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", value);
    }
    let (socket, answer) = tungstenite::client(request, stream).expect("an upgrade");
    let chosen = answer.headers().get("Sec-WebSocket-Protocol");
    assert_eq!(chosen.and_then(|value| value.to_str().ok()), subprotocol);
    socket
}

fn frames(socket: &mut WebSocket<TcpStream>) -> Vec<Vec<u8>> {
    match socket.read().expect("a frame in time") {
        Message::Binary(bytes) => messages(&bytes),
        other => panic!("{other:?}"),
    }
}

/// Reads until a message is such.
fn wait(socket: &mut WebSocket<TcpStream>, is_such: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    loop {
        let found = frames(socket);
        if let Some(message) = found.into_iter().find(|message| is_such(message)) {
            return message;
        }
    }
}

#[test]
fn protobuf_is_chosen_by_subprotocol_or_query_and_travels_in_binary_frames() {
    let node = settings().start();
    for (query, subprotocol) in [
        ("", Some("centrifuge-protobuf")),
        ("?cf_protocol=protobuf&cf_protocol_version=v2", None),
    ] {
        let mut socket = websocket(&node, query, subprotocol);
        let commands = [CONNECT, SUBSCRIBE].concat();
        socket.send(Message::binary(commands)).expect("open");
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(frames(&mut socket));
        }
        assert!(is_reply(&seen[0], 1) && is_reply(&seen[1], 2));
        Client::connect(node.address).send_publish("c", r#"{"to":"protobuf"}"#);
        let push = wait(&mut socket, is_push);
        let data = br#"{"to":"protobuf"}"#;
        assert!(push.windows(data.len()).any(|part| part == data));
        let mut json = Client::connect(node.address);
        json.subscribe("c");
        socket
            .send(Message::binary(PUBLISH.to_vec()))
            .expect("open");
        wait(&mut socket, |message| is_reply(message, 3));
        json.wait(|line| line.contains(r#""data":{}"#));
    }
}

#[test]
fn a_message_in_the_other_format_closes_with_3501() {
    let node = settings().start();
    let mut protobuf = websocket(&node, "", Some("centrifuge-protobuf"));
    protobuf
        .send(Message::text(r#"{"id":1,"connect":{}}"#))
        .expect("open");
    let mut json = websocket(&node, "", Some("centrifuge-json"));
    json.send(Message::binary(CONNECT.to_vec())).expect("open");
    for socket in [&mut protobuf, &mut json] {
        match socket.read().expect("a frame in time") {
            Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 3501),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_stream_in_protobuf_is_one_message_a_chunk_or_several() {
    let node = settings().start();
    let fields = "Content-Type: application/octet-stream\r\n";
    let mut stream = Exchange::post_with(
        node.address,
        "/connection/http_stream",
        fields,
        &[CONNECT, SUBSCRIBE].concat(),
    );
    let head = stream.head();
    assert_eq!(head.field("Content-Type"), "application/octet-stream");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(messages(&stream.chunk().expect("a chunk")));
    }
    assert!(is_reply(&seen[0], 1) && is_reply(&seen[1], 2));
    let text = String::from_utf8_lossy(&seen[0]).into_owned();
    let session = text
        .split(|char: char| !char.is_ascii_hexdigit())
        .find(|part| part.len() >= 52)
        .expect("the session's text");
    // Its length, which stands before it, is the digit 4 as text.
    let session = &session[session.len() - 52..];
    let mut body = b"\x0a\x06node-1\x12\x34".to_vec();
    body.extend_from_slice(session.as_bytes());
    body.extend_from_slice(&[0x1a, PUBLISH.len() as u8]);
    body.extend_from_slice(PUBLISH);
    let (head, _) = Exchange::post_with(node.address, "/emulation", fields, &body).answer();
    assert_eq!(head.status, 204);
    let (mut has_reply, mut has_push) = (false, false);
    while !has_reply || !has_push {
        for message in messages(&stream.chunk().expect("a chunk")) {
            has_reply |= is_reply(&message, 3);
            has_push |= is_push(&message);
        }
    }
}

/// The id in a connect push.
fn client(push: &[u8]) -> serde_json::Value {
    // `Push { connect: { client: .. } }`: bare, not inside a reply.
    assert_eq!(push[0], 0x52, "{push:?}");
    let text = String::from_utf8_lossy(push);
    let id = text.split(|char: char| !(char.is_ascii_hexdigit() || char == '-'));
    // What follows it may look like a part of it; what stands before it, its length, does not.
    let mut id = id.filter(|part| part.len() >= 36).map(|part| &part[..36]);
    serde_json::json!({"connect": {"client": id.next().expect("an id")}})
}

#[test]
fn clients_that_only_listen_get_bare_pushes_in_protobuf() {
    let node = settings().start();
    let fields = "Content-Type: application/octet-stream\r\n";
    let mut stream = Exchange::post_with(node.address, "/connection/uni_http_stream", fields, b"");
    let head = stream.head();
    assert_eq!(head.field("Content-Type"), "application/octet-stream");
    let mut socket = websocket_at(
        &node,
        "/connection/uni_websocket",
        Some("centrifuge-protobuf"),
    );
    socket.send(Message::binary(Vec::new())).expect("open");
    let connected = [
        messages(&stream.chunk().expect("a chunk")).remove(0),
        frames(&mut socket).remove(0),
    ];
    for push in connected {
        assert_eq!(subscribe(&node, &client(&push), "c"), 1);
    }
    Client::connect(node.address).send_publish("c", r#"{"to":"listeners"}"#);
    // `Push { channel: "c", pub: { data: .. } }`.
    let data = br#"{"to":"listeners"}"#;
    let is_publication = |push: &[u8]| {
        push.starts_with(b"\x12\x01c\x22") && push.windows(data.len()).any(|part| part == data)
    };
    while !messages(&stream.chunk().expect("a chunk"))
        .iter()
        .any(|push| is_publication(push))
    {}
    wait(&mut socket, is_publication);
    let mut bad = Exchange::post_with(node.address, "/connection/uni_http_stream", fields, b"\xff");
    bad.head();
    // `Push { disconnect: { code: 3501, .. } }`, and the end.
    let ended = messages(&bad.chunk().expect("a chunk")).remove(0);
    assert!(
        ended.starts_with(&[0x5a]) && ended.windows(2).any(|part| part == [0xad, 0x1b]),
        "{ended:?}"
    );
}
