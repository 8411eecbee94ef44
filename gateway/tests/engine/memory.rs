//! Promise: on one node, every subscriber of a channel sees the same order, whatever its shard,
//! and misses nothing from its subscribe reply on.

use std::collections::{HashMap, HashSet};

use crate::node::{Shard, Told, memory_node, wait_for};

/// The slot of whoever publishes; nobody subscribes there.
const PUBLISHER: u32 = 100;

fn numbers(shard: &Shard, slot: u32, channel: &str) -> Vec<u64> {
    shard
        .pushed(slot, channel)
        .iter()
        .map(|data| data.parse().expect("a number"))
        .collect()
}

#[test]
fn publications_of_all_shards_reach_all_shards_in_one_order() {
    let (shards, metrics) = memory_node(3);
    let channels = ["a", "b", "c", "d"];
    for (slot, shard) in (0..).zip(&shards) {
        for channel in channels {
            shard.subscribed(slot, channel);
        }
    }
    // Numbers by publisher, and by the ids of the commands that publish them.
    let mut asked: Vec<HashMap<u32, (&str, u64)>> = vec![HashMap::new(); shards.len()];
    for n in 0..500u64 {
        for (from, shard) in (0u64..).zip(&shards) {
            for channel in channels {
                let number = n * 10 + from;
                let id = shard.publish(PUBLISHER, channel, number);
                asked[from as usize].insert(id, (channel, number));
            }
        }
    }
    // A shard that is given more than it gets round to refuses some: those nobody may see.
    let mut taken: HashMap<&str, HashSet<u64>> = HashMap::new();
    for (asked, shard) in asked.iter().zip(&shards) {
        wait_for("all answers", || shard.told(PUBLISHER).len() == asked.len());
        for told in shard.told(PUBLISHER) {
            if let Told::Published(id, Ok(())) = told {
                let (channel, number) = asked[&id];
                taken.entry(channel).or_default().insert(number);
            }
        }
    }
    for channel in channels {
        let taken = &taken[channel];
        wait_for("all publications", || {
            (0..)
                .zip(&shards)
                .all(|(slot, shard)| shard.pushes(slot, channel) == taken.len())
        });
        let first = numbers(&shards[0], 0, channel);
        assert_eq!(&first.iter().copied().collect::<HashSet<_>>(), taken);
        for (slot, shard) in (0..).zip(&shards) {
            assert_eq!(numbers(shard, slot, channel), first, "one order for all");
        }
        for from in 0..3 {
            let of_one: Vec<u64> = first.iter().copied().filter(|n| n % 10 == from).collect();
            assert!(of_one.is_sorted(), "each publisher's order is kept");
        }
    }
    let channels = metrics
        .iter()
        .map(|metrics| metrics.channels.get())
        .sum::<u64>();
    assert_eq!(channels, 4);
}

#[test]
fn nothing_published_after_the_subscribe_reply_is_missed() {
    let (shards, _metrics) = memory_node(3);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for round in 0..300u32 {
        let channel = format!("c{}", round % 7);
        let (to, from) = (rng.usize(..3), rng.usize(..3));
        // Somebody else comes and goes at the same time, so that the owner's interest changes.
        let other = rng.usize(..3);
        shards[other].subscribe(1_000 + round, &channel);
        shards[to].subscribed(round, &channel);
        shards[other].unsubscribe(1_000 + round, &channel);
        shards[from].publish(9_999, &channel, round.into());
        wait_for("the publication after the reply", || {
            shards[to].pushes(round, &channel) > 0
        });
        assert_eq!(
            shards[to].pushed(round, &channel).last(),
            Some(&round.to_string())
        );
        shards[to].unsubscribe(round, &channel);
    }
}

#[test]
fn joins_go_only_to_those_who_asked_for_them_and_stand_in_the_same_order() {
    let (shards, _metrics) = memory_node(2);
    shards[0].subscribed(1, "room");
    shards[1].subscribe_with_joins(2, "room");
    let reply = Told::Subscribed("room".to_owned(), Ok(()));
    wait_for("the reply", || shards[1].told(2).contains(&reply));
    for n in 0..50 {
        shards[0].publish(1, "room", n);
        shards[0].join("room");
    }
    let expected: Vec<String> = (0..50)
        .flat_map(|n| [n.to_string(), "join".to_owned()])
        .collect();
    wait_for("all of them", || shards[1].pushes(2, "room") == 100);
    assert_eq!(shards[1].pushed(2, "room"), expected);
    wait_for("all publications", || shards[0].pushes(1, "room") == 50);
    assert!(!shards[0].pushed(1, "room").contains(&"join".to_owned()));
}

#[test]
fn a_shard_that_stands_still_loses_nothing_and_holds_nobody_up() {
    let (shards, metrics) = memory_node(3);
    for (slot, shard) in (0..).zip(&shards) {
        shard.subscribed(slot, "a");
        shard.subscribed(slot, "b");
        shard.subscribed(slot, "c");
    }
    shards[2].pause(true);
    for n in 0..3_000 {
        for channel in ["a", "b", "c"] {
            shards[0].publish(0, channel, n);
        }
    }
    // Channels that the paused shard owns wait in its mailbox, and are refused when it is full:
    // that is the publisher's backpressure.
    wait_for("all answers", || {
        shards[0].count(0, |told| matches!(told, Told::Published(..))) == 9_000
    });
    let accepted = shards[0].count(0, |told| matches!(told, Told::Published(_, Ok(()))));
    shards[2].pause(false);
    let count = |shard: &Shard, slot| {
        ["a", "b", "c"]
            .iter()
            .map(|channel| shard.pushes(slot, channel))
            .sum::<usize>()
    };
    for (slot, shard) in (0..).zip(&shards) {
        wait_for("everything that was accepted", || {
            count(shard, slot) == accepted
        });
        for channel in ["a", "b", "c"] {
            assert!(numbers(shard, slot, channel).is_sorted());
        }
    }
    assert!(metrics.iter().all(|metrics| metrics.lost.get() == 0));
}
