//! A node's going away, as a pure state machine: STARTING -> READY -> LAME_DUCK -> CLOSING -> FORCED -> STOPPED.
//!
//! | second of 30 | what happens |
//! |---|---|
//! | 0 | LAME_DUCK: the registry and `/ready` say draining; connections are still accepted |
//! | 3 | CLOSING: the backlog is emptied, accepting ends |
//! | 3-22 | open connections are closed in random order at an even rate |
//! | 22-27 | what is still open is closed; close echoes are waited for |
//! | 28 | FORCED: what is left is cut, counted |
//! | then | STOPPED: the lease is given back, exit 0 |
//!
//! Invariants:
//! * Phases only go forward.
//! * Each connection is ordered to close once; orders never exceed what a shard has open.
//! * The rate follows what is open over the time that is left, so that it is even while nobody leaves by
//!   himself, and nothing is left over for second 22 unless time stood still.
//! * Once nobody is connected, the node stops at once, though never before its lame-duck time is over.
//! * A later signal never makes the drain longer.

use std::time::{Duration, Instant};

/// The times of a drain of 30 seconds, in milliseconds; others are scaled.
const TOTAL_MS: u64 = 30_000;
const LAME_DUCK_MS: u64 = 3_000;
const CLOSING_MS: u64 = 22_000;
const ECHO_MS: u64 = 27_000;
const FORCE_MS: u64 = 28_000;
const STOP_MS: u64 = 28_500;
/// Longest wait for one close echo.
const ECHO_WAIT_MS: u64 = 3_000;

const _: () = assert!(LAME_DUCK_MS < CLOSING_MS && CLOSING_MS < ECHO_MS && ECHO_MS < FORCE_MS);
// Whoever is closed last still gets his whole echo wait before he is cut.
const _: () = assert!(CLOSING_MS + ECHO_WAIT_MS <= ECHO_MS);
// What is left of the total is for giving the lease back and for the process to end.
const _: () = assert!(FORCE_MS < STOP_MS && STOP_MS + 1_000 <= TOTAL_MS);

/// Longest `--drain-seconds`.
pub const DRAIN_MAX: Duration = Duration::from_secs(3600);
/// After the listeners closed, connections that were in the backlog get this long to be counted.
const SETTLE: Duration = Duration::from_millis(100);
/// Longest stretch of time that one tick makes up for; a longer one is spread over what is left.
const CATCH_UP_MAX: Duration = Duration::from_millis(250);
/// Ticks are at least and at most so far apart while connections are being closed.
const TICK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// When what happens, counted from the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainTimes {
    /// The whole drain; the orchestrator's grace must exceed it by 10 s.
    pub total: Duration,
    /// Until then connections are accepted.
    pub lame_duck: Duration,
    /// Until then closes are spread.
    pub closing: Duration,
    /// From then on connections are cut.
    pub force: Duration,
    /// Then it is over, whatever is left.
    pub stop: Duration,
    /// How long one connection may take to answer its close frame.
    pub echo_wait: Duration,
}

impl DrainTimes {
    /// The times of a drain of `total` (`--drain-seconds`). Zero closes everything at once.
    ///
    /// # Errors
    /// When `total` is longer than [`DRAIN_MAX`].
    pub fn new(total: Duration) -> Result<DrainTimes, String> {
        if total > DRAIN_MAX {
            return Err(format!(
                "drain_seconds: {} is more than {}",
                total.as_secs(),
                DRAIN_MAX.as_secs()
            ));
        }
        let scaled = |ms: u64| total.mul_f64(ms as f64 / TOTAL_MS as f64);
        Ok(DrainTimes {
            total,
            lame_duck: scaled(LAME_DUCK_MS),
            closing: scaled(CLOSING_MS),
            force: scaled(FORCE_MS),
            stop: scaled(STOP_MS),
            echo_wait: scaled(ECHO_WAIT_MS).min(Duration::from_millis(ECHO_WAIT_MS)),
        })
    }
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not yet able to take clients.
    Starting,
    /// Takes clients.
    Ready,
    /// Says that it drains, still accepts.
    LameDuck,
    /// Accepts nothing, closes connections.
    Closing,
    /// Cuts what is left.
    Forced,
    /// May exit.
    Stopped,
}

impl Phase {
    /// The word for people and for `/api/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::LameDuck => "lame_duck",
            Phase::Closing => "closing",
            Phase::Forced => "forced",
            Phase::Stopped => "stopped",
        }
    }

    /// Whether the node is going away.
    pub fn draining(self) -> bool {
        self > Phase::Ready
    }
}

/// Connections of one shard now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardLoad {
    /// Connections that nobody has begun to close.
    pub open: u64,
    /// Connections that are being closed: their close frame is under way or their echo awaited.
    pub closing: u64,
}

/// What is to be done after a tick. Nothing in it comes twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Phases that were entered, in order.
    pub entered: Vec<Phase>,
    /// Empty the backlog, then close the listeners.
    pub stop_accepting: bool,
    /// How many connections each shard closes now, chosen by it at random. Empty: none.
    pub close: Vec<u64>,
    /// Close everything that is still open, on every shard.
    pub close_rest: bool,
    /// Cut everything that is left, on every shard, and count it.
    pub force: bool,
    /// Give the lease back and exit.
    pub stop: bool,
    /// When to tick again; `None` if only a signal changes anything.
    pub wake_at: Option<Instant>,
}

/// What is shown of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// When it began.
    pub started: Instant,
    /// When it ends at the latest.
    pub deadline: Instant,
    /// Connections that are still there.
    pub remaining: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct ShardPlan {
    /// Open connections that no order was given for.
    left: u64,
    /// Closes that are due but not a whole one yet.
    credit: f64,
}

/// One node's drain.
#[derive(Debug)]
pub struct Drain {
    times: DrainTimes,
    phase: Phase,
    /// When the signal came.
    signalled: Option<Instant>,
    /// Second 0 of the table. Earlier than `signalled` after a second signal.
    zero: Option<Instant>,
    shards: Vec<ShardPlan>,
    credit: f64,
    spread_until: Option<Instant>,
    closing_since: Option<Instant>,
    ticked: Option<Instant>,
    remaining: u64,
    rest_closed: bool,
}

impl Drain {
    /// A node that is starting.
    pub fn new(times: DrainTimes) -> Drain {
        Drain {
            times,
            phase: Phase::Starting,
            signalled: None,
            zero: None,
            shards: Vec::new(),
            credit: 0.0,
            spread_until: None,
            closing_since: None,
            ticked: None,
            remaining: 0,
            rest_closed: false,
        }
    }

    /// Where the node is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When what happens.
    pub fn times(&self) -> &DrainTimes {
        &self.times
    }

    /// How far the drain is; `None` unless draining.
    pub fn progress(&self) -> Option<Progress> {
        Some(Progress {
            started: self.signalled?,
            deadline: self.zero? + self.times.total,
            remaining: self.remaining,
        })
    }

    /// The node takes clients from now on. Ignored once it drains.
    pub fn ready(&mut self) {
        if self.phase == Phase::Starting && self.signalled.is_none() {
            self.phase = Phase::Ready;
        }
    }

    /// SIGTERM, or the loss of the node's id to another process. The second one skips to the end of the
    /// spread closes, the third one cuts what is left. While starting, one is enough: there is nobody to
    /// wait for. Tick after it.
    pub fn terminate(&mut self, now: Instant) {
        let skip_to = match (self.signalled, self.zero) {
            (None, _) | (_, None) => {
                self.signalled = Some(now);
                self.zero = Some(now);
                return;
            }
            (Some(_), Some(zero)) if now < zero + self.times.closing => self.times.closing,
            _ => self.times.force,
        };
        // Where the clock does not reach back that far, nothing is skipped.
        if let (Some(zero), Some(skipped)) = (self.zero, now.checked_sub(skip_to)) {
            self.zero = Some(zero.min(skipped));
        }
    }

    /// What to do at `now`, with `shards` as they are now (always all of them, in the same order).
    pub fn tick(&mut self, now: Instant, shards: &[ShardLoad]) -> Orders {
        let mut orders = Orders::default();
        self.remaining = shards.iter().map(|s| s.open + s.closing).sum();
        let Some(zero) = self.zero else {
            return orders;
        };
        if self.phase == Phase::Starting {
            self.enter(Phase::Stopped, &mut orders);
            orders.stop = true;
            return orders;
        }
        if self.phase == Phase::Ready {
            self.enter(Phase::LameDuck, &mut orders);
        }
        if self.phase == Phase::LameDuck && now >= zero + self.times.lame_duck {
            self.enter(Phase::Closing, &mut orders);
            orders.stop_accepting = true;
            self.begin_closing(now, zero, shards);
        }
        if self.phase == Phase::Closing {
            self.close_some(now, zero, shards, &mut orders);
            if now >= zero + self.times.force {
                self.enter(Phase::Forced, &mut orders);
                orders.force = true;
            }
        }
        let over = match self.phase {
            Phase::Closing => {
                let counted = self.closing_since.is_none_or(|since| now >= since + SETTLE);
                self.remaining == 0 && counted
            }
            Phase::Forced => {
                (self.remaining == 0 && !orders.force) || now >= zero + self.times.stop
            }
            _ => false,
        };
        if over {
            self.enter(Phase::Stopped, &mut orders);
            orders.stop = true;
        }
        orders.wake_at = self.wake_at(now, zero);
        orders
    }

    fn enter(&mut self, phase: Phase, orders: &mut Orders) {
        debug_assert!(self.phase < phase, "phases only go forward");
        self.phase = phase;
        orders.entered.push(phase);
    }

    fn begin_closing(&mut self, now: Instant, zero: Instant, shards: &[ShardLoad]) {
        self.shards = shards
            .iter()
            .map(|shard| ShardPlan {
                left: shard.open,
                credit: 0.0,
            })
            .collect();
        // The first one goes at once: a node with one client need not keep it waiting.
        self.credit = 1.0;
        self.spread_until = Some((zero + self.times.closing).max(now));
        self.closing_since = Some(now);
        self.ticked = Some(now);
    }

    fn close_some(
        &mut self,
        now: Instant,
        zero: Instant,
        shards: &[ShardLoad],
        orders: &mut Orders,
    ) {
        if self.rest_closed {
            return;
        }
        if now >= zero + self.times.closing {
            self.rest_closed = true;
            self.shards.iter_mut().for_each(|plan| plan.left = 0);
            orders.close_rest = true;
            return;
        }
        // Who left by himself needs no close. A report may be older than our last orders; then it shows
        // more, never less, than what is open.
        for (plan, shard) in self.shards.iter_mut().zip(shards) {
            plan.left = plan.left.min(shard.open);
        }
        let (Some(until), Some(ticked)) = (self.spread_until, self.ticked) else {
            return;
        };
        let passed = now.saturating_duration_since(ticked).min(CATCH_UP_MAX);
        let ahead = until.saturating_duration_since(now) + passed;
        self.ticked = Some(now);
        let left: u64 = self.shards.iter().map(|plan| plan.left).sum();
        if left == 0 {
            return;
        }
        let share = (passed.as_secs_f64() / ahead.as_secs_f64().max(1e-9)).min(1.0);
        self.credit += left as f64 * share;
        for plan in &mut self.shards {
            plan.credit += plan.left as f64 * share;
        }
        let due = (self.credit as u64).min(left);
        self.credit -= due as f64;
        if due > 0 {
            orders.close = self.distribute(due);
        }
    }

    /// Splits `due` closes among the shards by what is due to each, so that all of them run empty together.
    fn distribute(&mut self, due: u64) -> Vec<u64> {
        let mut close = vec![0; self.shards.len()];
        let mut undone = due;
        for (plan, close) in self.shards.iter_mut().zip(&mut close) {
            let whole = (plan.credit.max(0.0) as u64).min(plan.left).min(undone);
            *close = whole;
            plan.left -= whole;
            plan.credit -= whole as f64;
            undone -= whole;
        }
        while undone > 0 {
            let most_due = self
                .shards
                .iter_mut()
                .zip(&mut close)
                .filter(|(plan, _)| plan.left > 0)
                .max_by(|(a, _), (b, _)| a.credit.total_cmp(&b.credit));
            let Some((plan, close)) = most_due else { break };
            *close += 1;
            plan.left -= 1;
            plan.credit -= 1.0;
            undone -= 1;
        }
        close
    }

    fn wake_at(&self, now: Instant, zero: Instant) -> Option<Instant> {
        let next = match self.phase {
            Phase::LameDuck => zero + self.times.lame_duck,
            Phase::Closing if self.rest_closed => {
                // Nobody says when the last connection is gone.
                (zero + self.times.force).min(now + TICK.1)
            }
            Phase::Closing => {
                let left: u64 = self.shards.iter().map(|plan| plan.left).sum();
                let ahead = (zero + self.times.closing).saturating_duration_since(now);
                let one = match left {
                    0 => TICK.1,
                    left => ahead
                        .div_f64(left as f64)
                        .mul_f64((1.0 - self.credit).clamp(0.0, 1.0)),
                };
                (zero + self.times.closing).min(now + one.clamp(TICK.0, TICK.1))
            }
            Phase::Forced => (zero + self.times.stop).min(now + TICK.0),
            Phase::Starting | Phase::Ready | Phase::Stopped => return None,
        };
        Some(next.max(now))
    }
}
