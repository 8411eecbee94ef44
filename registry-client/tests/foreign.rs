//! Promise: what others wrote into the registry is refused one by one and counted; the nodes work on.

mod common;

use common::{address, config, fresh, lease, raw, registered, snapshot};
use flux_redis_fixtures::Server;
use flux_registry::{NodeRecord, NodeState, RecordError, Registry, limits};

const FAR: u64 = 9_000_000_000_000;

async fn put(raw: &mut redis::aio::MultiplexedConnection, id: &[u8], json: &[u8], deadline: f64) {
    let mut both = redis::pipe();
    both.hset("gateway:nodes", id, json)
        .zadd("gateway:deadlines", id, deadline);
    let _: () = both.query_async(raw).await.expect("written");
}

#[tokio::test]
async fn bad_records_are_refused_one_by_one() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut watch = registry.watch();
    let mut leases = [lease(&registry, 1), lease(&registry, 2)];
    for lease in &mut leases {
        registered(lease).await;
    }
    snapshot(&mut watch, |s| fresh(s).len() == 2 && s.rejected == 0).await;

    let mut raw = raw(&server.url()).await;
    let far = FAR as f64;
    put(&mut raw, b"garbage", b"\xff\x00not json", far).await;
    put(&mut raw, b"future", br#"{"v":7,"id":"future"}"#, far).await;
    put(&mut raw, b"large", &vec![b'{'; 1 << 20], far).await;
    put(&mut raw, b"\xff\xfe", b"{}", far).await;
    put(&mut raw, &vec![b'i'; 1 << 20], b"{}", far).await;
    put(&mut raw, b"deep", "[".repeat(10_000).as_bytes(), far).await;
    put(&mut raw, b"for-ever", b"{}", f64::INFINITY).await;
    let _: () = redis::cmd("HSET")
        .arg("gateway:nodes")
        .arg("no-deadline")
        .arg("{}")
        .query_async(&mut raw)
        .await
        .expect("HSET");
    let _: () = redis::cmd("ZADD")
        .arg("gateway:deadlines")
        .arg(FAR)
        .arg("no-record")
        .query_async(&mut raw)
        .await
        .expect("ZADD");
    let _: () = redis::cmd("HSET")
        .arg("gateway:departed")
        .arg("x")
        .arg("not json")
        .query_async(&mut raw)
        .await
        .expect("HSET");
    let _: () = redis::cmd("SET")
        .arg("gateway:version")
        .arg("-1.5")
        .query_async(&mut raw)
        .await
        .expect("SET");
    let seen = snapshot(&mut watch, |s| s.rejected == 9).await;
    assert_eq!(fresh(&seen), ["gateway-1", "gateway-2"]);
    let reason = |id: &str| {
        seen.rejected_named
            .iter()
            .find(|r| r.id == id)
            .map(|r| &r.reason)
    };
    assert_eq!(reason("future"), Some(&RecordError::FutureVersion(7)));
    assert!(matches!(reason("garbage"), Some(RecordError::Json(_))));
    // The counter is somebody else's now; who registers anew starts it again.
    let mut third = lease(&registry, 3);
    registered(&mut third).await;
    snapshot(&mut watch, |s| fresh(s).len() == 3).await;
}

#[tokio::test]
async fn garbage_under_a_nodes_own_id_is_written_over() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut watch = registry.watch();
    let mut own = lease(&registry, 1);
    let generation = registered(&mut own).await;
    let mut raw = raw(&server.url()).await;
    let bad: [&[u8]; 6] = [
        b"garbage",
        &vec![b'x'; 1 << 20],
        br#"{"generation":1e300,"nonce":"n"}"#,
        br#"{"generation":"9","nonce":"n"}"#,
        br#"{"generation":-1}"#,
        b"null",
    ];
    for json in bad {
        put(&mut raw, b"gateway-1", json, FAR as f64).await;
        snapshot(&mut watch, |s| {
            s.rejected == 0
                && s.nodes
                    .get("gateway-1")
                    .is_some_and(|v| v.fresh && v.record.generation == generation)
        })
        .await;
    }
}

#[tokio::test]
async fn ten_thousand_records_cost_the_nodes_nothing() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut config = config(&server.url());
    // Reading them takes its time on a busy machine.
    config.timeout = std::time::Duration::from_secs(10);
    let registry = Registry::connect(config).expect("configuration");
    let mut watch = registry.watch();
    let mut leases = [lease(&registry, 1), lease(&registry, 2)];
    for lease in &mut leases {
        registered(lease).await;
    }
    snapshot(&mut watch, |s| {
        fresh(s).len() == 2 && s.nodes["gateway-1"].record.seq > 2
    })
    .await;
    let mut flood = redis::pipe();
    for n in 0..10_000 {
        let mut record = NodeRecord::new(format!("a-{n}"), address(1));
        record.state = NodeState::Ready;
        record.nonce = "n".into();
        let json = serde_json::to_string(&record).expect("json");
        flood.hset("gateway:nodes", &record.id, json).ignore();
        flood.zadd("gateway:deadlines", &record.id, FAR).ignore();
    }
    let _: () = flood
        .query_async(&mut raw(&server.url()).await)
        .await
        .expect("written");
    let seen = snapshot(&mut watch, |s| s.rejected > 0).await;
    assert_eq!(seen.nodes.len(), limits::NODES_MAX);
    // They never send a heartbeat: after one TTL only who lives is left.
    let seen = snapshot(&mut watch, |s| fresh(s) == ["gateway-1", "gateway-2"]).await;
    assert_eq!(seen.rejected, 10_002 - limits::NODES_MAX as u64);
}

#[tokio::test]
async fn keys_of_another_type_are_an_error_that_is_told() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut raw = raw(&server.url()).await;
    let _: () = redis::cmd("SET")
        .arg("gateway:nodes")
        .arg("x")
        .query_async(&mut raw)
        .await
        .expect("SET");
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut watch = registry.watch();
    let seen = snapshot(&mut watch, |s| s.error.is_some()).await;
    assert!(
        seen.error.as_deref().is_some_and(|e| e.contains("refused")),
        "{:?}",
        seen.error
    );
    let _: () = redis::cmd("DEL")
        .arg("gateway:nodes")
        .query_async(&mut raw)
        .await
        .expect("DEL");
    let mut own = lease(&registry, 1);
    registered(&mut own).await;
    snapshot(&mut watch, |s| fresh(s) == ["gateway-1"]).await;
}

#[tokio::test]
async fn what_expired_long_ago_is_taken_out_by_who_writes_next() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut raw = raw(&server.url()).await;
    let (now, _): (u64, u64) = redis::cmd("TIME")
        .query_async(&mut raw)
        .await
        .expect("TIME");
    let ago = |seconds: u64| ((now - seconds) * 1000) as f64;
    let mut record = NodeRecord::new("old", address(3));
    record.nonce = "n".into();
    let json = |id: &str| {
        let mut record = record.clone();
        record.id = id.into();
        serde_json::to_vec(&record).expect("json")
    };
    put(&mut raw, b"old", &json("old"), ago(700)).await;
    put(&mut raw, b"recent", &json("recent"), ago(300)).await;
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut own = lease(&registry, 1);
    registered(&mut own).await;
    let mut watch = registry.watch();
    let seen = snapshot(&mut watch, |s| fresh(s) == ["gateway-1"]).await;
    assert!(!seen.nodes["recent"].fresh && !seen.nodes["recent"].held);
    assert!(!seen.nodes.contains_key("old"));
    let ids: Vec<String> = redis::cmd("HKEYS")
        .arg("gateway:nodes")
        .query_async(&mut raw)
        .await
        .expect("HKEYS");
    assert!(
        !ids.contains(&"old".to_owned()) && ids.contains(&"recent".to_owned()),
        "{ids:?}"
    );
}
