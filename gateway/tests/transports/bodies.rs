//! Bodies of requests: bounded in length and time, however they come.

use std::time::{Duration, Instant};

use flux_gateway::http::{BODY_BYTES_MAX, BODY_TIME_MAX, Rejection};

use super::exchange::{Emulated, Exchange, STREAMS};
use super::node::Node;
use super::settings;

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

fn rejected(node: &Node, rejection: Rejection) -> u64 {
    let at = Rejection::ALL
        .iter()
        .position(|other| *other == rejection)
        .expect("listed");
    node.count(|counters| &counters.rejections[at])
}

#[test]
fn a_body_may_come_in_chunks_and_byte_by_byte() {
    let node = settings().start();
    let mut request = b"POST /connection/http_stream HTTP/1.1\r\nHost: x\r\n\
        Transfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    for part in CONNECT.as_bytes().chunks(5) {
        request.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        request.extend_from_slice(part);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let mut stream = Exchange::send(node.address, &request[..1]);
    for byte in &request[1..] {
        stream.write(std::slice::from_ref(byte));
    }
    let client = Emulated::over(node.address, stream);
    assert!(client.connected["connect"].is_object());
}

#[test]
fn a_client_that_asks_whether_it_may_send_the_body_is_told() {
    let node = settings().start();
    let request = format!(
        "POST /connection/http_stream HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        CONNECT.len()
    );
    let mut stream = Exchange::send(node.address, request.as_bytes());
    assert_eq!(stream.head().status, 100);
    stream.write(CONNECT.as_bytes());
    let client = Emulated::over(node.address, stream);
    assert_eq!(client.head.status, 200);
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let node = settings().start();
    let paths = [STREAMS[0], STREAMS[1], "/emulation"];
    for path in paths {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            BODY_BYTES_MAX + 1
        );
        let (head, _) = Exchange::send(node.address, request.as_bytes()).answer();
        assert_eq!(head.status, 413, "{path}");
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n"
        );
        let (head, _) = Exchange::send(node.address, request.as_bytes()).answer();
        assert_eq!(head.status, 413, "{path}");
    }
    assert_eq!(
        rejected(&node, Rejection::BodyTooLarge),
        2 * paths.len() as u64
    );
}

#[test]
fn a_body_whose_length_is_unclear_is_refused() {
    let node = settings().start();
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
    ] {
        let request = format!("POST /emulation HTTP/1.1\r\nHost: x\r\n{fields}\r\n12345");
        let (head, _) = Exchange::send(node.address, request.as_bytes()).answer();
        assert_eq!(head.status, 400, "{fields}");
    }
    let request =
        b"POST /emulation HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let (head, _) = Exchange::send(node.address, request).answer();
    assert_eq!(head.status, 400);
}

#[test]
fn a_body_has_its_time_however_slowly_it_drips() {
    let node = settings().start();
    let started = Instant::now();
    let request = b"POST /connection/sse HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
    let silent = Exchange::send(node.address, request);
    let mut dripping = Exchange::send(node.address, request);
    while started.elapsed() < BODY_TIME_MAX - Duration::from_secs(1) {
        dripping.write(b" ");
        std::thread::sleep(Duration::from_millis(200));
    }
    for exchange in [silent, dripping] {
        assert_eq!(exchange.answer().0.status, 408);
    }
    assert!(started.elapsed() < BODY_TIME_MAX + Duration::from_secs(5));
    assert_eq!(rejected(&node, Rejection::BodyTimeout), 2);
    assert_eq!(node.count(|counters| &counters.clients), 0);
}

#[test]
fn what_stands_behind_a_request_is_nobodys() {
    let node = settings().start();
    let mut request = format!(
        "POST /connection/http_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{CONNECT}",
        CONNECT.len()
    );
    request += "GET /live HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = Emulated::over(
        node.address,
        Exchange::send(node.address, request.as_bytes()),
    );
    client.stream.write(&[0; 10_000]);
    let reply = client.ask(2, r#""publish":{"channel":"c","data":1}"#);
    assert!(reply["publish"].is_object());
}
