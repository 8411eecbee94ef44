//! Promise: who is present is known on every node; what a dead node leaves behind is gone when the
//! registry declares it dead, and what Redis loses is written again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_gateway::engine::PresenceStats;
use flux_gateway::engine::redis::RedisConfig;
use flux_gateway::protocol::{ClientId, ClientInfo, ErrorCode};
use flux_redis_fixtures::Server as RedisServer;
use flux_registry::{NodeRecord, NodeView, Snapshot};
use tokio::sync::watch;

use crate::door::{Door, RedisNode};
use crate::node::PATIENCE;

/// A registry in which these nodes live, with their generations.
struct Registry(watch::Sender<Arc<Snapshot>>);

impl Registry {
    fn new(nodes: &[(&str, u64)]) -> Self {
        let registry = Self(watch::channel(Arc::new(Snapshot::unread(Duration::from_secs(15)))).0);
        registry.set(nodes);
        registry
    }

    fn set(&self, nodes: &[(&str, u64)]) {
        let mut snapshot = Snapshot::unread(Duration::from_secs(15));
        snapshot.read_at = Some(Instant::now());
        for (id, generation) in nodes {
            let mut record = NodeRecord::new(*id, ([127, 0, 0, 1], 1).into());
            record.generation = *generation;
            let view = NodeView {
                record,
                deadline_ms: 0,
                heartbeat_age_ms: 0,
                fresh: true,
                held: false,
            };
            snapshot.nodes.insert((*id).to_owned(), view);
        }
        self.0.send_replace(Arc::new(snapshot));
    }

    fn join(&self, server: &RedisServer, id: &str) -> RedisNode {
        let config = RedisConfig::new(server.url());
        let mut node = RedisNode::start(config, |engine| engine.with_nodes(id, self.0.subscribe()));
        node.wait_until_up();
        node
    }
}

fn client(n: u128) -> ClientId {
    ClientId::from_random(n)
}

fn enter(door: &mut Door, channel: &str, n: u128, user: &str) {
    let info = ClientInfo {
        user,
        client: client(n),
        conn_info: b"{}",
        chan_info: b"",
    };
    door.engine.enter(channel, info);
    door.turn();
}

fn members(door: &mut Door, channel: &str) -> BTreeSet<String> {
    let asker = door.asker();
    door.engine.presence(channel, asker);
    let members = door.until("members", |door| door.members.remove(&asker.command));
    let members = members.expect("answered");
    members.iter().map(|info| info.client.to_string()).collect()
}

/// Waits until exactly these are present; how long it took.
fn wait_for_members(door: &mut Door, channel: &str, expected: &[u128]) -> Duration {
    let began = Instant::now();
    let expected: BTreeSet<String> = expected.iter().map(|n| client(*n).to_string()).collect();
    loop {
        let present = members(door, channel);
        if present == expected {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "{present:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn members_are_known_everywhere_and_a_clean_leave_is_immediate() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let registry = Registry::new(&[("a", 7), ("b", 8)]);
    let (mut a, mut b) = (registry.join(&server, "a"), registry.join(&server, "b"));
    enter(&mut a.door, "room", 1, "ann");
    enter(&mut a.door, "room", 2, "ann");
    enter(&mut b.door, "room", 3, "bob");
    enter(&mut b.door, "other", 3, "bob");
    for node in [&mut a, &mut b] {
        wait_for_members(&mut node.door, "room", &[1, 2, 3]);
    }
    let asker = a.door.asker();
    a.door.engine.presence_stats("room", asker);
    let stats = a
        .door
        .until("stats", |door| door.stats.remove(&asker.command));
    assert_eq!(
        stats,
        Ok(PresenceStats {
            clients: 3,
            users: 2
        })
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("one");
    let stats = runtime.block_on(b.handle.presence_stats("room"));
    assert_eq!(
        stats,
        Ok(PresenceStats {
            clients: 3,
            users: 2
        })
    );
    a.door.engine.exit("room", client(2));
    b.door.engine.exit("room", client(3));
    for node in [&mut a, &mut b] {
        node.door.turn();
        wait_for_members(&mut node.door, "room", &[1]);
    }
    assert!(members(&mut a.door, "nobody").is_empty());
}

#[test]
fn a_dead_nodes_members_go_when_the_registry_says_so_with_one_leave_each() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let registry = Registry::new(&[("a", 7), ("b", 8), ("c", 9)]);
    let (mut a, mut b) = (registry.join(&server, "a"), registry.join(&server, "b"));
    let mut dying = registry.join(&server, "c");
    let key = a.door.listen("room", None);
    a.door
        .until("the reply", |door| door.subscribed.get(&key).copied())
        .expect("accepted");
    enter(&mut b.door, "room", 1, "bob");
    for n in 10..110 {
        enter(&mut dying.door, "room", n, "gone");
    }
    let all: Vec<u128> = [1].into_iter().chain(10..110).collect();
    wait_for_members(&mut a.door, "room", &all);
    drop(dying);
    assert_eq!(
        members(&mut a.door, "room").len(),
        101,
        "the registry holds it alive"
    );
    registry.set(&[("a", 7), ("b", 8)]);
    for node in [&mut a, &mut b] {
        let took = wait_for_members(&mut node.door, "room", &[1]);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    a.door.until("all leaves", |door| {
        (door.got.get(&key)?.len() >= 100).then_some(())
    });
    a.door.until("clean entries", |_| {
        let members = server.command("HLEN centrifugo.presence.room").int();
        (members == Some(1)).then_some(())
    });
    let leaves = a.door.got[&key]
        .iter()
        .filter(|(_, kind)| kind == "leave")
        .count();
    assert_eq!(
        (leaves, a.door.got[&key].len()),
        (100, 100),
        "one each, by two who clean"
    );

    // The same id again: what the earlier one wrote does not count.
    let mut again = {
        registry.set(&[("a", 7), ("b", 8), ("c", 10)]);
        registry.join(&server, "c")
    };
    enter(&mut again.door, "room", 500, "new");
    wait_for_members(&mut a.door, "room", &[1, 500]);
}

#[test]
fn a_node_that_was_taken_for_dead_is_seen_again_when_it_is_back() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let registry = Registry::new(&[("a", 7), ("b", 8)]);
    let (mut a, mut b) = (registry.join(&server, "a"), registry.join(&server, "b"));
    enter(&mut a.door, "room", 1, "ann");
    enter(&mut b.door, "room", 2, "bob");
    wait_for_members(&mut a.door, "room", &[1, 2]);
    registry.set(&[("a", 7)]);
    wait_for_members(&mut a.door, "room", &[1]);
    a.door.until("clean entries", |_| {
        let members = server.command("HLEN centrifugo.presence.room").int();
        (members == Some(1)).then_some(())
    });
    registry.set(&[("a", 7), ("b", 8)]);
    wait_for_members(&mut a.door, "room", &[1, 2]);
}

#[test]
fn what_redis_loses_is_written_again_and_what_others_write_is_refused() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let registry = Registry::new(&[("a", 7), ("b", 8)]);
    let (mut a, mut b) = (registry.join(&server, "a"), registry.join(&server, "b"));
    enter(&mut a.door, "room", 1, "ann");
    wait_for_members(&mut b.door, "room", &[1]);
    server.command("FLUSHALL");
    let took = wait_for_members(&mut b.door, "room", &[1]);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(a.metrics.redis_lost.get(), 0, "no connection was lost");
    server.command("HSET centrifugo.presence.room x y z FLP1");
    wait_for_members(&mut b.door, "room", &[1]);
    assert!(b.metrics.rejected_content.get() >= 2);
    server.command("SCRIPT FLUSH");
    enter(&mut a.door, "room", 2, "ann");
    wait_for_members(&mut b.door, "room", &[1, 2]);
    server.kill();
    a.wait_until_away();
    b.wait_until_away();
    enter(&mut a.door, "room", 3, "ann");
    a.door.engine.exit("room", client(1));
    server.restart();
    a.wait_until_up();
    b.wait_until_up();
    wait_for_members(&mut b.door, "room", &[2, 3]);
}

#[test]
fn a_channel_with_more_members_than_a_page_is_read_whole_and_one_with_too_many_is_refused() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let registry = Registry::new(&[("a", 7), ("b", 8), ("c", 9)]);
    let (mut a, mut b) = (registry.join(&server, "a"), registry.join(&server, "b"));
    let mut dying = registry.join(&server, "c");
    for n in 0..2_500 {
        enter(&mut b.door, "room", n, "bob");
        enter(&mut dying.door, "room", 5_000 + n, "gone");
    }
    let all: Vec<u128> = (0..2_500).chain(5_000..7_500).collect();
    wait_for_members(&mut a.door, "room", &all);
    drop(dying);
    registry.set(&[("a", 7), ("b", 8)]);
    let living: Vec<u128> = (0..2_500).collect();
    wait_for_members(&mut a.door, "room", &living);
    a.door.until("clean entries", |_| {
        let members = server.command("HLEN centrifugo.presence.room").int();
        (members == Some(2_500)).then_some(())
    });
    // Whoever writes them: no answer of any size.
    let fill = "EVAL \"for n = 1, 140000 do redis.call('HSET', KEYS[1], n, 'x') end\" 1 \
                centrifugo.presence.huge";
    server.command(fill);
    let asker = a.door.asker();
    a.door.engine.presence("huge", asker);
    let members = a
        .door
        .until("a refusal", |door| door.members.remove(&asker.command));
    assert_eq!(members, Err(ErrorCode::LimitExceeded));
    wait_for_members(&mut a.door, "room", &living);
}
