//! Sees: the registry's snapshots, the nodes' and balancers' admin answers; and
//! puts a document together whenever something changed.
//!
//! Invariants: at most one question is under way for each target and at most
//! [`limits::PROBES_IN_FLIGHT_MAX`] in all; documents come at most every
//! [`limits::STREAM_GAP_MIN`] and at least every [`limits::STREAM_GAP_MAX`].

mod ask;
mod balancer;
mod members;
mod node;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use flux_registry::Snapshot;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::document::Document;
use crate::history::History;
use crate::limits;
use crate::observe::{BalancerView, Moment, Observation};
use crate::probe::Probe;
use crate::topology::Topology;

use schedule::Schedule;

/// The newest document, ready to be sent: encoded once for everybody.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The document.
    pub document: Arc<Document>,
    /// Its JSON.
    pub json: Arc<str>,
}

/// What the pages read.
#[derive(Debug)]
pub struct View {
    /// Topology with its timeline.
    pub topology: Topology,
    /// Sparklines.
    pub history: History,
}

/// Shared between the collector, which writes, and the pages.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<View>>);

impl Shared {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        Self(Arc::new(Mutex::new(View {
            topology: Topology::new(cluster),
            history: History::default(),
        })))
    }

    /// The view; held only for as long as it takes to read or write it.
    pub fn lock(&self) -> MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects until dropped.
pub struct Collector {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    client: reqwest::Client,
    shared: Shared,
    frames: watch::Sender<Option<Frame>>,
    started: Instant,
    nodes: BTreeMap<String, node::Target>,
    balancers: Vec<balancer::Target>,
    asked: JoinSet<Answered>,
    busy: BTreeSet<Key>,
    slots: Arc<Semaphore>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Node(String),
    Balancer(usize),
}

enum Answered {
    Node(String, node::Identity, Result<crate::probe::Answer, String>),
    Balancer(usize, Box<Result<balancer::Told, String>>),
}

impl Collector {
    /// A collector that reads `snapshots` and asks the balancers at
    /// `balancers` (`http://host:port`).
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(
        snapshots: watch::Receiver<Arc<Snapshot>>,
        balancers: &[String],
        shared: Shared,
    ) -> Result<(Self, watch::Receiver<Option<Frame>>), reqwest::Error> {
        let (frames, receiver) = watch::channel(None);
        let collector = Self {
            snapshots,
            client: ask::client()?,
            shared,
            frames,
            started: Instant::now(),
            nodes: BTreeMap::new(),
            balancers: balancers.iter().map(|b| balancer::Target::new(b)).collect(),
            asked: JoinSet::new(),
            busy: BTreeSet::new(),
            slots: Arc::new(Semaphore::new(limits::PROBES_IN_FLIGHT_MAX)),
        };
        Ok((collector, receiver))
    }

    /// Runs for as long as it is polled. Cancel-safe: dropping it ends the
    /// questions under way and with them every event stream.
    pub async fn run(mut self) {
        let mut probing = tokio::time::interval(limits::PROBE_EVERY);
        probing.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut schedule = Schedule::new(tokio::time::Instant::now());
        loop {
            tokio::select! {
                _ = probing.tick() => self.probe(),
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        tracing::error!("the registry's watch has ended");
                        return;
                    }
                    self.follow_members();
                    schedule.registry_spoke(tokio::time::Instant::now());
                }
                Some(answered) = self.asked.join_next() => {
                    if answered.is_ok_and(|answered| self.take(answered)) {
                        schedule.changed(tokio::time::Instant::now());
                    }
                }
                () = tokio::time::sleep_until(schedule.due()) => {
                    self.publish();
                    schedule.published(tokio::time::Instant::now());
                }
            }
        }
    }

    /// Asks everybody who is not being asked already.
    fn probe(&mut self) {
        for (id, target) in &self.nodes {
            let key = Key::Node(id.clone());
            let Some(admin) = target.identity.admin else {
                continue;
            };
            if !self.busy.insert(key) {
                continue;
            }
            let (client, id, identity) = (self.client.clone(), id.clone(), target.identity.clone());
            let slots = self.slots.clone();
            self.asked.spawn(async move {
                let _slot = slots.acquire().await;
                let result = node::ask(&client, &id, admin).await;
                Answered::Node(id, identity, result)
            });
        }
        for (index, target) in self.balancers.iter().enumerate() {
            if !self.busy.insert(Key::Balancer(index)) {
                continue;
            }
            let (client, base) = (self.client.clone(), target.base.clone());
            self.asked.spawn(async move {
                Answered::Balancer(index, Box::new(balancer::ask(&client, &base).await))
            });
        }
    }

    /// Takes an answer; says whether anything that people see has changed.
    fn take(&mut self, answered: Answered) -> bool {
        match answered {
            Answered::Node(id, identity, result) => {
                self.busy.remove(&Key::Node(id.clone()));
                match self.nodes.get_mut(&id) {
                    // An answer for an address or process that is no longer the node's counts for nothing.
                    Some(target) if target.identity == identity => {
                        let before = target.probe.clone();
                        target.probe.record(result);
                        before.verdict() != target.probe.verdict()
                            || before.answer() != target.probe.answer()
                    }
                    _ => false,
                }
            }
            Answered::Balancer(index, result) => {
                self.busy.remove(&Key::Balancer(index));
                let now = self.started.elapsed();
                self.balancers
                    .get_mut(index)
                    .is_some_and(|target| target.record(*result, now))
            }
        }
    }

    /// Probes follow the registry: a new process or address begins anew.
    fn follow_members(&mut self) {
        let snapshot = self.snapshots.borrow_and_update().clone();
        if snapshot.read_at.is_none() {
            return;
        }
        let known = &snapshot.nodes;
        self.nodes
            .retain(|id, _| known.contains_key(id) || snapshot.departed.contains_key(id));
        for (id, view) in known.iter().take(limits::NODES_MAX) {
            let identity = node::Identity::of(&view.record);
            let target = self
                .nodes
                .entry(id.clone())
                .or_insert_with(|| node::Target {
                    identity: identity.clone(),
                    probe: Probe::default(),
                });
            if target.identity != identity {
                *target = node::Target {
                    identity,
                    probe: Probe::default(),
                };
            }
        }
    }

    fn publish(&mut self) {
        let seen = self.observation();
        let now = Moment {
            up: self.started.elapsed(),
            unix_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        };
        let document = {
            let mut view = self.shared.lock();
            let before = view.topology.timeline().last();
            let document = view.topology.observe(&seen, now);
            view.history.sample(&document, now);
            for event in view.topology.timeline().after(before) {
                tracing::info!(subject = event.subject, kind = ?event.kind, "{}", event.text);
            }
            document
        };
        match serde_json::to_string(&document) {
            Ok(json) => {
                self.frames.send_replace(Some(Frame {
                    document: Arc::new(document),
                    json: json.into(),
                }));
            }
            Err(error) => tracing::error!(%error, "the document could not be encoded"),
        }
    }

    fn observation(&self) -> Observation {
        let snapshot = self.snapshots.borrow().clone();
        let mut seen = members::read(&snapshot, Instant::now());
        seen.probes = self
            .nodes
            .iter()
            .map(|(id, target)| (id.clone(), target.probe.clone()))
            .collect();
        seen.balancers = self.balancers.iter().map(|t| t.view.clone()).collect();
        if !seen.balancers.iter().any(BalancerView::answers) {
            seen.shares = members::shares(&snapshot);
        }
        seen
    }
}
