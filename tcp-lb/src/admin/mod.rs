//! Admin pages beside those of every process: `/api/ring?key=K` and `/api/nodes`.

pub mod metrics;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use flux_registry::Snapshot;
use serde::Deserialize;
use serde_json::json;

use crate::balance::{NodeStatus, Placed, Table};
use crate::caps::Caps;
use crate::config::Config;
use crate::meters::Meters;

/// What the pages show. The control thread writes, the pages read; both only for moments.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    started: Instant,
    meters: Vec<Arc<Meters>>,
    caps: Arc<Caps>,
    state: Mutex<Changing>,
}

/// What changes.
pub struct Changing {
    /// All nodes.
    pub table: Table,
    /// The registry as last read.
    pub snapshot: Arc<Snapshot>,
    /// `starting`, `ready` or `draining`.
    pub state: &'static str,
    /// Accepted connections per second, over the last second.
    pub accepts_per_s: u64,
    /// Share of recent time that each shard worked, 0 to 1.
    pub busy: Vec<f32>,
}

impl View {
    /// A view on what `meters` count, one for each shard.
    pub fn new(
        config: Config,
        meters: Vec<Arc<Meters>>,
        caps: Arc<Caps>,
        state: Changing,
        now: Instant,
    ) -> View {
        View {
            shared: Arc::new(Shared {
                config,
                started: now,
                meters,
                caps,
                state: Mutex::new(state),
            }),
        }
    }

    /// What changes, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Changing> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of each shard.
    pub fn meters(&self) -> &[Arc<Meters>] {
        &self.shared.meters
    }

    /// The bounds on flows.
    pub fn caps(&self) -> &Caps {
        &self.shared.caps
    }

    /// A counter, over all shards.
    pub fn sum(&self, of: impl Fn(&Meters) -> u64) -> u64 {
        self.meters().iter().map(|meters| of(meters)).sum()
    }

    /// The document of `/api/status`.
    pub fn status(&self) -> serde_json::Value {
        let Shared {
            config,
            started,
            meters,
            caps,
            ..
        } = &*self.shared;
        let now = Instant::now();
        let changing = self.lock();
        let shard = |(index, meters): (usize, &Arc<Meters>)| {
            let busy = changing.busy.get(index).copied().unwrap_or_default();
            json!({"shard": index, "connections": meters.flows.get(), "busy": busy})
        };
        let shards: Vec<_> = meters.iter().enumerate().map(shard).collect();
        let flows = self.sum(|meters| meters.flows.get());
        json!({
            "id": config.id,
            "version": env!("CARGO_PKG_VERSION"),
            "state": changing.state,
            "uptime_s": now.saturating_duration_since(*started).as_secs(),
            "listen": config.listen,
            "affinity": config.affinity,
            "shards": shards,
            "connections": flows,
            "flows": flows,
            "accepts_per_s": changing.accepts_per_s,
            "accepted": self.sum(|meters| meters.accepted.get()),
            "registry": {
                "state": changing.snapshot.state.as_str(),
                "age_ms": changing.snapshot.age_at(now).map(|age| age.as_millis() as u64),
                "doubt": doubt(&changing.snapshot),
            },
            "panic": changing.table.panicking(),
            "limits": {
                "flows_max": caps.flows_max(),
                "flows_per_source_max": caps.per_source_max(),
                "accepts_per_s": config.accepts_per_s,
                "queue_bytes_max": config.queue_bytes_max,
                "head_bytes_max": crate::head::HEAD_LEN_MAX,
                "load_bound": config.load_bound,
            },
        })
    }

    /// The balancer's own pages.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/api/ring", get(ring))
            .route("/api/nodes", get(nodes))
            .with_state(self.clone())
    }
}

/// Why routing rests on what was known before, in words.
pub fn doubt(snapshot: &Snapshot) -> Option<&'static str> {
    use flux_registry::Doubt;
    Some(match snapshot.doubt? {
        Doubt::Unreadable => "registry unreachable, routing to the last known nodes",
        Doubt::Empty => "registry empty, routing to the last known nodes",
        Doubt::OverHalfVanished => {
            "over half of the nodes vanished from the registry, routing to the last known nodes"
        }
        Doubt::Returning => "registry is back, removals are held for one TTL",
    })
}

#[derive(Deserialize)]
struct RingQuery {
    key: String,
}

async fn ring(State(view): State<View>, Query(query): Query<RingQuery>) -> Json<Placed> {
    Json(view.lock().table.place(&query.key, Instant::now()))
}

async fn nodes(State(view): State<View>) -> Json<Vec<NodeStatus>> {
    Json(view.lock().table.statuses(Instant::now()))
}
