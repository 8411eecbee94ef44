//! Random operations on a world, and the comparison with the model.

use std::time::{Duration, Instant};

use fastrand::Rng;
use flux_gateway::engine::PublishOptions;
use flux_gateway::engine::history::{HistoryOptions, HistoryQuery, RecoveryMode, RecoveryRequest};
use flux_gateway::protocol::{ClientId, ErrorCode};
use flux_gateway::pubsub::{Epoch, KnownEpoch, MessageRef, OwnedClientInfo};

use super::model::Model;
use super::world::{Answer, State, World};
use crate::node::PATIENCE;

const LONG: Duration = Duration::from_secs(3_600);
/// A history of less is shorter than a burst.
const SHORT: u32 = 10;

fn history(size: u32, ttl: Duration) -> Option<HistoryOptions> {
    Some(HistoryOptions {
        size,
        ttl,
        meta_ttl: LONG,
    })
}

pub(super) struct Driver {
    world: World,
    models: Vec<Model>,
    rng: Rng,
    /// Numbers the publications: no two have the same data.
    published: u32,
    /// Whether the engine keeps members.
    has_presence: bool,
}

impl Driver {
    pub(super) fn new(world: World, seed: u64) -> Self {
        // A read of Redis may wait for a second.
        let brief = Duration::from_secs(if world.is_joined() { 4 } else { 1 });
        Self {
            world,
            models: vec![
                Model::new("news", history(20, LONG)),
                Model::new("chat:1", history(5, LONG)),
                Model::new("latest", history(1, LONG)),
                Model::new("brief", history(8, brief)),
                Model::new("live", None),
            ],
            rng: Rng::with_seed(seed),
            published: 0,
            has_presence: true,
        }
    }

    /// Nothing is asked about members: the engine does not keep them yet.
    pub(super) fn without_presence(mut self) -> Self {
        self.has_presence = false;
        self
    }

    /// One operation after the other, each compared with the model.
    pub(super) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            let at = self.rng.usize(..self.models.len());
            if let Some(doubt) = self.models[at].doubt() {
                std::thread::sleep(doubt);
            }
            self.models[at].expire();
            match self.rng.u8(..100) {
                0..35 => self.publish(at),
                35..55 => self.subscribe(at),
                55..65 => self.unsubscribe(at),
                65..75 => self.page(at),
                75..82 => self.enter_or_exit(at),
                82..90 if self.has_presence => self.presence(at),
                90..94 => self.join(at),
                94..96 => self.remove_history(at),
                96 if self.rng.u8(..8) == 0 => self.let_expire(),
                _ => self.channels(),
            }
            self.check_clients();
        }
    }

    fn client(&mut self) -> usize {
        self.rng.usize(..self.world.clients.len())
    }

    fn publish(&mut self, at: usize) {
        self.published += 1;
        let data = format!(
            "\"{}\"",
            format!("{}.", self.published).repeat(self.rng.usize(1..30))
        );
        let key = match self.rng.u8(..6) {
            0 => format!("key{}", self.rng.u8(..20)),
            _ => String::new(),
        };
        let options = PublishOptions {
            history: self.models[at].history,
            idempotency_key: &key,
            version: match self.rng.u8(..6) {
                0 => self.rng.u64(1..40),
                _ => 0,
            },
            version_epoch: ["", "", "x", "y"][self.rng.usize(..4)],
        };
        let name = self.models[at].name;
        let result = if self.rng.u8(..4) == 0 {
            let node = self.rng.usize(..self.world.nodes());
            let (data, options) = (data.clone(), &options);
            self.world.call(node, |handle| async move {
                let message = MessageRef::data(data.as_bytes());
                handle.publish(name, message, options).await
            })
        } else {
            let client = self.client();
            let command = self.world.publish(client, name, &data, &options);
            self.world.until("the answer to a publish", |world| {
                world.answers.contains_key(&command)
            });
            match self.world.answers.remove(&command) {
                Some(Answer::Published(result)) => result,
                other => panic!("{name}: a publish is answered with {other:?}"),
            }
        };
        let position = result.unwrap_or_else(|code| panic!("{name}: refused with {code:?}"));
        let model = &mut self.models[at];
        let (is_published, offset) = model.publish(&data, &options);
        assert_eq!(position.is_some(), model.history.is_some(), "{name}");
        if let Some(position) = position {
            let epoch = *model.epoch.get_or_insert(position.epoch);
            assert_eq!((position.epoch, position.offset), (epoch, offset), "{name}");
            if is_published {
                self.world.saw(name, epoch, offset, &data);
            }
        }
        if is_published {
            self.expect(name, &data);
        }
    }

    /// Every subscriber sees it.
    fn expect(&mut self, channel: &'static str, what: &str) {
        let is_join = what == "join";
        self.world.until(&format!("{what} in {channel}"), |world| {
            world.clients.iter().enumerate().all(|(number, client)| {
                let subscription = client.subscriptions.get(channel);
                (is_join && !World::wants_joins(number))
                    || subscription.is_none_or(|subscription| {
                        subscription.seen.last().is_some_and(|last| last == what)
                    })
            })
        });
    }

    fn known_epoch(&mut self, own: Option<Epoch>) -> KnownEpoch {
        match (own, self.rng.u8(..8)) {
            (_, 0) => KnownEpoch::Foreign,
            (_, 1) => KnownEpoch::Is(Epoch::from_random(self.rng.u64(..))),
            (Some(own), 3..) => KnownEpoch::Is(own),
            _ => KnownEpoch::Any,
        }
    }

    fn request(&mut self, at: usize) -> RecoveryRequest {
        let (epoch, top) = (self.models[at].epoch, self.models[at].top);
        RecoveryRequest {
            mode: match self.rng.u8(..4) {
                0 => RecoveryMode::Cache,
                _ => RecoveryMode::Stream,
            },
            offset: match self.rng.u8(..8) {
                0 => self.rng.u64(..),
                1 => top + 1,
                2 => 0,
                _ => top.saturating_sub(self.rng.u64(..10)),
            },
            epoch: self.known_epoch(epoch),
            publications_max: [300, 300, 300, 4][self.rng.usize(..4)],
        }
    }

    fn subscribe(&mut self, at: usize) {
        let (name, options, client) =
            (self.models[at].name, self.models[at].history, self.client());
        if self.world.clients[client].subscriptions.contains_key(name) {
            return self.unsubscribe(at);
        }
        let mut request = options
            .filter(|_| self.rng.bool())
            .map(|_| self.request(at));
        if let (Some(request), Some(left_at), true) = (
            &mut request,
            self.world.clients[client].left_at.get(name),
            self.rng.bool(),
        ) {
            request.mode = RecoveryMode::Stream;
            request.offset = left_at.offset;
            request.epoch = KnownEpoch::Is(left_at.epoch);
        }
        self.world.subscribe(client, name, options, request);
        self.world.until("the answer to a subscribe", |world| {
            world.clients[client].subscriptions[name].state == State::Active
        });
        let remembers_longer = self.world.is_joined();
        let subscription = self.world.subscription(client, name);
        let model = &mut self.models[at];
        model.check_position(subscription.position);
        if let Some(request) = request {
            let expected = model.recover(&request);
            let expected = (expected.is_some(), expected.unwrap_or_default());
            let answer = subscription.recovered.as_ref();
            if remembers_longer && model.has_expired(&request) {
                // A node remembers what it has delivered a little longer than Redis keeps it: what
                // it says more is looked at in `world`.
                return;
            }
            assert_eq!(answer, Some(&expected), "{name}: {request:?}");
        }
    }

    fn unsubscribe(&mut self, at: usize) {
        let (name, client) = (self.models[at].name, self.client());
        self.world.unsubscribe(client, name);
    }

    fn page(&mut self, at: usize) {
        let (name, top, epoch) = {
            let model = &self.models[at];
            (model.name, model.top, model.epoch)
        };
        // The epoch is compared, so somebody must have named it.
        let (Some(options), Some(_)) = (self.models[at].history, epoch) else {
            return;
        };
        let since = match self.rng.u8(..3) {
            0 => None,
            1 => Some(top.saturating_sub(self.rng.u64(..12))),
            _ => Some([0, 1, top + 1, u64::MAX][self.rng.usize(..4)]),
        };
        let query = HistoryQuery {
            limit: [0, 1, 3, 300, u32::MAX][self.rng.usize(..5)],
            since: since.map(|offset| (offset, self.known_epoch(epoch))),
            reverse: self.rng.bool(),
        };
        let answer = if self.rng.bool() {
            let node = self.rng.usize(..self.world.nodes());
            self.world.call(node, |handle| async move {
                handle.history(name, query, options).await
            })
        } else {
            let client = self.client();
            let command = self.world.history(client, name, query, options);
            self.world.until("the answer to history", |world| {
                world.answers.contains_key(&command)
            });
            match self.world.answers.remove(&command) {
                Some(Answer::History(result)) => result,
                other => panic!("{name}: history is answered with {other:?}"),
            }
        };
        self.models[at].check_page(&query, &answer);
    }

    fn enter_or_exit(&mut self, at: usize) {
        let (name, client) = (self.models[at].name, self.client());
        let id = ClientId::from_random(client as u128);
        if self.models[at].is_member(*id.as_bytes()) && self.rng.bool() {
            self.models[at].exit(*id.as_bytes());
            self.world.ask(client, |engine, _| engine.exit(name, id));
        } else {
            let info = OwnedClientInfo {
                client: id,
                user: ["", "ann", "bob"][self.rng.usize(..3)].into(),
                conn_info: b"{\"a\":1}".as_slice().into(),
                chan_info: [&b""[..], b"[2]"][self.rng.usize(..2)].into(),
            };
            self.models[at].enter(info.clone());
            self.world
                .ask(client, |engine, _| engine.enter(name, info.as_ref()));
        }
    }

    /// Asks for members and their number until they are right: nobody answers when a client has
    /// come or gone.
    fn presence(&mut self, at: usize) {
        let (name, client) = (self.models[at].name, self.client());
        let node = self.rng.usize(..self.world.nodes());
        let through_handle = self.rng.bool();
        for attempt in 0.. {
            let (members, stats) = if through_handle {
                self.world.call(node, |handle| async move {
                    (
                        handle.presence(name).await,
                        handle.presence_stats(name).await,
                    )
                })
            } else {
                let who = self
                    .world
                    .ask(client, |engine, asker| engine.presence(name, asker));
                let count = self
                    .world
                    .ask(client, |engine, asker| engine.presence_stats(name, asker));
                self.world.until("answers about presence", |world| {
                    world.answers.contains_key(&who) && world.answers.contains_key(&count)
                });
                let answers = &mut self.world.answers;
                match (answers.remove(&who), answers.remove(&count)) {
                    (Some(Answer::Presence(who)), Some(Answer::PresenceStats(count))) => {
                        (who, count)
                    }
                    other => panic!("{name}: presence is answered with {other:?}"),
                }
            };
            let (members, stats) = (members.expect("members"), stats.expect("stats"));
            let model = &self.models[at];
            if model.has_members(&members) && stats == model.stats() {
                return;
            }
            assert!(
                attempt < 100,
                "{name}: {members:?} {stats:?}, not {:?}",
                self.models[at]
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn join(&mut self, at: usize) {
        let (name, client) = (self.models[at].name, self.client());
        self.world.join(client, name);
        self.expect(name, "join");
    }

    fn remove_history(&mut self, at: usize) {
        let (name, node) = (self.models[at].name, self.rng.usize(..self.world.nodes()));
        let result = self.world.call(
            node,
            |handle| async move { handle.remove_history(name).await },
        );
        assert_eq!(result, Ok(()), "{name}");
        self.models[at].remove_history();
    }

    fn let_expire(&mut self) {
        for at in 0..self.models.len() {
            let is_brief = self.models[at].history.is_some_and(|of| of.ttl < LONG);
            if is_brief {
                self.publish(at);
                let ttl = self.models[at].history.map(|history| history.ttl);
                std::thread::sleep(ttl.unwrap_or_default().mul_f32(1.3));
            }
        }
    }

    fn channels(&mut self) {
        let node = self.rng.usize(..self.world.nodes());
        let answer = self
            .world
            .call(node, |handle| async move { handle.channels().await });
        let mut names: Vec<String> = answer
            .expect("names")
            .iter()
            .map(ToString::to_string)
            .collect();
        names.sort();
        let mut expected: Vec<String> = (0..self.world.clients.len())
            .filter(|client| self.world.node_of(*client) == node)
            .flat_map(|client| self.world.clients[client].subscriptions.keys())
            .map(ToString::to_string)
            .collect();
        expected.sort();
        expected.dedup();
        assert_eq!(names, expected, "channels with subscribers on node {node}");
    }

    /// Between operations every subscriber stands where the channel does.
    fn check_clients(&self) {
        for model in &self.models {
            for client in &self.world.clients {
                if let Some(subscription) = client.subscriptions.get(model.name) {
                    assert_eq!(subscription.state, State::Active, "{}", model.name);
                    assert_eq!(subscription.position, model.position(), "{}", model.name);
                }
            }
        }
    }

    /// Many operations at once, of which the shards take some at a time; then everything is
    /// awaited and looked at.
    pub(super) fn bursts(&mut self, count: usize, length: usize) {
        for _ in 0..count {
            let mut publishes = Vec::new();
            for _ in 0..length {
                let at = self.rng.usize(..self.models.len());
                let (name, options) = (self.models[at].name, self.models[at].history);
                let client = self.client();
                let is_subscribed = self.world.clients[client].subscriptions.contains_key(name);
                match self.rng.u8(..10) {
                    0..5 => {
                        self.published += 1;
                        let data = self.published.to_string();
                        let options = PublishOptions {
                            history: options,
                            ..PublishOptions::default()
                        };
                        let command = self.world.publish(client, name, &data, &options);
                        publishes.push((at, command, data));
                    }
                    5..8 if !is_subscribed => {
                        // As an SDK does: from where it was, if it was.
                        let left_at = self.world.clients[client].left_at.get(name);
                        let request = left_at.map(|position| RecoveryRequest {
                            mode: RecoveryMode::Stream,
                            offset: position.offset,
                            epoch: KnownEpoch::Is(position.epoch),
                            publications_max: 300,
                        });
                        self.world.subscribe(client, name, options, request);
                    }
                    5..8 => self.world.unsubscribe(client, name),
                    8 => self.world.join(client, name),
                    _ => {}
                }
                let rng = &mut self.rng;
                self.world.pump(Some(rng));
            }
            self.settle(publishes);
        }
    }

    fn settle(&mut self, publishes: Vec<(usize, u32, String)>) {
        self.world.until("all answers", |world| {
            let subscriptions = || {
                let clients = world.clients.iter();
                clients.flat_map(|client| client.subscriptions.values())
            };
            publishes
                .iter()
                .all(|(_, command, _)| world.answers.contains_key(command))
                && subscriptions().all(|one| !matches!(one.state, State::Waiting(_)))
        });
        let tops: Vec<u64> = self.models.iter().map(|model| model.top).collect();
        for (at, command, data) in publishes {
            let model = &mut self.models[at];
            let name = model.name;
            let position = match self.world.answers.remove(&command) {
                Some(Answer::Published(Ok(position))) => position,
                other => panic!("{name}: a publish is answered with {other:?}"),
            };
            assert_eq!(position.is_some(), model.history.is_some(), "{name}");
            model.top += u64::from(position.is_some());
            if let Some(position) = position {
                let epoch = *model.epoch.get_or_insert(position.epoch);
                assert_eq!(position.epoch, epoch, "{name}");
                self.world.saw(name, epoch, position.offset, &data);
            }
        }
        for (model, before) in self.models.iter().zip(tops) {
            // No two had the same offset, else `saw` had found out.
            for offset in before + 1..=model.top {
                assert!(
                    self.world.has_seen(model, offset),
                    "{} {offset}",
                    model.name
                );
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.world.until("what is under way", |_| true);
            self.come_back();
            if self.is_everybody_at_the_top() {
                break;
            }
            let tops: Vec<_> = self.models.iter().map(Model::top).collect();
            assert!(
                Instant::now() < deadline,
                "not everybody is at {tops:?}: {:?}",
                self.world.standing()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        self.check_recoveries();
    }

    fn is_everybody_at_the_top(&self) -> bool {
        self.models.iter().all(|model| {
            let top = model.history.map(|_| model.top);
            let clients = self.world.clients.iter();
            clients
                .filter_map(|client| client.subscriptions.get(model.name))
                .map(|one| (one.state, one.position.map(|position| position.offset)))
                .all(|standing| standing == (State::Active, top))
        })
    }

    /// Who was told that it has missed something subscribes anew. That may happen where an engine
    /// must fill a gap from a history that is too short for it, and nowhere else.
    fn come_back(&mut self) {
        for (client, name) in self.world.outcasts() {
            let options = self
                .models
                .iter()
                .find(|model| model.name == name)
                .and_then(|model| model.history);
            assert_eq!(self.world.subscription(client, name).state, State::Lost);
            assert!(
                self.world.is_joined() && options.is_some_and(|options| options.size < SHORT),
                "{name}: a client was told of a loss within the history"
            );
            self.world.unsubscribe(client, name);
            self.world.subscribe(client, name, options, None);
        }
    }

    /// Who has come back within the history has got everything.
    fn check_recoveries(&self) {
        for model in &self.models {
            for (number, client) in self.world.clients.iter().enumerate() {
                let Some(subscription) = client.subscriptions.get(model.name) else {
                    continue;
                };
                let (Some((recovered, missed)), Some(request), Some(options)) = (
                    &subscription.recovered,
                    self.world.request(number, model.name),
                    model.history,
                ) else {
                    continue;
                };
                if options.ttl < LONG {
                    continue;
                }
                match missed.first() {
                    Some((first, _)) => {
                        assert_eq!(*first, request.offset + 1, "{}", model.name);
                        assert!(*recovered);
                    }
                    None if !recovered => {
                        let behind = model.top - request.offset;
                        assert!(behind > u64::from(options.size), "{}", model.name);
                    }
                    None => {}
                }
                assert_ne!(
                    subscription.state,
                    State::Refused(ErrorCode::Internal),
                    "{}",
                    model.name
                );
            }
        }
    }
}
