//! Shards on threads of their own: nothing here is in a known order but what the engine orders.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use flux_gateway::engine::PublishOptions;
use flux_gateway::engine::history::{HistoryOptions, RecoveryMode, RecoveryRequest};
use flux_gateway::pubsub::{Epoch, KnownEpoch, MessageRef};

use super::content::text;
use super::world::{Answer, State, World};

const CHANNELS: [&str; 3] = ["a", "b", "c"];
const HISTORY: HistoryOptions = HistoryOptions {
    size: 100_000,
    ttl: Duration::from_secs(3_600),
    meta_ttl: Duration::from_secs(3_600),
};

/// What one thread has seen: data by channel, epoch and offset.
type Contents = HashMap<(&'static str, Epoch, u64), String>;

/// Lets each of `worlds`, which has one shard, publish, subscribe, leave and recover `count` times,
/// all at once. Every client must get every publication, or its share of it from a recovery; what
/// they have seen must be one and the same.
pub(super) fn all_at_once(worlds: Vec<World>, count: usize, seed: u64) {
    let published: [AtomicU64; CHANNELS.len()] = Default::default();
    let done = AtomicU64::new(0);
    let start = Barrier::new(worlds.len());
    let threads = worlds.len() as u64;
    let all: Vec<Contents> = std::thread::scope(|scope| {
        let running: Vec<_> = worlds
            .into_iter()
            .enumerate()
            .map(|(number, mut world)| {
                let (published, done, start) = (&published, &done, &start);
                let rng = Rng::with_seed(seed.wrapping_add(number as u64));
                scope.spawn(move || {
                    start.wait();
                    work(&mut world, number, count, rng, published);
                    done.fetch_add(1, Ordering::SeqCst);
                    world.until("everybody at the top", |world| {
                        let is_done = done.load(Ordering::SeqCst) >= threads;
                        is_done && is_at_top(world, published)
                    });
                    // Owners answer until nobody asks any more.
                    done.fetch_add(1, Ordering::SeqCst);
                    world.until("the others", |_| done.load(Ordering::SeqCst) == 2 * threads);
                    world.contents().clone()
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("a shard's thread ends well"))
            .collect()
    });
    let mut everything = Contents::new();
    for (place, data) in all.into_iter().flatten() {
        let known = everything.entry(place).or_insert_with(|| data.clone());
        assert_eq!(*known, data, "two publications at {place:?}");
    }
    let expected: u64 = published
        .iter()
        .map(|count| count.load(Ordering::SeqCst))
        .sum();
    assert_eq!(everything.len() as u64, expected);
}

fn work(
    world: &mut World,
    number: usize,
    count: usize,
    mut rng: Rng,
    published: &[AtomicU64; CHANNELS.len()],
) {
    let mut waiting = Vec::new();
    for n in 0..count {
        let at = rng.usize(..CHANNELS.len());
        let (name, client) = (CHANNELS[at], rng.usize(..world.clients.len()));
        let is_subscribed = world.clients[client].subscriptions.contains_key(name);
        match rng.u8(..4) {
            0 | 1 => {
                let data = format!("[{number},{n}]");
                let message = MessageRef::data(data.as_bytes());
                let options = PublishOptions {
                    history: Some(HISTORY),
                    ..PublishOptions::default()
                };
                let command = world.publish(client, name, message, &options);
                waiting.push((at, command, text(message)));
            }
            2 if is_subscribed => world.unsubscribe(client, name),
            2 => {
                let left_at = world.clients[client].left_at.get(name);
                let request = left_at.map(|position| RecoveryRequest {
                    mode: RecoveryMode::Stream,
                    offset: position.offset,
                    epoch: KnownEpoch::Is(position.epoch),
                    publications_max: u32::MAX,
                });
                world.subscribe(client, name, Some(HISTORY), request);
            }
            _ => {
                world.pump(Some(&mut rng));
            }
        }
        if waiting.len() > 100 {
            take_answers(world, &mut waiting, published);
        }
    }
    take_answers(world, &mut waiting, published);
    world.until("all subscriptions", |world| {
        let mut subscriptions = world
            .clients
            .iter()
            .flat_map(|client| client.subscriptions.values());
        subscriptions.all(|one| one.state == State::Active)
    });
    for client in &world.clients {
        for (name, subscription) in &client.subscriptions {
            if let Some((recovered, _)) = &subscription.recovered {
                assert!(recovered, "{name}: all of it is in the history");
            }
        }
    }
}

fn take_answers(
    world: &mut World,
    waiting: &mut Vec<(usize, u32, String)>,
    published: &[AtomicU64; CHANNELS.len()],
) {
    world.until("the answers to publishes", |world| {
        waiting
            .iter()
            .all(|(_, command, _)| world.answers.contains_key(command))
    });
    for (at, command, data) in waiting.drain(..) {
        match world.answers.remove(&command) {
            Some(Answer::Published(Ok(Some(position)))) => {
                world.saw(CHANNELS[at], position.epoch, position.offset, &data);
                published[at].fetch_add(1, Ordering::SeqCst);
            }
            other => panic!("a publish is answered with {other:?}"),
        }
    }
}

fn is_at_top(world: &World, published: &[AtomicU64; CHANNELS.len()]) -> bool {
    world.clients.iter().all(|client| {
        CHANNELS.iter().zip(published).all(|(name, published)| {
            let top = published.load(Ordering::SeqCst);
            client.subscriptions.get(name).is_none_or(|subscription| {
                subscription
                    .position
                    .is_some_and(|position| position.offset == top)
            })
        })
    })
}
