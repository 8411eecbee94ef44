//! Redis fails in many ways while clients go on: connections are killed, it stands still, forgets
//! everything, dies and comes back. Clients do what an SDK does: who is told that it has missed
//! something, or is refused, subscribes anew from the last position that it has seen.
//!
//! What must hold in spite of it, beside what `world` checks all the time:
//! - A publication that was answered with a position is there, for everybody, and nowhere else.
//! - In the end every subscriber is at the top of its channel: it has seen everything that came
//!   since it was told something last.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use flux_gateway::engine::PublishOptions;
use flux_gateway::engine::history::{HistoryOptions, HistoryQuery, RecoveryMode, RecoveryRequest};
use flux_gateway::pubsub::{KnownEpoch, StreamPosition};

use super::world::{Answer, State, World};
use crate::redis_server::RedisServer;

const CHANNELS: [&str; 4] = ["news", "chat:1", "room#1", "x"];
const HISTORY: HistoryOptions = HistoryOptions {
    size: 1_000,
    ttl: Duration::from_secs(3_600),
    meta_ttl: Duration::from_secs(3_600),
};

/// How Redis fails.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// All subscriber connections are cut.
    CutSubscribers,
    /// All other connections are cut.
    CutPublishers,
    /// It stands still for so many milliseconds.
    Stop(u64),
    /// It forgets everything: each channel gets another epoch.
    Forget,
    /// It is killed and started again: what it knew is gone.
    Die,
}

impl Fault {
    pub(super) const ALL: [Fault; 6] = [
        Fault::CutSubscribers,
        Fault::CutPublishers,
        Fault::Stop(300),
        Fault::Stop(5_000),
        Fault::Forget,
        Fault::Die,
    ];
}

pub(super) struct Faults {
    world: World,
    server: RedisServer,
    rng: Rng,
    published: u32,
    /// Publications without an answer yet: command, channel, data.
    waiting: Vec<(u32, &'static str, String)>,
    /// Where each publication is that was answered with a position.
    places: HashMap<String, (&'static str, StreamPosition)>,
    /// Those that were answered with an error: they may be anywhere, once, or nowhere.
    failed: u32,
}

impl Faults {
    pub(super) fn new(world: World, server: RedisServer, seed: u64) -> Self {
        Self {
            world,
            server,
            rng: Rng::with_seed(seed),
            published: 0,
            waiting: Vec::new(),
            places: HashMap::new(),
            failed: 0,
        }
    }

    /// Clients go on before, during and after the fault; then everything must heal.
    pub(super) fn suffer(&mut self, fault: Fault) {
        let told = self.world.told;
        self.go_on(Duration::from_millis(300));
        match fault {
            Fault::CutSubscribers => drop(self.server.command("CLIENT KILL TYPE pubsub")),
            Fault::CutPublishers => drop(self.server.command("CLIENT KILL TYPE normal")),
            Fault::Stop(time_ms) => {
                self.server.pause();
                self.go_on(Duration::from_millis(time_ms));
                self.server.resume();
            }
            Fault::Forget => drop(self.server.command("FLUSHALL")),
            Fault::Die => {
                self.server.kill();
                self.go_on(Duration::from_millis(300));
                self.server.restart();
            }
        }
        self.go_on(Duration::from_millis(500));
        let (failed, since) = (self.failed, Instant::now());
        self.heal();
        println!(
            "{fault:?}: healed after {:?}, {} publications, {failed} failed, clients told {} times",
            since.elapsed(),
            self.published,
            self.world.told - told
        );
    }

    /// Whether any client was told that it has missed something so far.
    pub(super) fn told(&self) -> u64 {
        self.world.told
    }

    fn go_on(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for _ in 0..4 {
                self.act();
            }
            self.come_back();
            let rng = &mut self.rng;
            self.world.pump(Some(rng));
            self.take_answers();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn act(&mut self) {
        let name = CHANNELS[self.rng.usize(..CHANNELS.len())];
        let client = self.rng.usize(..self.world.clients.len());
        match self.rng.u8(..10) {
            0..5 => self.publish(client, name),
            5 => self.world.unsubscribe(client, name),
            6..8 => self.subscribe(client, name),
            _ => {}
        }
    }

    fn publish(&mut self, client: usize, name: &'static str) {
        self.published += 1;
        let data = self.published.to_string();
        let options = PublishOptions {
            history: Some(HISTORY),
            ..PublishOptions::default()
        };
        let command = self.world.publish(client, name, &data, &options);
        self.waiting.push((command, name, data));
    }

    /// As an SDK does: from where it was, if it was.
    fn subscribe(&mut self, client: usize, name: &'static str) {
        if self.world.clients[client].subscriptions.contains_key(name) {
            return;
        }
        let left_at = self.world.clients[client].left_at.get(name);
        let request = left_at.map(|position| RecoveryRequest {
            mode: RecoveryMode::Stream,
            offset: position.offset,
            epoch: KnownEpoch::Is(position.epoch),
            publications_max: u32::MAX,
        });
        self.world.subscribe(client, name, Some(HISTORY), request);
    }

    fn come_back(&mut self) {
        for (client, name) in self.world.outcasts() {
            self.world.unsubscribe(client, name);
            self.subscribe(client, name);
        }
    }

    fn take_answers(&mut self) {
        let (world, places, failed) = (&mut self.world, &mut self.places, &mut self.failed);
        self.waiting.retain(|(command, name, data)| {
            match world.answers.remove(command) {
                None => return true,
                Some(Answer::Published(Ok(Some(position)))) => {
                    world.saw(name, position.epoch, position.offset, data);
                    places.insert(data.clone(), (*name, position));
                }
                Some(Answer::Published(Err(_))) => *failed += 1,
                other => panic!("{name}: a publish is answered with {other:?}"),
            }
            false
        });
    }

    fn heal(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut tops = Vec::new();
        loop {
            self.come_back();
            while self.world.pump(None) {}
            self.take_answers();
            let is_quiet =
                self.world.is_up() && self.waiting.is_empty() && self.world.outcasts().is_empty();
            if is_quiet {
                tops = self.tops();
                if self.is_everybody_at(&tops) {
                    break;
                }
            }
            assert!(
                Instant::now() < deadline,
                "not healed: up {}, {} publishes unanswered, at {tops:?}: {:?}",
                self.world.is_up(),
                self.waiting.len(),
                self.world.clients
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        self.check_places();
        // Who is away may know an epoch that is over, and would be told so much later.
        for client in &mut self.world.clients {
            client.left_at.clear();
        }
    }

    /// Where the channels are, as each node says; all nodes must say the same.
    fn tops(&mut self) -> Vec<Option<StreamPosition>> {
        let query = HistoryQuery {
            limit: 0,
            since: None,
            reverse: false,
        };
        CHANNELS
            .iter()
            .map(|name| {
                let mut said = (0..self.world.nodes()).map(|node| {
                    let answer = self.world.call(node, |handle| async move {
                        handle.history(name, query, HISTORY).await
                    });
                    answer.ok().map(|page| page.position)
                });
                let first = said.next().flatten();
                for other in said {
                    assert!(
                        other.is_none() || first.is_none() || other == first,
                        "{name}"
                    );
                }
                first
            })
            .collect()
    }

    fn is_everybody_at(&self, tops: &[Option<StreamPosition>]) -> bool {
        CHANNELS.iter().zip(tops).all(|(name, top)| {
            self.world.clients.iter().all(|client| {
                client
                    .subscriptions
                    .get(name)
                    .is_none_or(|one| one.state == State::Active && one.position == *top)
            })
        })
    }

    /// A publication that somebody has seen is where its publisher was told that it is.
    fn check_places(&self) {
        let mut seen = HashMap::new();
        for ((name, epoch, offset), data) in self.world.contents() {
            let at = StreamPosition {
                epoch: *epoch,
                offset: *offset,
            };
            if let Some(answered) = self.places.get(data) {
                assert_eq!(*answered, (*name, at), "publication {data}");
            }
            let before = seen.insert(data, (name, at));
            assert_eq!(before, None, "publication {data} is at {at:?}, too");
        }
    }
}
