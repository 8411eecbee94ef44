//! Promise: a connection goes to its owner, unless that would be wrong, and is never refused without need.

#![allow(clippy::print_stdout, reason = "a random test prints its seed")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_registry::{LoadEstimate, Member, Placement, PlacementConfig, Reason, Standing, key_hash};

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let base = match std::env::var("FLUX_SEED") {
        Ok(seed) => seed.parse().expect("FLUX_SEED is a number"),
        Err(_) => fastrand::u64(..1 << 32),
    };
    println!("FLUX_SEED={base}");
    base..base + count
}

fn member(id: &str) -> Member {
    Member {
        id: id.into(),
        weight: 1,
        standing: Standing::Eligible,
        load: 0,
        capacity: 0,
        returned: None,
    }
}

fn placement(count: usize) -> Placement {
    let members = (1..=count)
        .map(|n| member(&format!("gateway-{n}")))
        .collect();
    Placement::new(members, PlacementConfig::default())
}

fn chosen(placement: &Placement, key: u64, now: Instant) -> Arc<str> {
    let choice = placement.choose(key, now).expect("a member");
    placement.members()[choice.member].id.clone()
}

fn set(placement: &mut Placement, id: &str, change: impl FnOnce(&mut Member)) {
    change(placement.member_mut(id).expect("a member"));
}

#[test]
fn an_idle_cluster_gives_everybody_his_owner() {
    let placement = placement(3);
    let now = Instant::now();
    for n in 0..1000u32 {
        let key = key_hash(&n.to_le_bytes());
        let choice = placement.choose(key, now).expect("a member");
        assert_eq!(choice.reason, Reason::Owner);
        let order: Vec<&Arc<str>> = placement.candidates(key).collect();
        let mut chosen = vec![choice.member];
        chosen.extend(&choice.next);
        let chosen: Vec<&Arc<str>> = chosen.iter().map(|i| &placement.members()[*i].id).collect();
        assert_eq!(chosen, order, "tried in ring order");
    }
}

#[test]
fn an_ineligible_node_is_skipped_clockwise_and_nobody_else_moves() {
    let now = Instant::now();
    let mut placement = placement(5);
    let keys: Vec<u64> = (0..2000u32).map(|n| key_hash(&n.to_le_bytes())).collect();
    let before: Vec<Arc<str>> = keys
        .iter()
        .map(|key| chosen(&placement, *key, now))
        .collect();
    for standing in [Standing::Doubtful, Standing::Out] {
        set(&mut placement, "gateway-2", |m| m.standing = standing);
        for (key, before) in keys.iter().zip(&before) {
            let after = chosen(&placement, *key, now);
            if **before == *"gateway-2" {
                assert_eq!(Some(&after), placement.candidates(*key).nth(1));
            } else {
                assert_eq!(after, *before);
            }
        }
    }
    set(&mut placement, "gateway-2", |m| {
        m.standing = Standing::Eligible;
    });
    let back: Vec<Arc<str>> = keys
        .iter()
        .map(|key| chosen(&placement, *key, now))
        .collect();
    assert_eq!(back, before, "its return gives exactly its keys back");
}

#[test]
fn the_bound_holds_while_there_is_room_and_nobody_is_ever_refused() {
    for seed in seeds(40) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = Instant::now() + Duration::from_secs(3600);
        let members: Vec<Member> = (0..rng.usize(1..10))
            .map(|n| Member {
                weight: rng.u32(1..4),
                standing: [
                    Standing::Eligible,
                    Standing::Eligible,
                    Standing::Doubtful,
                    Standing::Out,
                ][rng.usize(..4)],
                returned: rng.bool().then(|| now - Duration::from_secs(rng.u64(..60))),
                capacity: if rng.bool() { 0 } else { rng.u64(1..400) },
                ..member(&format!("n{n}"))
            })
            .collect();
        let mut placement = Placement::new(members, PlacementConfig::default());
        // An aimed crowd: few keys, one of them very common.
        let keys: Vec<u64> = (0..4).map(|_| rng.u64(..)).collect();
        for opened in 0..1500u64 {
            let key = if rng.bool() {
                keys[0]
            } else {
                *rng.choice(&keys).expect("some")
            };
            let any = |p: &Placement, s| p.members().iter().any(|m| m.standing == s);
            let Some(choice) = placement.choose(key, now) else {
                assert!(
                    !any(&placement, Standing::Eligible) && !any(&placement, Standing::Doubtful)
                );
                break;
            };
            let taken = &placement.members()[choice.member];
            assert_ne!(taken.standing, Standing::Out, "seed {seed}");
            if choice.reason != Reason::Panic {
                assert_eq!(taken.standing, Standing::Eligible, "seed {seed}");
            }
            if matches!(choice.reason, Reason::Owner | Reason::NextInRing) {
                let share = |m: &Member| {
                    let grown = m.returned.map_or(1.0, |at| (now - at).as_secs_f64() / 30.0);
                    f64::from(m.weight) * grown.clamp(1e-6, 1.0)
                };
                let eligible = || {
                    placement
                        .members()
                        .iter()
                        .filter(|m| m.standing == Standing::Eligible)
                };
                let load: u64 = eligible().map(|m| m.load).sum();
                let weight: f64 = eligible().map(share).sum();
                let bound = (1.25 * (load + 1) as f64 * share(taken) / weight)
                    .ceil()
                    .max(1.0);
                assert!(
                    taken.load < bound as u64,
                    "seed {seed}, {opened}: {taken:?} over {bound}"
                );
                assert!(
                    taken.capacity == 0 || taken.load < taken.capacity,
                    "seed {seed}"
                );
            }
            let id = taken.id.clone();
            set(&mut placement, &id, |m| m.load += 1);
        }
    }
}

#[test]
fn one_key_for_all_spreads_to_the_bound() {
    let now = Instant::now();
    let mut placement = placement(4);
    for _ in 0..1000 {
        let id = chosen(&placement, 42, now);
        set(&mut placement, &id, |m| m.load += 1);
    }
    let loads: Vec<u64> = placement.members().iter().map(|m| m.load).collect();
    assert!(*loads.iter().max().expect("some") <= 313, "{loads:?}");
}

#[test]
fn a_returning_node_takes_its_share_of_new_keys_over_thirty_seconds() {
    let start = Instant::now();
    let mut placement = placement(3);
    let keys: Vec<u64> = (0..6000u32).map(|n| key_hash(&n.to_le_bytes())).collect();
    let owned = keys
        .iter()
        .filter(|key| &*chosen(&placement, **key, start) == "gateway-1")
        .count();
    // Its connections went to the others.
    for (id, load) in [("gateway-1", 0), ("gateway-2", 450), ("gateway-3", 450)] {
        set(&mut placement, id, |m| m.load = load);
    }
    set(&mut placement, "gateway-1", |m| m.returned = Some(start));
    let mut before: Vec<bool> = vec![false; keys.len()];
    for second in [0, 3, 6, 9, 12, 15] {
        let now = start + Duration::from_secs(second);
        let follows: Vec<bool> = keys
            .iter()
            .map(|key| &*chosen(&placement, *key, now) == "gateway-1")
            .collect();
        let share = follows.iter().filter(|f| **f).count() as f64 / owned as f64;
        assert!(
            (share - second as f64 / 30.0).abs() < 0.06,
            "second {second}: {share}"
        );
        // A key that follows once follows from then on.
        assert!(
            before
                .iter()
                .zip(&follows)
                .all(|(before, after)| !before || *after),
            "{second}"
        );
        before = follows;
    }
    // At the end it has all its keys (and what the bound keeps the others from taking).
    let end = start + Duration::from_secs(30);
    let all = keys
        .iter()
        .filter(|key| &*chosen(&placement, **key, end) == "gateway-1")
        .count();
    assert!(all >= owned);
    // Alone it takes everything at once.
    for id in ["gateway-2", "gateway-3"] {
        set(&mut placement, id, |m| m.standing = Standing::Out);
    }
    assert_eq!(&*chosen(&placement, keys[0], start), "gateway-1");
}

#[test]
fn instances_agree() {
    for seed in seeds(10) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = Instant::now() + Duration::from_secs(3600);
        let mut members: Vec<Member> = (0..8)
            .map(|n| Member {
                load: rng.u64(..100),
                returned: rng.bool().then(|| now - Duration::from_secs(rng.u64(..60))),
                ..member(&format!("n{n}"))
            })
            .collect();
        let first = Placement::new(members.clone(), PlacementConfig::default());
        rng.shuffle(&mut members);
        let second = Placement::new(members, PlacementConfig::default());
        for _ in 0..500 {
            let key = rng.u64(..);
            assert_eq!(
                first.choose(key, now),
                second.choose(key, now),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn under_half_eligible_health_is_not_believed_but_eligible_ones_come_next() {
    let now = Instant::now();
    let mut placement = placement(5);
    for id in ["gateway-1", "gateway-2", "gateway-3"] {
        set(&mut placement, id, |m| m.standing = Standing::Doubtful);
    }
    assert!(placement.panicking());
    let mut counts: HashMap<Arc<str>, u32> = HashMap::new();
    for n in 0..1000u32 {
        let choice = placement
            .choose(key_hash(&n.to_le_bytes()), now)
            .expect("a member");
        assert_eq!(choice.reason, Reason::Panic);
        *counts
            .entry(placement.members()[choice.member].id.clone())
            .or_default() += 1;
        let next = &placement.members()[choice.next[0]];
        assert_eq!(
            next.standing,
            Standing::Eligible,
            "where it works is tried next"
        );
    }
    assert_eq!(counts.len(), 5);
    // Who drains or is gone is no reason to panic and takes nothing.
    for id in ["gateway-1", "gateway-2", "gateway-3"] {
        set(&mut placement, id, |m| m.standing = Standing::Out);
    }
    assert!(!placement.panicking());
    for id in ["gateway-4", "gateway-5"] {
        set(&mut placement, id, |m| m.standing = Standing::Out);
    }
    assert_eq!(placement.choose(1, now), None);
}

#[test]
fn full_nodes_are_passed_over_until_all_are_full() {
    let now = Instant::now();
    let mut placement = placement(2);
    for id in ["gateway-1", "gateway-2"] {
        set(&mut placement, id, |m| (m.capacity, m.load) = (100, 90));
    }
    set(&mut placement, "gateway-1", |m| m.load = 100);
    for n in 0..100u32 {
        assert_eq!(
            &*chosen(&placement, key_hash(&n.to_le_bytes()), now),
            "gateway-2"
        );
    }
    set(&mut placement, "gateway-2", |m| m.load = 101);
    let choice = placement.choose(7, now).expect("never refused");
    assert_eq!(choice.reason, Reason::LeastLoaded);
    assert_eq!(&*placement.members()[choice.member].id, "gateway-1");
}

#[test]
fn the_load_is_the_nodes_own_figure_and_what_passed_here_since() {
    let mut load = LoadEstimate::default();
    load.opened();
    assert_eq!(load.connections(), 1);
    load.reported(1, 1, 10);
    assert_eq!(load.connections(), 10);
    load.opened();
    load.opened();
    load.closed();
    load.reported(1, 1, 10);
    assert_eq!(load.connections(), 11, "a repeated report changes nothing");
    load.reported(1, 2, 11);
    assert_eq!(load.connections(), 11);
    for _ in 0..20 {
        load.closed();
    }
    assert_eq!(load.connections(), 0);
}
