//! Many operations at once: requests of many shards overtake each other, answers come when they please. Then
//! everything is awaited and looked at.

use std::time::{Duration, Instant};

use flux_gateway::engine::PublishOptions;
use flux_gateway::engine::history::{RecoveryMode, RecoveryRequest};
use flux_gateway::protocol::ErrorCode;
use flux_gateway::pubsub::KnownEpoch;

use super::driver::{Driver, LONG};
use super::model::Model;
use super::world::{Answer, State};
use crate::node::PATIENCE;

impl Driver {
    /// Many operations at once, of which the shards take some at a time; then everything is
    /// awaited and looked at.
    pub(super) fn bursts(&mut self, count: usize, length: usize) {
        self.length = length;
        for _ in 0..count {
            let mut publishes = Vec::new();
            for _ in 0..length {
                let at = self.steady();
                let (name, options) = (self.models[at].name, self.models[at].history);
                let client = self.client();
                let is_subscribed = self.world.clients[client].subscriptions.contains_key(name);
                match self.rng.u8(..10) {
                    0..5 => {
                        let draft = self.draft();
                        let options = PublishOptions {
                            history: options,
                            ..PublishOptions::default()
                        };
                        let command = self.world.publish(client, name, draft.message(), &options);
                        publishes.push((at, command, draft.text()));
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
                    8 => drop(self.world.join(client, name)),
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
            let outcasts = self.world.outcasts();
            assert!(
                outcasts.is_empty(),
                "nothing is lost, but told so: {outcasts:?}"
            );
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

    /// Who was told that it has missed something subscribes anew. That may happen where a connection to Redis
    /// was lost meanwhile, as this machine was too busy for a probe, in a channel whose history is shorter than
    /// what was published; nowhere else.
    fn come_back(&mut self) {
        for (client, name) in self.world.outcasts() {
            let model = self.models.iter().find(|model| model.name == name);
            let history = model.and_then(|model| model.history).expect("a history");
            assert!(
                self.world.losses() > 0 && (history.size as usize) < self.length,
                "{name}: client {client} was told of a loss, but there was none"
            );
            self.world.unsubscribe(client, name);
            self.world.subscribe(client, name, Some(history), None);
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
