//! Promise: a node is in the registry while it lives, with one holder of its id, readable by people.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{HEARTBEAT, TTL, config, event, fresh, lease, raw, record, registered, snapshot};
use flux_redis_fixtures::Server;
use flux_registry::{LeaseEvent, NodeRecord, NodeState, Registry, RegistryState, run_lease};
use redis::AsyncCommands;

#[tokio::test]
async fn a_node_registers_renews_and_expires() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut watch = registry.watch();
    let mut own = lease(&registry, 1);
    let generation = registered(&mut own).await;
    let first = snapshot(&mut watch, |s| fresh(s) == ["gateway-1"]).await;
    assert_eq!(first.nodes["gateway-1"].record.generation, generation);
    assert!(first.nodes["gateway-1"].heartbeat_age_ms < TTL.as_millis() as u64);
    assert!(first.nodes["gateway-1"].record.started_ms > 1_600_000_000_000);
    snapshot(&mut watch, |s| s.nodes["gateway-1"].record.seq >= 4).await;

    // A second node keeps the registry alive while the first one dies.
    let mut other = lease(&registry, 2);
    registered(&mut other).await;
    snapshot(&mut watch, |s| fresh(s) == ["gateway-1", "gateway-2"]).await;
    let last = watch.borrow().nodes["gateway-1"].clone();
    drop(own);
    let dead = snapshot(&mut watch, |s| fresh(s) == ["gateway-2"]).await;
    let view = &dead.nodes["gateway-1"];
    assert!(!view.held, "the registry is not in doubt");
    assert!(!view.routable());
    // Seen when the lease ended: not before, and not a whole poll later.
    assert!(dead.server_time_ms >= view.deadline_ms.max(last.deadline_ms));
    assert!(
        dead.server_time_ms < view.deadline_ms + 90,
        "{}",
        dead.server_time_ms - view.deadline_ms
    );
}

#[tokio::test]
async fn the_later_of_two_processes_with_one_id_fences_the_older() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut older = lease(&registry, 1);
    let old = registered(&mut older).await;
    let mut newer = lease(&registry, 1);
    let new = registered(&mut newer).await;
    let since = Instant::now();
    assert!(new > old);
    let fenced = event(&mut older, |e| matches!(e, LeaseEvent::Fenced { .. })).await;
    assert_eq!(fenced, LeaseEvent::Fenced { by: new, held: old });
    // Within one heartbeat and the time of one exchange.
    assert!(since.elapsed() < HEARTBEAT.mul_f64(1.1) + Duration::from_millis(500));
    assert_eq!(older.next_event().await, None, "nothing comes after it");

    // A fenced node never writes again, not even to say goodbye.
    older.control().leave("it should not");
    let mut watch = registry.watch();
    let seen = snapshot(&mut watch, |s| !s.nodes.is_empty()).await;
    let seq = seen.nodes["gateway-1"].record.seq;
    let later = snapshot(&mut watch, |s| s.nodes["gateway-1"].record.seq >= seq + 3).await;
    assert_eq!(later.nodes["gateway-1"].record.generation, new);
    assert!(later.departed.is_empty());
}

#[tokio::test]
async fn an_older_process_that_comes_back_after_flushall_gives_way_again() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut older = lease(&registry, 1);
    registered(&mut older).await;
    let mut newer = lease(&registry, 1);
    let new = registered(&mut newer).await;
    let _: () = redis::cmd("FLUSHALL")
        .query_async(&mut raw(&server.url()).await)
        .await
        .expect("FLUSHALL");
    event(
        &mut older,
        |e| matches!(e, LeaseEvent::Fenced { by, .. } if *by == new),
    )
    .await;
    let mut watch = registry.watch();
    snapshot(&mut watch, |s| {
        s.nodes
            .get("gateway-1")
            .is_some_and(|view| view.fresh && view.record.generation == new)
    })
    .await;
}

#[tokio::test]
async fn flushall_heals_within_one_beat_and_moves_nobody() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut leases = [
        lease(&registry, 1),
        lease(&registry, 2),
        lease(&registry, 3),
    ];
    for lease in &mut leases {
        registered(lease).await;
    }
    let mut watch = registry.watch();
    let before = snapshot(&mut watch, |s| fresh(s).len() == 3).await;
    let _: () = redis::cmd("FLUSHALL")
        .query_async(&mut raw(&server.url()).await)
        .await
        .expect("FLUSHALL");
    let since = Instant::now();
    let mut raw = raw(&server.url()).await;
    // Readers never see a node go, and the registry is whole again after one beat.
    loop {
        assert_eq!(
            watch
                .borrow()
                .nodes
                .values()
                .filter(|v| v.routable())
                .count(),
            3
        );
        let whole: u64 = raw.hlen("gateway:nodes").await.expect("HLEN");
        let deadlines: u64 = raw.zcard("gateway:deadlines").await.expect("ZCARD");
        if (whole, deadlines) == (3, 3) {
            break;
        }
        assert!(since.elapsed() < HEARTBEAT.mul_f64(1.1) + Duration::from_millis(500));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let after = snapshot(&mut watch, |s| {
        fresh(s).len() == 3
            && s.nodes
                .iter()
                .all(|(id, v)| v.record.seq > before.nodes[id].record.seq)
    })
    .await;
    for (id, view) in &after.nodes {
        assert_eq!(view.record.generation, before.nodes[id].record.generation);
    }
    for lease in &mut leases {
        lease.control().leave("end");
        assert_eq!(
            lease.next_event().await,
            Some(LeaseEvent::Released),
            "a flush is no event for a lease"
        );
    }
}

#[tokio::test]
async fn draining_is_known_at_once_and_leaving_leaves_word_of_how() {
    let Some(server) = Server::start() else {
        return;
    };
    let slow = flux_registry::RegistryConfig {
        heartbeat: Duration::from_secs(5),
        ttl: Duration::from_secs(15),
        poll: Duration::from_secs(20),
        ..config(&server.url())
    };
    let registry = Registry::connect(slow).expect("configuration");
    let draining = Arc::new(AtomicBool::new(false));
    let state = draining.clone();
    let mut own = run_lease(&registry, move |beat| {
        let mut record = record(1);
        if state.load(Ordering::SeqCst) {
            record.state = NodeState::Draining;
            record.drain_started_ms = beat.clock.ms_at(beat.now);
        }
        Ok(record)
    });
    let generation = registered(&mut own).await;
    let mut watch = registry.watch();
    snapshot(&mut watch, |s| fresh(s).len() == 1).await;

    // Heartbeats and polls are seconds apart: what is seen sooner was announced.
    let since = Instant::now();
    draining.store(true, Ordering::SeqCst);
    own.control().beat_now();
    let seen = snapshot(&mut watch, |s| {
        s.nodes["gateway-1"].record.state == NodeState::Draining
    })
    .await;
    assert!(since.elapsed() < Duration::from_secs(4));
    let started = seen.nodes["gateway-1"]
        .record
        .drain_started_ms
        .expect("Redis TIME");
    assert!(seen.server_time_ms.abs_diff(started) < 4000);
    assert!(!seen.nodes["gateway-1"].routable());

    own.control().leave("left after its drain");
    assert_eq!(own.next_event().await, Some(LeaseEvent::Released));
    let gone = snapshot(&mut watch, |s| s.nodes.is_empty()).await;
    assert!(since.elapsed() < Duration::from_secs(8));
    assert_eq!(gone.doubt, None, "who says goodbye has not vanished");
    // Also for readers that start later.
    let late = Registry::connect(config(&server.url())).expect("configuration");
    let late = snapshot(&mut late.watch(), |s| s.state == RegistryState::Ok).await;
    let left = &late.departed["gateway-1"];
    assert_eq!(
        (left.reason.as_str(), left.generation),
        ("left after its drain", generation)
    );

    // Its return takes the word back, with a later generation even though its record was gone.
    let mut back = lease(&registry, 1);
    assert!(registered(&mut back).await > generation);
    let back = snapshot(&mut watch, |s| fresh(s).len() == 1).await;
    assert!(back.departed.is_empty());
}

#[tokio::test]
async fn only_the_holder_may_leave() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut own = lease(&registry, 1);
    registered(&mut own).await;
    // Somebody else takes the id and the older one leaves before it has heard of that.
    let mut other = lease(&registry, 1);
    let generation = registered(&mut other).await;
    own.control().leave("left after its drain");
    while own.next_event().await.is_some() {}
    let mut watch = registry.watch();
    let seen = snapshot(&mut watch, |s| fresh(s).len() == 1).await;
    assert_eq!(seen.nodes["gateway-1"].record.generation, generation);
    assert!(seen.departed.is_empty());
}

#[tokio::test]
async fn generations_rise_although_the_registry_was_lost_or_its_clock_stepped_back() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    // As if written by a server whose clock was an hour ahead.
    let mut ahead = record(1);
    ahead.generation = 4_102_444_800_000;
    ahead.nonce = "before".into();
    let mut raw = raw(&server.url()).await;
    let json = serde_json::to_string(&ahead).expect("json");
    let _: () = raw
        .hset("gateway:nodes", "gateway-1", json)
        .await
        .expect("HSET");
    let mut own = lease(&registry, 1);
    assert_eq!(registered(&mut own).await, ahead.generation + 1);
}

#[tokio::test]
async fn people_can_read_the_registry() {
    for prefix in ["gateway", "{gateway}"] {
        let Some(server) = Server::start() else {
            return;
        };
        let config = flux_registry::RegistryConfig {
            prefix: prefix.into(),
            ..config(&server.url())
        };
        let registry = Registry::connect(config).expect("configuration");
        let mut raw = raw(&server.url()).await;
        let client = redis::Client::open(server.url()).expect("url");
        let mut events = client.get_async_pubsub().await.expect("connection");
        events
            .subscribe(format!("{prefix}:events"))
            .await
            .expect("SUBSCRIBE");
        let mut own = lease(&registry, 1);
        let generation = registered(&mut own).await;

        let nodes: HashMap<String, String> = raw
            .hgetall(format!("{prefix}:nodes"))
            .await
            .expect("HGETALL");
        let parsed =
            NodeRecord::parse("gateway-1", nodes["gateway-1"].as_bytes()).expect("a record");
        assert_eq!(parsed.generation, generation);
        let plain: serde_json::Value = serde_json::from_str(&nodes["gateway-1"]).expect("json");
        assert_eq!(
            (&plain["state"], &plain["addr"]),
            (&"ready".into(), &"10.0.0.1:8000".into())
        );
        let deadlines: Vec<(String, u64)> = raw
            .zrange_withscores(format!("{prefix}:deadlines"), 0, -1)
            .await
            .expect("ZRANGE");
        assert_eq!(deadlines[0].0, "gateway-1");
        assert!(deadlines[0].1 > generation);
        let version: u64 = raw.get(format!("{prefix}:version")).await.expect("GET");
        assert!(version >= 1);
        let mut messages = events.into_on_message();
        let message = futures_util::StreamExt::next(&mut messages)
            .await
            .expect("an event");
        let event: serde_json::Value =
            serde_json::from_slice(message.get_payload_bytes()).expect("json");
        assert_eq!(
            (&event["event"], &event["id"]),
            (&"registered".into(), &"gateway-1".into())
        );
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut raw)
            .await
            .expect("KEYS");
        assert!(keys.iter().all(|key| key.starts_with(prefix)), "{keys:?}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_made_is_a_missed_heartbeat_and_heals() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let known = Arc::new(AtomicBool::new(false));
    let ready = known.clone();
    let mut own = run_lease(&registry, move |beat| {
        assert_eq!(
            beat.local_ip,
            Some([127, 0, 0, 1].into()),
            "the way to Redis is loopback"
        );
        match ready.load(Ordering::SeqCst) {
            true => Ok(record(1)),
            false => Err("no address yet".into()),
        }
    });
    let away = event(&mut own, |_| true).await;
    assert_eq!(
        away,
        LeaseEvent::Unreachable {
            error: "no address yet".into()
        }
    );
    known.store(true, Ordering::SeqCst);
    registered(&mut own).await;
}
