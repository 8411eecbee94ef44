//! Limits hold to the last one.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::client::{PATIENCE, wait_for};
use super::node::Settings;

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
