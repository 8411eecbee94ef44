//! The control thread: follows the registry, probes the nodes, tells the shards.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_registry::Snapshot;
use flux_runtime::control::Readiness;
use flux_runtime::mailbox::{Full, Sender};
use flux_runtime::shard::ShardThread;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::admin::{self, View};
use crate::balance::{ProbeTarget, Routes};
use crate::health::Probe;
use crate::mail::{Mail, Report};
use crate::{limits, probe, state_file};

/// Time between two looks at the shards, and at mail that found no room.
const TICK: Duration = Duration::from_millis(250);
/// A shard whose turns stand still for so long after a wake does not answer.
const SHARD_SILENT: Duration = Duration::from_secs(1);
const TICKS_PER_S: u32 = 4;

/// One shard, as the control thread has it.
pub(crate) struct Shard {
    pub(crate) thread: ShardThread,
    mail: Sender<Mail>,
    unsent: VecDeque<Mail>,
    turns: u64,
    moved: Instant,
}

impl Shard {
    pub(crate) fn new(thread: ShardThread, mail: Sender<Mail>, now: Instant) -> Shard {
        Shard {
            thread,
            mail,
            unsent: VecDeque::new(),
            turns: 0,
            moved: now,
        }
    }

    fn send(&mut self, mail: Mail) {
        if matches!(mail, Mail::Routes(_)) {
            // Only the newest matter.
            self.unsent
                .retain(|waiting| !matches!(waiting, Mail::Routes(_)));
        }
        self.unsent.push_back(mail);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(mail) = self.unsent.pop_front() {
            if let Err(Full(mail)) = self.mail.try_send(mail) {
                self.unsent.push_front(mail);
                return;
            }
        }
    }

    /// Whether it takes turns. A shard that has stopped after its drain does.
    fn answers(&mut self, now: Instant) -> bool {
        let turns = self.thread.turns();
        if turns != self.turns || self.thread.is_finished() {
            self.turns = turns;
            self.moved = now;
        }
        self.thread.wake();
        !self.thread.panicked() && now.saturating_duration_since(self.moved) <= SHARD_SILENT
    }
}

/// See the [module](self).
pub(crate) struct Control {
    pub(crate) view: View,
    pub(crate) readiness: Readiness,
    pub(crate) shards: Vec<Shard>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) stop: watch::Receiver<Option<Instant>>,
    pub(crate) state_file: Option<PathBuf>,
}

impl Control {
    /// Runs until `stop` names a time; then drains the shards until that time and returns when all of
    /// them have stopped.
    ///
    /// # Errors
    /// When the HTTP client for probes cannot be built.
    pub(crate) async fn run(mut self) -> Result<(), reqwest::Error> {
        let client = probe::client()?;
        let mut probes: JoinSet<(ProbeTarget, Probe)> = JoinSet::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks: u32 = 0;
        let mut accepted = 0;
        let mut draining = false;
        self.on_snapshot(Instant::now());
        loop {
            let room = limits::PROBES_AT_ONCE.saturating_sub(probes.len());
            for target in self.view.lock().table.due_probes(room, Instant::now()) {
                let client = client.clone();
                probes.spawn(async move {
                    let outcome = probe::probe(&client, target.admin).await;
                    (target, outcome)
                });
            }
            self.publish();
            let due = self.view.lock().table.next_due().filter(|_| room > 0);
            let due = due.unwrap_or_else(|| Instant::now() + TICK);
            tokio::select! {
                changed = self.snapshots.changed() => match changed {
                    Ok(()) => self.on_snapshot(Instant::now()),
                    // The registry's task is gone, which only happens while the runtime ends.
                    Err(_) => return Ok(()),
                },
                Some(report) = self.reports.recv() => self.on_report(&report, Instant::now()),
                Some(Ok((target, outcome))) = probes.join_next() => {
                    self.view.lock().table.on_probe(&target, outcome, Instant::now());
                }
                () = tokio::time::sleep_until(due.into()) => {}
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(TICKS_PER_S) {
                        let now_accepted = self.view.sum(|meters| meters.accepted.get());
                        self.view.lock().accepts_per_s = now_accepted - accepted;
                        accepted = now_accepted;
                    }
                    self.watch_shards(Instant::now());
                    if draining && self.shards.iter().all(|shard| shard.thread.is_finished()) {
                        return Ok(());
                    }
                }
                Ok(()) = self.stop.changed(), if !draining => {
                    let until = *self.stop.borrow();
                    if let Some(until) = until {
                        draining = true;
                        self.drain(until);
                    }
                }
            }
        }
    }

    fn drain(&mut self, until: Instant) {
        self.readiness
            .set_reason("draining", Some("draining".to_owned()));
        self.view.lock().state = "draining";
        for shard in &mut self.shards {
            shard.send(Mail::Drain { until });
        }
    }

    fn on_snapshot(&mut self, now: Instant) {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let mut changing = self.view.lock();
        changing.table.on_snapshot(&snapshot, now);
        if changing.table.ever_known() {
            self.readiness.set_reason("nodes", None);
            if changing.state == "starting" {
                changing.state = "ready";
            }
        }
        self.readiness
            .set_degraded("registry", admin::doubt(&snapshot).map(str::to_owned));
        changing.snapshot = snapshot;
    }

    fn on_report(&mut self, report: &Report, now: Instant) {
        let table = &mut self.view.lock().table;
        match report {
            Report::Failed(node, failure) => table.on_flow_failed(node, *failure, now),
            Report::Answered(node) => table.on_flow_answered(node),
        }
    }

    /// Tells the shards what has changed.
    fn publish(&mut self) {
        let mut changing = self.view.lock();
        let changes = changing.table.take_changes();
        if let Some(routes) = &changes.routes {
            let panic = routes.placement().panicking();
            let text = "under half of the nodes are eligible, trying all of them";
            self.readiness
                .set_degraded("panic", panic.then(|| text.to_owned()));
            tracing::info!(nodes = %describe(&changing.table.statuses(Instant::now())), panic, "routes");
            if let Some(path) = &self.state_file
                && let Err(error) = state_file::write(path, changing.table.records())
            {
                tracing::warn!(%error, path = %path.display(), "the last known good nodes could not be kept");
            }
        }
        drop(changing);
        let routes: Option<Routes> = changes.routes;
        for shard in &mut self.shards {
            if let Some(routes) = &routes {
                shard.send(Mail::Routes(Box::new(routes.clone())));
            }
            for node in &changes.cut {
                shard.send(Mail::Cut(node.clone()));
            }
        }
        for node in &changes.cut {
            tracing::warn!(node = %node.id(), flows = node.flows(), "node is gone, its flows are cut");
        }
    }

    fn watch_shards(&mut self, now: Instant) {
        let mut silent = Vec::new();
        let mut busy = Vec::new();
        for shard in &mut self.shards {
            shard.flush();
            if !shard.answers(now) {
                silent.push(shard.thread.index().to_string());
            }
            busy.push(shard.thread.busy_share());
        }
        self.view.lock().busy = busy;
        let text = format!("shard {} does not answer", silent.join(", "));
        self.readiness
            .set_reason("shards", (!silent.is_empty()).then_some(text));
    }
}

/// The nodes' standings on one line of the log.
fn describe(nodes: &[crate::balance::NodeStatus]) -> String {
    let of = |node: &crate::balance::NodeStatus| match (node.eligible, node.reason.as_str()) {
        (true, "") => node.id.clone(),
        (true, reason) => format!("{} ({reason})", node.id),
        (false, reason) => format!("{} (no: {reason})", node.id),
    };
    nodes.iter().map(of).collect::<Vec<_>>().join(", ")
}
