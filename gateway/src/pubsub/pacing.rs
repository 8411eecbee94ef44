//! When a round is due.
//!
//! One send costs the kernel about the same whatever its length, so a busy shard should send less
//! often and more at a time; a quiet one sends at once. The caller measures how busy it is (share
//! of time not spent waiting, smoothed) and says so.

use std::time::{Duration, Instant};

use crate::limits;

/// How a shard paces its rounds.
#[derive(Debug, Clone, Copy)]
pub struct PacingConfig {
    /// Longest time that a publication waits for its round on a busy shard.
    pub budget: Duration,
    /// Busy share above which rounds wait.
    pub busy_above: f32,
    /// Busy share below which they no longer do. Lower than `busy_above`: waiting itself makes the
    /// shard less busy.
    pub quiet_below: f32,
}

impl Default for PacingConfig {
    fn default() -> Self {
        Self {
            budget: limits::ROUND_BUDGET,
            busy_above: limits::BUSY_ABOVE,
            quiet_below: limits::QUIET_BELOW,
        }
    }
}

/// Answer to [`Pacer::due`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Run the round.
    Now,
    /// Wait until then, at most the budget away.
    At(Instant),
}

/// Decides when a round runs.
#[derive(Debug)]
pub struct Pacer {
    config: PacingConfig,
    last_round: Option<Instant>,
    is_busy: bool,
}

impl Pacer {
    /// A quiet shard.
    pub fn new(config: PacingConfig) -> Self {
        Self {
            config,
            last_round: None,
            is_busy: false,
        }
    }

    /// When the round for what is pending is due. A lone message on a busy shard waits for at most
    /// the budget since the round before it, so at most the budget.
    pub fn due(&mut self, busy_share: f32, now: Instant) -> Due {
        let threshold = match self.is_busy {
            true => self.config.quiet_below,
            false => self.config.busy_above,
        };
        self.is_busy = busy_share > threshold;
        let Some(last) = self.last_round.filter(|_| self.is_busy) else {
            return Due::Now;
        };
        // A clock that went backwards must not make anybody wait for longer.
        let at = last.min(now) + self.config.budget;
        if at <= now { Due::Now } else { Due::At(at) }
    }

    /// A round has run.
    pub fn ran(&mut self, now: Instant) {
        self.last_round = Some(now);
    }

    /// Whether rounds wait at present.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_quiet_shard_sends_at_once_however_often() {
        let mut pacer = Pacer::new(PacingConfig::default());
        let now = Instant::now();
        for n in 0..10 {
            assert_eq!(pacer.due(0.2, now + n * MS / 10), Due::Now);
            pacer.ran(now + n * MS / 10);
        }
    }

    #[test]
    fn a_busy_shard_waits_at_most_the_budget_since_its_last_round() {
        let mut pacer = Pacer::new(PacingConfig::default());
        let now = Instant::now();
        assert_eq!(pacer.due(0.9, now), Due::Now);
        pacer.ran(now);
        assert_eq!(pacer.due(0.9, now + 3 * MS), Due::At(now + 10 * MS));
        assert_eq!(pacer.due(0.9, now + 10 * MS), Due::Now);
        pacer.ran(now + 10 * MS);
        assert_eq!(pacer.due(0.9, now + 1000 * MS), Due::Now);
    }

    #[test]
    fn busy_and_quiet_do_not_flap_in_between() {
        let mut pacer = Pacer::new(PacingConfig::default());
        let now = Instant::now();
        pacer.ran(now);
        assert_eq!(pacer.due(0.3, now), Due::Now, "was quiet, stays quiet");
        assert!(matches!(pacer.due(0.34, now), Due::At(_)));
        assert!(matches!(pacer.due(0.3, now), Due::At(_)), "stays busy");
        assert_eq!(pacer.due(0.2, now), Due::Now);
    }
}
