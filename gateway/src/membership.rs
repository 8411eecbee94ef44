//! The node's place in the cluster: its lease, its record, and what happens when either is lost.
//!
//! Runs on the control thread. A registry that is away costs nothing but a word in `/ready`: the node owns
//! nothing that is exclusive, keeps its clients and takes new ones. Only a later process with the same id
//! ends it: then [`Membership::fenced`] answers, and the node drains and exits without writing any more.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flux_registry::{
    Beat, LeaseControl, LeaseEvent, NodeRecord, NodeState, Registry, advertised, run_lease,
};
use flux_runtime::control::Readiness;
use tokio::sync::watch;

use crate::drain::{Phase, Progress};

/// Longest wait for the registry to confirm that the node has left; then the lease's TTL ends it.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(1);

/// What does not change while the node lives.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Stable name of the node.
    pub id: String,
    /// Where clients connect, as bound (the port is the real one).
    pub listen: SocketAddr,
    /// Where the admin pages answer, as bound.
    pub admin: SocketAddr,
    /// What others connect to instead of what is found (`--advertise`).
    pub advertise: Option<SocketAddr>,
    /// Share of the ring, 1 is normal.
    pub weight: u32,
    /// Failure domain. Empty if none.
    pub zone: String,
    /// Version and build of the program.
    pub build: String,
}

/// What the node says of itself at each heartbeat.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Where its drain stands.
    pub phase: Phase,
    /// How far the drain is, while it drains.
    pub progress: Option<Progress>,
    /// Client connections that it takes at most; 0 if unknown.
    pub capacity: u64,
    /// Client connections of each shard.
    pub shards: Vec<u64>,
    /// Channels with at least one subscriber.
    pub channels: u64,
    /// Messages in and out since the start.
    pub messages_total: u64,
}

/// Another process holds this node's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// Its generation.
    pub by: u64,
    /// Ours.
    pub held: u64,
}

impl std::fmt::Display for Fenced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "fenced by generation {}: another process has taken this node's id (ours was generation {})",
            self.by, self.held
        )
    }
}

/// How the lease stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Generation held; 0 before the first registration.
    pub generation: u64,
    /// Whether the registry answered last time.
    pub reachable: bool,
    /// Whether readers take the node for dead because its lease lapsed.
    pub lost: bool,
    /// Set once another process has taken the id.
    pub fenced: Option<Fenced>,
    ended: bool,
}

/// The node's membership. Dropped without [`Membership::leave`], the lease ends with its TTL.
#[derive(Debug)]
pub struct Membership {
    control: LeaseControl,
    standing: watch::Receiver<Standing>,
    task: tokio::task::JoinHandle<()>,
}

/// Registers the node and keeps it registered. `status` is asked at each heartbeat, on this thread. Must be
/// called within a tokio runtime.
pub fn join<S>(
    registry: &Registry,
    identity: Identity,
    mut status: S,
    readiness: Readiness,
) -> Membership
where
    S: FnMut() -> NodeStatus + Send + 'static,
{
    let id = identity.id.clone();
    let mut rate = Rate::default();
    let mut lease = run_lease(registry, move |beat| {
        record(&identity, status(), &mut rate, beat)
    });
    let control = lease.control();
    let (told, standing) = watch::channel(Standing::default());
    let task = tokio::spawn(async move {
        while let Some(event) = lease.next_event().await {
            told.send_modify(|standing| take(&event, standing));
            report(&id, &event, &readiness);
        }
        told.send_modify(|standing| standing.ended = true);
    });
    Membership {
        control,
        standing,
        task,
    }
}

impl Membership {
    /// How the lease stands now.
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// Answers when another process has taken the id, never otherwise. The node must drain then.
    /// Cancel-safe.
    pub async fn fenced(&mut self) -> Fenced {
        let seen = self.standing.wait_for(|standing| standing.fenced.is_some());
        if let Ok(standing) = seen.await
            && let Some(fenced) = standing.fenced
        {
            return fenced;
        }
        std::future::pending().await
    }

    /// Sends a heartbeat now: the node has become ready, or begins to drain. Readers are woken.
    pub fn announce(&self) {
        self.control.beat_now();
    }

    /// Gives the id back if it is still ours, with a reason for people (`left after its drain`). Returns
    /// whether the lease has ended in an orderly way within a second; if not, its TTL ends it.
    pub async fn leave(mut self, reason: &str) -> bool {
        self.control.leave(reason);
        let ended = self.standing.wait_for(|standing| standing.ended);
        let in_time = tokio::time::timeout(LEAVE_WAIT_MAX, ended).await;
        matches!(in_time, Ok(Ok(_)))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn take(event: &LeaseEvent, standing: &mut Standing) {
    match *event {
        LeaseEvent::Registered { generation } | LeaseEvent::Restored { generation } => {
            standing.generation = generation;
            standing.reachable = true;
            standing.lost = false;
        }
        LeaseEvent::Unreachable { .. } => standing.reachable = false,
        LeaseEvent::Lost => {
            standing.reachable = false;
            standing.lost = true;
        }
        LeaseEvent::Fenced { by, held } => standing.fenced = Some(Fenced { by, held }),
        LeaseEvent::Released => {}
    }
}

fn report(id: &str, event: &LeaseEvent, readiness: &Readiness) {
    match event {
        LeaseEvent::Registered { generation } => {
            readiness.set_degraded("registry", None);
            tracing::info!(node = id, generation, "registered");
        }
        LeaseEvent::Restored { generation } => {
            readiness.set_degraded("registry", None);
            tracing::info!(
                node = id,
                generation,
                "registry answers again, lease renewed"
            );
        }
        LeaseEvent::Unreachable { error } => {
            let why = format!("redis registry does not answer: {error}");
            readiness.set_degraded("registry", Some(why));
            tracing::warn!(
                node = id,
                error,
                "registry does not answer, clients are kept"
            );
        }
        LeaseEvent::Lost => {
            let why = "redis registry does not answer: the lease has lapsed, other processes see this node as dead";
            readiness.set_degraded("registry", Some(why.into()));
            tracing::warn!(node = id, "lease lapsed, clients are kept");
        }
        LeaseEvent::Fenced { by, held } => {
            let fenced = Fenced {
                by: *by,
                held: *held,
            };
            readiness.set_degraded("registry", None);
            readiness.set_reason("fenced", Some(fenced.to_string()));
            tracing::error!(node = id, by, held, "{fenced}; draining");
        }
        LeaseEvent::Released => tracing::info!(node = id, "lease given back"),
    }
}

fn record(
    identity: &Identity,
    status: NodeStatus,
    rate: &mut Rate,
    beat: &Beat,
) -> Result<NodeRecord, String> {
    let addr = advertised(identity.advertise, identity.listen, beat.local_ip)
        .ok_or("no address to advertise: set --advertise IP:PORT")?;
    let mut record = NodeRecord::new(identity.id.clone(), addr);
    record.admin = advertised(None, identity.admin, Some(addr.ip()));
    record.weight = identity.weight;
    record.zone.clone_from(&identity.zone);
    record.build.clone_from(&identity.build);
    record.state = match status.phase {
        Phase::Starting => NodeState::Starting,
        Phase::Ready => NodeState::Ready,
        Phase::LameDuck | Phase::Closing | Phase::Forced | Phase::Stopped => NodeState::Draining,
    };
    record.connections = status.shards.iter().sum();
    record.capacity = status.capacity;
    record.shards = status.shards;
    record.channels = status.channels;
    record.messages_total = status.messages_total;
    record.messages_per_s = rate.per_second(status.messages_total, beat.now);
    if let Some(progress) = status.progress {
        record.drain_started_ms = beat.clock.ms_at(progress.started);
        record.drain_deadline_ms = beat.clock.ms_at(progress.deadline);
        record.drain_remaining = progress.remaining;
    }
    Ok(record)
}

/// A counter's growth over the time between two heartbeats.
#[derive(Debug, Default)]
struct Rate {
    before: Option<(u64, Instant)>,
    per_second: f64,
}

impl Rate {
    fn per_second(&mut self, total: u64, now: Instant) -> f64 {
        match self.before {
            None => self.before = Some((total, now)),
            Some((before, at)) => {
                let passed = now.saturating_duration_since(at).as_secs_f64();
                // An announcement right after a heartbeat would divide by next to nothing.
                if passed >= 0.5 {
                    self.per_second = total.saturating_sub(before) as f64 / passed;
                    self.before = Some((total, now));
                }
            }
        }
        (self.per_second * 10.0).round() / 10.0
    }
}
