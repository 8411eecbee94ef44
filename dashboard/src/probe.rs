//! One target's probe results and the verdict that follows from them.
//!
//! Invariants: the verdict turns to failing only after [`PROBE_FALL`] failures
//! in a row, and back to ok only after [`PROBE_RISE`] answers in a row; a
//! target that was never heard of is neither.

use crate::limits::{PROBE_FALL, PROBE_RISE};
use crate::observe::LoadNow;

/// What a node's `/ready` and `/api/status` said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Status was 200.
    pub ready: bool,
    /// Why not ready.
    pub reasons: Vec<String>,
    /// What is not right but no reason to leave.
    pub degraded: Vec<String>,
    /// Load, fresher than the record's.
    pub load: LoadNow,
}

/// Verdict on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet.
    Unknown,
    /// Answers (ready or not: see the answer).
    Answers,
    /// Does not answer.
    Silent,
}

/// Probe history of one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    verdict: Verdict,
    failures: u32,
    successes: u32,
    answer: Option<Answer>,
    error: String,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            verdict: Verdict::Unknown,
            failures: 0,
            successes: 0,
            answer: None,
            error: String::new(),
        }
    }
}

impl Probe {
    /// Takes one more result: an answer, or why there was none.
    pub fn record(&mut self, result: Result<Answer, String>) {
        match result {
            Ok(answer) => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                if self.verdict == Verdict::Unknown || self.successes >= PROBE_RISE {
                    self.verdict = Verdict::Answers;
                    self.error.clear();
                }
                self.answer = Some(answer);
            }
            Err(error) => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1);
                self.error = error;
                if self.failures >= PROBE_FALL {
                    self.verdict = Verdict::Silent;
                    self.answer = None;
                }
            }
        }
    }

    /// The verdict so far.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether the newest probe was answered.
    #[must_use]
    pub fn answered_last(&self) -> bool {
        self.successes > 0
    }

    /// The last answer, while the target answers.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self.verdict {
            Verdict::Answers => self.answer.as_ref(),
            Verdict::Unknown | Verdict::Silent => None,
        }
    }

    /// Why the last probe failed; empty when it did not.
    #[must_use]
    pub fn error(&self) -> &str {
        &self.error
    }

    /// Whether the answer, if any, names `reason` (by its first word).
    #[must_use]
    pub fn says(&self, reason: &str) -> bool {
        self.answer().is_some_and(|a| {
            a.reasons
                .iter()
                .any(|r| r.split([' ', ':', ',']).next() == Some(reason))
        })
    }

    /// In words, for the detail panel.
    #[must_use]
    pub fn words(&self) -> String {
        match (self.verdict, &self.answer) {
            (Verdict::Unknown, _) if self.error.is_empty() => "not asked yet".to_owned(),
            (Verdict::Unknown, _) => self.error.clone(),
            (Verdict::Silent, _) => format!("no answer: {}", self.error),
            (Verdict::Answers, Some(a)) if a.ready => "200 ready".to_owned(),
            (Verdict::Answers, Some(a)) => format!("503 {}", a.reasons.join(", ")),
            (Verdict::Answers, None) => "answers".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Result<Answer, String> {
        Ok(Answer {
            ready: true,
            ..Answer::default()
        })
    }

    fn bad() -> Result<Answer, String> {
        Err("connection refused".to_owned())
    }

    #[test]
    fn falls_after_three_and_rises_after_two() {
        let mut probe = Probe::default();
        probe.record(good());
        assert_eq!(probe.verdict(), Verdict::Answers);
        probe.record(bad());
        probe.record(bad());
        assert_eq!(probe.verdict(), Verdict::Answers);
        probe.record(good());
        probe.record(bad());
        probe.record(bad());
        probe.record(bad());
        assert_eq!(probe.verdict(), Verdict::Silent);
        assert!(probe.answer().is_none());
        probe.record(good());
        assert_eq!(probe.verdict(), Verdict::Silent);
        probe.record(good());
        assert_eq!(probe.verdict(), Verdict::Answers);
        assert_eq!(probe.error(), "");
    }

    #[test]
    fn reason_is_matched_by_its_word() {
        let mut probe = Probe::default();
        probe.record(Ok(Answer {
            reasons: vec!["draining: 12 clients left".to_owned()],
            ..Answer::default()
        }));
        assert!(probe.says("draining"));
        assert!(!probe.says("drain"));
    }
}
