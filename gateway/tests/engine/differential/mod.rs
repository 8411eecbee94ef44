//! Promise: whatever clients, the server API and time do in whatever order, every engine shows them
//! what a simple model says: the same positions, histories, recoveries, members. And when requests
//! of many shards overtake each other, each client still sees every publication of a channel once
//! and in the one order that all others see, or is told that it missed some.
//!
//! | what | file |
//! |---|---|
//! | what a channel is, in a page | `model` |
//! | what is published, and what a client sees of it | `content` |
//! | engines of one or several nodes, driven from one thread; clients with their positions | `world` |
//! | what engines tell clients, and what holds of it at every moment | `told` |
//! | nodes joined by Redis: threads, registry | `nodes` |
//! | random operations, and the comparison | `driver` |
//! | many of them at once | `bursts` |
//! | what may stand behind the Redis engine, and how it fails | `deployment` |
//! | Redis fails while clients go on | `faults` |
//! | shards on threads of their own | `threads` |
//!
//! `FLUX_SEED` repeats a run; a failing one prints its seed.

mod bursts;
mod content;
mod deployment;
mod driver;
mod faults;
mod model;
mod nodes;
mod threads;
mod told;
mod world;

use deployment::Deployment;
use driver::Driver;
use faults::Faults;
use world::World;

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
        if round == 0 {
            driver.let_forget();
        }
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

fn shows_what_the_model_says(deployment: &Deployment, steps: usize) {
    let world = World::redis(&deployment.name(), 2, 2);
    let mut driver = Driver::new(world, seed());
    driver.steps(steps);
    driver.let_forget();
}

#[test]
fn nodes_joined_by_redis_show_what_the_model_says() {
    if let Some(deployment) = Deployment::one() {
        shows_what_the_model_says(&deployment, 1_000);
    }
}

#[test]
fn nodes_joined_by_a_cluster_show_what_the_model_says() {
    if let Some(deployment) = Deployment::cluster() {
        shows_what_the_model_says(&deployment, 500);
    }
}

fn overtaking_requests_cost_nobody_a_publication(deployment: &Deployment, bursts: usize) {
    let mut driver = Driver::new(World::redis(&deployment.name(), 2, 2), seed());
    driver.bursts(bursts, 40);
}

#[test]
fn on_nodes_joined_by_redis_overtaking_requests_cost_no_client_a_publication() {
    if let Some(deployment) = Deployment::one() {
        overtaking_requests_cost_nobody_a_publication(&deployment, 25);
    }
}

#[test]
fn on_nodes_joined_by_a_cluster_overtaking_requests_cost_no_client_a_publication() {
    if let Some(deployment) = Deployment::cluster() {
        overtaking_requests_cost_nobody_a_publication(&deployment, 15);
    }
}

fn survives_its_faults(deployment: Deployment) {
    let seed = seed();
    let world = World::redis(&deployment.name(), 2, 2);
    let mut order = deployment.faults().to_vec();
    let mut faults = Faults::new(world, deployment, seed);
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    for fault in order {
        faults.suffer(fault);
    }
}

#[test]
fn whatever_happens_to_redis_a_client_sees_every_publication_once_or_is_told() {
    if let Some(deployment) = Deployment::one() {
        survives_its_faults(deployment);
    }
}

#[test]
fn whatever_happens_to_a_cluster_a_client_sees_every_publication_once_or_is_told() {
    if let Some(deployment) = Deployment::cluster() {
        survives_its_faults(deployment);
    }
}

#[test]
fn whatever_sentinels_do_a_client_sees_every_publication_once_or_is_told() {
    if let Some(deployment) = Deployment::sentinel() {
        survives_its_faults(deployment);
    }
}
