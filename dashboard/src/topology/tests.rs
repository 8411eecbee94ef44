use super::*;
use crate::document::Node;
use crate::observe::{BalancerNode, RecordState};
use crate::probe::Answer;

const TTL: Duration = Duration::from_secs(15);

/// A cluster under test: virtual time, one observation a call.
struct World {
    topology: Topology,
    seen: Observation,
    now_ms: u64,
    skew_ms: i64,
}

impl World {
    fn new() -> Self {
        Self {
            topology: Topology::new("flux"),
            seen: Observation {
                registry: RegistryState::Ok,
                ..Observation::default()
            },
            now_ms: 0,
            skew_ms: 0,
        }
    }

    fn beat(&mut self, id: &str, state: RecordState) {
        let member = self.seen.members.entry(id.to_owned()).or_default();
        if member.generation == 0 {
            member.generation = 1;
        }
        member.state = state;
        member.fresh = true;
        member.ttl = TTL;
        member.heartbeat_age = Duration::ZERO;
        member.seq += 1;
        member.load.connections = 120;
    }

    fn answer(&mut self, id: &str, reasons: &[&str]) {
        self.probe(
            id,
            Ok(Answer {
                ready: reasons.is_empty(),
                reasons: reasons.iter().map(|r| (*r).to_owned()).collect(),
                ..Answer::default()
            }),
        );
    }

    fn refuse(&mut self, id: &str, times: u32) {
        for _ in 0..times {
            self.probe(id, Err("connection refused".to_owned()));
        }
    }

    fn probe(&mut self, id: &str, result: Result<Answer, String>) {
        self.seen
            .probes
            .entry(id.to_owned())
            .or_default()
            .record(result);
    }

    /// Lets time pass: heartbeats age as the registry would report it.
    fn pass(&mut self, seconds: f64) -> Document {
        let step = (seconds * 1000.0) as u64;
        self.now_ms += step;
        if self.seen.registry == RegistryState::Ok {
            for member in self.seen.members.values_mut() {
                member.heartbeat_age += Duration::from_millis(step);
                member.fresh = member.heartbeat_age < TTL;
            }
        }
        let now = Moment {
            up: Duration::from_millis(self.now_ms),
            unix_ms: (1_700_000_000_000 + self.now_ms).saturating_add_signed(self.skew_ms),
        };
        self.topology.observe(&self.seen, now)
    }

    fn kinds(&self, subject: &str) -> Vec<Kind> {
        let events = self.topology.timeline().after(0);
        events
            .filter(|e| e.subject == subject)
            .map(|e| e.kind)
            .collect()
    }

    /// Three ready nodes, seen and probed.
    fn three() -> Self {
        let mut world = Self::new();
        for id in ["gateway-1", "gateway-2", "gateway-3"] {
            world.beat(id, RecordState::Ready);
            world.answer(id, &[]);
        }
        world.pass(0.1);
        world
    }
}

fn node<'a>(document: &'a Document, id: &str) -> &'a Node {
    document
        .nodes
        .iter()
        .find(|n| n.id == id)
        .expect("node is listed")
}

#[test]
fn a_new_node_is_starting_then_ready() {
    let mut world = World::new();
    world.pass(1.0);
    world.beat("gateway-1", RecordState::Starting);
    let document = world.pass(0.1);
    assert_eq!(node(&document, "gateway-1").state, State::Starting);
    assert!(!node(&document, "gateway-1").routable);
    world.beat("gateway-1", RecordState::Ready);
    let document = world.pass(0.1);
    let ready = node(&document, "gateway-1");
    assert_eq!((ready.state, ready.reason.as_str()), (State::Ready, ""));
    assert!(ready.routable);
    assert_eq!(world.kinds("gateway-1"), [Kind::Joined, Kind::Ready]);
}

#[test]
fn silence_beyond_the_ttl_is_dead_with_the_time() {
    let mut world = World::three();
    world.seen.probes.clear();
    let document = world.pass(14.8);
    assert_eq!(node(&document, "gateway-2").state, State::Ready);
    let document = world.pass(0.3);
    let dead = node(&document, "gateway-2");
    assert_eq!(dead.state, State::Dead);
    assert_eq!(dead.reason, "no heartbeat for 15.2 s");
    assert_eq!(dead.heartbeat_age_ms, 15_200);
    assert!(!dead.routable && !dead.orderly);
}

#[test]
fn a_killed_node_is_dead_as_soon_as_nobody_reaches_it() {
    let mut world = World::three();
    world.refuse("gateway-2", 2);
    assert_eq!(node(&world.pass(2.0), "gateway-2").state, State::Ready);
    world.refuse("gateway-2", 1);
    let document = world.pass(1.0);
    let dead = node(&document, "gateway-2");
    assert_eq!((dead.state, dead.connections), (State::Dead, 0));
    assert!(dead.reason.starts_with("probe failing: connection refused"));
    assert_eq!(node(&document, "gateway-1").state, State::Ready);
    // The same process answers again: healed.
    world.beat("gateway-2", RecordState::Ready);
    world.answer("gateway-2", &[]);
    world.answer("gateway-2", &[]);
    assert_eq!(node(&world.pass(1.0), "gateway-2").state, State::Ready);
    let kinds = world.kinds("gateway-2");
    assert_eq!(kinds, [Kind::Joined, Kind::Dead, Kind::Healed]);
}

#[test]
fn a_restarted_node_joins_as_a_new_process() {
    let mut world = World::three();
    world.pass(16.0);
    world.beat("gateway-2", RecordState::Starting);
    let member = world.seen.members.get_mut("gateway-2").expect("member");
    member.generation = 2;
    world.pass(0.1);
    world.beat("gateway-2", RecordState::Ready);
    let document = world.pass(1.0);
    assert_eq!(node(&document, "gateway-2").state, State::Ready);
    assert_eq!(node(&document, "gateway-2").generation, 2);
    let kinds = world.kinds("gateway-2");
    assert_eq!(kinds, [Kind::Joined, Kind::Dead, Kind::Joined, Kind::Ready]);
}

#[test]
fn a_drain_counts_down_and_ends_in_order() {
    let mut world = World::three();
    world.beat("gateway-2", RecordState::Draining);
    // The registry's clock is an hour ahead of ours.
    let started = 1_700_003_600_000;
    let member = world.seen.members.get_mut("gateway-2").expect("member");
    member.drain = Some((started, started + 30_000));
    member.drain_remaining = Some(120);
    world.answer("gateway-2", &["draining"]);
    let document = world.pass(1.0);
    let draining = node(&document, "gateway-2");
    assert_eq!(draining.state, State::Draining);
    assert_eq!(draining.probe, "ok", "503 is right while draining");
    let drain = draining.drain.expect("progress");
    assert_eq!((drain.remaining, drain.from), (120, 120));
    assert_eq!(drain.left_ms, 30_000, "never more than the whole drain");

    world.beat("gateway-2", RecordState::Draining);
    let member = world.seen.members.get_mut("gateway-2").expect("member");
    member.drain_remaining = Some(30);
    let document = world.pass(12.0);
    let drain = node(&document, "gateway-2").drain.expect("progress");
    assert_eq!((drain.remaining, drain.from), (30, 120));
    assert_eq!(drain.left_ms, 18_000);

    // Deregistered and exited; nothing but the missing record tells.
    world.seen.members.remove("gateway-2");
    world.refuse("gateway-2", 1);
    let document = world.pass(2.0);
    let left = node(&document, "gateway-2");
    assert_eq!(left.state, State::Dead);
    assert_eq!(left.reason, "left after its drain");
    assert!(left.orderly && left.drain.is_none());
    world.refuse("gateway-2", 5);
    assert!(node(&world.pass(60.0), "gateway-2").orderly);
    let kinds = world.kinds("gateway-2");
    assert_eq!(kinds, [Kind::Joined, Kind::Draining, Kind::Left]);
}

#[test]
fn a_drain_that_the_registry_remembers_wins_over_guessing() {
    let mut world = World::three();
    world.seen.members.remove("gateway-3");
    world.seen.departed.insert(
        "gateway-3".to_owned(),
        Departure {
            reason: "left after its drain".to_owned(),
            orderly: true,
            age: Duration::from_secs(1),
            generation: 1,
            addr: "127.0.0.1:8003".to_owned(),
        },
    );
    let document = world.pass(1.0);
    assert!(node(&document, "gateway-3").orderly);
    // An old departure says nothing about a newer process.
    world.beat("gateway-3", RecordState::Ready);
    world.answer("gateway-3", &[]);
    world
        .seen
        .members
        .get_mut("gateway-3")
        .expect("member")
        .generation = 2;
    assert_eq!(node(&world.pass(1.0), "gateway-3").state, State::Ready);
    world.seen.members.remove("gateway-3");
    let document = world.pass(1.0);
    assert_eq!(node(&document, "gateway-3").state, State::Ready);
    assert!(node(&document, "gateway-3").reason.starts_with("missing"));
}

#[test]
fn a_flushed_registry_kills_nobody() {
    let mut world = World::three();
    world.beat("gateway-3", RecordState::Draining);
    world.answer("gateway-3", &["draining"]);
    world.pass(0.5);
    world.seen.members.clear();
    let document = world.pass(4.0);
    assert_eq!(node(&document, "gateway-1").state, State::Ready);
    assert_eq!(
        node(&document, "gateway-1").reason,
        "missing from the registry, last heartbeat 4.6 s ago"
    );
    assert_eq!(node(&document, "gateway-3").state, State::Draining);
    for id in ["gateway-1", "gateway-2"] {
        world.beat(id, RecordState::Ready);
    }
    let document = world.pass(0.1);
    assert_eq!(node(&document, "gateway-2").reason, "");
    assert_eq!(world.kinds("gateway-1"), [Kind::Joined]);
}

#[test]
fn an_outage_of_the_registry_leaves_judgement_to_the_probes() {
    let mut world = World::three();
    world.seen.registry = RegistryState::Unreachable;
    world.refuse("gateway-2", 3);
    let document = world.pass(30.0);
    assert_eq!(document.registry.state, RegistryState::Unreachable);
    assert_eq!(node(&document, "gateway-1").state, State::Ready);
    assert_eq!(node(&document, "gateway-2").state, State::Dead);
    // It returns with the old records, then empty: nobody falls for one TTL.
    world.seen.registry = RegistryState::Ok;
    for member in world.seen.members.values_mut() {
        member.heartbeat_age = Duration::from_secs(31);
    }
    let document = world.pass(1.0);
    assert_eq!(node(&document, "gateway-1").state, State::Ready);
    assert_eq!(node(&document, "gateway-2").state, State::Dead);
    world.seen.members.clear();
    assert_eq!(node(&world.pass(10.0), "gateway-3").state, State::Ready);
    assert_eq!(node(&world.pass(6.0), "gateway-3").state, State::Dead);
    let kinds = world.kinds("registry");
    assert_eq!(kinds, [Kind::RegistryLost, Kind::RegistryBack]);
}

#[test]
fn a_registry_in_doubt_takes_nobody_out() {
    let mut world = World::three();
    for member in world.seen.members.values_mut() {
        member.held = true;
    }
    world.refuse("gateway-3", 3);
    let document = world.pass(20.0);
    assert_eq!(node(&document, "gateway-1").state, State::Ready);
    assert!(node(&document, "gateway-1").reason.ends_with("in doubt"));
    assert_eq!(node(&document, "gateway-3").state, State::Dead);
}

#[test]
fn a_node_that_is_out_before_its_ttl_is_not_blamed_for_its_heartbeat() {
    let mut world = World::three();
    for member in world.seen.members.values_mut() {
        member.held = true;
        member.fresh = false;
    }
    world.refuse("gateway-3", 3);
    let now = Moment {
        up: Duration::from_secs(2),
        unix_ms: 1_700_000_002_000,
    };
    let document = world.topology.observe(&world.seen, now);
    assert_eq!(
        node(&document, "gateway-3").reason,
        "probe failing: connection refused, and gone from the registry"
    );
    assert_eq!(node(&document, "gateway-2").state, State::Ready);
}

#[test]
fn a_second_process_with_the_same_id_is_shown_as_fencing() {
    let mut world = World::three();
    world
        .seen
        .members
        .get_mut("gateway-1")
        .expect("member")
        .generation = 8;
    world.pass(1.0);
    assert_eq!(world.kinds("gateway-1"), [Kind::Joined, Kind::Fenced]);
    world.answer("gateway-1", &["fenced by generation 9"]);
    let document = world.pass(1.0);
    let fenced = node(&document, "gateway-1");
    assert_eq!(fenced.state, State::Dead);
    assert_eq!(fenced.reason, "fenced by generation 9");
}

#[test]
fn the_balancers_word_decides_what_is_routable() {
    let mut world = World::three();
    let mut view = BalancerView {
        id: "lb-1".to_owned(),
        verdict: Verdict::Answers,
        ..BalancerView::new("127.0.0.1:8090")
    };
    for (id, eligible) in [("gateway-1", true), ("gateway-2", false)] {
        view.nodes.insert(
            id.to_owned(),
            BalancerNode {
                eligible,
                probe_ok: Some(eligible),
                reason: "probe failing".to_owned(),
                ring_share: 0.5,
                flows: 7,
            },
        );
    }
    world.seen.balancers.push(view);
    world.refuse("gateway-1", 3);
    let document = world.pass(1.0);
    let first = node(&document, "gateway-1");
    assert_eq!((first.state, first.routable), (State::Ready, true));
    assert!(first.reason.starts_with("the dashboard cannot reach it"));
    let second = node(&document, "gateway-2");
    assert_eq!((second.state, second.routable), (State::Ready, false));
    assert_eq!(second.reason, "no new clients: probe failing");
    assert!(!node(&document, "gateway-3").routable);
    assert_eq!(second.ring_share, 0.5);

    world.seen.balancers[0].verdict = Verdict::Silent;
    let document = world.pass(1.0);
    assert_eq!(document.balancers[0].state, "unreachable");
    assert!(node(&document, "gateway-3").routable, "by our own evidence");
    assert_eq!(world.kinds("lb-1"), [Kind::BalancerLost]);
}

#[test]
fn the_dead_stay_listed_for_ten_minutes() {
    let mut world = World::three();
    world.seen.members.remove("gateway-2");
    world.seen.probes.remove("gateway-2");
    world.pass(15.0);
    for _ in 0..60 {
        for id in ["gateway-1", "gateway-3"] {
            world.beat(id, RecordState::Ready);
        }
        assert_eq!(world.pass(9.9).nodes.len(), 3);
    }
    assert_eq!(world.pass(6.1).nodes.len(), 2);
}

#[test]
fn the_wall_clock_may_jump() {
    let mut world = World::three();
    for skew in [3_600_000, -3_600_000] {
        world.skew_ms = skew;
        let document = world.pass(1.0);
        assert!(document.nodes.iter().all(|n| n.state == State::Ready));
        assert!(document.nodes.iter().all(|n| n.heartbeat_age_ms < 5_000));
    }
}

/// Random histories: whatever is seen, the invariants hold (they are checked
/// at each step) and each node's timeline alternates as its states do.
#[test]
fn random_histories_keep_the_invariants() {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos() as u64;
    println!("seed {seed}");
    let mut state = seed | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..200 {
        let mut world = World::new();
        let mut last: BTreeMap<String, State> = BTreeMap::new();
        for _ in 0..200 {
            let id = format!("gateway-{}", random(5));
            match random(12) {
                0..3 => world.beat(&id, RecordState::Ready),
                3 => world.beat(&id, RecordState::Starting),
                4 => world.beat(&id, RecordState::Draining),
                5 => drop(world.seen.members.remove(&id)),
                6 => {
                    if let Some(member) = world.seen.members.get_mut(&id) {
                        member.generation += 1;
                    }
                }
                7 => world.refuse(&id, 3),
                8 => world.answer(&id, &[]),
                9 => world.answer(&id, &["draining"]),
                10 => {
                    world.seen.registry = match random(3) {
                        0 => RegistryState::Ok,
                        1 => RegistryState::Stale,
                        _ => RegistryState::Unreachable,
                    };
                }
                _ => world.seen.members.clear(),
            }
            let before = world.topology.timeline().last();
            let document = world.pass(random(100) as f64 / 10.0);
            for node in &document.nodes {
                let was = last.insert(node.id.clone(), node.state);
                if was.is_some_and(|was| was != node.state) {
                    let told = world
                        .topology
                        .timeline()
                        .after(before)
                        .any(|e| e.subject == node.id);
                    assert!(told, "{} {was:?} -> {:?}", node.id, node.state);
                }
            }
            last.retain(|id, _| document.nodes.iter().any(|n| n.id == *id));
        }
    }
}
