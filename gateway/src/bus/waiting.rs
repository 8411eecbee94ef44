//! Who is still to answer which request. Pure: time is given.
//!
//! Invariants
//! - A request leaves when everybody has answered, when its time is over, or when it is given up;
//!   it is answered exactly once.
//! - An answer counts once a node, and only of nodes that were asked.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::operation::Report;

/// What other nodes said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gathered {
    /// Node and report.
    pub(super) answers: Vec<(String, Report)>,
    /// Nodes that were asked and have not answered.
    pub(super) missing: Vec<String>,
}

/// Requests that are not answered by everybody yet. `R` is where the answer goes.
#[derive(Debug)]
pub(super) struct Waiting<R> {
    requests: HashMap<u64, Request<R>>,
}

#[derive(Debug)]
struct Request<R> {
    missing: BTreeSet<String>,
    answers: Vec<(String, Report)>,
    until: Instant,
    reply: R,
}

impl<R> Request<R> {
    fn end(self) -> (R, Gathered) {
        let gathered = Gathered {
            answers: self.answers,
            missing: self.missing.into_iter().collect(),
        };
        (self.reply, gathered)
    }
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Self {
            requests: HashMap::new(),
        }
    }
}

impl<R> Waiting<R> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// A request was sent to these nodes.
    pub(super) fn begin(&mut self, id: u64, expected: Vec<String>, until: Instant, reply: R) {
        let request = Request {
            missing: expected.into_iter().collect(),
            answers: Vec::new(),
            until,
            reply,
        };
        self.requests.insert(id, request);
    }

    /// A node has answered. The request, if that was the last answer; an error where nobody waits
    /// for this answer.
    pub(super) fn answered(
        &mut self,
        id: u64,
        from: &str,
        report: Report,
    ) -> Result<Option<(R, Gathered)>, Unasked> {
        let request = self.requests.get_mut(&id).ok_or(Unasked)?;
        let node = request.missing.take(from).ok_or(Unasked)?;
        request.answers.push((node, report));
        if !request.missing.is_empty() {
            return Ok(None);
        }
        Ok(self.requests.remove(&id).map(Request::end))
    }

    /// A request could not be sent.
    pub(super) fn give_up(&mut self, id: u64) -> Option<(R, Gathered)> {
        self.requests.remove(&id).map(Request::end)
    }

    /// Requests whose time is over.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<(R, Gathered)> {
        let late = self.requests.extract_if(|_, request| request.until <= now);
        late.map(|(_, request)| request.end()).collect()
    }

    /// All of them: no answer can come any more.
    pub(super) fn end_all(&mut self) -> Vec<(R, Gathered)> {
        self.requests
            .drain()
            .map(|(_, request)| request.end())
            .collect()
    }

    /// When the next one's time is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests.values().map(|request| request.until).min()
    }
}

/// Nobody waits for this answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unasked;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::operation::Found;
    use super::*;

    fn report(count: u64) -> Report {
        Report {
            found: Found::Sessions(count),
            is_partial: false,
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_request_ends_with_the_last_answer_and_counts_each_node_once() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.begin(1, names(&["a", "b"]), now + Duration::from_secs(2), "who");
        assert_eq!(waiting.answered(1, "a", report(1)), Ok(None));
        assert_eq!(waiting.answered(1, "a", report(9)), Err(Unasked));
        assert_eq!(waiting.answered(1, "c", report(9)), Err(Unasked));
        assert_eq!(waiting.answered(2, "b", report(9)), Err(Unasked));
        let (who, gathered) = waiting
            .answered(1, "b", report(2))
            .expect("asked")
            .expect("the last one");
        assert_eq!(who, "who");
        assert_eq!(gathered.answers.len(), 2);
        assert!(gathered.missing.is_empty());
        assert_eq!(waiting.len(), 0);
        assert_eq!(waiting.next_deadline(), None);
    }

    #[test]
    fn whoever_has_not_answered_when_the_time_is_over_is_named() {
        let now = Instant::now();
        let until = now + Duration::from_secs(2);
        let mut waiting = Waiting::default();
        waiting.begin(1, names(&["a", "b"]), until, ());
        assert_eq!(waiting.answered(1, "b", report(1)), Ok(None));
        assert_eq!(waiting.next_deadline(), Some(until));
        assert!(waiting.expired(now).is_empty());
        let late = waiting.expired(until);
        assert_eq!(late.len(), 1);
        assert_eq!(late[0].1.missing, names(&["a"]));
        assert_eq!(late[0].1.answers.len(), 1);
        assert_eq!(waiting.answered(1, "a", report(1)), Err(Unasked));
    }

    #[test]
    fn a_request_that_cannot_be_sent_names_everybody() {
        let mut waiting = Waiting::default();
        waiting.begin(1, names(&["a"]), Instant::now(), ());
        let ((), gathered) = waiting.give_up(1).expect("it was there");
        assert_eq!(gathered.missing, names(&["a"]));
        assert!(waiting.give_up(1).is_none());
        waiting.begin(2, names(&["a", "b"]), Instant::now(), ());
        assert_eq!(waiting.end_all()[0].1.missing, names(&["a", "b"]));
        assert_eq!(waiting.len(), 0);
    }
}
