//! When the next document is due. Pure: time comes in.

use tokio::time::Instant;

use crate::limits::{STREAM_GAP_MAX, STREAM_GAP_MIN};

/// Documents come at most every [`STREAM_GAP_MIN`] and at least every [`STREAM_GAP_MAX`]. The first
/// waits for the registry's first word, but not for longer than that: a balancer may answer before,
/// and a registry that nobody has read yet is not one that is lost.
#[derive(Debug)]
pub(super) struct Schedule {
    due: Instant,
    published: Option<Instant>,
    has_heard_registry: bool,
}

impl Schedule {
    /// Nothing seen, nothing published.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: now + STREAM_GAP_MAX,
            published: None,
            has_heard_registry: false,
        }
    }

    /// When to publish.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The registry has said something, if only that it cannot be read.
    pub(super) fn registry_spoke(&mut self, now: Instant) {
        self.has_heard_registry = true;
        self.changed(now);
    }

    /// Something that people see has changed.
    pub(super) fn changed(&mut self, now: Instant) {
        let soon = match self.published {
            None if !self.has_heard_registry => self.due,
            None => now,
            Some(at) => now.max(at + STREAM_GAP_MIN),
        };
        self.due = self.due.min(soon);
    }

    /// A document has gone out.
    pub(super) fn published(&mut self, now: Instant) {
        self.published = Some(now);
        self.due = now + STREAM_GAP_MAX;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_document_waits_for_the_registry_and_not_for_a_balancer() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.changed(start + 60 * MS);
        assert_eq!(schedule.due(), start + STREAM_GAP_MAX);
        schedule.registry_spoke(start + 100 * MS);
        assert_eq!(schedule.due(), start + 100 * MS);
    }

    #[test]
    fn changes_are_told_soon_but_not_too_often() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.registry_spoke(start);
        schedule.published(start);
        assert_eq!(schedule.due(), start + STREAM_GAP_MAX);
        schedule.changed(start + 10 * MS);
        assert_eq!(schedule.due(), start + STREAM_GAP_MIN);
        schedule.changed(start + 400 * MS);
        assert_eq!(schedule.due(), start + STREAM_GAP_MIN, "never later");
        schedule.published(start + 400 * MS);
        schedule.changed(start + 900 * MS);
        assert_eq!(schedule.due(), start + 900 * MS);
    }
}
