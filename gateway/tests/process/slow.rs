//! Promise: a slow consumer is closed with 3008, by bytes and by time, and costs only itself.

use std::net::{SocketAddr, TcpStream};

use serde_json::json;
use socket2::{Domain, SockRef, Socket, Type};

use super::client::{Client, End};
use super::gateway::{Gateway, Plan, until};

/// A subscriber whose socket takes little and which reads nothing.
fn deaf(gateway: &Gateway, channel: &str) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket");
    socket.connect(&gateway.clients.into()).expect("a listener");
    let mut client = Client::over(
        TcpStream::from(socket),
        gateway.clients,
        "/connection/websocket",
    );
    client.ask(&json!({ "connect": {} }));
    client.ask(&json!({ "subscribe": { "channel": channel } }));
    client
}

/// Publishes until the metric has moved, while the neighbour hears everything in order.
fn publish_until(gateway: &Gateway, metric: &str, neighbour: &mut Client, words: &str) -> u64 {
    let mut writer = Client::connect(gateway);
    let mut number = 0;
    until(metric, || {
        // The metric is a page of its own: it is not asked for after each message.
        for _ in 0..50 {
            writer.publish("busy", json!({ "number": number, "words": words }));
            let heard = neighbour.publication().expect("the neighbour is served");
            assert_eq!(heard["number"], number, "in order, without a gap");
            number += 1;
        }
        (gateway.metric(metric, "") > 0).then_some(())
    });
    number
}

fn assert_told_slow(mut client: Client) {
    let end = loop {
        if let Err(end) = client.message() {
            break end;
        }
    };
    assert_eq!(end, End::Closed(3008, "slow".to_owned()));
}

#[test]
fn who_is_behind_by_too_many_bytes_is_closed_with_3008() {
    let gateway = Plan::new(
        json!({ "client": { "queue_max_size": 131_072 }, "fanout": { "lag_max": "1m" } }),
    )
    .start();
    let mut neighbour = Client::subscribed(&gateway, "busy");
    let slow = deaf(&gateway, "busy");
    publish_until(
        &gateway,
        "flux_slow_consumers_bytes",
        &mut neighbour,
        &"x".repeat(8192),
    );
    assert_told_slow(slow);
    assert_eq!(gateway.metric("flux_slow_consumers_stuck", ""), 0);
    gateway.settles_at(1);
    assert_eq!(gateway.metric("flux_connections_ended", "slow"), 1);
}

#[test]
fn whose_send_is_stuck_too_long_is_closed_with_3008() {
    let gateway = Plan::new(
        json!({ "client": { "queue_max_size": 67_108_864 }, "fanout": { "lag_max": "1s" } }),
    )
    .start();
    let mut neighbour = Client::subscribed(&gateway, "busy");
    let slow = deaf(&gateway, "busy");
    // A small send buffer cannot be had from outside: the system's is filled instead.
    assert!(
        SockRef::from(slow.stream())
            .recv_buffer_size()
            .expect("a socket")
            < 65_536
    );
    publish_until(
        &gateway,
        "flux_slow_consumers_stuck",
        &mut neighbour,
        &"x".repeat(8192),
    );
    assert_told_slow(slow);
    assert_eq!(gateway.metric("flux_slow_consumers_bytes", ""), 0);
    gateway.settles_at(1);
}

#[test]
fn who_never_reads_its_own_echoes_is_not_read_from_either() {
    use std::io::Write;
    use std::time::{Duration, Instant};
    let gateway = Plan::new(json!({})).start();
    let before = gateway.resident_kib();
    let mut greedy = Client::open(gateway.clients, "/echo");
    greedy.send(tungstenite::Message::text("x"));
    assert!(greedy.message().is_ok());
    // Masked binary frames of 32 KiB, written past the library, which would wait for an echo.
    let mut frame = vec![0x82, 0xfe, 0x80, 0x00, 0, 0, 0, 0];
    frame.resize(8 + 32_768, 7);
    let mut stream = greedy.stream().try_clone().expect("a socket");
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .expect("a socket");
    let began = Instant::now();
    let mut written = 0;
    while written < (1 << 30) && stream.write_all(&frame).is_ok() {
        written += frame.len();
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{written} bytes were taken"
        );
    }
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(
        grown < 16 * 1024,
        "{grown} KiB for one client that does not read"
    );
    let other: SocketAddr = gateway.clients;
    let mut neighbour = Client::open(other, "/echo");
    neighbour.send(tungstenite::Message::text("still here"));
    assert_eq!(
        neighbour
            .message()
            .expect("an echo")
            .into_text()
            .expect("text")
            .as_str(),
        "still here"
    );
}
