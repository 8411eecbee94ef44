//! What happened, newest last, bounded.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::limits::TIMELINE_MAX;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A node became a member.
    Joined,
    /// A node that was starting takes clients.
    Ready,
    /// A node began to leave in order.
    Draining,
    /// A node left in order.
    Left,
    /// A node is out without having said so.
    Dead,
    /// A node that was out is back, same process.
    Healed,
    /// Another process took a node's id.
    Fenced,
    /// The registry cannot be read.
    RegistryLost,
    /// The registry can be read again.
    RegistryBack,
    /// A balancer does not answer.
    BalancerLost,
    /// A balancer answers again.
    BalancerBack,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up from 1; never reused while this dashboard runs.
    pub seq: u64,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// What happened.
    pub kind: Kind,
    /// To whom: a node's id, a balancer's id, or `registry`.
    pub subject: String,
    /// In words, without the subject.
    pub text: String,
}

/// The newest [`TIMELINE_MAX`] entries.
#[derive(Debug, Default)]
pub struct Timeline {
    events: VecDeque<Event>,
    last: u64,
}

impl Timeline {
    /// Appends an entry.
    pub fn push(&mut self, at_ms: u64, kind: Kind, subject: &str, text: String) {
        self.last += 1;
        if self.events.len() == TIMELINE_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            seq: self.last,
            at_ms,
            kind,
            subject: subject.to_owned(),
            text,
        });
    }

    /// Number of the newest entry; 0 while there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Entries with a number above `after`, oldest first.
    pub fn after(&self, after: u64) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |e| e.seq > after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_counts_on() {
        let mut timeline = Timeline::default();
        let pushed = TIMELINE_MAX as u64 + 7;
        for n in 1..=pushed {
            timeline.push(n, Kind::Joined, "gateway-1", String::new());
        }
        assert_eq!(timeline.last(), pushed);
        let kept: Vec<u64> = timeline.after(0).map(|e| e.seq).collect();
        assert_eq!(kept.len(), TIMELINE_MAX);
        assert_eq!(kept.first(), Some(&8));
        assert_eq!(timeline.after(pushed - 2).count(), 2);
    }
}
