//! Promise: readers see who lives, and a registry that is in doubt itself removes nobody. Virtual time.

#![allow(clippy::print_stdout, reason = "a random test prints its seed")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flux_registry::limits;
use flux_registry::{
    Departure, Doubt, Entry, Membership, NodeRecord, NodeState, Reading, RecordError,
    RegistryState, Snapshot,
};

const TTL: Duration = Duration::from_secs(15);
const EPOCH_MS: u64 = 1_700_000_000_000;

/// A registry and its nodes, and one reader of it.
struct World {
    start: Instant,
    now: Instant,
    /// What Redis TIME is ahead of the monotonic clock, when its clock was set.
    server_skew_ms: i64,
    stored: BTreeMap<String, (NodeRecord, u64)>,
    departed: BTreeMap<String, Departure>,
    reader: Membership,
}

impl World {
    fn new(nodes: &[&str]) -> World {
        let start = Instant::now();
        let mut world = World {
            start,
            now: start,
            server_skew_ms: 0,
            stored: BTreeMap::new(),
            departed: BTreeMap::new(),
            reader: Membership::new(TTL),
        };
        for node in nodes {
            world.beat(node);
        }
        world
    }

    fn server_ms(&self) -> u64 {
        let passed = (self.now - self.start).as_millis() as u64;
        (EPOCH_MS + passed).saturating_add_signed(self.server_skew_ms)
    }

    fn pass(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    fn beat(&mut self, id: &str) {
        let deadline = self.server_ms() + TTL.as_millis() as u64;
        let seq = self.stored.get(id).map_or(0, |(record, _)| record.seq) + 1;
        let mut record = NodeRecord::new(id, ([10, 0, 0, 1], 80).into());
        record.state = NodeState::Ready;
        record.nonce = "n".into();
        record.generation = 1;
        record.seq = seq.max((self.now - self.start).as_millis() as u64);
        self.stored.insert(id.into(), (record, deadline));
        self.departed.remove(id);
    }

    fn leave(&mut self, id: &str) {
        if let Some((record, _)) = self.stored.remove(id) {
            let departure = Departure {
                generation: record.generation,
                reason: "left after its drain".into(),
                at_ms: self.server_ms(),
                addr: record.addr,
            };
            self.departed.insert(id.into(), departure);
        }
    }

    fn reading(&self) -> Reading {
        let json = |value: &NodeRecord| serde_json::to_vec(value).expect("json");
        Reading {
            server_time_ms: self.server_ms(),
            version: 1,
            entries: self
                .stored
                .iter()
                .map(|(id, (record, deadline_ms))| Entry {
                    id: id.clone(),
                    deadline_ms: *deadline_ms,
                    json: json(record),
                })
                .collect(),
            departed: self
                .departed
                .iter()
                .map(|(id, left)| (id.clone(), serde_json::to_vec(left).expect("json")))
                .collect(),
            refused: 0,
        }
    }

    fn read(&mut self) -> Snapshot {
        (*self.reader.on_read(self.reading(), self.now)).clone()
    }

    fn fail(&mut self) -> Snapshot {
        (*self.reader.on_failure("away", self.now)).clone()
    }

    /// Reads once a second while `alive` send heartbeats every five.
    fn run(&mut self, seconds: u64, alive: &[&str]) -> Snapshot {
        for second in 1..=seconds {
            self.pass(1.0);
            if second % 5 == 0 {
                alive.iter().for_each(|id| self.beat(id));
            }
            self.read();
        }
        self.reader.snapshot().clone()
    }
}

fn fresh(snapshot: &Snapshot) -> Vec<&str> {
    let nodes = snapshot.nodes.iter();
    nodes
        .filter(|(_, v)| v.fresh)
        .map(|(id, _)| id.as_str())
        .collect()
}

fn routable(snapshot: &Snapshot) -> Vec<&str> {
    let nodes = snapshot.nodes.iter();
    nodes
        .filter(|(_, v)| v.routable())
        .map(|(id, _)| id.as_str())
        .collect()
}

#[test]
fn a_dead_node_goes_with_its_lease_and_stays_listed_for_ten_minutes() {
    let mut world = World::new(&["a", "b", "c"]);
    assert_eq!(fresh(&world.read()), ["a", "b", "c"]);
    let snapshot = world.run(14, &["a", "b"]);
    assert_eq!(fresh(&snapshot), ["a", "b", "c"]);
    assert_eq!(snapshot.nodes["c"].heartbeat_age_ms, 14_000);
    assert_eq!(world.reader.next_deadline(), Some(Duration::from_secs(1)));
    let snapshot = world.run(1, &["a", "b"]);
    assert_eq!(routable(&snapshot), ["a", "b"]);
    assert_eq!(snapshot.doubt, None);
    assert!(!snapshot.nodes["c"].held);
    let snapshot = world.run(590, &["a", "b"]);
    assert!(snapshot.nodes.contains_key("c"));
    let snapshot = world.run(15, &["a", "b"]);
    assert!(!snapshot.nodes.contains_key("c"));
}

#[test]
fn a_registry_that_is_away_removes_nobody_and_holds_one_ttl_after_its_return() {
    let mut world = World::new(&["a", "b", "c"]);
    world.read();
    world.pass(1.0);
    assert_eq!(world.fail().state, RegistryState::Stale);
    for _ in 0..120 {
        world.pass(1.0);
        let snapshot = world.fail();
        assert_eq!(routable(&snapshot), ["a", "b", "c"]);
    }
    let snapshot = world.reader.snapshot();
    assert_eq!(snapshot.state, RegistryState::Unreachable);
    assert_eq!(snapshot.age, Duration::from_secs(121));
    // It returns with what it had: every lease in it has lapsed.
    let snapshot = world.read();
    assert_eq!(
        (snapshot.state, snapshot.doubt),
        (RegistryState::Ok, Some(Doubt::Empty))
    );
    assert_eq!(routable(&snapshot), ["a", "b", "c"]);
    world.pass(1.0);
    world.beat("a");
    assert_eq!(routable(&world.read()), ["a", "b", "c"]);
    world.pass(1.0);
    world.beat("b");
    let snapshot = world.read();
    assert_eq!(snapshot.doubt, Some(Doubt::Returning));
    // `c` really died meanwhile: one TTL later it is gone.
    let snapshot = world.run(14, &["a", "b"]);
    assert_eq!(routable(&snapshot), ["a", "b", "c"]);
    assert!(snapshot.nodes["c"].held && !snapshot.nodes["c"].fresh);
    let snapshot = world.run(2, &["a", "b"]);
    assert_eq!(routable(&snapshot), ["a", "b"]);
    assert_eq!(snapshot.doubt, None);
}

#[test]
fn one_failed_read_postpones_nothing() {
    let mut world = World::new(&["a", "b", "c"]);
    world.read();
    world.run(14, &["a", "b"]);
    world.pass(1.0);
    world.fail();
    world.pass(1.0);
    assert_eq!(routable(&world.read()), ["a", "b"]);
}

#[test]
fn an_emptied_registry_removes_nobody_however_long_it_stays_empty() {
    let mut world = World::new(&["a", "b", "c"]);
    world.read();
    world.stored.clear();
    let snapshot = world.run(3600, &[]);
    assert_eq!(routable(&snapshot), ["a", "b", "c"]);
    assert_eq!(snapshot.doubt, Some(Doubt::Empty));
    assert_eq!(snapshot.state, RegistryState::Ok);
    world.run(5, &["a", "b", "c"]);
    let snapshot = world.run(20, &["a", "b", "c"]);
    assert_eq!((fresh(&snapshot).len(), snapshot.doubt), (3, None));
}

#[test]
fn when_over_half_vanish_in_one_read_they_are_held() {
    let mut world = World::new(&["a", "b", "c"]);
    world.read();
    world.stored.remove("b");
    world.stored.remove("c");
    let snapshot = world.run(300, &["a"]);
    assert_eq!(routable(&snapshot), ["a", "b", "c"]);
    assert_eq!(snapshot.doubt, Some(Doubt::OverHalfVanished));
    // When most are back, those that are not get one more TTL.
    world.beat("b");
    assert_eq!(world.read().doubt, Some(Doubt::Returning));
    let snapshot = world.run(16, &["a", "b"]);
    assert_eq!(routable(&snapshot), ["a", "b"]);
}

#[test]
fn who_says_goodbye_has_not_vanished() {
    let mut world = World::new(&["a", "b", "c"]);
    world.read();
    world.leave("b");
    world.leave("c");
    world.pass(1.0);
    let snapshot = world.read();
    assert_eq!((routable(&snapshot), snapshot.doubt), (vec!["a"], None));
    assert_eq!(snapshot.departed["b"].reason, "left after its drain");
    world.leave("a");
    world.pass(1.0);
    let snapshot = world.read();
    assert!(snapshot.nodes.is_empty() && snapshot.doubt.is_none());
    // Listed for ten minutes, or until it is back.
    world.beat("c");
    let snapshot = world.run(595, &["c"]);
    assert!(snapshot.departed.contains_key("b") && !snapshot.departed.contains_key("c"));
    assert!(!world.run(10, &["c"]).departed.contains_key("b"));
}

#[test]
fn a_deadline_far_ahead_does_not_keep_a_dead_node() {
    // The registry's clock was an hour ahead when it wrote, and has been set right.
    let mut world = World::new(&["b", "c"]);
    world.server_skew_ms = 3_600_000;
    world.beat("a");
    world.server_skew_ms = 0;
    world.read();
    let snapshot = world.run(15, &["b", "c"]);
    assert_eq!(fresh(&snapshot), ["a", "b", "c"]);
    let snapshot = world.run(2, &["b", "c"]);
    assert_eq!(
        fresh(&snapshot),
        ["b", "c"],
        "its heartbeats do not advance"
    );
}

#[test]
fn a_registry_whose_clock_jumps_forward_removes_nobody() {
    let mut world = World::new(&["a", "b", "c"]);
    world.read();
    world.server_skew_ms = 3_600_000;
    world.pass(1.0);
    let snapshot = world.read();
    assert_eq!(routable(&snapshot), ["a", "b", "c"]);
    let snapshot = world.run(30, &["a", "b", "c"]);
    assert_eq!((fresh(&snapshot).len(), snapshot.doubt), (3, None));
}

#[test]
fn a_draining_node_is_alive_and_not_routable() {
    let mut world = World::new(&["a", "b"]);
    world.stored.get_mut("a").expect("a").0.state = NodeState::Draining;
    let snapshot = world.read();
    assert_eq!(
        (fresh(&snapshot).len(), routable(&snapshot)),
        (2, vec!["b"])
    );
}

#[test]
fn a_reader_that_was_stopped_does_not_blame_the_nodes() {
    let mut world = World::new(&["a", "b", "c"]);
    world.read();
    for _ in 0..12 {
        world.pass(5.0);
        ["a", "b", "c"].iter().for_each(|id| world.beat(id));
    }
    let snapshot = world.read();
    assert_eq!((fresh(&snapshot).len(), snapshot.doubt), (3, None));
}

#[test]
fn bad_records_cost_only_themselves() {
    let mut world = World::new(&["a", "b"]);
    let mut reading = world.reading();
    let mut bad = |id: &str, json: &[u8]| {
        reading.entries.push(Entry {
            id: id.into(),
            deadline_ms: u64::MAX,
            json: json.to_vec(),
        });
    };
    bad("garbage", b"\x00\xff{{{");
    bad("future", br#"{"v":99}"#);
    bad("large", &vec![b'x'; 1 << 20]);
    bad("not a name", b"{}");
    bad(&"x".repeat(1 << 20), b"{}");
    reading.departed.push(("a b".into(), b"{}".to_vec()));
    reading.departed.push(("c".into(), b"[".to_vec()));
    reading.refused = 7;
    let snapshot = world.reader.on_read(reading, world.now);
    assert_eq!(fresh(&snapshot), ["a", "b"]);
    assert_eq!(snapshot.rejected, 12);
    let named: Vec<(&str, &RecordError)> = snapshot
        .rejected_named
        .iter()
        .map(|r| (r.id.as_str(), &r.reason))
        .collect();
    assert_eq!(named[1], ("future", &RecordError::FutureVersion(99)));
    assert!(named.iter().all(|(id, _)| id.len() <= limits::ID_BYTES_MAX));
    assert!(snapshot.departed.is_empty());
}

#[test]
fn in_a_flood_of_records_the_nodes_that_live_stay() {
    let mut world = World::new(&["m-1", "m-2"]);
    world.read();
    world.pass(5.0);
    ["m-1", "m-2"].iter().for_each(|id| world.beat(id));
    world.read();
    for n in 0..10_000 {
        world.beat(&format!("a-{n:05}"));
    }
    world.pass(1.0);
    let snapshot = world.read();
    assert_eq!(snapshot.nodes.len(), limits::NODES_MAX);
    assert_eq!(snapshot.rejected, 10_002 - limits::NODES_MAX as u64);
    assert!(snapshot.nodes["m-1"].fresh && snapshot.nodes["m-2"].fresh);
    // For a reader that starts in the flood too, once it has seen who lives.
    world.reader = Membership::new(TTL);
    world.read();
    for seconds in [5.0, 11.0] {
        world.pass(seconds);
        ["m-1", "m-2"].iter().for_each(|id| world.beat(id));
        world.read();
    }
    assert_eq!(fresh(world.reader.snapshot()), ["m-1", "m-2"]);
}

#[test]
fn before_the_first_answer_nothing_is_known() {
    let mut reader = Membership::new(TTL);
    let now = Instant::now();
    let snapshot = reader.on_failure("refused", now);
    assert_eq!(snapshot.state, RegistryState::Unreachable);
    assert_eq!(snapshot.error.as_deref(), Some("refused"));
    assert_eq!(snapshot.age_at(now), None);
    let snapshot = reader.on_read(Reading::default(), now);
    assert_eq!((snapshot.state, snapshot.doubt), (RegistryState::Ok, None));
}

#[test]
fn no_node_that_lives_is_ever_removed_whatever_the_registry_does() {
    let base = match std::env::var("FLUX_SEED") {
        Ok(seed) => seed.parse().expect("FLUX_SEED is a number"),
        Err(_) => fastrand::u64(..1 << 32),
    };
    println!("FLUX_SEED={base}");
    for seed in base..base + 100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let names: Vec<String> = (0..rng.usize(1..7)).map(|n| format!("n{n}")).collect();
        let ids: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut world = World::new(&ids);
        world.read();
        let mut last_beat: Vec<f64> = ids.iter().map(|_| rng.f64() * -5.0).collect();
        let mut away_until = 0.0;
        let mut second = 0.0;
        while second < 400.0 {
            let step = 0.5 + rng.f64();
            second += step;
            world.pass(step);
            if second >= away_until {
                match rng.u32(..200) {
                    0 => away_until = second + rng.f64() * 60.0,
                    1 => world.stored.clear(),
                    2 if world.stored.len() == ids.len() => {
                        let lost = rng.choice(&ids).expect("some");
                        world.stored.remove(*lost);
                    }
                    _ => {}
                }
            }
            if second < away_until {
                world.fail();
            } else {
                // Every node lives: it writes within a heartbeat, or soon after the registry's return.
                for (id, last) in ids.iter().zip(&mut last_beat) {
                    if second - *last >= 4.5 + rng.f64() {
                        world.beat(id);
                        *last = second;
                    }
                }
                world.read();
            }
            let snapshot = world.reader.snapshot();
            assert_eq!(
                routable(snapshot),
                ids,
                "seed {seed}, second {second}: {:?}",
                snapshot.doubt
            );
        }
    }
}

#[test]
fn a_deleted_record_ends_no_lease() {
    let mut world = World::new(&["a", "b", "c"]);
    world.read();
    world.stored.remove("c");
    world.pass(1.0);
    let snapshot = world.read();
    assert_eq!((routable(&snapshot).len(), snapshot.doubt), (3, None));
    assert!(snapshot.nodes["c"].held);
    world.beat("c");
    assert_eq!(fresh(&world.read()).len(), 3);
    // If nobody brings it back, it ends when it would have ended.
    world.stored.remove("c");
    assert_eq!(routable(&world.run(13, &["a", "b"])).len(), 3);
    assert_eq!(routable(&world.run(3, &["a", "b"])), ["a", "b"]);
}
