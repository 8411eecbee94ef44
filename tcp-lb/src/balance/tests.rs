use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_registry::{
    Doubt, NodeRecord, NodeState, NodeView, PlacementConfig, RegistryState, Snapshot,
};

use super::*;
use crate::health::{FALL, FlowFailure, Probe};

const TTL: Duration = Duration::from_secs(15);
const KEYS: usize = 2_000;

struct World {
    table: Table,
    snapshot: Snapshot,
    now: Instant,
    seq: u64,
}

impl World {
    /// A world of ready nodes whose first probe has passed.
    fn of(ids: &[&str]) -> World {
        let mut world = World {
            table: Table::new(PlacementConfig::default()),
            snapshot: Snapshot {
                state: RegistryState::Ok,
                ..Snapshot::unread(TTL)
            },
            now: Instant::now(),
            seq: 0,
        };
        for id in ids {
            world.list(id);
        }
        world.apply();
        for id in ids {
            world.pass(id, 1);
        }
        world
    }

    fn list(&mut self, id: &str) {
        let number = 1 + id.bytes().fold(0u16, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u16::from(byte))
        });
        let mut record = NodeRecord::new(id, SocketAddr::from(([127, 0, 0, 1], number)));
        record.admin = Some(SocketAddr::from(([127, 0, 0, 2], number)));
        record.state = NodeState::Ready;
        record.nonce = "n".to_owned();
        record.generation = 1;
        let view = NodeView {
            record,
            deadline_ms: 0,
            heartbeat_age_ms: 0,
            fresh: true,
            held: false,
        };
        self.snapshot.nodes.insert(id.to_owned(), view);
    }

    fn view(&mut self, id: &str) -> &mut NodeView {
        self.seq += 1;
        let view = self.snapshot.nodes.get_mut(id).expect("listed");
        view.record.seq = self.seq;
        view
    }

    fn apply(&mut self) {
        self.table.on_snapshot(&self.snapshot, self.now);
    }

    fn expire(&mut self, id: &str) {
        self.view(id).fresh = false;
        self.apply();
    }

    fn pass(&mut self, id: &str, times: usize) {
        self.probe(id, &Probe::Passed, times);
    }

    fn fail(&mut self, id: &str) {
        self.probe(id, &Probe::Failed("refused".to_owned()), FALL as usize);
    }

    fn probe(&mut self, id: &str, probe: &Probe, times: usize) {
        let admin = self.snapshot.nodes[id]
            .record
            .admin
            .expect("an admin address");
        let target = ProbeTarget {
            id: Arc::from(id),
            admin,
        };
        for _ in 0..times {
            self.table.on_probe(&target, probe.clone(), self.now);
        }
    }

    fn status(&self, id: &str) -> Option<NodeStatus> {
        self.table
            .statuses(self.now)
            .into_iter()
            .find(|status| status.id == id)
    }

    /// How many of [`KEYS`] keys go where.
    fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for key in 0..KEYS {
            let placed = self.table.place(&format!("key-{key}"), self.now);
            *shares.entry(placed.node.unwrap_or_default()).or_default() += 1;
        }
        shares
    }

    fn takes(&self) -> Vec<String> {
        self.shares().into_keys().collect()
    }

    fn cut(&mut self) -> Vec<String> {
        self.table
            .take_changes()
            .cut
            .iter()
            .map(|node| node.id().to_string())
            .collect()
    }
}

#[test]
fn fresh_and_passing_takes_new_connections() {
    let world = World::of(&["a", "b", "c"]);
    assert_eq!(world.takes(), ["a", "b", "c"]);
}

#[test]
fn fresh_and_failing_takes_none_and_keeps_its_flows() {
    let mut world = World::of(&["a", "b", "c"]);
    world.fail("b");
    assert_eq!(world.takes(), ["a", "c"]);
    assert!(world.cut().is_empty());
    let status = world.status("b").expect("listed");
    assert_eq!(
        (status.eligible, status.probe, status.reason.as_str()),
        (false, "failing", "refused")
    );
}

#[test]
fn keys_of_the_others_do_not_move_when_a_node_fails() {
    let mut world = World::of(&["a", "b", "c"]);
    let before: Vec<_> = (0..KEYS)
        .map(|key| world.table.place(&key.to_string(), world.now))
        .collect();
    world.fail("b");
    for (key, before) in before.into_iter().enumerate() {
        let after = world.table.place(&key.to_string(), world.now);
        assert_eq!(
            after.candidates, before.candidates,
            "candidates are unfiltered and stable"
        );
        if before.node.as_deref() != Some("b") {
            assert_eq!(after.node, before.node, "key {key}");
        }
    }
}

#[test]
fn absent_and_passing_takes_none_and_keeps_its_flows() {
    let mut world = World::of(&["a", "b", "c"]);
    world.expire("b");
    assert_eq!(world.takes(), ["a", "c"]);
    assert!(world.cut().is_empty());
    assert_eq!(world.status("b").expect("still known").state, "ABSENT");
}

#[test]
fn absent_and_failing_is_cut_once_in_either_order() {
    for failing_first in [true, false] {
        let mut world = World::of(&["a", "b", "c"]);
        if failing_first {
            world.fail("b");
            world.expire("b");
        } else {
            world.expire("b");
            world.fail("b");
        }
        assert_eq!(world.cut(), ["b"]);
        assert!(world.cut().is_empty());
        assert_eq!(world.status("b"), None);
        world.apply();
        assert!(world.cut().is_empty());
    }
}

#[test]
fn a_registry_in_doubt_keeps_routing_to_the_last_known_nodes() {
    let mut world = World::of(&["a", "b", "c"]);
    world.snapshot.doubt = Some(Doubt::Empty);
    for id in ["a", "b", "c"] {
        let view = world.view(id);
        (view.fresh, view.held) = (false, true);
    }
    world.apply();
    world.now += Duration::from_secs(86_400);
    world.apply();
    assert_eq!(world.takes(), ["a", "b", "c"]);
    assert_eq!(world.status("a").expect("known").reason, "last known good");
    world.fail("a");
    assert_eq!(world.takes(), ["b", "c"], "probes count all the same");
    assert!(world.cut().is_empty());
}

#[test]
fn draining_and_starting_take_none_whatever_the_probe() {
    for state in [NodeState::Draining, NodeState::Starting] {
        let mut world = World::of(&["a", "b", "c"]);
        world.view("b").record.state = state;
        world.apply();
        assert_eq!(world.takes(), ["a", "c"]);
        world.fail("b");
        assert_eq!(world.takes(), ["a", "c"]);
        assert!(world.cut().is_empty());
    }
}

#[test]
fn under_half_eligible_all_known_nodes_are_walked_but_the_draining() {
    let mut world = World::of(&["a", "b", "c", "d"]);
    world.view("d").record.state = NodeState::Draining;
    world.apply();
    world.fail("a");
    assert!(!world.table.panicking());
    world.fail("b");
    assert!(world.table.panicking());
    assert_eq!(world.takes(), ["a", "b", "c"]);
}

#[test]
fn the_next_nodes_begin_with_the_eligible_ones() {
    let mut world = World::of(&["a", "b", "c"]);
    world.fail("a");
    world.fail("b");
    let mut routes = world.table.take_changes().routes.expect("changed");
    for key in 0..100 {
        let choice = routes.choose(key, world.now).expect("somebody");
        let eligible = routes
            .all()
            .iter()
            .position(|route| &**route.node.id() == "c")
            .expect("c");
        assert!(choice.member == eligible || choice.next[0] == eligible);
    }
}

#[test]
fn the_first_nodes_have_no_slow_start() {
    let mut world = World::of(&["a", "b"]);
    world.now += Duration::from_secs(5);
    world.list("c");
    world.apply();
    world.pass("c", 1);
    assert!(world.shares()["c"] > KEYS / 5, "{:?}", world.shares());
}

#[test]
fn a_returning_node_takes_its_share_over_thirty_seconds() {
    let mut world = World::of(&["a", "b", "c"]);
    let whole = world.shares()["c"];
    world.now += Duration::from_secs(100);
    world.fail("c");
    world.pass("c", 2);
    assert_eq!(world.status("c").expect("known").reason, "slow start");
    let mut last = 0;
    for (seconds, at_most) in [(1, 0.1), (10, 0.45), (20, 0.8), (29, 1.0)] {
        let began = world.now;
        world.now += Duration::from_secs(seconds);
        let share = world.shares().get("c").copied().unwrap_or_default();
        assert!(
            share >= last && share as f64 <= at_most * whole as f64,
            "after {seconds} s: {share} of {whole}"
        );
        last = share;
        world.now = began;
    }
    world.now += Duration::from_secs(31);
    assert_eq!(world.shares()["c"], whole);
    assert_eq!(world.status("c").expect("known").reason, "");
}

#[test]
fn when_nobody_carried_the_load_whoever_returns_takes_it() {
    let mut world = World::of(&["a", "b"]);
    world.now += Duration::from_secs(100);
    world.fail("a");
    world.fail("b");
    world.pass("a", 2);
    assert_eq!(world.status("a").expect("known").reason, "");
}

#[test]
fn flows_that_fail_take_a_node_out() {
    let mut world = World::of(&["a", "b", "c"]);
    let node = world
        .table
        .nodes()
        .find(|node| &**node.id() == "b")
        .expect("b")
        .clone();
    for _ in 0..3 {
        world.now += Duration::from_millis(600);
        world
            .table
            .on_flow_failed(&node, FlowFailure::Silent, world.now);
    }
    assert_eq!(world.takes(), ["a", "c"]);
}

#[test]
fn a_node_that_is_started_anew_is_not_held_down_for_what_its_predecessor_failed() {
    let mut world = World::of(&["a", "b", "c"]);
    let node = world
        .table
        .nodes()
        .find(|node| &**node.id() == "b")
        .cloned()
        .expect("b is known");
    for _ in 0..FALL {
        world.now += Duration::from_millis(600);
        world
            .table
            .on_flow_failed(&node, FlowFailure::Refused, world.now);
    }
    world.pass("b", 5);
    assert_eq!(
        world.takes(),
        ["a", "c"],
        "it is held down, whatever its probes say"
    );
    world.view("b").record.generation = 2;
    world.apply();
    world.pass("b", 1);
    assert_eq!(world.status("b").expect("known").reason, "slow start");
}

#[test]
fn a_node_that_moved_is_probed_anew_and_its_old_address_says_nothing() {
    let mut world = World::of(&["a", "b", "c"]);
    let old = ProbeTarget {
        id: Arc::from("b"),
        admin: world.view("b").record.admin.expect("one"),
    };
    world.view("b").record.admin = Some(SocketAddr::from(([127, 0, 0, 3], 9)));
    world.apply();
    assert_eq!(world.status("b").expect("known").probe, "unknown");
    world.table.on_probe(&old, Probe::Passed, world.now);
    assert_eq!(world.status("b").expect("known").probe, "unknown");
    assert!(
        world
            .table
            .due_probes(10, world.now)
            .iter()
            .any(|target| &*target.id == "b")
    );
}

#[test]
fn the_load_bound_spreads_a_crowd_behind_one_key() {
    let world = World::of(&["a", "b", "c"]);
    for _ in 0..300 {
        let placed = world
            .table
            .place("one key", world.now)
            .node
            .expect("somebody");
        world
            .table
            .nodes()
            .find(|node| **node.id() == *placed)
            .expect("known")
            .flow_begins();
    }
    let most = world
        .table
        .nodes()
        .map(|node| node.flows())
        .max()
        .expect("nodes");
    assert!(
        most <= 126,
        "{most} of 300 on one node, the bound is 1.25 x the mean"
    );
}

#[test]
fn the_load_bound_spreads_a_crowd_also_between_two_looks_at_the_loads() {
    let mut world = World::of(&["a", "b", "c"]);
    let mut routes = world.table.take_changes().routes.expect("changed");
    let mut taken = [0; 3];
    for _ in 0..300 {
        taken[routes.choose(7, world.now).expect("somebody").member] += 1;
    }
    assert!(taken.iter().all(|count| *count <= 126), "{taken:?}");
    // What others have opened meanwhile is seen at the next look.
    let least = (0..3).min_by_key(|node| taken[*node]).expect("three");
    let crowded = routes.route(least).expect("known").node.clone();
    crowded.report(10_000);
    let choice = routes.choose(7, world.now + Duration::from_secs(1));
    assert_ne!(choice.expect("somebody").member, least);
}

#[test]
fn a_node_of_weight_zero_is_listed_and_takes_none() {
    let mut world = World::of(&["a", "b"]);
    world.view("b").record.weight = 0;
    world.apply();
    assert_eq!(world.takes(), ["a"]);
    assert_eq!(world.status("b").expect("listed").reason, "weight 0");
}

#[test]
fn seeds_carry_on_until_the_registry_has_been_back_for_a_ttl() {
    let mut world = World::of(&[]);
    world.list("a");
    world.list("b");
    let records: Vec<_> = world
        .snapshot
        .nodes
        .values()
        .map(|view| view.record.clone())
        .collect();
    world.snapshot.nodes.clear();
    for record in records.clone() {
        world.table.seed(record, world.now);
    }
    for record in &records {
        let target = ProbeTarget {
            id: Arc::from(record.id.as_str()),
            admin: record.admin.expect("one"),
        };
        world.table.on_probe(&target, Probe::Passed, world.now);
    }
    world.now += Duration::from_secs(3600);
    world.apply();
    assert_eq!(world.takes(), ["a", "b"], "an empty registry");
    world.list("a");
    world.apply();
    assert_eq!(world.takes(), ["a", "b"], "it has just come back");
    world.now += TTL;
    world.apply();
    assert_eq!(world.takes(), ["a"]);
}

#[test]
fn routes_change_only_when_something_that_matters_did() {
    let mut world = World::of(&["a", "b"]);
    assert!(world.table.take_changes().routes.is_some());
    world.view("a").record.connections = 7;
    world.apply();
    world.pass("a", 1);
    assert!(
        world.table.take_changes().routes.is_none(),
        "loads travel by themselves"
    );
    world.fail("a");
    assert!(world.table.take_changes().routes.is_some());
}
