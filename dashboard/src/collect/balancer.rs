//! A balancer's admin answers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::ask;
use crate::limits::NODES_MAX;
use crate::observe::{BalancerNode, BalancerView};
use crate::probe::{Answer, Probe};

/// One balancer that is asked.
pub(crate) struct Target {
    /// `http://host:port`.
    pub(crate) base: String,
    /// What is known of it.
    pub(crate) view: BalancerView,
    probe: Probe,
    accepted: Option<(u64, Duration)>,
}

/// What it said.
pub(crate) struct Told {
    reasons: Vec<String>,
    degraded: Vec<String>,
    status: Value,
    nodes: BTreeMap<String, BalancerNode>,
}

impl Target {
    /// Not asked yet.
    pub(crate) fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            view: BalancerView::new(base.strip_prefix("http://").unwrap_or(base)),
            probe: Probe::default(),
            accepted: None,
        }
    }

    /// Takes a result; says whether anything that people see has changed.
    pub(crate) fn record(&mut self, result: Result<Told, String>, now: Duration) -> bool {
        let before = self.view.clone();
        match result {
            Ok(told) => {
                self.probe.record(Ok(Answer::default()));
                self.take(told, now);
            }
            Err(error) => self.probe.record(Err(error)),
        }
        self.view.verdict = self.probe.verdict();
        self.view.error = self.probe.error().to_owned();
        self.view != before
    }

    fn take(&mut self, told: Told, now: Duration) {
        let number = |name: &str| told.status.get(name).and_then(Value::as_u64);
        if let Some(id) = told.status.get("id").and_then(Value::as_str) {
            self.view.id = id.chars().take(64).collect();
        }
        self.view.flows = number("flows")
            .or_else(|| number("connections"))
            .unwrap_or_else(|| told.nodes.values().map(|n| n.flows).sum());
        let said = told.status.get("accepts_per_s").and_then(Value::as_f64);
        let total = number("accepted_total").or_else(|| number("accepts_total"));
        let counted = match (total, self.accepted) {
            (Some(total), Some((before, at))) if now > at => {
                Some(total.saturating_sub(before) as f64 / (now - at).as_secs_f64())
            }
            _ => None,
        };
        self.accepted = total.map(|total| (total, now));
        self.view.accepts_per_s = said
            .or(counted)
            .filter(|rate| rate.is_finite() && *rate >= 0.0)
            .map_or(0.0, |rate| (rate * 10.0).round() / 10.0);
        self.view.reasons = told.reasons;
        self.view.degraded = told.degraded;
        self.view.nodes = told.nodes;
    }
}

/// `/ready`, `/api/status` and `/api/nodes`.
pub(crate) async fn ask(client: &reqwest::Client, base: &str) -> Result<Told, String> {
    let (_, reasons, degraded) = ask::ready(client, base).await?;
    let (_, status) = ask::get(client, &format!("{base}/api/status")).await?;
    let (_, nodes) = ask::get(client, &format!("{base}/api/nodes")).await?;
    Ok(Told {
        reasons,
        degraded,
        status,
        nodes: table(&nodes),
    })
}

fn table(nodes: &Value) -> BTreeMap<String, BalancerNode> {
    let lines = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
    lines
        .iter()
        .take(NODES_MAX)
        .filter_map(|line| {
            let id = line.get("id")?.as_str()?;
            let node = BalancerNode {
                eligible: line.get("eligible")?.as_bool()?,
                reason: line
                    .get("reason")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
                probe_ok: match line.get("probe").and_then(Value::as_str) {
                    Some("ok") => Some(true),
                    Some("failing") => Some(false),
                    _ => None,
                },
                flows: line.get("flows").and_then(Value::as_u64).unwrap_or(0),
                ring_share: line
                    .get("ring_share")
                    .and_then(Value::as_f64)
                    .unwrap_or(0.0),
            };
            Some((id.to_owned(), node))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Verdict;
    use serde_json::json;

    fn told(status: Value) -> Result<Told, String> {
        Ok(Told {
            reasons: Vec::new(),
            degraded: Vec::new(),
            status,
            nodes: table(&json!([
                {"id": "gateway-1", "eligible": true, "reason": "", "probe": "ok", "flows": 5, "ring_share": 0.5},
                {"id": 7}, "garbage"
            ])),
        })
    }

    #[test]
    fn lines_that_are_none_are_left_out() {
        let mut target = Target::new("http://127.0.0.1:8090");
        assert_eq!(target.view.id, "127.0.0.1:8090");
        assert!(target.record(told(json!({"id": "lb-1"})), Duration::ZERO));
        assert_eq!(target.view.verdict, Verdict::Answers);
        assert_eq!((target.view.id.as_str(), target.view.flows), ("lb-1", 5));
        assert_eq!(target.view.nodes.len(), 1);
    }

    #[test]
    fn accepts_are_counted_where_no_rate_is_said() {
        let mut target = Target::new("http://127.0.0.1:8090");
        target.record(told(json!({"accepted_total": 100})), Duration::from_secs(1));
        target.record(told(json!({"accepted_total": 150})), Duration::from_secs(3));
        assert_eq!(target.view.accepts_per_s, 25.0);
        // Started again: its counter began anew.
        target.record(told(json!({"accepted_total": 2})), Duration::from_secs(4));
        assert_eq!(target.view.accepts_per_s, 0.0);
        target.record(told(json!({"accepts_per_s": 3.26})), Duration::from_secs(5));
        assert_eq!(target.view.accepts_per_s, 3.3);
    }
}
