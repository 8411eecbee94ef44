//! Promise: a node drains in order: in time, evenly, once each, whatever signals come. Virtual time, seeded.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic and prints its seed"
)]

use std::time::{Duration, Instant};

use flux_gateway::drain::{Drain, DrainTimes, Orders, Phase, ShardLoad};

const SECOND: Duration = Duration::from_secs(1);

/// Shards that do as they are told, with clients that answer their close after a while (or never).
struct Node {
    drain: Drain,
    start: Instant,
    now: Instant,
    /// Open connections of each shard.
    open: Vec<u64>,
    /// Moments at which closing connections are gone, by shard.
    closing: Vec<Vec<Instant>>,
    rng: fastrand::Rng,
    /// Seconds (from the signal) of every close frame.
    closes: Vec<f64>,
    entered: Vec<(f64, Phase)>,
    forced: u64,
    accepts_until: Option<f64>,
    /// Share of clients that never answer a close.
    silent: f64,
    /// Chance per tick that a client leaves by itself.
    leaves: f64,
    /// Ticks come so late, at most.
    late_max: Duration,
}

impl Node {
    fn new(total: Duration, open: Vec<u64>, seed: u64) -> Node {
        let start = Instant::now() + Duration::from_secs(7200);
        let mut drain = Drain::new(DrainTimes::new(total).expect("within limits"));
        drain.ready();
        Node {
            drain,
            start,
            now: start,
            closing: vec![Vec::new(); open.len()],
            open,
            rng: fastrand::Rng::with_seed(seed),
            closes: Vec::new(),
            entered: Vec::new(),
            forced: 0,
            accepts_until: None,
            silent: 0.0,
            leaves: 0.0,
            late_max: Duration::from_millis(3),
        }
    }

    fn second(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }

    fn loads(&mut self) -> Vec<ShardLoad> {
        let now = self.now;
        for closing in &mut self.closing {
            closing.retain(|gone| *gone > now);
        }
        let loads = self.open.iter().zip(&self.closing);
        loads
            .map(|(open, closing)| ShardLoad {
                open: *open,
                closing: closing.len() as u64,
            })
            .collect()
    }

    fn close(&mut self, shard: usize, count: u64) {
        assert!(
            count <= self.open[shard],
            "an order for a connection that is not there"
        );
        self.open[shard] -= count;
        for _ in 0..count {
            self.closes.push(self.second());
            let answer = if self.rng.f64() < self.silent {
                self.drain.times().echo_wait
            } else {
                Duration::from_millis(self.rng.u64(1..50))
            };
            self.closing[shard].push(self.now + answer);
        }
    }

    fn tick(&mut self) -> Orders {
        for shard in 0..self.open.len() {
            if self.leaves > 0.0 && self.open[shard] > 0 && self.rng.f64() < self.leaves {
                self.open[shard] -= 1;
            }
        }
        let loads = self.loads();
        let orders = self.drain.tick(self.now, &loads);
        let second = self.second();
        let entered = orders.entered.iter().map(|phase| (second, *phase));
        self.entered.extend(entered);
        if orders.stop_accepting {
            let before = self.accepts_until.replace(second);
            assert_eq!(before, None, "accepting ends once");
        }
        for (shard, count) in orders.close.iter().enumerate() {
            self.close(shard, *count);
        }
        if orders.close_rest {
            for shard in 0..self.open.len() {
                self.close(shard, self.open[shard]);
            }
        }
        if orders.force {
            for shard in 0..self.open.len() {
                self.forced += self.open[shard] + self.closing[shard].len() as u64;
                self.open[shard] = 0;
                self.closing[shard].clear();
            }
        }
        orders
    }

    /// Runs until STOPPED, or until `until` (seconds); says when that was.
    fn run(&mut self, until: f64) -> f64 {
        for _ in 0..1_000_000 {
            let orders = self.tick();
            if orders.stop {
                assert_eq!(self.drain.phase(), Phase::Stopped);
                return self.second();
            }
            let wake = orders.wake_at.expect("a drain goes on by itself");
            let late = self.late_max.mul_f64(self.rng.f64());
            let next = (wake + late).max(self.now + Duration::from_micros(1));
            if (next - self.start).as_secs_f64() >= until {
                self.now = self.now.max(self.start + Duration::from_secs_f64(until));
                return self.second();
            }
            self.now = next;
        }
        panic!("the drain does not end");
    }

    fn drain_all(&mut self) -> f64 {
        self.drain.terminate(self.now);
        self.run(f64::INFINITY)
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    let base = match std::env::var("FLUX_SEED") {
        Ok(seed) => seed.parse().expect("FLUX_SEED is a number"),
        Err(_) => fastrand::u64(..1 << 32),
    };
    println!("FLUX_SEED={base}");
    base..base + 200
}

/// Each 5 s slice from the first close within 10 % or 2 connections of the others, the last one excepted.
fn assert_even(closes: &[f64], slice: f64, context: &str) {
    let first = closes.iter().copied().fold(f64::INFINITY, f64::min);
    let last = closes.iter().copied().fold(0.0, f64::max);
    let whole = ((last - first) / slice) as usize;
    let mut counts = vec![0u64; whole + 1];
    for close in closes {
        counts[((close - first) / slice) as usize] += 1;
    }
    counts.truncate(whole);
    if let (Some(min), Some(max)) = (counts.iter().min(), counts.iter().max()) {
        let apart = max - min;
        assert!(
            apart <= 2 || apart as f64 <= 0.1 * *max as f64,
            "{context}: {counts:?}"
        );
    }
}

#[test]
fn thirty_seconds_go_by_the_table() {
    let mut node = Node::new(30 * SECOND, vec![500, 500], 1);
    node.late_max = Duration::ZERO;
    node.silent = 1.0;
    let end = node.drain_all();
    assert_eq!(node.entered[0], (0.0, Phase::LameDuck));
    assert_eq!(node.entered[1], (3.0, Phase::Closing));
    assert_eq!(node.accepts_until, Some(3.0));
    assert_eq!(node.closes.len(), 1000);
    assert!(node.closes.iter().all(|s| (3.0..=22.01).contains(s)));
    // All of them silent: the last one's three seconds end it, nobody is cut.
    assert_eq!(node.forced, 0);
    assert!((24.9..25.3).contains(&end), "{end}");
    assert_even(&node.closes, 5.0, "table");
}

#[test]
fn closes_are_even_for_every_number_of_connections_and_shards() {
    for seed in seeds() {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shards = rng.usize(1..9);
        let most = [3, 30, 300, 5000][rng.usize(..4)];
        let open: Vec<u64> = (0..shards).map(|_| rng.u64(..=most)).collect();
        let total: u64 = open.iter().sum();
        let mut node = Node::new(30 * SECOND, open.clone(), seed);
        node.late_max = Duration::from_millis(rng.u64(0..40));
        node.silent = rng.f64();
        let end = node.drain_all();
        let context = format!("seed {seed}, {open:?}");
        assert_eq!(node.closes.len() as u64, total, "{context}");
        assert_even(&node.closes, 5.0, &context);
        assert!(end <= 28.6, "{context}: {end}");
        assert!(node.entered.iter().is_sorted_by(|a, b| a.1 < b.1));
        if total == 0 {
            assert!(end < 3.2, "{context}: waited for nobody until {end}");
        }
    }
}

#[test]
fn every_client_leaves_in_time_whatever_happens() {
    for seed in seeds() {
        let mut rng = fastrand::Rng::with_seed(seed);
        let total = Duration::from_millis([0, 100, 1000, 10_000, 30_000, 90_000][rng.usize(..6)]);
        let open: Vec<u64> = (0..rng.usize(1..5)).map(|_| rng.u64(..400)).collect();
        let mut node = Node::new(total, open, seed);
        node.silent = rng.f64();
        node.leaves = rng.f64() * 0.3;
        // Now and then the control thread does not run for a while.
        node.late_max = Duration::from_millis([1, 100, 3000][rng.usize(..3)]);
        node.drain.terminate(node.now);
        let mut end = node.run(rng.f64() * 40.0);
        for _ in 0..rng.usize(..4) {
            if node.drain.phase() == Phase::Stopped {
                break;
            }
            node.drain.terminate(node.now);
            end = node.run(end + rng.f64() * 10.0);
        }
        if node.drain.phase() != Phase::Stopped {
            end = node.run(f64::INFINITY);
        }
        let late = node.late_max.as_secs_f64();
        assert!(
            end <= total.as_secs_f64() * 0.951 + 3.0 * late + 0.1,
            "seed {seed}: {end} of {total:?}"
        );
        let open: u64 = node.loads().iter().map(|s| s.open).sum();
        assert_eq!(open, 0, "seed {seed}");
        assert!(
            node.entered.iter().is_sorted_by(|a, b| a.1 < b.1),
            "seed {seed}"
        );
    }
}

#[test]
fn a_second_signal_closes_the_rest_at_once() {
    for at in [0.5, 3.0, 10.0] {
        let mut node = Node::new(30 * SECOND, vec![1000], 2);
        node.drain.terminate(node.now);
        node.run(at);
        let before = node.closes.len();
        node.drain.terminate(node.now);
        let end = node.run(f64::INFINITY);
        assert_eq!(node.closes.len(), 1000);
        assert!(node.closes[before..].iter().all(|s| *s <= at + 0.11));
        assert!(end <= at + 0.3, "everybody answered by then: {end}");
        assert!(node.accepts_until.expect("stopped accepting") <= at + 0.01);
    }
    // With clients that never answer: second 22, then three seconds for their echo.
    let silent = || {
        let mut node = Node::new(30 * SECOND, vec![10], 3);
        node.silent = 1.0;
        node.drain.terminate(node.now);
        node.run(4.0);
        node.drain.terminate(node.now);
        node
    };
    let end = silent().run(f64::INFINITY);
    assert!((6.9..7.3).contains(&end), "{end}");
    // And the third cuts them.
    let mut node = silent();
    node.run(4.5);
    node.drain.terminate(node.now);
    let end = node.run(f64::INFINITY);
    assert!(end < 4.7, "{end}");
    assert!(node.forced > 0);
}

#[test]
fn a_signal_while_starting_stops_at_once_and_being_ready_comes_too_late() {
    let mut drain = Drain::new(DrainTimes::new(30 * SECOND).expect("within limits"));
    let now = Instant::now();
    assert_eq!(drain.tick(now, &[]), Orders::default());
    drain.terminate(now);
    drain.ready();
    let orders = drain.tick(now, &[ShardLoad::default()]);
    assert!(orders.stop);
    assert_eq!(orders.entered, [Phase::Stopped]);
    let again = drain.tick(now, &[ShardLoad::default()]);
    assert!(!again.stop && again.entered.is_empty() && again.wake_at.is_none());
}

#[test]
fn clients_that_come_in_the_lame_duck_seconds_are_closed_too() {
    let mut node = Node::new(30 * SECOND, vec![10, 0], 4);
    node.drain.terminate(node.now);
    node.run(2.5);
    node.open[1] += 50;
    node.run(f64::INFINITY);
    assert_eq!(node.closes.len(), 60);
    assert_even(&node.closes, 5.0, "lame duck");
}

#[test]
fn who_is_counted_late_leaves_with_the_rest() {
    // Accepted just before the listeners closed, upgraded just after the count.
    let mut node = Node::new(30 * SECOND, vec![10], 5);
    node.drain.terminate(node.now);
    node.run(5.0);
    node.open[0] += 5;
    let end = node.run(f64::INFINITY);
    assert_eq!(node.closes.len(), 15);
    assert!(end < 23.0, "{end}");
}

#[test]
fn progress_is_shown() {
    let mut node = Node::new(30 * SECOND, vec![100], 6);
    assert_eq!(node.drain.progress(), None);
    node.drain.terminate(node.now);
    node.run(12.5);
    let progress = node.drain.progress().expect("draining");
    assert_eq!(progress.started, node.start);
    assert_eq!(progress.deadline, node.start + 30 * SECOND);
    assert!((40..60).contains(&progress.remaining), "{progress:?}");
}

#[test]
fn too_long_a_drain_is_refused() {
    assert!(DrainTimes::new(Duration::from_secs(3601)).is_err());
    let times = DrainTimes::new(300 * SECOND).expect("within limits");
    assert_eq!(
        (times.lame_duck, times.echo_wait),
        (30 * SECOND, 3 * SECOND)
    );
}

#[test]
fn the_state_machine_mentions_no_io() {
    let code: String = include_str!("../src/drain.rs")
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let banned = [
        "tokio",
        "Instant::now",
        "SystemTime",
        "rand",
        "std::net",
        "std::thread",
    ];
    for word in banned {
        assert!(!code.contains(word), "{word}");
    }
}
