//! Promise: a Redis that goes away costs no node its place, and heals by itself.

mod common;

use std::time::{Duration, Instant};

use common::{TTL, config, event, fresh, lease, raw, registered, snapshot};
use flux_redis_fixtures::Server;
use flux_registry::{Doubt, LeaseEvent, Registry, RegistryState};

fn routable(snapshot: &flux_registry::Snapshot) -> usize {
    snapshot
        .nodes
        .values()
        .filter(|view| view.routable())
        .count()
}

#[tokio::test]
async fn nodes_and_readers_start_without_redis_and_find_it() {
    let Some(mut server) = Server::start() else {
        return;
    };
    server.kill();
    let registry = Registry::connect(config(&server.url())).expect("Redis may be away");
    let mut watch = registry.watch();
    let mut own = lease(&registry, 1);
    let away = event(&mut own, |_| true).await;
    assert!(matches!(away, LeaseEvent::Unreachable { .. }), "{away:?}");
    let seen = snapshot(&mut watch, |s| s.error.is_some()).await;
    assert_eq!(seen.state, RegistryState::Unreachable);
    server.restart();
    registered(&mut own).await;
    snapshot(&mut watch, |s| fresh(s) == ["gateway-1"]).await;
}

#[tokio::test]
async fn a_restart_of_redis_that_loses_everything_heals() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut watch = registry.watch();
    let mut leases = [
        lease(&registry, 1),
        lease(&registry, 2),
        lease(&registry, 3),
    ];
    let mut generations = Vec::new();
    for lease in &mut leases {
        generations.push(registered(lease).await);
    }
    snapshot(&mut watch, |s| fresh(s).len() == 3).await;
    server.kill();
    for lease in &mut leases {
        event(lease, |e| matches!(e, LeaseEvent::Unreachable { .. })).await;
    }
    for lease in &mut leases {
        event(lease, |e| *e == LeaseEvent::Lost).await;
    }
    let away = snapshot(&mut watch, |s| s.state == RegistryState::Unreachable).await;
    assert_eq!((routable(&away), away.doubt), (3, Some(Doubt::Unreadable)));
    server.restart();
    let since = Instant::now();
    for (lease, held) in leases.iter_mut().zip(&generations) {
        let restored = event(lease, |e| matches!(e, LeaseEvent::Restored { .. })).await;
        assert_eq!(restored, LeaseEvent::Restored { generation: *held });
    }
    // Until then nobody was removed.
    let whole = snapshot(&mut watch, |s| {
        assert_eq!(routable(s), 3, "{s:#?}");
        fresh(s).len() == 3
    })
    .await;
    assert!(
        since.elapsed() < Duration::from_secs(6),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(whole.state, RegistryState::Ok);
    snapshot(&mut watch, |s| s.doubt.is_none()).await;
}

#[tokio::test]
async fn a_redis_that_stands_still_is_noticed_and_waited_for() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut watch = registry.watch();
    let mut leases = [lease(&registry, 1), lease(&registry, 2)];
    for lease in &mut leases {
        registered(lease).await;
    }
    snapshot(&mut watch, |s| fresh(s).len() == 2).await;
    // Its kernel goes on accepting connections: only an answer shows that it lives.
    server.pause();
    let since = Instant::now();
    snapshot(&mut watch, |s| s.state != RegistryState::Ok).await;
    assert!(
        since.elapsed() < Duration::from_secs(3),
        "{:?}",
        since.elapsed()
    );
    for lease in &mut leases {
        event(lease, |e| *e == LeaseEvent::Lost).await;
    }
    let still = snapshot(&mut watch, |s| s.state == RegistryState::Unreachable).await;
    assert_eq!(routable(&still), 2);
    server.resume();
    for lease in &mut leases {
        event(lease, |e| matches!(e, LeaseEvent::Restored { .. })).await;
    }
    // What it had queued from before is executed now, late; nobody is fenced by it.
    let seq = snapshot(&mut watch, |s| fresh(s).len() == 2).await.nodes["gateway-1"]
        .record
        .seq;
    let later = snapshot(&mut watch, |s| {
        assert_eq!(routable(s), 2, "{s:#?}");
        s.nodes["gateway-1"].record.seq > seq + 4
    })
    .await;
    assert_eq!(later.state, RegistryState::Ok);
}

#[tokio::test]
async fn a_node_that_was_stopped_comes_back_or_gives_way() {
    // A thread of its own stands for a process that SIGSTOP and SIGCONT hit: its lease lapses meanwhile.
    let Some(server) = Server::start() else {
        return;
    };
    for taken in [false, true] {
        let registry = Registry::connect(config(&server.url())).expect("configuration");
        let (go, stopped) = std::sync::mpsc::channel::<()>();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let process = {
            let registry = registry.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("runtime");
                runtime.block_on(async {
                    let mut own = lease(&registry, 1);
                    let held = registered(&mut own).await;
                    let _ = told.send(held);
                    // Blocks the whole runtime.
                    let _ = stopped.recv();
                    let event = match taken {
                        true => event(&mut own, |e| matches!(e, LeaseEvent::Fenced { .. })).await,
                        false => LeaseEvent::Restored { generation: held },
                    };
                    if !taken {
                        let mut watch = registry.watch();
                        snapshot(&mut watch, |s| {
                            s.nodes
                                .get("gateway-1")
                                .is_some_and(|v| v.fresh && v.record.generation == held)
                        })
                        .await;
                    }
                    event
                })
            })
        };
        let held = heard.recv().await.expect("registered");
        let own = Registry::connect(config(&server.url())).expect("configuration");
        let mut other = lease(&own, 9);
        registered(&mut other).await;
        let mut watch = own.watch();
        snapshot(&mut watch, |s| fresh(s).contains(&"gateway-1")).await;
        snapshot(&mut watch, |s| !fresh(s).contains(&"gateway-1")).await;
        let mut successor = taken.then(|| lease(&own, 1));
        if let Some(successor) = &mut successor {
            registered(successor).await;
        }
        let _ = go.send(());
        let end = tokio::task::spawn_blocking(move || process.join()).await;
        let event = end.expect("joined").expect("no panic");
        match event {
            LeaseEvent::Fenced { held: was, by } => assert!(taken && was == held && by > held),
            other => assert!(!taken, "{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_redis_that_refuses_is_told_apart_and_heals() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut watch = registry.watch();
    let mut own = lease(&registry, 1);
    registered(&mut own).await;
    snapshot(&mut watch, |s| fresh(s).len() == 1).await;
    let mut raw = raw(&server.url()).await;
    // Full memory: writes are refused, reads work, and nobody is removed although every lease lapses.
    let set = |key: &str, value: &str| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(key).arg(value);
        command
    };
    let _: () = set("maxmemory", "1")
        .query_async(&mut raw)
        .await
        .expect("CONFIG SET");
    let refused = event(&mut own, |e| matches!(e, LeaseEvent::Unreachable { .. })).await;
    assert!(format!("{refused:?}").contains("refused"), "{refused:?}");
    event(&mut own, |e| *e == LeaseEvent::Lost).await;
    let held = snapshot(&mut watch, |s| fresh(s).is_empty()).await;
    assert_eq!((routable(&held), held.state), (1, RegistryState::Ok));
    let _: () = set("maxmemory", "0")
        .query_async(&mut raw)
        .await
        .expect("CONFIG SET");
    event(&mut own, |e| matches!(e, LeaseEvent::Restored { .. })).await;
    snapshot(&mut watch, |s| fresh(s).len() == 1).await;

    // A read-only replica of nowhere, as after a failover: readable, not writable.
    let _: () = redis::cmd("REPLICAOF")
        .arg("127.0.0.1")
        .arg(1)
        .query_async(&mut raw)
        .await
        .expect("REPLICAOF");
    event(&mut own, |e| matches!(e, LeaseEvent::Unreachable { .. })).await;
    let since = Instant::now();
    while since.elapsed() < TTL / 2 {
        watch.changed().await.expect("the watch goes on");
        assert_eq!(routable(&watch.borrow_and_update()), 1);
    }
    let _: () = redis::cmd("REPLICAOF")
        .arg("NO")
        .arg("ONE")
        .query_async(&mut raw)
        .await
        .expect("REPLICAOF");
    event(&mut own, |e| matches!(e, LeaseEvent::Restored { .. })).await;
}

#[tokio::test]
async fn the_reader_ends_with_its_last_receiver_and_starts_again() {
    let Some(server) = Server::start() else {
        return;
    };
    let registry = Registry::connect(config(&server.url())).expect("configuration");
    let mut first = registry.watch();
    snapshot(&mut first, |s| s.state == RegistryState::Ok).await;
    let second = registry.watch();
    assert!(first.same_channel(&second), "one reader for all");
    drop((first, second));
    let mut again = registry.watch();
    snapshot(&mut again, |s| s.state == RegistryState::Ok).await;
}
