//! Five minutes of figures for the sparklines, so that a page that is loaded
//! now does not begin with an empty chart.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::document::{Document, Node, State};
use crate::limits::{HISTORY_NODES_MAX, HISTORY_POINTS, HISTORY_STEP};
use crate::observe::Moment;

/// One row of points, oldest first; all rows of an answer end at its `at_ms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// Client connections.
    pub connections: VecDeque<u64>,
    /// Messages per second.
    pub messages_per_s: VecDeque<f64>,
    /// One letter a point: S, R, D (draining), X (dead), L (left in order).
    pub states: String,
}

impl Track {
    fn push(&mut self, connections: u64, messages_per_s: f64, state: char) {
        if self.connections.len() == HISTORY_POINTS {
            self.connections.pop_front();
            self.messages_per_s.pop_front();
            self.states.remove(0);
        }
        self.connections.push_back(connections);
        self.messages_per_s.push_back(messages_per_s);
        self.states.push(state);
    }
}

/// What `/api/history` sends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Milliseconds between two points.
    pub step_ms: u64,
    /// Time of the newest point, Unix milliseconds.
    pub at_ms: u64,
    /// Sums over the nodes that are alive.
    pub total: Track,
    /// Accepts per second over all balancers.
    pub accepts_per_s: VecDeque<f64>,
    /// By node id.
    pub nodes: BTreeMap<String, Track>,
    #[serde(skip)]
    sampled: Option<Duration>,
}

impl History {
    /// Takes a point if one is due.
    pub fn sample(&mut self, document: &Document, now: Moment) {
        if self
            .sampled
            .is_some_and(|last| now.up.saturating_sub(last) < HISTORY_STEP)
        {
            return;
        }
        self.sampled = Some(now.up);
        self.step_ms = HISTORY_STEP.as_millis() as u64;
        self.at_ms = now.unix_ms;
        self.nodes
            .retain(|id, _| document.nodes.iter().any(|n| n.id == *id));
        let (mut connections, mut messages) = (0, 0.0);
        for node in &document.nodes {
            if node.state != State::Dead {
                connections += node.connections;
                messages += node.messages_per_s;
            }
            if self.nodes.len() < HISTORY_NODES_MAX || self.nodes.contains_key(&node.id) {
                let track = self.nodes.entry(node.id.clone()).or_default();
                track.push(node.connections, node.messages_per_s, letter(node));
            }
        }
        self.total.push(connections, messages, 'R');
        if self.accepts_per_s.len() == HISTORY_POINTS {
            self.accepts_per_s.pop_front();
        }
        self.accepts_per_s
            .push_back(document.balancers.iter().map(|b| b.accepts_per_s).sum());
    }
}

fn letter(node: &Node) -> char {
    match node.state {
        State::Starting => 'S',
        State::Ready => 'R',
        State::Draining => 'D',
        State::Dead if node.orderly => 'L',
        State::Dead => 'X',
    }
}
