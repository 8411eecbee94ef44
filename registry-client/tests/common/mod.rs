//! What the tests share: a registry with a short lease, and waiting for what it says.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part of it"
)]
#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic and says why it was skipped"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_registry::{
    Beat, LeaseEvent, LeaseHandle, NodeRecord, NodeState, Registry, RegistryConfig, Snapshot,
    run_lease,
};
use tokio::sync::watch;

/// Longest wait for anything that should happen; a machine under load is slow, not wrong.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Short lease for tests: the proportions are those of the default.
pub const HEARTBEAT: Duration = Duration::from_millis(300);
pub const TTL: Duration = Duration::from_millis(1500);

pub async fn raw(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).expect("url");
    let until = Instant::now() + PATIENCE;
    loop {
        match client.get_multiplexed_async_connection().await {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn config(url: &str) -> RegistryConfig {
    RegistryConfig {
        heartbeat: HEARTBEAT,
        ttl: TTL,
        timeout: Duration::from_millis(500),
        poll: Duration::from_millis(100),
        ..RegistryConfig::from_url(url)
    }
}

pub fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 8000))
}

/// A ready node with the id `gateway-NODE`.
pub fn record(node: u8) -> NodeRecord {
    let mut record = NodeRecord::new(format!("gateway-{node}"), address(node));
    record.state = NodeState::Ready;
    record
}

pub fn lease(registry: &Registry, node: u8) -> LeaseHandle {
    run_lease(registry, move |_: &Beat| Ok(record(node)))
}

/// Waits for an event that `wanted` likes; others are passed over.
pub async fn event(lease: &mut LeaseHandle, wanted: impl Fn(&LeaseEvent) -> bool) -> LeaseEvent {
    tokio::time::timeout(PATIENCE, async {
        loop {
            let event = lease.next_event().await.expect("the lease goes on");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
    .expect("the event in time")
}

pub async fn registered(lease: &mut LeaseHandle) -> u64 {
    match event(lease, |e| matches!(e, LeaseEvent::Registered { .. })).await {
        LeaseEvent::Registered { generation } => generation,
        other => panic!("{other:?}"),
    }
}

/// Waits for a snapshot that `wanted` likes.
pub async fn snapshot(
    watch: &mut watch::Receiver<Arc<Snapshot>>,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let found = tokio::time::timeout(PATIENCE, watch.wait_for(|s| wanted(s)))
        .await
        .ok()
        .and_then(Result::ok)
        .map(|snapshot| snapshot.clone());
    found.unwrap_or_else(|| panic!("no such snapshot in time, last: {:#?}", watch.borrow()))
}

pub fn fresh(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .nodes
        .iter()
        .filter(|(_, view)| view.fresh)
        .map(|(id, _)| id.as_str())
        .collect()
}
