//! Promise: every process sees the same ring, it is even, and a change of members moves only what it must.

#![allow(clippy::print_stdout, reason = "a random test prints its seed")]

use std::collections::HashMap;
use std::sync::Arc;

use flux_registry::{Ring, key_hash};

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let base = match std::env::var("FLUX_SEED") {
        Ok(seed) => seed.parse().expect("FLUX_SEED is a number"),
        Err(_) => fastrand::u64(..1 << 32),
    };
    println!("FLUX_SEED={base}");
    base..base + count
}

fn members(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("gateway-{n}")).collect()
}

fn ring(ids: &[String]) -> Ring {
    Ring::new(ids.iter().map(|id| (id.as_str(), 1)))
}

fn owner(ring: &Ring, key: u64) -> &str {
    ring.owner(key).expect("a member")
}

#[test]
fn losing_a_node_moves_only_its_keys_and_its_return_gives_exactly_them_back() {
    for seed in seeds(10) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let ids = members(rng.usize(2..12));
        let whole = ring(&ids);
        let lost = rng.choice(&ids).expect("some").clone();
        let rest: Vec<String> = ids.iter().filter(|id| **id != lost).cloned().collect();
        let without = ring(&rest);
        for _ in 0..2000 {
            let key = rng.u64(..);
            if owner(&whole, key) == lost {
                // To whom it would have gone next: the same as skipping the node clockwise.
                assert_eq!(whole.walk(key).nth(1), without.owner(key), "seed {seed}");
            } else {
                assert_eq!(whole.owner(key), without.owner(key), "seed {seed}");
            }
        }
        assert_eq!(ring(&ids), whole, "its return restores the ring");
    }
}

#[test]
fn equal_members_give_equal_rings_in_any_order() {
    for seed in seeds(5) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut members: Vec<(String, u32)> =
            (0..20).map(|n| (format!("n{n}"), rng.u32(0..5))).collect();
        let first = Ring::new(members.iter().map(|(id, weight)| (id.as_str(), *weight)));
        rng.shuffle(&mut members);
        members.push(members[3].clone());
        let second = Ring::new(members.iter().map(|(id, weight)| (id.as_str(), *weight)));
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn the_ring_is_even_from_3_to_16_nodes() {
    for count in 3..=16 {
        let shares = ring(&members(count)).shares();
        let most = shares.iter().map(|(_, share)| *share).fold(0.0, f64::max);
        let whole: f64 = shares.iter().map(|(_, share)| share).sum();
        assert!((whole - 1.0).abs() < 1e-9);
        assert!(
            most * count as f64 <= 1.15,
            "{count} nodes: {}",
            most * count as f64
        );
    }
}

#[test]
fn names_of_any_kind_are_as_even_on_average() {
    let mut sum = 0.0;
    for seed in seeds(30) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let ids: Vec<String> = (0..16)
            .map(|_| (0..12).map(|_| rng.alphanumeric()).collect())
            .collect();
        let shares = ring(&ids).shares();
        sum += shares.iter().map(|(_, share)| *share).fold(0.0, f64::max) * 16.0;
    }
    assert!(sum / 30.0 <= 1.12, "{}", sum / 30.0);
}

#[test]
fn keys_that_differ_in_their_last_bytes_spread() {
    let ring = ring(&members(4));
    let mut counts: HashMap<Arc<str>, u32> = HashMap::new();
    for last in 0..=255u8 {
        let key = key_hash(&[10, 0, 0, last]);
        *counts
            .entry(ring.owner(key).expect("some").clone())
            .or_default() += 1;
    }
    assert_eq!(counts.len(), 4);
    assert!(
        counts.values().all(|count| (32..=96).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn shares_follow_weights_and_owners_follow_shares() {
    let ring = Ring::new([("a", 1), ("b", 2), ("c", 0), ("d", 4)]);
    assert_eq!(ring.len(), 3, "no weight, not in the ring");
    let shares: HashMap<Arc<str>, f64> = ring.shares().into_iter().collect();
    assert!((shares["b"] / shares["a"] - 2.0).abs() < 0.35, "{shares:?}");
    assert!((shares["d"] / shares["a"] - 4.0).abs() < 0.6, "{shares:?}");
    let mut counts: HashMap<Arc<str>, f64> = HashMap::new();
    for n in 0..50_000u32 {
        let key = key_hash(&n.to_le_bytes());
        *counts
            .entry(ring.owner(key).expect("some").clone())
            .or_default() += 1.0 / 50_000.0;
    }
    for (id, share) in shares {
        assert!((counts[&id] - share).abs() < 0.01, "{id}");
    }
}

#[test]
fn a_walk_visits_everybody_once() {
    for count in [1, 2, 3, 65, 130] {
        let ring = ring(&members(count));
        for key in [0, 1, u64::MAX / 2, u64::MAX] {
            let mut seen: Vec<&Arc<str>> = ring.walk(key).collect();
            assert_eq!(seen.len(), count);
            assert_eq!(Some(seen[0]), ring.owner(key));
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), count);
        }
    }
}

#[test]
fn an_empty_ring_owns_nothing() {
    for ring in [Ring::default(), Ring::new([]), Ring::new([("a", 0)])] {
        assert!(ring.is_empty());
        assert_eq!(ring.owner(7), None);
        assert_eq!(ring.walk(7).count(), 0);
        assert!(ring.shares().is_empty());
    }
    let one = Ring::new([("a", 1)]);
    assert_eq!(one.shares()[0].1, 1.0);
}

#[test]
fn the_keys_of_a_cluster_stay_where_they_are_for_ever() {
    // Changing a seed or the hash would move every client of every cluster at an update.
    let ring = ring(&members(3));
    let owners: Vec<&str> = ["alice", "bob", "carol", "10.0.0.7", ""]
        .iter()
        .map(|key| owner(&ring, key_hash(key.as_bytes())))
        .collect();
    assert_eq!(
        owners,
        [
            "gateway-3",
            "gateway-2",
            "gateway-1",
            "gateway-2",
            "gateway-3"
        ]
    );
}

#[test]
fn a_thousand_nodes_are_no_quadratic_matter() {
    let ids = members(flux_registry::limits::NODES_MAX);
    let since = std::time::Instant::now();
    let ring = ring(&ids);
    println!("{} points in {:?}", ids.len() * 512, since.elapsed());
    assert_eq!(ring.len(), ids.len());
    // Inserted in order it takes seconds even without optimisation; out of order it would take many minutes.
    assert!(since.elapsed().as_secs() < 60);
}
