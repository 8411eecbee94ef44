//! Random operations on a world, and the comparison with the model.

use std::time::{Duration, Instant};

use fastrand::Rng;
use flux_gateway::engine::PublishOptions;
use flux_gateway::engine::history::{HistoryOptions, HistoryQuery, RecoveryMode, RecoveryRequest};
use flux_gateway::protocol::ClientId;
use flux_gateway::pubsub::{Epoch, KnownEpoch, OwnedClientInfo};

use super::content::Draft;
use super::model::Model;
use super::world::{Answer, Kind, State, World};
use crate::node::PATIENCE;

pub(super) const LONG: Duration = Duration::from_secs(3_600);

fn history(size: u32, ttl: Duration) -> Option<HistoryOptions> {
    Some(HistoryOptions {
        size,
        ttl,
        meta_ttl: LONG,
    })
}

pub(super) struct Driver {
    pub(super) world: World,
    pub(super) models: Vec<Model>,
    pub(super) rng: Rng,
    /// Numbers the publications: no two are the same.
    published: u32,
    /// How many operations there are in a burst.
    pub(super) length: usize,
}

impl Driver {
    pub(super) fn new(world: World, seed: u64) -> Self {
        // A read of Redis may wait for a second.
        let brief = Duration::from_secs(if world.is_joined() { 3 } else { 1 });
        let fleeting = 3 * brief;
        Self {
            world,
            models: vec![
                Model::new("news", history(20, LONG)),
                Model::new("chat:1", history(5, LONG)),
                Model::new("latest", history(1, LONG)),
                Model::new("brief", history(8, brief)),
                Model::new("live", None),
                Model::new(
                    "fleeting",
                    Some(HistoryOptions {
                        size: 10,
                        ttl: fleeting,
                        meta_ttl: fleeting,
                    }),
                ),
            ],
            rng: Rng::with_seed(seed),
            published: 0,
            length: 0,
        }
    }

    /// One operation after the other, each compared with the model.
    pub(super) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            let at = self.steady();
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
                82..90 => self.presence(at),
                90..94 => self.join(at),
                94..96 => self.remove_history(at),
                96 => self.publish_beside(at),
                97 if self.rng.u8(..8) == 0 => self.let_expire(),
                _ => self.channels(),
            }
            self.check_clients();
        }
    }

    /// One of the channels that are not forgotten while they are used now and then.
    pub(super) fn steady(&mut self) -> usize {
        let is_steady = |model: &Model| model.history.is_none_or(|of| of.meta_ttl == LONG);
        let count = self.models.iter().take_while(|model| is_steady(model));
        self.rng.usize(..count.count())
    }

    pub(super) fn client(&mut self) -> usize {
        self.rng.usize(..self.world.clients.len())
    }

    fn publish(&mut self, at: usize) {
        let draft = self.draft();
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
            let (message, options) = (draft.message(), &options);
            self.world.call(node, |handle| async move {
                handle.publish(name, message, options).await
            })
        } else {
            let client = self.client();
            let command = self.world.publish(client, name, draft.message(), &options);
            self.world.until("the answer to a publish", |world| {
                world.answers.contains_key(&command)
            });
            match self.world.answers.remove(&command) {
                Some(Answer::Published(result)) => result,
                other => panic!("{name}: a publish is answered with {other:?}"),
            }
        };
        let losses = self.world.losses();
        let position = result.unwrap_or_else(|code| {
            panic!("{name}: refused with {code:?}, connections lost: {losses}")
        });
        let (text, model) = (draft.text(), &mut self.models[at]);
        assert_eq!(position.is_some(), model.history.is_some(), "{name}");
        if let Some(position) = position {
            model.name_epoch(position.epoch);
        }
        let (is_published, expected) = model.publish(&text, &options);
        assert_eq!(position, expected, "{name}");
        if is_published {
            if let Some(position) = position {
                self.world.saw(name, position.epoch, position.offset, &text);
            }
            self.expect(name, &text);
        }
    }

    pub(super) fn draft(&mut self) -> Draft {
        self.published += 1;
        Draft::random(self.published, &mut self.rng)
    }

    /// Publishes what does not enter the channel's history.
    fn publish_beside(&mut self, at: usize) {
        let (name, client, draft) = (self.models[at].name, self.client(), self.draft());
        let options = PublishOptions::default();
        let command = self.world.publish(client, name, draft.message(), &options);
        self.world.until("the answer to a publish", |world| {
            world.answers.contains_key(&command)
        });
        match self.world.answers.remove(&command) {
            Some(Answer::Published(Ok(None))) => {}
            other => panic!("{name}: a publish is answered with {other:?}"),
        }
        self.expect(name, &draft.text());
    }

    /// Every subscriber sees it.
    fn expect(&mut self, channel: &'static str, what: &str) {
        let is_join = what.starts_with("join ");
        self.world.until(&format!("{what} in {channel}"), |world| {
            world.clients.iter().enumerate().all(|(number, client)| {
                let subscription = client.subscriptions.get(channel);
                (is_join && World::kind(number) != Kind::WithJoins)
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
        let subscription = self.world.subscription(client, name);
        let model = &mut self.models[at];
        model.check_position(subscription.position);
        if let Some(request) = request {
            let expected = model.recover(&request);
            let expected = (expected.is_some(), expected.unwrap_or_default());
            let answer = subscription.recovered.as_ref();
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
        let deadline = Instant::now() + PATIENCE;
        loop {
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
                Instant::now() < deadline,
                "{name}: {members:?} {stats:?}, not {:?}",
                self.models[at]
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn join(&mut self, at: usize) {
        let (name, client) = (self.models[at].name, self.client());
        let join = self.world.join(client, name);
        self.expect(name, &join);
    }

    fn remove_history(&mut self, at: usize) {
        let (name, node) = (self.models[at].name, self.rng.usize(..self.world.nodes()));
        // Where nobody listens nobody hears of it.
        let deaf = self
            .rng
            .bool()
            .then(|| self.rng.usize(..self.world.nodes()));
        for client in 0..self.world.clients.len() {
            if deaf == Some(self.world.node_of(client)) {
                self.world.unsubscribe(client, name);
            }
        }
        let result = self.world.call(
            node,
            |handle| async move { handle.remove_history(name).await },
        );
        assert_eq!(result, Ok(()), "{name}");
        self.models[at].remove_history();
        // Nodes hear of it in the channel: behind this publication all have.
        self.publish_beside(at);
        for _ in 0..6 {
            self.subscribe(at);
        }
    }

    /// A channel that somebody listens to stays what it is however long nothing is published; one that nobody
    /// uses begins anew when its time is over.
    pub(super) fn let_forget(&mut self) {
        for at in 0..self.models.len() {
            let (name, history) = (self.models[at].name, self.models[at].history);
            let Some(meta_ttl) = history.map(|of| of.meta_ttl).filter(|ttl| *ttl < LONG) else {
                continue;
            };
            for is_heard in [true, false] {
                for client in 0..self.world.clients.len() {
                    self.world.unsubscribe(client, name);
                }
                if is_heard {
                    self.subscribe(at);
                }
                std::thread::sleep(meta_ttl.mul_f32(1.5));
                self.models[at].expire();
                let before = self.models[at].epoch;
                if !is_heard {
                    self.models[at].forget();
                    self.subscribe(at);
                }
                self.check_clients();
                assert_eq!(self.models[at].epoch == before, is_heard, "{name}");
                for _ in 0..10 {
                    self.publish(at);
                    self.page(at);
                }
                for _ in 0..10 {
                    self.subscribe(at);
                    if self.is_heard(at) {
                        self.publish(at);
                    }
                }
                self.check_clients();
            }
        }
    }

    fn is_heard(&self, at: usize) -> bool {
        let name = self.models[at].name;
        let mut clients = self.world.clients.iter();
        clients.any(|client| client.subscriptions.contains_key(name))
    }

    fn let_expire(&mut self) {
        for at in 0..self.models.len() {
            let is_brief = self.models[at]
                .history
                .is_some_and(|of| of.ttl < LONG && of.meta_ttl == LONG);
            if is_brief {
                self.publish(at);
                let ttl = self.models[at].history.map(|history| history.ttl);
                std::thread::sleep(ttl.unwrap_or_default().mul_f32(1.6));
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
}
