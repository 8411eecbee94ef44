//! Promise: the memory transport decides as Redis does. The same random life of some nodes on both.

#![allow(clippy::print_stdout, reason = "a random test prints its seed")]

mod common;

use std::collections::HashMap;

use common::{PATIENCE, config, fresh, record};
use flux_redis_fixtures::Server;
use flux_registry::{LeaseEvent, LeaseHandle, MemoryStore, Registry, RegistryConfig, run_lease};

/// One registry and the processes that hold leases in it.
struct Side {
    registry: Registry,
    /// Node, process (in the order of their start) and its lease.
    leases: Vec<(u8, usize, LeaseHandle)>,
    /// Which process a node's record is of.
    holders: HashMap<u8, usize>,
    /// Processes in the order of their start, by generation.
    generations: Vec<u64>,
}

impl Side {
    fn new(registry: Registry) -> Side {
        Side {
            registry,
            leases: Vec::new(),
            holders: HashMap::new(),
            generations: Vec::new(),
        }
    }

    /// What a generation is told apart by: how many processes were before.
    fn process(&self, generation: u64) -> String {
        match self.generations.iter().position(|g| *g == generation) {
            Some(index) => format!("process {index}"),
            None => "unknown".into(),
        }
    }

    fn told(&self, event: &LeaseEvent) -> String {
        match event {
            LeaseEvent::Fenced { by, held } => {
                format!(
                    "fenced by {} held {}",
                    self.process(*by),
                    self.process(*held)
                )
            }
            LeaseEvent::Registered { generation } => {
                format!("registered {}", self.process(*generation))
            }
            other => format!("{other:?}"),
        }
    }

    async fn event(&mut self, index: usize) -> Option<LeaseEvent> {
        let next = self.leases[index].2.next_event();
        tokio::time::timeout(PATIENCE, next)
            .await
            .expect("an event in time")
    }

    async fn start(&mut self, node: u8) -> String {
        let lease = run_lease(&self.registry, move |_| Ok(record(node)));
        let process = self.generations.len();
        self.leases.push((node, process, lease));
        self.holders.insert(node, process);
        let Some(LeaseEvent::Registered { generation }) = self.event(self.leases.len() - 1).await
        else {
            return "not registered".into();
        };
        let rises = self.generations.iter().all(|g| *g < generation);
        self.generations.push(generation);
        format!("registered, rises {rises}")
    }

    /// A heartbeat of one process. One that was replaced hears of it; one whose successor has left takes
    /// the id back.
    async fn beat(&mut self, index: usize) -> String {
        let (node, process, _) = self.leases[index];
        let id = format!("gateway-{node}");
        let fenced = self
            .holders
            .get(&node)
            .is_some_and(|holder| *holder > process);
        let mut watch = self.registry.watch();
        let seen = common::snapshot(&mut watch, |s| s.read_at.is_some()).await;
        let written = |s: &flux_registry::Snapshot| {
            let view = s.nodes.get(&id).filter(|view| view.fresh)?;
            Some((view.record.generation, view.record.seq))
        };
        let before = written(&seen);
        self.leases[index].2.control().beat_now();
        if fenced {
            let event = self.event(index).await;
            self.leases.remove(index);
            return event.map_or("ended".into(), |event| self.told(&event));
        }
        self.holders.insert(node, process);
        let own = self.generations[process];
        let renewed = |s: &flux_registry::Snapshot| {
            let after = written(s);
            after != before && after.is_some_and(|(generation, _)| generation == own)
        };
        common::snapshot(&mut watch, renewed).await;
        "renewed".into()
    }

    async fn leave(&mut self, index: usize) -> String {
        let (node, process, _) = self.leases[index];
        self.leases[index].2.control().leave("left");
        let event = self.event(index).await;
        if self.holders.get(&node) == Some(&process) {
            self.holders.remove(&node);
        }
        self.leases.remove(index);
        event.map_or("ended".into(), |event| self.told(&event))
    }

    async fn shown(&self) -> String {
        let mut watch = self.registry.watch();
        // The first snapshot of a new reader that has read.
        let snapshot = common::snapshot(&mut watch, |s| s.read_at.is_some()).await;
        let nodes: Vec<String> = snapshot
            .nodes
            .values()
            .map(|v| {
                format!(
                    "{} {} {:?}",
                    v.record.id,
                    self.process(v.record.generation),
                    v.record.state
                )
            })
            .collect();
        let departed: Vec<String> = snapshot
            .departed
            .iter()
            .map(|(id, left)| format!("{id} {} {}", self.process(left.generation), left.reason))
            .collect();
        format!("{nodes:?} {departed:?} {:?}", fresh(&snapshot))
    }
}

#[tokio::test]
async fn both_decide_alike() {
    let Some(server) = Server::start() else {
        return;
    };
    let seed = match std::env::var("FLUX_SEED") {
        Ok(seed) => seed.parse().expect("FLUX_SEED is a number"),
        Err(_) => fastrand::u64(..1 << 32),
    };
    println!("FLUX_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    // Heartbeats only when asked for.
    let times = RegistryConfig {
        heartbeat: std::time::Duration::from_secs(600),
        ttl: std::time::Duration::from_secs(1800),
        timeout: std::time::Duration::from_secs(10),
        poll: std::time::Duration::from_millis(20),
        ..config(&server.url())
    };
    let memory = MemoryStore::new();
    let mut sides = [
        Side::new(Registry::connect(times.clone()).expect("configuration")),
        Side::new(Registry::memory(memory.clone(), times).expect("configuration")),
    ];
    for step in 0..100 {
        let processes = sides[0].leases.len();
        let action = if processes == 0 { 0 } else { rng.u32(..10) };
        let (node, index) = (rng.u8(1..4), rng.usize(..processes.max(1)));
        let mut told = Vec::new();
        for side in &mut sides {
            told.push(match action {
                0..3 => side.start(node).await,
                3..7 => side.beat(index).await,
                // A process that was replaced may leave; it takes nothing with it.
                7..9 => side.leave(index).await,
                _ => side.shown().await,
            });
        }
        assert_eq!(
            told[0], told[1],
            "seed {seed}, step {step}, action {action}"
        );
        let shown = [sides[0].shown().await, sides[1].shown().await];
        assert_eq!(
            shown[0], shown[1],
            "seed {seed}, step {step}, action {action}"
        );
    }
    drop(memory);
}
