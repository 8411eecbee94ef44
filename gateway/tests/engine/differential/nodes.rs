//! The nodes of a world: their engines, their threads, and the registry by which they know each other.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flux_gateway::engine::redis::{RedisConfig, RedisEngine};
use flux_gateway::engine::{Engine, EngineHandle, EngineMetrics};
use flux_registry::{NodeRecord, NodeView, RedisDeployment, Snapshot};
use flux_runtime::control::Readiness;
use flux_runtime::mailbox::WakeSource;
use tokio::sync::{oneshot, watch};

use crate::node::{wait_for, wakes};

/// One node: the doors of its shards, and the way of the server API.
pub(super) type Node = (Vec<Engine>, EngineHandle);

/// What nodes that are joined by a Redis have beside their doors.
pub(super) struct Joined {
    registry: watch::Sender<Arc<Snapshot>>,
    metrics: Vec<Arc<EngineMetrics>>,
    _threads: Vec<EngineThread>,
}

impl Joined {
    /// Starts `count` nodes with so many shards each, once everything travels through Redis.
    pub(super) fn start(
        deployment: &RedisDeployment,
        count: usize,
        shards: usize,
    ) -> (Self, Vec<Node>, Vec<WakeSource>) {
        let unread = Snapshot::unread(Duration::from_secs(15));
        let (registry, nodes_known) = watch::channel(Arc::new(unread));
        let (mut nodes, mut wake_sources) = (Vec::new(), Vec::new());
        let (mut threads, mut metrics) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (wakers, sources) = wakes(shards);
            let config = RedisConfig::with(deployment.clone());
            let (doors, engine, handle) =
                Engine::redis(config, &wakers, Readiness::new()).expect("a valid deployment");
            let engine = engine.with_nodes(&name(number), nodes_known.clone());
            metrics.push(Arc::clone(engine.metrics()));
            threads.push(EngineThread::run(engine));
            nodes.push((doors, handle));
            wake_sources.extend(sources);
        }
        let joined = Self {
            registry,
            metrics,
            _threads: threads,
        };
        joined.declare_alive(|_| true);
        wait_for("the way through Redis", || joined.is_up());
        (joined, nodes, wake_sources)
    }

    /// Whether everything travels through Redis, on every node.
    pub(super) fn is_up(&self) -> bool {
        let mut metrics = self.metrics.iter();
        metrics.all(|metrics| metrics.redis_up.get() == 1)
    }

    /// How often a node has lost its connections: a busy machine may keep it from being heard for too long.
    pub(super) fn losses(&self) -> u64 {
        self.metrics
            .iter()
            .map(|metrics| metrics.redis_lost.get())
            .sum()
    }

    /// The registry declares that these nodes live, and no others.
    pub(super) fn declare_alive(&self, is_alive: impl Fn(usize) -> bool) {
        let mut snapshot = Snapshot::unread(Duration::from_secs(15));
        snapshot.read_at = Some(Instant::now());
        for number in (0..self.metrics.len()).filter(|number| is_alive(*number)) {
            let mut record = NodeRecord::new(name(number), ([127, 0, 0, 1], 1).into());
            record.generation = 7 + number as u64;
            let view = NodeView {
                record,
                deadline_ms: 0,
                heartbeat_age_ms: 0,
                fresh: true,
                held: false,
            };
            snapshot.nodes.insert(name(number), view);
        }
        self.registry.send_replace(Arc::new(snapshot));
    }
}

fn name(number: usize) -> String {
    format!("node-{number}")
}

/// The thread of a node's Redis engine.
struct EngineThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EngineThread {
    fn run(engine: RedisEngine) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(engine.run(async {
                let _ = stopped.await;
            }));
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("an engine has panicked");
        }
    }
}
