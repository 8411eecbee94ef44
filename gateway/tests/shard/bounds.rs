//! Limits hold to the last one.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::client::{Client, PATIENCE, wait_for};
use super::node::{Node, Settings};

/// Publications that are sent at once: far more than a session may have unanswered.
const BURST: u32 = 4_000;

#[test]
fn of_a_burst_of_connections_only_as_many_are_taken_as_there_may_be() {
    const LIMIT: usize = 10;
    let listening = Settings {
        connections_max: LIMIT as u64,
        ..Settings::default()
    }
    .listen();
    // All of them are accepted in one turn, as the shard does not run yet.
    let mut streams: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(listening.address).expect("room in the backlog"))
        .collect();
    let node = listening.start();
    wait_for("all of them to be accepted", || {
        node.count(|counters| &counters.accepted) == 40
    });
    let mut served = 0;
    for stream in &mut streams {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket option");
        // One that was refused may have been closed by now.
        let _ = stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        match &answer {
            b"HTTP/1.1 200" => served += 1,
            b"HTTP/1.1 503" => {}
            other => panic!("{}", other.escape_ascii()),
        }
    }
    assert_eq!(served, LIMIT);
}

#[test]
fn a_burst_of_publications_waits_for_the_session_and_none_is_refused() {
    let (node, mut reader, mut publisher) = with_a_burst_under_way();
    let last = publisher.ask(r#""publish":{"channel":"c","data":"last"}"#);
    assert!(!last.contains("error"), "{last}");
    let mut next = 0;
    reader.wait(|line| {
        if let Some(n) = data(line) {
            assert_eq!(n, next, "in order, none missing");
            next += 1;
        }
        line.contains(r#""data":"last""#)
    });
    assert_eq!(next, BURST);
    assert_eq!(
        node.count(|counters| &counters.published),
        u64::from(BURST) + 1
    );
}

#[test]
fn what_a_client_sends_before_it_leaves_is_taken_however_much_it_is() {
    let (node, mut reader, mut publisher) = with_a_burst_under_way();
    publisher.finish_sending();
    let last = BURST - 1;
    reader.wait(|line| data(line) == Some(last));
    assert_eq!(node.count(|counters| &counters.publish_failures), 0);
}

/// A node, a client that is subscribed to `c`, and one that has just sent all of [`BURST`] to it.
fn with_a_burst_under_way() -> (Node, Client, Client) {
    let node = Settings::default().start();
    let mut reader = Client::connect(node.address);
    reader.subscribe("c");
    let mut publisher = Client::connect(node.address);
    publisher
        .send_at_once((0..BURST).map(|n| format!(r#""publish":{{"channel":"c","data":{n}}}"#)));
    (node, reader, publisher)
}

/// The number that a publication carries.
fn data(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once(r#""pub":{"data":"#)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..digits].parse().ok()
}
