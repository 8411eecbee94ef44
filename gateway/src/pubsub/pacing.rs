//! How long a connection rests between two sends of publications.
//!
//! One send costs the kernel about the same whatever its length, so a busy shard should send less
//! often and more at a time; a quiet one sends at once. What a shard spends on fan-out is inversely
//! proportional to the rest, so the rest follows the shard's busy share: it grows while the shard
//! works for more of its time than it is to, and shrinks to nothing while it works for less. The
//! budget bounds it. Whoever has not been sent anything for that long gets a publication at once,
//! however busy the shard is.

use std::time::{Duration, Instant};

use crate::limits;

/// How a shard paces its sends.
#[derive(Debug, Clone, Copy)]
pub struct PacingConfig {
    /// Longest rest: longest time that a publication waits on a busy shard.
    pub budget: Duration,
    /// Shortest rest, also of a quiet shard; at most the budget.
    pub least: Duration,
    /// Share of its time that a shard is to work for: the rest grows above it and shrinks below it.
    pub busy_target: f32,
}

impl Default for PacingConfig {
    fn default() -> Self {
        Self {
            budget: limits::FANOUT_LATENCY_BUDGET,
            least: Duration::ZERO,
            busy_target: limits::BUSY_TARGET,
        }
    }
}

/// How often the rest is looked at: as often as there is a new busy share.
const ADJUST_EVERY: Duration = Duration::from_millis(50);
/// Shortest time between two rounds of a shard whose connections rest, and so the shortest rest there is.
const STEP_MIN: Duration = Duration::from_millis(1);
/// Rounds for each rest, unless that makes them closer than `STEP_MIN`.
const ROUNDS_A_REST: u32 = 10;

/// Decides how long connections rest, and when rounds run.
#[derive(Debug)]
pub struct Pacer {
    config: PacingConfig,
    rest: Duration,
    adjusted: Option<Instant>,
    last_round: Option<Instant>,
    /// Since the last round it was looked once more for what has come.
    has_looked: bool,
}

impl Pacer {
    /// A quiet shard's.
    pub fn new(config: PacingConfig) -> Self {
        Self {
            config,
            rest: config.least,
            adjusted: None,
            last_round: None,
            has_looked: false,
        }
    }

    /// Takes note of the share of recent time that the shard worked for, 0 to 1.
    pub fn adjust(&mut self, busy_share: f32, now: Instant) {
        if self.adjusted.is_some_and(|at| now < at + ADJUST_EVERY) {
            return;
        }
        self.adjusted = Some(now);
        // The share is an average over more than one adjustment: going all the way would overshoot.
        let factor = (busy_share.max(0.0) / self.config.busy_target).cbrt();
        let wanted = self.rest.max(STEP_MIN).mul_f32(factor);
        self.rest = match wanted < STEP_MIN {
            true => self.config.least,
            false => wanted.clamp(self.config.least, self.config.budget),
        };
    }

    /// How long a connection rests after a send of publications; zero on a quiet shard.
    pub fn rest(&self) -> Duration {
        self.rest
    }

    /// Time between two rounds of a shard whose connections rest.
    fn step(&self) -> Duration {
        (self.rest / ROUNDS_A_REST).max(STEP_MIN)
    }

    /// For how long a shard is to let gather what comes: while connections rest it gains nothing by waking for
    /// each publication. Zero where nobody rests: a shard busy with something else (echo at half of what it
    /// reaches, 200 us) paid for the gathering more than it saved.
    pub fn gather(&self, is_anybody_resting: bool) -> Duration {
        match is_anybody_resting && !self.rest.is_zero() {
            true => self.step(),
            false => Duration::ZERO,
        }
    }

    /// When the round for what is there to be done from `since` on may run.
    pub fn due(&self, since: Instant) -> Instant {
        match self.last_round {
            Some(last) if !self.rest.is_zero() => since.max(last + self.step()),
            _ => since,
        }
    }

    /// Whether the shard is to look for what else has come, once, before it sends anything and runs the round
    /// that is due. What several publishers send at about the same time then leaves together: one send to whoever
    /// has subscribed to several of their channels, where there were several. A look costs one system call, a send
    /// several times that. Connections that rest gather more than a look finds.
    pub fn looks_first(&mut self) -> bool {
        self.rest.is_zero() && !std::mem::replace(&mut self.has_looked, true)
    }

    /// A round has run.
    pub fn ran(&mut self, now: Instant) {
        self.last_round = Some(now);
        self.has_looked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const BUDGET: Duration = Duration::from_millis(25);

    fn pacer() -> Pacer {
        Pacer::new(PacingConfig {
            budget: BUDGET,
            least: Duration::ZERO,
            busy_target: 0.4,
        })
    }

    /// The rest after `adjustments` of a shard whose busy share with a rest is `share`.
    fn settled(pacer: &mut Pacer, adjustments: u32, share: impl Fn(Duration) -> f32) -> Duration {
        let start = pacer
            .adjusted
            .map_or_else(Instant::now, |at| at + ADJUST_EVERY);
        for number in 0..adjustments {
            let share = share(pacer.rest());
            pacer.adjust(share, start + number * ADJUST_EVERY);
        }
        pacer.rest()
    }

    #[test]
    fn a_quiet_shard_sends_at_once_however_often() {
        let mut pacer = pacer();
        assert_eq!(settled(&mut pacer, 100, |_| 0.3), Duration::ZERO);
        let now = Instant::now();
        pacer.ran(now);
        assert_eq!(pacer.due(now), now);
    }

    #[test]
    fn the_rest_settles_where_the_shard_works_as_much_as_it_is_to() {
        let mut pacer = pacer();
        // 1,000 sends of 5 us for each rest.
        let rest = settled(&mut pacer, 40, |rest| {
            (5.0 / (rest.as_secs_f32() * 1e3)).min(1.0)
        });
        assert!(rest > 12 * MS && rest < 13 * MS, "{rest:?}");
    }

    #[test]
    fn a_saturated_shard_rests_for_the_budget_and_no_longer() {
        let mut pacer = pacer();
        let rest = settled(&mut pacer, 20, |_| 1.0);
        assert_eq!(rest, BUDGET);
    }

    #[test]
    fn a_shard_that_was_busy_sends_at_once_again_soon() {
        let mut pacer = pacer();
        settled(&mut pacer, 20, |_| 1.0);
        assert_eq!(settled(&mut pacer, 20, |_| 0.1), Duration::ZERO);
    }

    #[test]
    fn rounds_of_a_busy_shard_are_a_step_apart() {
        let mut pacer = pacer();
        settled(&mut pacer, 20, |_| 1.0);
        let now = Instant::now();
        assert_eq!(pacer.due(now), now);
        pacer.ran(now);
        assert_eq!(pacer.due(now), now + BUDGET / ROUNDS_A_REST);
        assert_eq!(pacer.due(now + 5 * MS), now + 5 * MS);
    }

    #[test]
    fn a_busy_shard_lets_messages_gather_while_connections_rest() {
        let mut pacer = pacer();
        assert_eq!(pacer.gather(false), Duration::ZERO);
        assert_eq!(pacer.gather(true), Duration::ZERO);
        settled(&mut pacer, 20, |_| 1.0);
        assert_eq!(pacer.gather(false), Duration::ZERO);
        assert_eq!(pacer.gather(true), BUDGET / ROUNDS_A_REST);
        settled(&mut pacer, 20, |_| 0.1);
        assert_eq!(pacer.gather(true), Duration::ZERO);
    }

    #[test]
    fn a_quiet_shard_looks_once_for_more_before_each_round() {
        let mut pacer = pacer();
        for _ in 0..2 {
            assert!(pacer.looks_first());
            assert!(!pacer.looks_first());
            pacer.ran(Instant::now());
        }
        settled(&mut pacer, 20, |_| 1.0);
        assert!(!pacer.looks_first(), "rests gather");
    }

    #[test]
    fn the_rest_is_looked_at_as_often_as_there_is_a_new_share() {
        let mut pacer = pacer();
        let now = Instant::now();
        for turn in 0..10 {
            pacer.adjust(1.0, now + turn * MS);
        }
        let once = pacer.rest();
        assert!(once > MS && once < 2 * MS, "{once:?}");
    }
}
