//! A replica that takes over may lack the last publications, and new ones get their offsets: who has seen the
//! old ones is told, although every offset fits.

use flux_gateway::pubsub::StreamPosition;
use flux_redis_fixtures::Server;
use flux_registry::RedisDeployment;

use crate::node::{HISTORY, Node, Seen, wait_for};

const CHANNEL: &str = "room";

/// What a failover does to a history: all that came behind `kept` is gone, and others have published up to
/// `top`.
fn rewrite(server: &Server, kept: u64, top: u64) {
    let (stream, meta) = ("centrifugo.stream.room", "centrifugo.meta.room");
    for offset in kept + 1..=10 {
        server.ask(&["XDEL", stream, &format!("{offset}-0")]);
    }
    server.tell(&["XSETID", stream, &format!("{kept}-0")]);
    for offset in kept + 1..=top {
        let record = format!("FLX1p\0elsewherenumbr{offset:02}{}", 1_000 + offset);
        server.tell(&["XADD", stream, &format!("{offset}-0"), "d", &record]);
    }
    server.tell(&["HSET", meta, "s", &top.to_string()]);
}

fn is_told(node: &Node, key: u32) -> bool {
    let seen = node.seen();
    seen.iter()
        .any(|seen| matches!(seen, Seen::Lost(of) if *of == key))
}

/// Publishes ten, lets the history be what it is after a failover, and cuts the connections. Returns the
/// subscription and its last position.
fn after(node: &Node, server: &Server, kept: u64, top: u64) -> (u32, StreamPosition) {
    let (key, _) = node.subscribe(CHANNEL, Some(HISTORY));
    let mut last = None;
    for number in 0..10 {
        last = node
            .publish(CHANNEL, number, Some(HISTORY))
            .expect("accepted");
    }
    let last = last.expect("a position");
    assert_eq!(last.offset, 10);
    wait_for("the last of them", || {
        let is_last =
            |seen: &Seen| matches!(seen, Seen::Data { key: of, number: 9, .. } if *of == key);
        node.seen().iter().any(is_last)
    });
    rewrite(server, kept, top);
    server.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    wait_for("the loss", || node.metrics.redis_lost.get() > 0);
    node.wait_until_up();
    (key, last)
}

#[test]
fn offsets_that_fit_do_not_hide_that_the_publications_are_others() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::joined(&RedisDeployment::single(server.url()));
    let (key, last) = after(&node, &server, 7, 13);
    wait_for("the word that some are missing", || is_told(&node, key));
    // Nor is a client that comes back from elsewhere deceived: the epoch is another one.
    let (key, position) = node.subscribe(CHANNEL, Some(HISTORY));
    assert_ne!(position.expect("a position").epoch, last.epoch);
    assert!(!node.recovers(CHANNEL, key, last));
}

#[test]
fn a_history_that_ends_earlier_is_another_one_from_then_on() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::joined(&RedisDeployment::single(server.url()));
    let (key, last) = after(&node, &server, 7, 8);
    wait_for("the word that some are missing", || is_told(&node, key));
    let (key, position) = node.subscribe(CHANNEL, Some(HISTORY));
    assert_ne!(position.expect("a position").epoch, last.epoch);
    assert!(!node.recovers(CHANNEL, key, last));
}

#[test]
fn a_history_that_goes_on_where_it_was_is_filled() {
    let Some(server) = Server::start() else {
        return;
    };
    let node = Node::joined(&RedisDeployment::single(server.url()));
    let (key, last) = after(&node, &server, 10, 13);
    wait_for("what was missed", || {
        let is_newest =
            |seen: &Seen| matches!(seen, Seen::Data { key: of, offset: 13, .. } if *of == key);
        node.seen().iter().any(is_newest)
    });
    assert!(!is_told(&node, key));
    assert!(node.recovers(CHANNEL, key, last));
}
