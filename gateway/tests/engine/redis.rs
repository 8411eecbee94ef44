//! Promise: nodes joined by Redis hear each other in one order; when Redis is away, this node's
//! clients notice nothing among themselves, and all heals by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flux_gateway::engine::redis::RedisConfig;
use flux_gateway::engine::{Engine, EngineMetrics};
use flux_gateway::limits::REDIS_LOSS_MAX;
use flux_redis_fixtures::Server as RedisServer;
use flux_runtime::control::Readiness;

use crate::node::{Shard, Told, wait_for, wakes};

/// A node of a cluster: its shards, and its engine on a thread of its own.
struct Node {
    shards: Vec<Shard>,
    metrics: Arc<EngineMetrics>,
    readiness: Readiness,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    fn start(url: &str, shards: usize) -> Self {
        let (wakers, sources) = wakes(shards);
        let readiness = Readiness::new();
        let (doors, engine, _handle) =
            Engine::redis(RedisConfig::new(url), &wakers, readiness.clone())
                .expect("a valid address");
        let metrics = Arc::clone(engine.metrics());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(engine.run(async {
                    let _ = stopped.await;
                }));
        });
        let shards = doors
            .into_iter()
            .zip(sources)
            .map(|(door, source)| Shard::spawn(door, source))
            .collect();
        Self {
            shards,
            metrics,
            readiness,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Starts one and waits until everything travels through Redis.
    fn joined(server: &RedisServer, shards: usize) -> Self {
        let node = Self::start(&server.url(), shards);
        node.wait_until_up();
        node
    }

    fn is_up(&self) -> bool {
        self.metrics.redis_up.get() == 1
    }

    fn wait_until_up(&self) {
        wait_for("the way through Redis", || self.is_up());
        wait_for("readiness", || {
            self.readiness.document().degraded.is_empty()
        });
    }

    fn wait_until_away(&self) {
        wait_for("Redis to be noticed away", || !self.is_up());
        assert!(
            self.readiness.document().ready,
            "it takes clients all the same"
        );
        // It is said at the end of the turn in which it was found.
        wait_for("the word that Redis is away", || {
            let degraded = self.readiness.document().degraded;
            degraded.iter().any(|why| why.starts_with("redis: "))
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shards.clear();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("an engine has panicked");
        }
    }
}

#[test]
fn nodes_hear_each_other_in_one_order() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let nodes = [Node::joined(&server, 2), Node::joined(&server, 2)];
    for node in &nodes {
        for shard in &node.shards {
            shard.subscribed(1, "room");
        }
    }
    for n in 0..2_000u64 {
        for (from, node) in (0..).zip(&nodes) {
            node.shards[n as usize % 2].publish(1, "room", n * 10 + from);
        }
    }
    let shards = || nodes.iter().flat_map(|node| &node.shards);
    wait_for("all publications everywhere", || {
        shards().all(|shard| shard.pushes(1, "room") == 4_000)
    });
    let first = nodes[0].shards[0].pushed(1, "room");
    for shard in shards() {
        assert_eq!(shard.pushed(1, "room"), first, "one order for all nodes");
    }
    for node in &nodes {
        assert_eq!(node.metrics.local_only.get(), 0);
        assert_eq!(node.metrics.redis_received.get(), 2_000);
        wait_for("nothing in flight", || {
            node.metrics.redis_in_flight.get() <= 1
        });
    }
}

#[test]
fn subscriptions_in_redis_follow_the_clients() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let node = Node::joined(&server, 2);
    let other = Node::joined(&server, 1);
    assert_eq!(server.subscribers("centrifugo.client.a"), 0);
    node.shards[0].subscribed(1, "a");
    node.shards[1].subscribed(1, "a");
    node.shards[1].subscribed(2, "a");
    other.shards[0].subscribed(1, "a");
    assert_eq!(server.subscribers("centrifugo.client.a"), 2, "one a node");
    node.shards[0].unsubscribe(1, "a");
    node.shards[1].unsubscribe(1, "a");
    node.shards[1].published(2, "a", 1).expect("accepted");
    wait_for("the push", || node.shards[1].pushes(2, "a") == 1);
    assert_eq!(server.subscribers("centrifugo.client.a"), 2);
    node.shards[1].unsubscribe(2, "a");
    wait_for("the end of the subscription", || {
        server.subscribers("centrifugo.client.a") == 1
    });
    // Many come and go at once.
    for n in 0..2_000 {
        node.shards[n % 2].subscribe(7, &format!("many{n}"));
    }
    wait_for("all replies", || {
        node.shards
            .iter()
            .map(|shard| shard.count(7, |told| matches!(told, Told::Subscribed(_, Ok(())))))
            .sum::<usize>()
            == 2_000
    });
    assert_eq!(node.metrics.redis_subscriptions.get(), 2_000);
    for n in 0..2_000 {
        node.shards[n % 2].unsubscribe(7, &format!("many{n}"));
    }
    wait_for("no subscriptions", || {
        node.metrics.redis_subscriptions.get() == 0
    });
    wait_for("none in Redis", || {
        server
            .command("PUBSUB CHANNELS centrifugo.client.many*")
            .list()
            .is_empty()
    });
}

#[test]
fn redis_killed_and_restarted_local_delivery_goes_on_and_the_rest_returns() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let nodes = [Node::joined(&server, 2), Node::joined(&server, 1)];
    for node in &nodes {
        node.shards[0].subscribed(1, "room");
    }
    let sender = &nodes[0].shards[1];
    sender.published(9, "room", 0).expect("accepted");
    wait_for("the first everywhere", || {
        nodes
            .iter()
            .all(|node| node.shards[0].pushes(1, "room") == 1)
    });
    server.kill();
    for node in &nodes {
        node.wait_until_away();
    }
    for n in 1..=100 {
        sender.published(9, "room", n).expect("accepted locally");
    }
    wait_for("local delivery", || {
        nodes[0].shards[0].pushes(1, "room") == 101
    });
    assert_eq!(
        nodes[1].shards[0].pushes(1, "room"),
        1,
        "nothing crosses over"
    );
    assert!(nodes[0].metrics.local_only.get() >= 100);
    // A subscription made while Redis is away is in effect at once.
    nodes[1].shards[0].subscribed(2, "other");
    server.restart();
    for node in &nodes {
        node.wait_until_up();
    }
    assert_eq!(server.subscribers("centrifugo.client.room"), 2);
    assert_eq!(server.subscribers("centrifugo.client.other"), 1);
    sender.published(9, "room", 101).expect("accepted");
    sender.published(9, "other", 1).expect("accepted");
    wait_for("the other node", || {
        nodes[1].shards[0].pushed(1, "room") == ["0", "101"]
            && nodes[1].shards[0].pushed(2, "other") == ["1"]
    });
    let expected: Vec<String> = (0..=101).map(|n| n.to_string()).collect();
    assert_eq!(nodes[0].shards[0].pushed(1, "room"), expected);
}

#[test]
fn a_stream_of_publications_survives_kills_once_each_and_in_order() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let node = Node::joined(&server, 2);
    node.shards[0].subscribed(1, "room");
    node.shards[1].subscribed(1, "room");
    let mut sent = 0;
    let send_for = |sent: &mut u64, time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for _ in 0..20 {
                node.shards[1].publish(9, "room", *sent);
                *sent += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for _ in 0..3 {
        send_for(&mut sent, Duration::from_millis(150));
        let before = node.metrics.redis_lost.get();
        server.kill();
        send_for(&mut sent, Duration::from_millis(100));
        server.restart();
        wait_for("the loss to be noticed", || {
            node.metrics.redis_lost.get() > before
        });
        while !node.is_up() {
            send_for(&mut sent, Duration::from_millis(20));
        }
    }
    send_for(&mut sent, Duration::from_millis(50));
    // Some were under way at a kill, else this has tested nothing.
    println!("{sent} sent, {} local", node.metrics.local_only.get());
    let expected: Vec<String> = (0..sent).map(|n| n.to_string()).collect();
    for shard in &node.shards {
        wait_for("all of them", || shard.pushes(1, "room") >= expected.len());
        assert_eq!(shard.pushed(1, "room"), expected);
    }
    wait_for("all answers", || {
        let answers = |told: &Told| matches!(told, Told::Published(_, Ok(())));
        node.shards[1].count(9, answers) as u64 == sent
    });
}

#[test]
fn a_redis_that_stands_still_is_found_and_nothing_under_way_is_lost_or_doubled() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let node = Node::joined(&server, 1);
    let shard = &node.shards[0];
    shard.subscribed(1, "room");
    server.pause();
    let paused = Instant::now();
    for n in 0..10 {
        shard.publish(9, "room", n);
    }
    node.wait_until_away();
    let took = paused.elapsed();
    println!("found after {took:?}");
    assert!(took < REDIS_LOSS_MAX, "found after {took:?}");
    wait_for("what was under way", || shard.pushes(1, "room") == 10);
    shard.published(9, "room", 10).expect("accepted locally");
    server.resume();
    node.wait_until_up();
    shard.published(9, "room", 11).expect("accepted");
    let expected: Vec<String> = (0..=11).map(|n| n.to_string()).collect();
    wait_for("the last", || shard.pushes(1, "room") == 12);
    assert_eq!(shard.pushed(1, "room"), expected, "once each, in order");
    assert_eq!(node.metrics.redis_lost.get(), 1);
    println!("{} came back late", node.metrics.redis_late_echoes.get());
}

/// Ends threads that look at it, also when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_subscriber_connection_that_dies_alone_is_replaced() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let node = Node::joined(&server, 1);
    let shard = &node.shards[0];
    shard.subscribed(1, "room");
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let _ending = Ending(&stop);
        let sender = scope.spawn(|| {
            let mut sent = 0u64;
            while !stop.load(Ordering::SeqCst) {
                shard.publish(9, "room", sent);
                sent += 1;
                std::thread::sleep(Duration::from_micros(300));
            }
            sent
        });
        for times in 1..=5 {
            server.command("CLIENT KILL TYPE pubsub");
            wait_for("the loss", || node.metrics.redis_lost.get() >= times);
            node.wait_until_up();
        }
        stop.store(true, Ordering::SeqCst);
        sender.join().expect("the sender ends well")
    });
    let expected: Vec<String> = (0..sent).map(|n| n.to_string()).collect();
    wait_for("all of them", || shard.pushes(1, "room") >= expected.len());
    assert_eq!(shard.pushed(1, "room"), expected, "once each, in order");
    assert_eq!(server.subscribers("centrifugo.client.room"), 1);
}

#[test]
fn what_others_write_into_our_channels_is_counted_and_harmless() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let node = Node::joined(&server, 1);
    let shard = &node.shards[0];
    shard.subscribed(1, "room");
    for garbage in [
        "hello",
        "{json}",
        "\"__p1:1:abcdefgh__x\"",
        "\"FLX3p\\x00aaaaaaaabbbbbbbb{}\"",
    ] {
        server.command(&format!("PUBLISH centrifugo.client.room {garbage}"));
    }
    for broken in [
        "\"FLX1\"",
        "\"FLX1p\\x00aaaaaaaabbbbbbbb{\"",
        "\"FLX1p\\x00aaaaaaaabbbbbbbb{}\\n\"",
        "\"FLX1o\\x00aaaaaaaabbbbbbbb\"",
        "\"FLX1j\\x00aaaaaaaabbbbbbbb\"",
    ] {
        server.command(&format!("PUBLISH centrifugo.client.room {broken}"));
    }
    // Another process that speaks the format is heard.
    server.command("PUBLISH centrifugo.client.room \"FLX1p\\x00aaaaaaaabbbbbbbb{}\"");
    wait_for("the good one", || shard.pushed(1, "room") == ["{}"]);
    assert_eq!(node.metrics.rejected_format.get(), 4);
    assert_eq!(node.metrics.rejected_content.get(), 5);
    shard.published(1, "room", 1).expect("accepted");
    wait_for("the own one", || shard.pushed(1, "room") == ["{}", "1"]);
    assert_eq!(node.metrics.redis_lost.get(), 0);
}

#[test]
fn without_redis_at_the_start_the_node_serves_its_own_clients() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    server.kill();
    let node = Node::start(&server.url(), 2);
    node.shards[0].subscribed(1, "room");
    node.shards[1].published(1, "room", 1).expect("accepted");
    wait_for("the push", || node.shards[0].pushes(1, "room") == 1);
    node.wait_until_away();
    wait_for("an attempt to fail", || {
        node.metrics.redis_connect_failures.get() > 0
    });
    server.restart();
    node.wait_until_up();
    assert_eq!(server.subscribers("centrifugo.client.room"), 1);
}

#[test]
fn a_channel_that_redis_does_not_permit_is_refused_and_others_are_not() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    server.command(
        "ACL SETUSER gw on >pw +@all ~* resetchannels &centrifugo.node.* &centrifugo.client.open*",
    );
    let url = server.url().replace("redis://", "redis://gw:pw@");
    let node = Node::start(&url, 1);
    node.wait_until_up();
    let shard = &node.shards[0];
    shard.subscribe(1, "closed");
    shard.subscribe(1, "open1");
    shard.subscribe(1, "open2");
    wait_for("all replies", || {
        shard.count(1, |told| matches!(told, Told::Subscribed(..))) == 3
    });
    for told in shard.told(1) {
        let Told::Subscribed(channel, result) = told else {
            continue;
        };
        assert_eq!(result.is_ok(), channel != "closed", "{channel}");
    }
    assert!(shard.published(1, "closed", 1).is_err());
    shard.published(1, "open1", 1).expect("permitted");
    wait_for("the push", || shard.pushes(1, "open1") == 1);
    assert_eq!(node.metrics.redis_lost.get(), 0, "the connections stay");
}

#[test]
fn an_address_is_checked_at_the_start_and_tls_fails_in_words_where_there_is_none() {
    let (wakers, _sources) = wakes(1);
    for address in ["", "localhost", "http://127.0.0.1", "redis://h:port"] {
        let result = Engine::redis(RedisConfig::new(address), &wakers, Readiness::new());
        let error = result.err().expect("no address").to_string();
        assert!(error.starts_with("config key `redis`: "), "{error}");
    }
    let Some(server) = RedisServer::start() else {
        return;
    };
    let node = Node::start(&server.url().replace("redis://", "rediss://"), 1);
    wait_for("the failure", || {
        node.metrics.redis_connect_failures.get() > 0
    });
    assert!(!node.is_up());
    node.shards[0].subscribed(1, "room");
    node.shards[0].published(1, "room", 1).expect("accepted");
    wait_for("the push", || node.shards[0].pushes(1, "room") == 1);
}
