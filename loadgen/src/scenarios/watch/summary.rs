//! The report of a watch: the verdict first, then where clients were and what happened to them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::closes::CloseGroup;
use super::verdict::Totals;
use super::{Story, Watch};
use crate::process::CpuUse;
use crate::record::{Latencies, Summary as Latency};

/// The last line of a watch.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    event: &'static str,
    scenario: &'static str,
    /// Nothing lost, duplicated, reordered or invented, and no client was sent away for good,
    /// and something was delivered at all.
    ok: bool,
    clients: usize,
    channels: usize,
    duration_s: f64,
    #[serde(flatten)]
    totals: Totals,
    /// Publications that were due while no client was live to send them.
    skipped: u64,
    /// Receipts that were not of this run.
    foreign: u64,
    /// Established connections that ended.
    losses: usize,
    /// Clients that had to reconnect at least once.
    clients_reconnected: usize,
    /// Resubscriptions whose gap the server filled from history.
    recovered: u64,
    /// Resubscriptions at which the server said that something may be missing.
    resubscribed_with_a_gap: u64,
    failed_attempts: u64,
    failed_attempts_by_kind: BTreeMap<String, u64>,
    /// Clients that the server told not to come back.
    ended: u64,
    /// Clients that were not live at the end.
    away_at_end: usize,
    /// Longest absence of each client that had one: last byte heard to subscribed again.
    gap_ms_p50: Option<u64>,
    gap_ms_max: Option<u64>,
    nodes: BTreeMap<String, Node>,
    /// Clients that were elsewhere at the end.
    moved: Vec<Moved>,
    closes: Vec<CloseGroup>,
    /// Publish to receipt.
    latency: Latency,
    cpu: CpuUse,
}

/// What the clients of one node saw.
#[derive(Debug, Default, Serialize)]
struct Node {
    /// Clients that connected to it first.
    before: usize,
    /// Clients on it at the end.
    after: usize,
    /// Connections lost by the clients that were here first.
    losses: u64,
    /// Longest absence among them.
    gap_ms_max: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Moved {
    client: usize,
    sid: String,
    before: String,
    after: String,
}

impl Watch<'_> {
    pub(super) fn summary(self, duration: Duration, cpu: &CpuUse) -> Summary {
        let totals = self.verdict.settle(self.at());
        let name = |index: u16| self.nodes[usize::from(index)].clone();
        let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
        let mut moved = Vec::new();
        for (index, (client, story)) in self.clients.iter().zip(&self.stories).enumerate() {
            let gap = gap_ms(story);
            if let Some(first) = story.first_node {
                let node = nodes.entry(name(first)).or_default();
                node.before += 1;
                node.losses += story.losses;
                node.gap_ms_max = node.gap_ms_max.max(gap);
            }
            if let Some(last) = story.node.filter(|_| client.is_live()) {
                nodes.entry(name(last)).or_default().after += 1;
                if let Some(first) = story.first_node.filter(|first| *first != last) {
                    moved.push(Moved {
                        client: index,
                        sid: format!("{}{index}", self.options.sid),
                        before: name(first),
                        after: name(last),
                    });
                }
            }
        }
        let mut gaps: Vec<u64> = self.stories.iter().filter_map(gap_ms).collect();
        gaps.sort_unstable();
        Summary {
            event: "summary",
            scenario: "watch",
            ok: totals.clean() && self.ended == 0 && totals.delivered > 0,
            clients: self.clients.len(),
            channels: self.options.channels(),
            duration_s: duration.as_secs_f64(),
            totals,
            skipped: self.skipped,
            foreign: self.foreign,
            losses: self.closes.count(),
            clients_reconnected: self.stories.iter().filter(|story| story.losses > 0).count(),
            recovered: self.stories.iter().map(|story| story.recovered).sum(),
            resubscribed_with_a_gap: self.told,
            failed_attempts: self.failed_attempts.values().sum(),
            away_at_end: self
                .clients
                .iter()
                .filter(|client| !client.is_live())
                .count(),
            gap_ms_p50: gaps.get(gaps.len() / 2).copied(),
            gap_ms_max: gaps.last().copied(),
            nodes,
            moved,
            closes: self.closes.groups(),
            latency: Latencies::summary(&self.latencies),
            cpu: cpu.clone(),
            ended: self.ended,
            failed_attempts_by_kind: self.failed_attempts,
        }
    }
}

fn gap_ms(story: &Story) -> Option<u64> {
    story.longest_gap.map(|gap| gap.as_millis() as u64)
}

impl crate::scenarios::Report for Summary {
    fn complete(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = &self.totals;
        writeln!(
            f,
            "{}: lost {}, duplicated {}, reordered {} of {} expected receipts ({} delivered, {} missed while away, {} missing and told so)",
            if self.ok { "OK" } else { "NOT OK" },
            totals.lost,
            totals.duplicated,
            totals.reordered,
            totals.expected,
            totals.delivered,
            totals.missed_while_away,
            totals.told
        )?;
        if totals.lost > 0 {
            writeln!(
                f,
                "  lost on one node {}, between nodes {}",
                totals.lost_same_node, totals.lost_cross_node
            )?;
        }
        if totals.unknown + self.foreign + self.ended > 0 {
            writeln!(
                f,
                "  invented {}, foreign {}, clients sent away for good {}",
                totals.unknown, self.foreign, self.ended
            )?;
        }
        writeln!(
            f,
            "{} publications in {:.1} s: {} acknowledged, {} refused, {} unanswered, {} skipped while nobody was live",
            totals.published,
            self.duration_s,
            totals.acknowledged,
            totals.refused,
            totals.unanswered,
            self.skipped
        )?;
        writeln!(
            f,
            "{} clients: {} reconnected ({} connections lost, {} failed attempts), {} moved, {} away at the end",
            self.clients,
            self.clients_reconnected,
            self.losses,
            self.failed_attempts,
            self.moved.len(),
            self.away_at_end
        )?;
        for (kind, count) in &self.failed_attempts_by_kind {
            writeln!(f, "  {count:>6} failed: {kind}")?;
        }
        if let (Some(p50), Some(max)) = (self.gap_ms_p50, self.gap_ms_max) {
            writeln!(f, "longest absence of a client: p50 {p50} ms, max {max} ms")?;
        }
        for (name, node) in &self.nodes {
            let name = if name.is_empty() {
                "(unnamed node)"
            } else {
                name
            };
            writeln!(
                f,
                "  {name}: {} clients before, {} after, {} connections lost",
                node.before, node.after, node.losses
            )?;
        }
        for group in &self.closes {
            writeln!(
                f,
                "  closes {} {}: {} from {} ms to {} ms, per 5 s {:?}{}",
                group.node,
                group.code,
                group.count,
                group.first_at_ms,
                group.last_at_ms,
                group.slices_5s,
                if group.even { "" } else { " (uneven)" }
            )?;
        }
        write!(f, "publish to receipt: {}", self.latency)
    }
}
