//! What `/ready` says: why this process should get no new clients, and what works only in part.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// A shared list of reasons; cheap to clone, usable from any thread.
#[derive(Clone, Default)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    reasons: BTreeMap<&'static str, String>,
    degraded: BTreeMap<&'static str, String>,
}

/// The body of `/ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    /// Whether new clients are welcome: no reason stands against it.
    pub ready: bool,
    /// Why new clients should go elsewhere.
    pub reasons: Vec<String>,
    /// What works only in part while new clients are still welcome.
    pub degraded: Vec<String>,
}

impl Readiness {
    /// Ready, with nothing degraded.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets or clears (`None`) why this process should get no new clients. `topic` names the
    /// cause (`starting`, `draining`, `fenced`, `shard-0`), so that each cause clears only itself.
    pub fn set_reason(&self, topic: &'static str, why: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        set(&mut state.reasons, topic, why);
    }

    /// Sets or clears (`None`) something that works only in part (`redis`).
    pub fn set_degraded(&self, topic: &'static str, why: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        set(&mut state.degraded, topic, why);
    }

    /// What `/ready` answers now.
    pub fn document(&self) -> Document {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Document {
            ready: state.reasons.is_empty(),
            reasons: state.reasons.values().cloned().collect(),
            degraded: state.degraded.values().cloned().collect(),
        }
    }
}

fn set(list: &mut BTreeMap<&'static str, String>, topic: &'static str, why: Option<String>) {
    match why {
        Some(why) => list.insert(topic, why),
        None => list.remove(topic),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reasons_take_a_process_out_and_each_topic_clears_itself() {
        let readiness = Readiness::new();
        readiness.set_degraded("redis", Some("redis unreachable".into()));
        assert!(readiness.document().ready);
        readiness.set_reason("starting", Some("starting".into()));
        readiness.set_reason("draining", Some("draining".into()));
        readiness.set_reason("starting", None);
        let document = readiness.document();
        assert!(!document.ready);
        assert_eq!(document.reasons, ["draining"]);
        assert_eq!(document.degraded, ["redis unreachable"]);
    }
}
