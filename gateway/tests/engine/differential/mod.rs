//! Promise: whatever clients, the server API and time do in whatever order, every engine shows them
//! what a simple model says: the same positions, histories, recoveries, members. And when requests
//! of many shards overtake each other, each client still sees every publication of a channel once
//! and in the one order that all others see, or is told that it missed some.
//!
//! | what | file |
//! |---|---|
//! | what a channel is, in a page | `model` |
//! | engines of one or several nodes, driven from one thread; clients with their positions | `world` |
//! | random operations, and the comparison | `driver` |
//! | Redis fails while clients go on | `faults` |
//! | shards on threads of their own | `threads` |
//!
//! `FLUX_SEED` repeats a run; a failing one prints its seed.

mod driver;
mod faults;
mod model;
mod threads;
mod world;

use driver::Driver;
use faults::{Fault, Faults};
use world::World;

use crate::redis_server::RedisServer;

/// The seed to repeat, or a new one.
fn seed() -> u64 {
    let seed = match std::env::var("FLUX_SEED") {
        Ok(text) => text.parse().expect("FLUX_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("FLUX_SEED={seed}");
    seed
}

#[test]
fn the_memory_engine_shows_what_the_model_says() {
    let seed = seed();
    for round in 0..4 {
        let mut driver = Driver::new(
            World::memory(1 + round % 3),
            seed.wrapping_add(round as u64),
        );
        driver.steps(1_500);
    }
}

#[test]
fn on_the_memory_engine_overtaking_requests_cost_no_client_a_publication() {
    let seed = seed();
    for round in 0..8 {
        let mut driver = Driver::new(
            World::memory(1 + round % 4),
            seed.wrapping_add(round as u64),
        );
        driver.bursts(60, 40);
    }
}

#[test]
fn shards_on_threads_see_one_order_and_who_comes_back_misses_nothing() {
    let seed = seed();
    threads::all_at_once(World::memory_shards(3), 4_000, seed);
}

#[test]
fn nodes_joined_by_redis_show_what_the_model_says() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let seed = seed();
    let world = World::redis(&server.url(), 2, 2);
    let mut driver = Driver::new(world, seed).without_presence();
    driver.steps(1_000);
}

#[test]
fn on_nodes_joined_by_redis_overtaking_requests_cost_no_client_a_publication() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let seed = seed();
    let mut driver = Driver::new(World::redis(&server.url(), 2, 2), seed);
    driver.bursts(25, 40);
}

#[test]
fn whatever_happens_to_redis_a_client_sees_every_publication_once_or_is_told() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let seed = seed();
    let world = World::redis(&server.url(), 2, 2);
    let mut faults = Faults::new(world, server, seed);
    let mut order = Fault::ALL;
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    for fault in order {
        let told = faults.told();
        faults.suffer(fault);
        if !matches!(fault, Fault::Forget | Fault::Die) {
            assert_eq!(faults.told(), told, "{fault:?}: Redis has everything");
        }
    }
}
