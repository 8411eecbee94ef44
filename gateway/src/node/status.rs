//! What is shown of a node: `/api/status`, its record in the registry, whether its shards live.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flux_runtime::shard::ShardThread;
use serde_json::json;

use crate::config::Config;
use crate::drain::{Phase, Progress, ShardLoad};
use crate::engine::EngineMetrics;
use crate::membership;
use crate::shard::{Counter, Counters};

/// How long a shard may take to begin a turn after it was woken.
pub(super) const SHARD_SILENT_MAX: Duration = Duration::from_secs(1);

/// A node's state as others see it. The shards write their counters, the control plane the rest.
pub struct NodeStatus {
    id: String,
    counters: Vec<Arc<Counters>>,
    engines: Vec<Arc<EngineMetrics>>,
    connections_max: u64,
    drain_seconds: u64,
    started: Instant,
    changing: Mutex<Changing>,
}

struct Changing {
    phase: Phase,
    progress: Option<Progress>,
    rate: Rate,
}

/// Messages per second between two looks at least half a second apart.
struct Rate {
    at: Instant,
    total: u64,
    per_second: f64,
}

impl NodeStatus {
    /// A node that is starting.
    pub fn new(
        config: &Config,
        counters: Vec<Arc<Counters>>,
        engines: Vec<Arc<EngineMetrics>>,
        connections_max: u64,
        now: Instant,
    ) -> Self {
        Self {
            id: config.id.clone(),
            counters,
            engines,
            connections_max,
            drain_seconds: config.drain_seconds,
            started: now,
            changing: Mutex::new(Changing {
                phase: Phase::Starting,
                progress: None,
                rate: Rate {
                    at: now,
                    total: 0,
                    per_second: 0.0,
                },
            }),
        }
    }

    /// The counters of all shards.
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// Client connections at most.
    pub fn connections_max(&self) -> u64 {
        self.connections_max
    }

    /// Where the node is in its life, and how far its drain is.
    pub fn life(&self) -> (Phase, Option<Progress>) {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        (changing.phase, changing.progress)
    }

    /// The drain has come so far.
    pub fn set_life(&self, phase: Phase, progress: Option<Progress>) {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        changing.phase = phase;
        changing.progress = progress;
    }

    /// Messages received from and delivered to clients per second, lately.
    pub fn messages_per_second(&self, now: Instant) -> f64 {
        let total = self.messages_total();
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = &mut changing.rate;
        let passed = now.saturating_duration_since(rate.at);
        if passed >= Duration::from_millis(500) {
            rate.per_second = total.saturating_sub(rate.total) as f64 / passed.as_secs_f64();
            rate.total = total;
            rate.at = now;
        }
        rate.per_second
    }

    /// Messages received from and delivered to clients since the start.
    pub fn messages_total(&self) -> u64 {
        self.sum(|counters| &counters.messages_in) + self.sum(|counters| &counters.deliveries)
    }

    /// The sum of a counter over the shards.
    pub fn sum(&self, read: impl Fn(&Counters) -> &Counter) -> u64 {
        self.counters
            .iter()
            .map(|counters| read(counters).get())
            .sum()
    }

    /// Channels with subscribers, each once.
    pub fn channels(&self) -> u64 {
        EngineMetrics::channels_of(&self.engines)
    }

    /// Connections of each shard, as the drain wants them.
    pub fn loads(&self) -> Vec<ShardLoad> {
        self.counters
            .iter()
            .map(|counters| {
                let closing = counters.closing.get();
                ShardLoad {
                    open: counters.connections.get().saturating_sub(closing),
                    closing,
                }
            })
            .collect()
    }

    /// What goes into the node's record.
    pub fn for_registry(&self) -> membership::NodeStatus {
        let (phase, progress) = self.life();
        membership::NodeStatus {
            phase,
            progress,
            capacity: self.connections_max,
            shards: self
                .counters
                .iter()
                .map(|counters| counters.connections.get())
                .collect(),
            channels: self.channels(),
            messages_total: self.messages_total(),
        }
    }

    /// The document behind `/api/status`.
    pub fn document(&self, now: Instant) -> serde_json::Value {
        let (phase, progress) = self.life();
        let shards: Vec<_> = self
            .counters
            .iter()
            .enumerate()
            .map(|(shard, counters)| {
                json!({
                    "shard": shard,
                    "connections": counters.connections.get(),
                    "channels": counters.channels.get(),
                    "subscriptions": counters.subscriptions.get(),
                })
            })
            .collect();
        json!({
            "id": self.id,
            "version": env!("CARGO_PKG_VERSION"),
            "state": phase.as_str(),
            "uptime_s": now.saturating_duration_since(self.started).as_secs(),
            "connections": self.sum(|counters| &counters.connections),
            "clients": self.sum(|counters| &counters.clients),
            "channels": self.channels(),
            "subscriptions": self.sum(|counters| &counters.subscriptions),
            "messages_per_s": self.messages_per_second(now),
            "shards": shards,
            "drain": progress.map(|progress| json!({
                "remaining": progress.remaining,
                "left_ms": progress.deadline.saturating_duration_since(now).as_millis() as u64,
            })),
            "limits": {
                "connections_max": self.connections_max,
                "drain_seconds": self.drain_seconds,
            },
        })
    }
}

/// Looks at whether shards still take turns.
pub(super) struct Pulse {
    seen: Vec<(u64, Instant)>,
}

impl Pulse {
    pub(super) fn new(shards: &[ShardThread], now: Instant) -> Self {
        Self {
            seen: shards.iter().map(|shard| (shard.turns(), now)).collect(),
        }
    }

    /// Wakes every shard; returns those that have taken no turn for [`SHARD_SILENT_MAX`]. To be
    /// called several times within that time.
    pub(super) fn silent(&mut self, shards: &[ShardThread], now: Instant) -> Vec<usize> {
        let mut silent = Vec::new();
        for (shard, (turns, at)) in shards.iter().zip(&mut self.seen) {
            if shard.turns() != *turns {
                *turns = shard.turns();
                *at = now;
            } else if now.saturating_duration_since(*at) >= SHARD_SILENT_MAX {
                silent.push(shard.index());
            }
            shard.wake();
        }
        silent
    }
}
