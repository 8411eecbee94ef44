//! One shard's door to an engine, turned by hand, and the Redis engines behind some.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flux_gateway::engine::history::{
    HistoryOptions, HistoryPage, HistoryQuery, Recovery, RecoveryMode, RecoveryRequest,
};
use flux_gateway::engine::redis::{RedisConfig, RedisEngine};
use flux_gateway::engine::{
    Asker, Engine, EngineHandle, EngineMetrics, Event, Members, PresenceStats, PublishOptions,
};
use flux_gateway::protocol::ErrorCode;
use flux_gateway::pubsub::{ChannelKey, KnownEpoch, MessageRef, StreamPosition, Variant};
use flux_redis_fixtures::Server as RedisServer;
use flux_runtime::control::Readiness;
use flux_runtime::mailbox::WakeSource;

use crate::node::{PATIENCE, wakes};

pub(crate) const HISTORY: HistoryOptions = HistoryOptions {
    size: 1_000,
    ttl: Duration::from_secs(300),
    meta_ttl: Duration::from_secs(3_600),
};

pub(crate) type Position = Result<Option<StreamPosition>, ErrorCode>;

/// A shard, as far as its engine is concerned.
pub(crate) struct Door {
    pub(crate) engine: Engine,
    _wake: WakeSource,
    keys: u32,
    asked: u32,
    pub(crate) subscribed: HashMap<ChannelKey, Position>,
    /// What was delivered: offset and data.
    pub(crate) got: HashMap<ChannelKey, Vec<(u64, String)>>,
    pub(crate) lost: Vec<ChannelKey>,
    pub(crate) published: HashMap<u32, Position>,
    pub(crate) recovered: HashMap<u32, Result<Recovery, ErrorCode>>,
    pub(crate) pages: HashMap<u32, Result<HistoryPage, ErrorCode>>,
    pub(crate) members: HashMap<u32, Result<Members, ErrorCode>>,
    pub(crate) stats: HashMap<u32, Result<PresenceStats, ErrorCode>>,
}

impl Door {
    pub(crate) fn new(engine: Engine, wake: WakeSource) -> Self {
        Self {
            engine,
            _wake: wake,
            keys: 0,
            asked: 0,
            subscribed: HashMap::new(),
            got: HashMap::new(),
            lost: Vec::new(),
            published: HashMap::new(),
            recovered: HashMap::new(),
            pages: HashMap::new(),
            members: HashMap::new(),
            stats: HashMap::new(),
        }
    }

    /// What a shard does in a turn.
    pub(crate) fn turn(&mut self) {
        self.engine.flush();
        while let Some(event) = self.engine.poll() {
            match event {
                Event::Subscribed { key, result } => {
                    assert!(self.subscribed.insert(key, result).is_none(), "twice");
                }
                Event::Recovered { key, asker, result } => {
                    assert!(self.subscribed.contains_key(&key), "behind Subscribed");
                    assert!(self.recovered.insert(asker.command, result).is_none());
                }
                Event::Published { asker, result } => {
                    assert!(self.published.insert(asker.command, result).is_none());
                }
                Event::Delivery {
                    key, slice, offset, ..
                } => {
                    let text = String::from_utf8_lossy(slice.as_bytes()).into_owned();
                    let kind = ["join", "leave"]
                        .into_iter()
                        .find(|kind| text.contains(&format!("\"{kind}\":")));
                    let data = match (kind, text.split("\"data\":").nth(1)) {
                        (None, Some(data)) => data.split([',', '}']).next().expect("a part"),
                        (kind, _) => kind.expect("data, join or leave"),
                    };
                    let got = self.got.entry(key).or_default();
                    got.push((offset, data.to_owned()));
                }
                Event::Lost { key } | Event::Inappropriate { key, .. } => self.lost.push(key),
                Event::History { asker, result } => {
                    self.pages.insert(asker.command, result);
                }
                Event::Presence { asker, result } => {
                    self.members.insert(asker.command, result);
                }
                Event::PresenceStats { asker, result } => {
                    self.stats.insert(asker.command, result);
                }
            }
        }
        self.engine.flush();
    }

    /// Turns until it is so.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.turn();
            if let Some(found) = is_so(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn asker(&mut self) -> Asker {
        self.asked += 1;
        Asker {
            connection: 1,
            command: self.asked,
        }
    }

    pub(crate) fn listen(&mut self, channel: &str, history: Option<HistoryOptions>) -> ChannelKey {
        self.keys += 1;
        let key = ChannelKey {
            index: self.keys,
            generation: 0,
        };
        let variant = Variant::JSON_JOIN_LEAVE;
        self.engine
            .subscribe(&Arc::from(channel), variant, key, history);
        key
    }

    /// Subscribes with history; the position that was answered.
    pub(crate) fn listening(&mut self, channel: &str) -> (ChannelKey, StreamPosition) {
        let key = self.listen(channel, Some(HISTORY));
        let position = self.until("a position", |door| door.subscribed.get(&key).copied());
        (key, position.expect("accepted").expect("a position"))
    }

    pub(crate) fn recover(&mut self, channel: &str, key: ChannelKey, since: StreamPosition) -> u32 {
        let asker = self.asker();
        let request = RecoveryRequest {
            mode: RecoveryMode::Stream,
            offset: since.offset,
            epoch: KnownEpoch::Is(since.epoch),
            publications_max: 300,
        };
        self.engine
            .recover(&Arc::from(channel), key, request, HISTORY, asker);
        asker.command
    }

    pub(crate) fn recovery(&mut self, command: u32) -> Result<Recovery, ErrorCode> {
        self.until("a recovery", |door| door.recovered.remove(&command))
    }

    pub(crate) fn publish_with(
        &mut self,
        channel: &str,
        data: u64,
        options: &PublishOptions<'_>,
    ) -> u32 {
        let asker = self.asker();
        let data = data.to_string();
        let message = MessageRef::data(data.as_bytes());
        self.engine.publish(channel, message, options, Some(asker));
        asker.command
    }

    /// Publishes into the history and waits for the answer.
    pub(crate) fn publish(&mut self, channel: &str, data: u64) -> Position {
        let command = self.publish_with(channel, data, &in_history());
        self.publish_answer(command)
    }

    pub(crate) fn publish_answer(&mut self, command: u32) -> Position {
        self.until("a publish's answer", |door| door.published.remove(&command))
    }

    pub(crate) fn page(
        &mut self,
        channel: &str,
        query: HistoryQuery,
    ) -> Result<HistoryPage, ErrorCode> {
        let asker = self.asker();
        self.engine.history(channel, query, HISTORY, asker);
        self.until("a page", |door| door.pages.remove(&asker.command))
    }

    /// Offsets delivered to `key`.
    pub(crate) fn offsets(&self, key: ChannelKey) -> Vec<u64> {
        let got = self.got.get(&key).map(Vec::as_slice).unwrap_or_default();
        got.iter()
            .map(|(offset, _)| *offset)
            .filter(|offset| *offset > 0)
            .collect()
    }

    /// Waits until everything up to `last` was delivered, each once and in order, from `first`.
    pub(crate) fn has_all(&mut self, key: ChannelKey, first: u64, last: u64) {
        self.until("the last publication", |door| {
            (door.offsets(key).last() >= Some(&last)).then_some(())
        });
        assert!(
            self.offsets(key).into_iter().eq(first..=last),
            "{:?}",
            self.offsets(key)
        );
        assert!(!self.lost.contains(&key), "nothing had to be announced");
    }
}

pub(crate) fn in_history() -> PublishOptions<'static> {
    PublishOptions {
        history: Some(HISTORY),
        ..PublishOptions::default()
    }
}

/// A node with one shard, joined by Redis.
pub(crate) struct RedisNode {
    pub(crate) door: Door,
    pub(crate) handle: EngineHandle,
    pub(crate) metrics: Arc<EngineMetrics>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RedisNode {
    pub(crate) fn start(
        config: RedisConfig,
        prepare: impl FnOnce(RedisEngine) -> RedisEngine,
    ) -> Self {
        let (wakers, mut sources) = wakes(1);
        let readiness = Readiness::new();
        let (mut doors, engine, handle) =
            Engine::redis(config, &wakers, readiness).expect("a valid address");
        let engine = prepare(engine);
        let metrics = Arc::clone(engine.metrics());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(engine.run(async {
                    let _ = stopped.await;
                }));
        });
        let (engine, source) = (doors.remove(0), sources.remove(0));
        Self {
            door: Door::new(engine, source),
            handle,
            metrics,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// One that everything travels through Redis for.
    pub(crate) fn joined(url: &str) -> Self {
        let mut node = Self::start(RedisConfig::new(url), |engine| engine);
        node.wait_until_up();
        node
    }

    /// Two of them, joined by a server of their own; `None` where the test is skipped.
    pub(crate) fn two() -> Option<(RedisServer, Self, Self)> {
        let server = RedisServer::start()?;
        let (a, b) = (Self::joined(&server.url()), Self::joined(&server.url()));
        Some((server, a, b))
    }

    pub(crate) fn wait_until_up(&mut self) {
        let metrics = Arc::clone(&self.metrics);
        let is_up = |_: &mut Door| (metrics.redis_up.get() == 1).then_some(());
        self.door.until("the way through Redis", is_up);
    }

    pub(crate) fn wait_until_away(&mut self) {
        let metrics = Arc::clone(&self.metrics);
        let is_away = |_: &mut Door| (metrics.redis_up.get() == 0).then_some(());
        self.door.until("Redis to be noticed away", is_away);
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("an engine has panicked");
        }
    }
}

impl Drop for RedisNode {
    fn drop(&mut self) {
        self.end();
    }
}
