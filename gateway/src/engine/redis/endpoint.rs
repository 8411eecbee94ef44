//! One Redis server with its connections: makes them, gives them what [`Server`] wants sent, tells
//! it what came back, and replaces them when they break or fall silent.
//!
//! Which server that is may change between two attempts to connect, and what the servers are is
//! none of `Server`'s business: see [`Endpoint::reconnect`].

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::time::{sleep, timeout};

use super::super::request::Request;
use super::config::RedisConfig;
use super::detours::Waiting;
use super::interest::Command;
use super::keys::Keys;
use super::ledger::{Content, Ledger};
use super::link::{Answer, Link, LinkEvent, is_elsewhere};
use super::present::Step;
use super::publish::command;
use super::questions::Question;
use super::scripts::{Outcome, Scripts};
use super::server::{Leaving, Phase, Server};
use super::shards::Shards;
use crate::limits::{
    REDIS_COMMAND_BATCH, REDIS_PROBE_DEADLINE, REDIS_PROBE_INTERVAL, REDIS_PUBLISH_BATCH,
    REDIS_RECONNECT_DELAY_MAX,
};
use crate::pubsub::Epoch;

/// A tick that comes late says that this thread was kept from running, not that Redis was silent.
const TICK_COUNTED_MAX: Duration = Duration::from_millis(500);
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(50);

/// What has happened at an endpoint.
pub(super) enum EndpointEvent {
    Link(LinkEvent),
    Connected(Box<RedisResult<Link>>),
}

type Connecting = Pin<Box<dyn Future<Output = RedisResult<Link>> + Send>>;

pub(super) struct Endpoint {
    /// None while it is not known where the server is.
    client: Option<redis::Client>,
    /// Where that is, for people.
    name: String,
    /// Whether a server there has to say itself that it is a master.
    must_be_master: bool,
    /// Something speaks against the server being where it is said to be.
    doubts: bool,
    /// Why the connections have to be replaced.
    is_spoilt: Option<&'static str>,
    /// It has nothing to serve.
    is_retired: bool,
    /// The server is known to be at another place now, which has not been tried.
    is_moving: bool,
    /// The server is about to be at another place: what is to be kept waits until then for that.
    held_until: Option<Instant>,
    config: Arc<RedisConfig>,
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
    probe_channel: Arc<[u8]>,
    /// That of the next connection.
    next_probe_channel: Arc<[u8]>,
    server: Server,
    /// What the batches under way ask, in their order.
    asked: VecDeque<Vec<Question>>,
    /// False after Redis has not known a script, until the scripts' texts have been sent.
    knows_scripts: bool,
    link: Option<Link>,
    connecting: Option<Connecting>,
    attempts: u32,
    /// Why not everything travels through this server; none while it does.
    away: Option<String>,
    /// Time without an own message coming back.
    silence: Duration,
    last_probe: Instant,
}

impl Endpoint {
    pub(super) fn new(
        must_be_master: bool,
        config: Arc<RedisConfig>,
        keys: Arc<Keys>,
        origin: u64,
        now: Instant,
    ) -> Self {
        let probe_channel: Arc<[u8]> = keys.probe(origin).into_bytes().into();
        Self {
            client: None,
            name: "unknown address".to_owned(),
            must_be_master,
            doubts: false,
            is_spoilt: None,
            is_retired: false,
            is_moving: false,
            held_until: None,
            probe_channel: Arc::clone(&probe_channel),
            next_probe_channel: probe_channel,
            keys,
            server: Server::new(origin, config.position_check_delay),
            asked: VecDeque::new(),
            knows_scripts: true,
            scripts: Arc::new(Scripts::new()),
            link: None,
            connecting: None,
            attempts: 0,
            away: Some("not connected yet".to_owned()),
            silence: Duration::ZERO,
            last_probe: now,
            config,
        }
    }

    /// The server is at `client` from now on. Where that is another one than before, the connections go
    /// there at once.
    pub(super) fn go_to(&mut self, client: redis::Client, name: String, shards: &mut Shards) {
        if self.client.is_some() && self.name == name {
            return;
        }
        self.client = Some(client);
        self.name = name;
        self.attempts = 0;
        self.is_retired = false;
        self.is_moving = true;
        self.held_until = None;
        if self.link.is_some() {
            let why = format!("its master is {} now", self.name);
            self.lose(&why, shards);
        } else {
            self.reconnect();
        }
    }

    /// Probes go through this pub/sub channel, from the next connection on.
    pub(super) fn probe_with(&mut self, probe_channel: String) {
        self.next_probe_channel = probe_channel.into_bytes().into();
    }

    /// There is nothing for it to serve any more.
    pub(super) fn retire(&mut self, shards: &mut Shards) {
        self.client = None;
        self.connecting = None;
        self.lose("no slot is left to it", shards);
        self.is_retired = true;
        self.away = None;
    }

    /// Whether it is known to serve at another place than before, which has not been tried.
    pub(super) fn is_moving(&self) -> bool {
        self.is_moving
    }

    /// Nothing is given to the server that is to be kept, until it is at another place, or for so long.
    pub(super) fn hold(&mut self, until: Instant) {
        self.held_until = Some(until);
        self.hold_back(|_| true);
    }

    /// It stays where it is.
    pub(super) fn release_hold(&mut self) {
        self.held_until = None;
    }

    /// Whether it is about to be at another place.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// What is published in channels that `is_elsewhere` names goes to another server.
    pub(super) fn hold_back(&mut self, is_elsewhere: impl Fn(&str) -> bool) {
        self.server.hold_back(is_elsewhere);
    }

    /// What came to nothing here, and of which channels nothing is sent here any more.
    pub(super) fn ledger(&mut self) -> &mut Ledger {
        self.server.ledger()
    }

    /// Publishes what was kept back.
    pub(super) fn publish(&mut self, waiting: Waiting, now: Instant, shards: &mut Shards) {
        let Waiting { append, asker } = waiting;
        self.server
            .publish(Content::Append(append), asker, now, shards);
    }

    /// `channel` goes to another server.
    pub(super) fn release(&mut self, channel: &str, shards: &mut Shards) -> Option<Leaving> {
        self.server.release(channel, shards)
    }

    /// `channel` comes from another server.
    pub(super) fn adopt(&mut self, channel: &Arc<str>, leaving: Leaving, shards: &mut Shards) {
        self.server.adopt(channel, leaving, Instant::now(), shards);
    }

    /// Channels that the server did not want have been seen to; those that are still here are tried again.
    pub(super) fn settle(&mut self) {
        self.server.settle();
    }

    /// Whether it is not known where the server is.
    pub(super) fn is_nowhere(&self) -> bool {
        self.client.is_none()
    }

    /// Nobody says where the server is.
    pub(super) fn is_not_found(&mut self, why: &str) {
        if self.client.is_none() && !self.is_retired {
            self.away = Some(why.to_owned());
        }
    }

    /// Where the server is, for people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether since the last call something spoke against the server being there.
    pub(super) fn take_doubts(&mut self) -> bool {
        std::mem::take(&mut self.doubts)
    }

    /// Why not everything travels through this server; none while it does.
    pub(super) fn away(&self) -> Option<&str> {
        self.away.as_deref()
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn carry_out(&mut self, request: Request, now: Instant, shards: &mut Shards) {
        self.server.carry_out(request, now, shards);
    }

    /// The next event. Nothing is lost when it is not polled to the end.
    pub(super) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<EndpointEvent> {
        if let Some(link) = &mut self.link
            && let Poll::Ready(event) = link.poll_event(context)
        {
            return Poll::Ready(EndpointEvent::Link(event));
        }
        if let Some(attempt) = &mut self.connecting
            && let Poll::Ready(result) = attempt.as_mut().poll(context)
        {
            self.connecting = None;
            return Poll::Ready(EndpointEvent::Connected(Box::new(result)));
        }
        Poll::Pending
    }

    pub(super) fn on_event(&mut self, event: EndpointEvent, shards: &mut Shards) {
        match event {
            EndpointEvent::Connected(result) => self.on_connected(*result, shards),
            EndpointEvent::Link(LinkEvent::Pushed(pushes)) => {
                for push in pushes {
                    self.on_push(push, shards);
                }
                if let Some(why) = self.is_spoilt.take() {
                    self.lose(why, shards);
                }
            }
            EndpointEvent::Link(LinkEvent::Published { first, outcomes }) => {
                for (sequence, outcome) in (first..).zip(outcomes) {
                    self.doubts |= outcome == Outcome::Elsewhere;
                    self.server.published(sequence, outcome, shards);
                }
            }
            EndpointEvent::Link(LinkEvent::Answered(answers)) => self.on_answers(&answers, shards),
            EndpointEvent::Link(LinkEvent::Commanded {
                command,
                channels,
                answer,
            }) => match (command, answer) {
                (_, Answer::Done) | (Command::Unsubscribe, Answer::Refused) => {}
                (Command::Subscribe, Answer::Refused) => {
                    self.server.refused(&channels, Instant::now(), shards);
                }
                (_, Answer::Elsewhere) => {
                    self.server.elsewhere(&channels);
                    self.doubts = true;
                }
            },
            EndpointEvent::Link(LinkEvent::Broken(why)) => self.lose(&why, shards),
        }
    }

    /// Gives the connections what they have room for, and notes when everything travels through
    /// them. To be called after anything was done here.
    pub(super) fn send(&mut self, shards: &Shards) {
        if self.server.phase() == Phase::Up && self.away.take().is_some() {
            self.attempts = 0;
            tracing::info!(server = %self.name, "everything travels through Redis");
        }
        let Some(link) = &mut self.link else { return };
        while self.server.has_unsent() && link.may_publish() {
            let mut pipeline = redis::Pipeline::new();
            let (keys, scripts) = (&self.keys, &self.scripts);
            let probe_channel = &self.probe_channel;
            let handed = self
                .server
                .next_publications(REDIS_PUBLISH_BATCH, |outgoing, record| {
                    let epoch = Epoch::from_random(fastrand::u64(..));
                    let command = command(&outgoing, record, keys, scripts, probe_channel, epoch);
                    pipeline.add_command(command);
                });
            let Some((first, _)) = handed else { break };
            link.publish(first, pipeline);
        }
        let now = Instant::now();
        while self.server.has_questions(now) && link.may_ask() {
            let batch = self.server.next_questions(REDIS_COMMAND_BATCH, now, shards);
            if batch.is_empty() {
                break;
            }
            let mut pipeline = redis::Pipeline::new();
            let is_known = std::mem::replace(&mut self.knows_scripts, true);
            for question in &batch {
                let epoch = Epoch::from_random(fastrand::u64(..));
                let command = question.command(&self.keys, &self.scripts, epoch, is_known);
                pipeline.add_command(command);
            }
            link.ask(pipeline);
            self.asked.push_back(batch);
        }
        if link.may_command()
            && let Some((command, channels)) = self.server.next_command()
        {
            let keys = channels
                .iter()
                .map(|channel| self.keys.channel(channel))
                .collect();
            link.command(command, channels, keys);
        }
    }

    /// Whether the server has room for another [`Self::take_step`].
    pub(super) fn may_take_steps(&self) -> bool {
        self.server.may_take_steps()
    }

    /// Something is to be done about who is present.
    pub(super) fn take_step(&mut self, channel: Arc<str>, step: Step, shards: &mut Shards) {
        self.server.take_step(channel, step, shards);
    }

    fn on_answers(&mut self, answers: &[Value], shards: &mut Shards) {
        let now = Instant::now();
        let batch = self.asked.pop_front().unwrap_or_default();
        for (question, answer) in batch.into_iter().zip(answers) {
            let code = match answer {
                Value::ServerError(error) => Some(error.code()),
                _ => None,
            };
            if code == Some("NOSCRIPT") {
                shards.metrics.redis_scripts_unknown.add(1);
                self.knows_scripts = false;
                // A member that has gone meanwhile must not come back.
                match question.member() {
                    Some((channel, client)) => shards.present.again(channel, client),
                    None => self.server.ask_again(question),
                }
            } else if is_elsewhere(code) {
                self.doubts = true;
                self.server.misplaced(question, now, shards);
            } else {
                self.server.answered(question, answer, now, shards);
            }
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, passed: Duration, tick: Duration, shards: &mut Shards) {
        let now = Instant::now();
        self.server.tick(now);
        let Some(link) = &self.link else { return };
        self.silence += passed.min(TICK_COUNTED_MAX);
        // What has arrived is looked at before anybody is declared silent.
        for push in link.take_pushed() {
            self.on_push(push, shards);
        }
        // Found at the deadline, not up to a tick after it.
        if self.silence + tick > REDIS_PROBE_DEADLINE {
            let why = format!("nothing came back for {:.1?}", self.silence);
            self.lose(&why, shards);
        } else if now.saturating_duration_since(self.last_probe) + tick / 2 >= REDIS_PROBE_INTERVAL
        {
            self.last_probe = now;
            self.server.probe(now);
        }
    }

    fn on_push(&mut self, push: PushInfo, shards: &mut Shards) {
        let mut data = push.data.into_iter();
        let Some(Value::BulkString(name)) = data.next() else {
            return;
        };
        let channel = match self.keys.channel_of(&name) {
            Some(channel) => Some(channel),
            None if *name == *self.probe_channel => None,
            None => return,
        };
        match (push.kind, channel, data.next()) {
            (PushKind::Message | PushKind::SMessage, channel, Some(Value::BulkString(record))) => {
                let now = Instant::now();
                if self.server.received(channel, &record, now, shards) {
                    self.silence = Duration::ZERO;
                }
            }
            (PushKind::Subscribe | PushKind::SSubscribe, Some(channel), _) => {
                self.server.subscribed(channel, Instant::now(), shards);
            }
            (PushKind::SUnsubscribe, None, _) => {
                self.is_spoilt = Some("the slot of its probe went to another server");
            }
            (PushKind::SUnsubscribe, Some(channel), _) if !self.server.is_going(channel) => {
                self.server.dropped(channel);
                self.doubts = true;
                // The crate takes it for an answer to a command that is under way, and from then on
                // each answer for one to the command before.
                if self.link.as_ref().is_some_and(|link| !link.may_command()) {
                    self.is_spoilt = Some("a slot went to another server during a command");
                }
            }
            (PushKind::Unsubscribe | PushKind::SUnsubscribe, Some(channel), _) => {
                self.server.unsubscribed(channel);
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, result: RedisResult<Link>, shards: &mut Shards) {
        self.is_moving = false;
        match result {
            Ok(link) => {
                let now = Instant::now();
                self.link = Some(link);
                self.silence = Duration::ZERO;
                self.last_probe = now;
                self.server.connected(now);
                tracing::info!("connected to Redis, restoring subscriptions");
            }
            Err(error) => {
                shards.metrics.redis_connect_failures.add(1);
                if self.attempts.is_power_of_two() {
                    let (server, attempts) = (&self.name, self.attempts);
                    tracing::warn!(%server, %error, attempts, "Redis is not reachable");
                }
                self.away = Some(error.to_string());
                self.doubts = true;
                self.reconnect();
            }
        }
    }

    /// Gives the connections up: what has arrived counts, what is under way is delivered here.
    fn lose(&mut self, why: &str, shards: &mut Shards) {
        let Some(link) = self.link.take() else { return };
        for push in link.take_pushed() {
            self.on_push(push, shards);
        }
        drop(link);
        self.is_spoilt = None;
        for question in std::mem::take(&mut self.asked).into_iter().flatten() {
            self.server.unanswered(question, shards);
        }
        self.server.lost(Instant::now(), shards);
        // First, so that whoever sees the loss does not find everything up.
        shards.metrics.redis_up.set(0);
        shards.metrics.redis_lost.add(1);
        tracing::warn!(server = %self.name, why, "Redis is lost; publications stay on this node");
        self.away = Some(why.to_owned());
        self.doubts = true;
        self.reconnect();
    }

    /// Begins an attempt to connect, after a pause that doubles with each and is different on each
    /// node: many of them lose a Redis at the same time.
    fn reconnect(&mut self) {
        let Some(client) = self.client.clone() else {
            return;
        };
        let delay = match self.attempts {
            0 => Duration::ZERO,
            attempts => RECONNECT_DELAY_MIN
                .saturating_mul(1 << attempts.min(10))
                .min(REDIS_RECONNECT_DELAY_MAX)
                .mul_f64(0.5 + fastrand::f64() / 2.0),
        };
        self.attempts += 1;
        let must_be_master = self.must_be_master;
        let (connect_timeout, io_timeout) = (self.config.connect_timeout, self.config.io_timeout);
        let probe_channel = Arc::clone(&self.next_probe_channel);
        self.probe_channel = Arc::clone(&probe_channel);
        let is_sharded = self.keys.is_sharded();
        let scripts = Arc::clone(&self.scripts);
        self.connecting = Some(Box::pin(async move {
            sleep(delay).await;
            let link = Link::connect(
                client,
                connect_timeout,
                io_timeout,
                probe_channel,
                is_sharded,
                must_be_master,
                &scripts,
            );
            // Some connections and a command, each with a bound of its own that is longer.
            match timeout(connect_timeout * 2, link).await {
                Ok(result) => result,
                Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            }
        }));
    }
}
