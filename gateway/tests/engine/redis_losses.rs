//! Promise: in a channel with history each subscriber gets every publication once and in order, or
//! is told that it missed some, whatever becomes of Redis and of the connections to it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use flux_gateway::engine::PublishOptions;
use flux_gateway::engine::history::{HistoryOptions, HistoryQuery};
use flux_gateway::limits::REDIS_LOSS_MAX;
use flux_gateway::protocol::ErrorCode;
use flux_gateway::pubsub::{Epoch, StreamPosition};
use flux_redis_fixtures::Server as RedisServer;

use crate::door::{Door, HISTORY, RedisNode, in_history};

/// Publishes from `from`, while `disturb` does its work, until told to end; how many there are.
fn publish_while(from: &mut Door, disturb: impl FnOnce(&mut dyn FnMut())) -> u64 {
    let mut sent = 0;
    let mut accepted = 0;
    disturb(&mut || {
        sent += 1;
        let command = from.publish_with("room", sent, &in_history());
        if from.publish_answer(command).is_ok() {
            accepted += 1;
        }
    });
    println!("{sent} sent, {accepted} accepted");
    sent
}

#[test]
fn a_subscriber_connection_that_is_cut_while_others_publish_loses_nothing() {
    let Some((server, mut a, mut b)) = RedisNode::two() else {
        return;
    };
    let (key, _) = b.door.listening("room");
    let top = publish_while(&mut a.door, |publish| {
        for _ in 0..3 {
            for _ in 0..50 {
                publish();
            }
            server.command("CLIENT KILL TYPE pubsub");
            for _ in 0..50 {
                publish();
            }
        }
    });
    a.wait_until_up();
    // What was refused in between was not stored; what was stored arrives.
    let page = a
        .door
        .page(
            "room",
            HistoryQuery {
                limit: 0,
                since: None,
                reverse: false,
            },
        )
        .expect("a page");
    println!("{top} sent, {} stored", page.position.offset);
    assert!(page.position.offset > 0);
    b.door.has_all(key, 1, page.position.offset);
    assert!(b.metrics.redis_lost.get() > 0);
}

/// Passes bytes on between clients and a server, until it is told to swallow them.
struct Proxy {
    url: String,
    /// Connections made before the current number are black holes.
    hole: Arc<AtomicU64>,
}

impl Proxy {
    fn start(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let target = server.url().replace("redis://", "");
        let hole = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&hole);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&target)) else {
                    continue;
                };
                let born = counter.load(Ordering::SeqCst);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (
                        from.try_clone().expect("a socket"),
                        to.try_clone().expect("a socket"),
                    );
                    let counter = Arc::clone(&counter);
                    std::thread::spawn(move || {
                        let mut bytes = [0u8; 65_536];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            let is_hole = counter.load(Ordering::SeqCst) > born;
                            if !is_hole && to.write_all(&bytes[..count]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { url, hole }
    }

    fn swallow(&self) {
        self.hole.fetch_add(1, Ordering::SeqCst);
    }
}

/// A node at a server, and one behind a proxy of it.
fn two_nodes() -> Option<(RedisServer, Proxy, RedisNode, RedisNode)> {
    let server = RedisServer::start()?;
    let proxy = Proxy::start(&server);
    let nodes = [&server.url(), &proxy.url].map(|url| RedisNode::joined(url));
    let [a, b] = nodes;
    Some((server, proxy, a, b))
}

#[test]
fn connections_that_swallow_everything_are_found_and_what_was_missed_is_read() {
    let Some((_server, proxy, mut a, mut b)) = two_nodes() else {
        return;
    };
    let (key, _) = b.door.listening("room");
    for n in 1..=10 {
        a.door.publish("room", n).expect("accepted");
    }
    b.door.has_all(key, 1, 10);
    proxy.swallow();
    let swallowed = Instant::now();
    for n in 11..=200 {
        a.door.publish("room", n).expect("accepted");
    }
    b.wait_until_away();
    println!("found after {:?}", swallowed.elapsed());
    b.door.has_all(key, 1, 200);
    let took = swallowed.elapsed();
    println!("whole after {took:?}");
    assert!(took < REDIS_LOSS_MAX, "whole after {took:?}");
    assert!(b.metrics.redis_filled.get() >= 190);
    assert_eq!(b.metrics.redis_insufficient.get(), 0);
}

#[test]
fn while_redis_stands_still_publishes_fail_for_now_and_subscribers_keep_their_place() {
    let Some((server, mut a, mut b)) = RedisNode::two() else {
        return;
    };
    let (key, start) = b.door.listening("room");
    for n in 1..=5 {
        a.door.publish("room", n).expect("accepted");
    }
    b.door.has_all(key, 1, 5);
    server.pause();
    let unclear = a.door.publish_with("room", 6, &in_history());
    a.wait_until_away();
    b.wait_until_away();
    assert_eq!(a.door.publish_answer(unclear), Err(ErrorCode::Internal));
    assert_eq!(
        a.door.publish("room", 7),
        Err(ErrorCode::Internal),
        "for now"
    );
    // Who comes with what is remembered here is answered, others are told to try again.
    let (second, position) = b.door.listening("room");
    assert_eq!(position.offset, 5);
    let since = |offset| StreamPosition { offset, ..start };
    let command = b.door.recover("room", second, since(2));
    let recovery = b.door.recovery(command).expect("remembered");
    let offsets: Vec<u64> = recovery.publications.iter().map(|p| p.offset).collect();
    assert_eq!((recovery.recovered, &offsets[..]), (true, &[3, 4, 5][..]));
    let other = b.door.listen("unknown", Some(HISTORY));
    let result = b
        .door
        .until("a refusal", |door| door.subscribed.get(&other).copied());
    assert_eq!(result, Err(ErrorCode::Internal));
    assert_eq!(
        b.door.offsets(key),
        [1, 2, 3, 4, 5],
        "nothing without a place"
    );
    server.resume();
    a.wait_until_up();
    b.wait_until_up();
    let top = a
        .door
        .publish("room", 8)
        .expect("accepted")
        .expect("a position")
        .offset;
    // The unclear one may have got through.
    assert!((6..=7).contains(&top), "{top}");
    // The shard's channel has the second name since.
    b.door.has_all(second, 6, top);
    assert!(b.door.lost.is_empty());
}

#[test]
fn a_history_that_is_gone_is_announced_and_the_channel_begins_anew() {
    let Some((server, mut a, mut b)) = RedisNode::two() else {
        return;
    };
    let (key, start) = b.door.listening("room");
    for n in 1..=5 {
        a.door.publish("room", n).expect("accepted");
    }
    b.door.has_all(key, 1, 5);
    server.command("FLUSHALL");
    let position = a
        .door
        .publish("room", 6)
        .expect("accepted")
        .expect("a position");
    assert_ne!(position.epoch, start.epoch);
    b.door.until("the announcement", |door| {
        door.lost.contains(&key).then_some(())
    });
    assert_eq!(
        b.door.offsets(key).len(),
        5,
        "nothing of the new life under the old key"
    );
    let (again, _) = b.door.listening("room");
    let command = b
        .door
        .recover("room", again, StreamPosition { offset: 5, ..start });
    assert!(!b.door.recovery(command).expect("answered").recovered);
    a.door.publish("room", 7).expect("accepted");
    b.door.has_all(again, 2, 2);
}

#[test]
fn a_history_shorter_than_what_was_missed_is_announced() {
    let Some((_server, proxy, mut a, mut b)) = two_nodes() else {
        return;
    };
    let (key, _) = b.door.listening("room");
    let short = PublishOptions {
        history: Some(HistoryOptions { size: 5, ..HISTORY }),
        ..PublishOptions::default()
    };
    let mut publish = |n| {
        let command = a.door.publish_with("room", n, &short);
        a.door.publish_answer(command).expect("accepted");
    };
    publish(1);
    b.door.has_all(key, 1, 1);
    proxy.swallow();
    (2..=50).for_each(&mut publish);
    b.door.until("the announcement", |door| {
        door.lost.contains(&key).then_some(())
    });
    assert_eq!(b.door.offsets(key), [1]);
    assert_eq!(b.metrics.redis_insufficient.get(), 1);
}

#[test]
fn redis_restarted_without_its_data_is_announced_and_all_goes_on() {
    let Some((mut server, mut a, mut b)) = RedisNode::two() else {
        return;
    };
    let (key, start) = b.door.listening("room");
    a.door.publish("room", 1).expect("accepted");
    b.door.has_all(key, 1, 1);
    server.kill();
    a.wait_until_away();
    b.wait_until_away();
    assert!(b.door.lost.is_empty(), "nobody knows yet what became of it");
    server.restart();
    a.wait_until_up();
    b.wait_until_up();
    b.door.until("the announcement", |door| {
        door.lost.contains(&key).then_some(())
    });
    let (again, position) = b.door.listening("room");
    assert_ne!(position.epoch, start.epoch);
    a.door.publish("room", 2).expect("accepted");
    b.door.has_all(again, 1, 1);
    let epoch = Epoch::from_random(1);
    let command = b
        .door
        .recover("room", again, StreamPosition { epoch, offset: 0 });
    assert!(!b.door.recovery(command).expect("answered").recovered);
}
