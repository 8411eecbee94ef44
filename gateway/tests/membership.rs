//! Promise: a node is a member while it lives, whatever its registry does, and gives way when it is replaced.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flux_gateway::drain::{Phase, Progress};
use flux_gateway::membership::{Identity, Membership, NodeStatus, join};
use flux_registry::{MemoryStore, NodeState, Registry, RegistryConfig, Snapshot};
use flux_runtime::control::Readiness;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(30);

struct Node {
    membership: Membership,
    readiness: Readiness,
    phase: Arc<Mutex<(Phase, Option<Progress>)>>,
    messages: Arc<AtomicU64>,
}

fn registry(store: &MemoryStore) -> Registry {
    let config = RegistryConfig {
        heartbeat: Duration::from_millis(200),
        ttl: Duration::from_millis(1000),
        poll: Duration::from_millis(50),
        ..RegistryConfig::default()
    };
    Registry::memory(store.clone(), config).expect("configuration")
}

fn node(registry: &Registry) -> Node {
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let identity = Identity {
        id: "gateway-1".into(),
        listen: any(8001),
        admin: any(8101),
        advertise: None,
        weight: 1,
        zone: "a".into(),
        build: "test".into(),
    };
    let readiness = Readiness::new();
    let phase = Arc::new(Mutex::new((Phase::Ready, None)));
    let messages = Arc::new(AtomicU64::new(0));
    let (shown, sent) = (phase.clone(), messages.clone());
    let status = move || {
        let (phase, progress) = *shown.lock().expect("lock");
        NodeStatus {
            phase,
            progress,
            capacity: 1000,
            shards: vec![3, 4],
            channels: 2,
            messages_total: sent.load(Ordering::Relaxed),
        }
    };
    Node {
        membership: join(registry, identity, status, readiness.clone()),
        readiness,
        phase,
        messages,
    }
}

async fn seen(
    watch: &mut watch::Receiver<Arc<Snapshot>>,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    tokio::time::timeout(PATIENCE, watch.wait_for(|s| wanted(s)))
        .await
        .expect("in time")
        .expect("the watch goes on")
        .clone()
}

async fn until(mut wanted: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !wanted() {
        assert!(Instant::now() < end, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_record_shows_the_node() {
    let registry = registry(&MemoryStore::new());
    let mut watch = registry.watch();
    let node = node(&registry);
    node.messages.store(100, Ordering::Relaxed);
    let snapshot = seen(&mut watch, |s| !s.nodes.is_empty()).await;
    let record = &snapshot.nodes["gateway-1"].record;
    assert_eq!(record.state, NodeState::Ready);
    assert_eq!((record.connections, record.shards.clone()), (7, vec![3, 4]));
    // Bound to all addresses: the one on the way to the registry, with the ports that are bound.
    assert_eq!(record.addr, SocketAddr::from(([127, 0, 0, 1], 8001)));
    assert_eq!(record.admin, Some(SocketAddr::from(([127, 0, 0, 1], 8101))));
    let generation = record.generation;
    until(|| node.membership.standing().generation == generation).await;
    node.messages.store(100_000, Ordering::Relaxed);
    seen(&mut watch, |s| {
        s.nodes["gateway-1"].record.messages_per_s > 0.0
    })
    .await;
}

#[tokio::test]
async fn a_lost_registry_degrades_and_heals_and_the_node_stays_ready() {
    let store = MemoryStore::new();
    let registry = registry(&store);
    let mut watch = registry.watch();
    let node = node(&registry);
    seen(&mut watch, |s| !s.nodes.is_empty()).await;
    store.set_away(true);
    until(|| !node.readiness.document().degraded.is_empty()).await;
    until(|| node.membership.standing().lost).await;
    let document = node.readiness.document();
    assert!(document.ready, "a lost registry takes no node out");
    assert!(document.degraded[0].contains("redis"), "{document:?}");
    store.set_away(false);
    until(|| node.readiness.document().degraded.is_empty()).await;
    seen(&mut watch, |s| s.nodes["gateway-1"].fresh).await;
}

#[tokio::test]
async fn a_node_that_starts_without_its_registry_joins_when_it_comes() {
    let store = MemoryStore::new();
    store.set_away(true);
    let registry = registry(&store);
    let node = node(&registry);
    until(|| !node.readiness.document().degraded.is_empty()).await;
    assert!(node.readiness.document().ready);
    store.set_away(false);
    let mut watch = registry.watch();
    seen(&mut watch, |s| {
        s.nodes.get("gateway-1").is_some_and(|n| n.fresh)
    })
    .await;
    until(|| node.readiness.document().degraded.is_empty()).await;
}

#[tokio::test]
async fn a_replaced_node_says_so_and_leaves_the_id_alone() {
    let store = MemoryStore::new();
    let registry = registry(&store);
    let mut watch = registry.watch();
    let mut older = node(&registry);
    until(|| older.membership.standing().generation > 0).await;
    let newer = node(&registry);
    let fenced = tokio::time::timeout(PATIENCE, older.membership.fenced())
        .await
        .expect("fenced in time");
    until(|| newer.membership.standing().generation == fenced.by).await;
    until(|| !older.readiness.document().ready).await;
    let reasons = older.readiness.document().reasons;
    assert!(reasons[0].starts_with(&format!("fenced by generation {}", fenced.by)));
    assert!(newer.readiness.document().ready);
    assert!(older.membership.leave("left after its drain").await);
    let seq = seen(&mut watch, |s| !s.nodes.is_empty()).await.nodes["gateway-1"]
        .record
        .seq;
    let after = seen(&mut watch, |s| s.nodes["gateway-1"].record.seq > seq + 2).await;
    assert_eq!(after.nodes["gateway-1"].record.generation, fenced.by);
    assert!(after.departed.is_empty());
}

#[tokio::test]
async fn a_drain_is_announced_shown_and_ends_in_a_departure() {
    let store = MemoryStore::new();
    let slow = RegistryConfig {
        heartbeat: Duration::from_secs(60),
        ttl: Duration::from_secs(180),
        poll: Duration::from_secs(60),
        ..RegistryConfig::default()
    };
    let registry = Registry::memory(store, slow).expect("configuration");
    let mut watch = registry.watch();
    let node = node(&registry);
    seen(&mut watch, |s| !s.nodes.is_empty()).await;
    let started = Instant::now();
    let progress = Progress {
        started,
        deadline: started + Duration::from_secs(30),
        remaining: 7,
    };
    *node.phase.lock().expect("lock") = (Phase::LameDuck, Some(progress));
    node.membership.announce();
    let draining = |s: &Snapshot| s.nodes["gateway-1"].record.state == NodeState::Draining;
    let snapshot = seen(&mut watch, draining).await;
    let record = &snapshot.nodes["gateway-1"].record;
    let (from, to) = (record.drain_started_ms, record.drain_deadline_ms);
    let shown = to.expect("known") - from.expect("known");
    assert!((29_999..=30_001).contains(&shown), "{shown}");
    assert_eq!(record.drain_remaining, 7);
    assert!(node.membership.leave("left after its drain").await);
    let gone = seen(&mut watch, |s| s.nodes.is_empty()).await;
    assert_eq!(gone.departed["gateway-1"].reason, "left after its drain");
}

#[tokio::test]
async fn leaving_a_registry_that_is_away_takes_no_time() {
    let store = MemoryStore::new();
    let registry = registry(&store);
    let node = node(&registry);
    until(|| node.membership.standing().generation > 0).await;
    store.set_away(true);
    let since = Instant::now();
    node.membership.leave("left after its drain").await;
    assert!(since.elapsed() < Duration::from_secs(2));
}
