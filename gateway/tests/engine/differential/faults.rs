//! Redis fails in many ways while clients go on: connections are killed, it stands still, forgets
//! everything, dies and comes back. Clients do what an SDK does: who is told that it has missed
//! something, or is refused, subscribes anew from the last position that it has seen.
//!
//! What must hold in spite of it, beside what `world` checks all the time:
//! - A publication that was answered with a position is there, for everybody, and nowhere else.
//! - In the end every subscriber is at the top of its channel: it has seen everything that came
//!   since it was told something last.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use flux_gateway::engine::history::{HistoryOptions, HistoryQuery, RecoveryMode, RecoveryRequest};
use flux_gateway::engine::{PresenceStats, PublishOptions};
use flux_gateway::protocol::ClientId;
use flux_gateway::pubsub::{KnownEpoch, OwnedClientInfo, StreamPosition};

use super::content::Draft;
use super::deployment::{Deployment, Fault};
use super::world::{Answer, State, World};

const CHANNELS: [&str; 4] = ["news", "chat:1", "room#1", "x"];
const HISTORY: HistoryOptions = HistoryOptions {
    size: 1_000,
    ttl: Duration::from_secs(3_600),
    meta_ttl: Duration::from_secs(3_600),
};

pub(super) struct Faults {
    world: World,
    deployment: Option<Deployment>,
    rng: Rng,
    published: u32,
    /// Publications without an answer yet: command, channel, data.
    waiting: Vec<(u32, &'static str, String)>,
    /// Where each publication is that was answered with a position.
    places: HashMap<String, (&'static str, StreamPosition)>,
    /// Those that were answered with an error: they may be anywhere, once, or nowhere.
    failed: u32,
    /// Who is present, by channel.
    members: BTreeMap<&'static str, BTreeMap<usize, OwnedClientInfo>>,
}

impl Faults {
    pub(super) fn new(world: World, deployment: Deployment, seed: u64) -> Self {
        Self {
            world,
            deployment: Some(deployment),
            rng: Rng::with_seed(seed),
            published: 0,
            waiting: Vec::new(),
            places: HashMap::new(),
            failed: 0,
            members: BTreeMap::new(),
        }
    }

    /// Clients go on before, during and after the fault; then everything must heal.
    pub(super) fn suffer(&mut self, fault: Fault) {
        let told = self.world.told;
        self.go_on(Duration::from_millis(300));
        // What a fault takes with it is not before the clients, whose turn it is in between.
        let mut deployment = self.deployment.take().expect("back after each fault");
        let may_lose = deployment.may_lose(fault);
        match fault {
            Fault::DeclareDead => {
                let dead = self.rng.usize(..self.world.nodes());
                self.world.joined().declare_alive(|node| node != dead);
                self.go_on(Duration::from_millis(600));
                self.world.joined().declare_alive(|_| true);
            }
            fault => deployment.suffer(fault, &CHANNELS, |time_ms| {
                self.go_on(Duration::from_millis(time_ms));
            }),
        }
        self.deployment = Some(deployment);
        self.go_on(Duration::from_millis(500));
        let (failed, since) = (self.failed, Instant::now());
        self.heal(fault);
        println!(
            "{fault:?}: healed after {:?}, {} publications, {failed} failed, clients told {} times",
            since.elapsed(),
            self.published,
            self.world.told - told
        );
        if !may_lose {
            assert_eq!(self.world.told, told, "{fault:?}: Redis has everything");
        }
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
            8 => self.enter_or_exit(client, name),
            _ => {}
        }
    }

    fn enter_or_exit(&mut self, client: usize, name: &'static str) {
        let id = ClientId::from_random(client as u128);
        let members = self.members.entry(name).or_default();
        if members.remove(&client).is_some() {
            self.world.ask(client, |engine, _| engine.exit(name, id));
            return;
        }
        let info = OwnedClientInfo {
            client: id,
            user: ["", "ann", "bob"][self.rng.usize(..3)].into(),
            conn_info: b"{\"a\":1}".as_slice().into(),
            chan_info: Box::default(),
        };
        self.world
            .ask(client, |engine, _| engine.enter(name, info.as_ref()));
        members.insert(client, info);
    }

    fn publish(&mut self, client: usize, name: &'static str) {
        self.published += 1;
        let draft = Draft::random(self.published, &mut self.rng);
        let options = PublishOptions {
            history: Some(HISTORY),
            ..PublishOptions::default()
        };
        let message = draft.message();
        let command = self.world.publish(client, name, message, &options);
        self.waiting.push((command, name, draft.text()));
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

    fn heal(&mut self, fault: Fault) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            self.come_back();
            while self.world.pump(None) {}
            self.take_answers();
            let is_quiet = self.world.joined().is_up()
                && self.waiting.is_empty()
                && self.world.outcasts().is_empty();
            let why = match is_quiet {
                false => Some("Redis is away, or somebody waits".to_owned()),
                true => self.behind().or_else(|| self.unknown_members()),
            };
            let Some(why) = why else { break };
            assert!(
                Instant::now() < deadline,
                "{fault:?} not healed: {why}; {} publishes unanswered, {:?}",
                self.waiting.len(),
                self.world.standing()
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

    /// Who is not where its channel is.
    fn behind(&mut self) -> Option<String> {
        let tops = self.tops();
        for (name, top) in CHANNELS.iter().zip(tops) {
            for (number, client) in self.world.clients.iter().enumerate() {
                if let Some(one) = client.subscriptions.get(name)
                    && (one.state, one.position) != (State::Active, top)
                {
                    return Some(format!("client {number} is not at {top:?} of {name}"));
                }
            }
        }
        None
    }

    /// Where a node does not say who is present, or how many, as it is.
    fn unknown_members(&mut self) -> Option<String> {
        for name in CHANNELS {
            let mut expected: Vec<OwnedClientInfo> = self
                .members
                .get(name)
                .map(|members| members.values().cloned().collect())
                .unwrap_or_default();
            expected.sort_by_key(|info| *info.client.as_bytes());
            let users: HashSet<&str> = expected.iter().map(|info| &*info.user).collect();
            let stats = PresenceStats {
                clients: expected.len() as u64,
                users: users.len() as u64,
            };
            for node in 0..self.world.nodes() {
                let (said, counted) = self.world.call(node, |handle| async move {
                    let members = handle.presence(name).await;
                    (members, handle.presence_stats(name).await)
                });
                let mut said = said.map(|said| said.to_vec()).unwrap_or_default();
                said.sort_by_key(|info| *info.client.as_bytes());
                if (&said, &counted) != (&expected, &Ok(stats)) {
                    return Some(format!(
                        "{name}: node {node} says {counted:?} {said:?}, not {expected:?}"
                    ));
                }
            }
        }
        None
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
