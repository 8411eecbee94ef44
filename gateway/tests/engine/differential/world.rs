//! Engines of one or several nodes, driven from one thread; clients with their positions.
//!
//! What holds for every client at every moment is checked here, whatever the model says:
//! - Deliveries of a channel with history rise by one from the position that was answered; what a
//!   recovery says is contiguous and ends where the shard is.
//! - All clients see the same data at the same offset of the same epoch.
//! - Each question has one answer.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use flux_gateway::engine::history::{
    HistoryOptions, HistoryPage, HistoryQuery, Recovery, RecoveryRequest,
};
use flux_gateway::engine::redis::{RedisConfig, RedisEngine};
use flux_gateway::engine::{
    Asker, Engine, EngineHandle, EngineMetrics, Event, Members, PresenceStats, PublishOptions,
};
use flux_gateway::protocol::{ClientId, ClientInfo, ErrorCode};
use flux_gateway::pubsub::{ChannelKey, Epoch, MessageRef, StreamPosition, Variant};
use flux_runtime::control::Readiness;
use flux_runtime::mailbox::WakeSource;
use tokio::sync::oneshot;

use super::model::{Model, Read, read};
use crate::node::{PATIENCE, wait_for, wakes};

/// What a command was answered.
#[derive(Debug)]
pub(super) enum Answer {
    Published(Result<Option<StreamPosition>, ErrorCode>),
    History(Result<HistoryPage, ErrorCode>),
    Presence(Result<Members, ErrorCode>),
    PresenceStats(Result<PresenceStats, ErrorCode>),
}

/// What a shard gets of one variant of a channel.
#[derive(Debug)]
struct Feed {
    key: ChannelKey,
    name: Arc<str>,
    is_confirmed: bool,
    position: Option<StreamPosition>,
    clients: Vec<usize>,
}

/// A shard's end of its engine.
struct Door {
    node: usize,
    engine: Engine,
    feeds: BTreeMap<(&'static str, bool), Feed>,
}

/// How far a subscription is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The answer to this command is awaited; 0: the channel's confirmation.
    Waiting(u32),
    Active,
    /// It was told that it has missed something, and that its subscription is over.
    Lost,
    /// It was refused.
    Refused(ErrorCode),
}

/// One client's subscription to a channel.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) state: State,
    request: Option<RecoveryRequest>,
    /// The last that it has seen, where the channel has a history.
    pub(super) position: Option<StreamPosition>,
    /// What it has seen since it subscribed; joins too.
    pub(super) seen: Vec<String>,
    /// What it was told about its recovery.
    pub(super) recovered: Option<(bool, Read)>,
}

/// A client on a shard; which wants joins, which not is by its number.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) door: usize,
    pub(super) subscriptions: BTreeMap<&'static str, Subscription>,
    /// The last position that it had in channels that it has left.
    pub(super) left_at: HashMap<&'static str, StreamPosition>,
}

pub(super) struct World {
    doors: Vec<Door>,
    handles: Vec<EngineHandle>,
    runtime: Arc<tokio::runtime::Runtime>,
    pub(super) clients: Vec<Client>,
    pub(super) answers: HashMap<u32, Answer>,
    /// What is where, as somebody has seen it.
    contents: HashMap<(&'static str, Epoch, u64), String>,
    commands: u32,
    keys: u32,
    /// Times that a client was told that it has missed something.
    pub(super) told: u64,
    metrics: Vec<Arc<EngineMetrics>>,
    threads: Vec<EngineThread>,
    _wakes: Vec<WakeSource>,
}

/// The thread of a node's Redis engine.
struct EngineThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EngineThread {
    fn run(engine: RedisEngine) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(engine.run(async {
                let _ = stopped.await;
            }));
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("an engine has panicked");
        }
    }
}

/// Clients on each shard.
const CLIENTS_PER_DOOR: usize = 4;

impl World {
    /// One node with so many shards, without Redis.
    pub(super) fn memory(shards: usize) -> Self {
        let (wakers, sources) = wakes(shards);
        let (engines, handle) = Engine::memory(&wakers);
        Self::new(vec![(engines, handle)], sources)
    }

    /// The same, each shard by itself, to be driven from a thread of its own.
    pub(super) fn memory_shards(shards: usize) -> Vec<Self> {
        let (wakers, sources) = wakes(shards);
        let (engines, handle) = Engine::memory(&wakers);
        let alone = engines.into_iter().zip(sources);
        alone
            .map(|(engine, wake)| Self::new(vec![(vec![engine], handle.clone())], vec![wake]))
            .collect()
    }

    /// Nodes joined by a Redis, once everything travels through it.
    pub(super) fn redis(url: &str, nodes: usize, shards: usize) -> Self {
        let mut joined = Vec::new();
        let mut all_wakes = Vec::new();
        let mut threads = Vec::new();
        let mut metrics = Vec::new();
        for _ in 0..nodes {
            let (wakers, sources) = wakes(shards);
            let config = RedisConfig::new(url);
            let (doors, engine, handle) =
                Engine::redis(config, &wakers, Readiness::new()).expect("an address");
            metrics.push(Arc::clone(engine.metrics()));
            threads.push(EngineThread::run(engine));
            joined.push((doors, handle));
            all_wakes.extend(sources);
        }
        wait_for("the way through Redis", || {
            metrics.iter().all(|metrics| metrics.redis_up.get() == 1)
        });
        let mut world = Self::new(joined, all_wakes);
        world.metrics = metrics;
        world.threads = threads;
        world
    }

    /// Whether nodes are joined by a Redis.
    pub(super) fn is_joined(&self) -> bool {
        !self.threads.is_empty()
    }

    /// Whether everything travels through Redis, on every node.
    pub(super) fn is_up(&self) -> bool {
        let mut metrics = self.metrics.iter();
        metrics.all(|metrics| metrics.redis_up.get() == 1)
    }

    fn new(nodes: Vec<(Vec<Engine>, EngineHandle)>, wakes: Vec<WakeSource>) -> Self {
        let mut doors = Vec::new();
        let mut handles = Vec::new();
        for (node, (engines, handle)) in nodes.into_iter().enumerate() {
            handles.push(handle);
            doors.extend(engines.into_iter().map(|engine| Door {
                node,
                engine,
                feeds: BTreeMap::new(),
            }));
        }
        let clients = (0..doors.len() * CLIENTS_PER_DOOR)
            .map(|client| Client {
                door: client % doors.len(),
                ..Client::default()
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        Self {
            doors,
            handles,
            runtime: Arc::new(runtime),
            clients,
            answers: HashMap::new(),
            contents: HashMap::new(),
            commands: 0,
            keys: 0,
            told: 0,
            metrics: Vec::new(),
            threads: Vec::new(),
            _wakes: wakes,
        }
    }

    /// Whether a client wants to see who joins.
    pub(super) fn wants_joins(client: usize) -> bool {
        client.is_multiple_of(3)
    }

    fn variant(joins: bool) -> Variant {
        match joins {
            true => Variant::JSON_JOIN_LEAVE,
            false => Variant::JSON,
        }
    }

    fn asker(&mut self, client: usize) -> Asker {
        self.commands += 1;
        Asker {
            connection: client as u64,
            command: self.commands,
        }
    }

    pub(super) fn subscribe(
        &mut self,
        client: usize,
        channel: &'static str,
        history: Option<HistoryOptions>,
        request: Option<RecoveryRequest>,
    ) {
        let joins = Self::wants_joins(client);
        let asker = self.asker(client);
        let door = &mut self.doors[self.clients[client].door];
        let (keys, engine) = (&mut self.keys, &mut door.engine);
        let feed = door.feeds.entry((channel, joins)).or_insert_with(|| {
            *keys += 1;
            let key = ChannelKey {
                index: *keys,
                generation: *keys % 3,
            };
            let name: Arc<str> = channel.into();
            engine.subscribe(&name, Self::variant(joins), key, history);
            Feed {
                key,
                name,
                is_confirmed: false,
                position: None,
                clients: Vec::new(),
            }
        });
        feed.clients.push(client);
        let state = match (request, history) {
            (Some(request), Some(history)) => {
                engine.recover(&feed.name, feed.key, request, history, asker);
                State::Waiting(asker.command)
            }
            _ if feed.is_confirmed => State::Active,
            _ => State::Waiting(0),
        };
        let subscription = Subscription {
            state,
            request,
            position: feed.position,
            seen: Vec::new(),
            recovered: None,
        };
        let subscriptions = &mut self.clients[client].subscriptions;
        assert!(subscriptions.insert(channel, subscription).is_none());
    }

    pub(super) fn unsubscribe(&mut self, client: usize, channel: &'static str) {
        let of = &mut self.clients[client];
        let Some(gone) = of.subscriptions.remove(channel) else {
            return;
        };
        // One that waits has seen nothing yet.
        if matches!(gone.state, State::Active | State::Lost)
            && let Some(position) = gone.position
        {
            of.left_at.insert(channel, position);
        }
        if !matches!(gone.state, State::Active | State::Waiting(_)) {
            return;
        }
        let joins = Self::wants_joins(client);
        let door = &mut self.doors[of.door];
        let feed = door.feeds.get_mut(&(channel, joins)).expect("its feed");
        feed.clients.retain(|other| *other != client);
        if feed.clients.is_empty() {
            door.engine
                .unsubscribe(&feed.name, Self::variant(joins), feed.key);
            door.feeds.remove(&(channel, joins));
        }
    }

    /// Publishes from the client's shard; the answer will stand under the number returned.
    pub(super) fn publish(
        &mut self,
        client: usize,
        channel: &str,
        data: &str,
        options: &PublishOptions<'_>,
    ) -> u32 {
        let asker = self.asker(client);
        let engine = &mut self.doors[self.clients[client].door].engine;
        let message = MessageRef::data(data.as_bytes());
        engine.publish(channel, message, options, Some(asker));
        asker.command
    }

    pub(super) fn join(&mut self, client: usize, channel: &str) {
        let info = ClientInfo {
            user: "",
            client: ClientId::from_random(client as u128),
            conn_info: b"",
            chan_info: b"",
        };
        let engine = &mut self.doors[self.clients[client].door].engine;
        let message = MessageRef::Join(info);
        engine.publish(channel, message, &PublishOptions::default(), None);
    }

    /// Asks something else from the client's shard.
    pub(super) fn ask(&mut self, client: usize, ask: impl FnOnce(&mut Engine, Asker)) -> u32 {
        let asker = self.asker(client);
        ask(&mut self.doors[self.clients[client].door].engine, asker);
        asker.command
    }

    pub(super) fn history(
        &mut self,
        client: usize,
        channel: &str,
        query: HistoryQuery,
        history: HistoryOptions,
    ) -> u32 {
        self.ask(client, |engine, asker| {
            engine.history(channel, query, history, asker);
        })
    }

    /// Asks through the control plane of one of the nodes; the shards go on meanwhile.
    pub(super) fn call<'a, T, F>(&mut self, node: usize, call: impl FnOnce(EngineHandle) -> F) -> T
    where
        T: 'a,
        F: Future<Output = T> + 'a,
    {
        let future = call(self.handles[node % self.handles.len()].clone());
        let runtime = Arc::clone(&self.runtime);
        runtime.block_on(async {
            let mut future = std::pin::pin!(future);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut future => return answer,
                    () = tokio::task::yield_now() => {}
                }
                if !self.pump(None) {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
            }
        })
    }

    pub(super) fn nodes(&self) -> usize {
        self.handles.len()
    }

    /// Goes on until it is so and nothing more comes of itself.
    pub(super) fn until(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.pump(None) {
                continue;
            }
            if is_so(self) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}: {:?}",
                self.standing()
            );
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Lets shards take their mail: all of it, or, with `rng`, some of some. Says whether anything
    /// came.
    pub(super) fn pump(&mut self, mut rng: Option<&mut Rng>) -> bool {
        let mut has_come = false;
        for at in 0..self.doors.len() {
            // Half of the shards take no turn.
            let most = match &mut rng {
                Some(rng) => rng.usize(..6).saturating_sub(rng.usize(..2) * 6),
                None => usize::MAX,
            };
            for _ in 0..most {
                let Some(event) = self.doors[at].engine.poll() else {
                    break;
                };
                has_come = true;
                self.event(at, event);
            }
            let door = &mut self.doors[at];
            let is_clear = door.engine.flush();
            has_come |= !is_clear || door.engine.has_mail();
        }
        has_come
    }

    fn event(&mut self, at: usize, event: Event) {
        match event {
            Event::Subscribed { key, result } => self.on_subscribed(at, key, result),
            Event::Recovered { key, asker, result } => self.on_recovered(at, key, asker, result),
            Event::Delivery {
                key, slice, offset, ..
            } => self.on_delivery(at, key, slice.as_bytes(), offset),
            Event::Lost { key } => {
                let Some(place) = self.doors[at].place(key) else {
                    return;
                };
                let feed = self.doors[at].feeds.remove(&place).expect("just found");
                for client in feed.clients {
                    self.subscription(client, place.0).state = State::Lost;
                    self.told += 1;
                }
            }
            Event::Inappropriate { .. } => panic!("all data here is JSON"),
            Event::Published { asker, result } => self.answer(asker, Answer::Published(result)),
            Event::History { asker, result } => self.answer(asker, Answer::History(result)),
            Event::Presence { asker, result } => self.answer(asker, Answer::Presence(result)),
            Event::PresenceStats { asker, result } => {
                self.answer(asker, Answer::PresenceStats(result));
            }
        }
    }

    fn answer(&mut self, asker: Asker, answer: Answer) {
        let before = self.answers.insert(asker.command, answer);
        assert!(before.is_none(), "{asker:?} is answered twice");
    }

    pub(super) fn subscription(
        &mut self,
        client: usize,
        channel: &'static str,
    ) -> &mut Subscription {
        let found = self.clients[client].subscriptions.get_mut(channel);
        found.expect("a feed's client is subscribed")
    }

    fn on_subscribed(
        &mut self,
        at: usize,
        key: ChannelKey,
        result: Result<Option<StreamPosition>, ErrorCode>,
    ) {
        let Some(place) = self.doors[at].place(key) else {
            return;
        };
        let feed = self.doors[at].feeds.get_mut(&place).expect("just found");
        assert!(!feed.is_confirmed, "{} is confirmed twice", place.0);
        let clients = feed.clients.clone();
        match result {
            Ok(position) => {
                feed.is_confirmed = true;
                feed.position = position;
                for client in clients {
                    let subscription = self.subscription(client, place.0);
                    if subscription.state == State::Waiting(0) {
                        subscription.state = State::Active;
                        subscription.position = position;
                    }
                }
            }
            Err(code) => {
                self.doors[at].feeds.remove(&place);
                for client in clients {
                    self.subscription(client, place.0).state = State::Refused(code);
                }
            }
        }
    }

    fn on_recovered(
        &mut self,
        at: usize,
        key: ChannelKey,
        asker: Asker,
        result: Result<Recovery, ErrorCode>,
    ) {
        let Some(place) = self.doors[at].place(key) else {
            return;
        };
        let client = asker.connection as usize;
        let feed = &self.doors[at].feeds[&place];
        let (channel, position) = (place.0, feed.position);
        if !feed.clients.contains(&client) {
            return;
        }
        assert!(feed.is_confirmed, "{channel}: before its confirmation");
        let subscription = self.subscription(client, channel);
        if subscription.state != State::Waiting(asker.command) {
            // It has left and come again meanwhile.
            return;
        }
        let recovery = match result {
            Ok(recovery) => recovery,
            Err(code) => {
                subscription.state = State::Refused(code);
                return;
            }
        };
        assert_eq!(
            Some(recovery.position),
            position,
            "{channel}: a recovery ends where the shard is"
        );
        let missed = read(&recovery.publications);
        assert!(recovery.recovered || missed.is_empty(), "{channel}");
        let ends = missed.last().map(|(offset, _)| *offset);
        assert!(ends.is_none() || ends == Some(recovery.position.offset));
        for pair in missed.windows(2) {
            assert_eq!(pair[0].0 + 1, pair[1].0, "{channel}: a hole in a recovery");
        }
        subscription.state = State::Active;
        subscription.position = Some(recovery.position);
        let data = missed.iter().map(|(_, data)| data.clone());
        subscription.seen.extend(data);
        subscription.recovered = Some((recovery.recovered, missed.clone()));
        self.told += u64::from(!recovery.recovered);
        for (offset, data) in missed {
            self.saw(channel, recovery.position.epoch, offset, &data);
        }
    }

    fn on_delivery(&mut self, at: usize, key: ChannelKey, bytes: &[u8], offset: u64) {
        let Some(place) = self.doors[at].place(key) else {
            return;
        };
        let channel = place.0;
        let (data, said) = pushed(bytes, channel);
        assert_eq!(said, offset, "{channel}: what the push says");
        let feed = self.doors[at].feeds.get_mut(&place).expect("just found");
        if !feed.is_confirmed {
            // Its position will stand in the confirmation.
            return;
        }
        if let (Some(position), true) = (&mut feed.position, offset > 0) {
            assert_eq!(
                offset,
                position.offset + 1,
                "{channel}: offsets rise by one"
            );
            position.offset = offset;
        }
        let position = feed.position;
        for client in feed.clients.clone() {
            let subscription = self.subscription(client, channel);
            if subscription.state == State::Active {
                subscription.seen.push(data.clone());
                subscription.position = position;
            }
        }
        if let (Some(position), true) = (position, offset > 0) {
            self.saw(channel, position.epoch, offset, &data);
        }
    }

    /// Somebody sees this there: everybody else does.
    pub(super) fn saw(&mut self, channel: &'static str, epoch: Epoch, offset: u64, data: &str) {
        let place = (channel, epoch, offset);
        let known = self
            .contents
            .entry(place)
            .or_insert_with(|| data.to_owned());
        assert_eq!(known, data, "{channel}: two publications at {offset}");
    }

    /// Where every subscription stands, for a failure's message.
    pub(super) fn standing(&self) -> Vec<(usize, &'static str, State, Option<StreamPosition>)> {
        let clients = self.clients.iter().enumerate();
        clients
            .flat_map(|(number, client)| {
                client
                    .subscriptions
                    .iter()
                    .map(move |(name, one)| (number, *name, one.state, one.position))
            })
            .collect()
    }

    /// Who must come back, and to which channel: they were told that they have missed something, or
    /// were refused.
    pub(super) fn outcasts(&self) -> Vec<(usize, &'static str)> {
        let clients = self.clients.iter().enumerate();
        clients
            .flat_map(|(number, client)| {
                client
                    .subscriptions
                    .iter()
                    .filter(|(_, one)| matches!(one.state, State::Lost | State::Refused(_)))
                    .map(move |(name, _)| (number, *name))
            })
            .collect()
    }

    /// Everything that somebody has seen.
    pub(super) fn contents(&self) -> &HashMap<(&'static str, Epoch, u64), String> {
        &self.contents
    }

    /// Whether anybody has seen what is there.
    pub(super) fn has_seen(&self, model: &Model, offset: u64) -> bool {
        let epoch = model.epoch.expect("something was published");
        self.contents.contains_key(&(model.name, epoch, offset))
    }

    /// What a recovery was asked with.
    pub(super) fn request(&self, client: usize, channel: &str) -> Option<RecoveryRequest> {
        self.clients[client].subscriptions.get(channel)?.request
    }

    /// The node of the client's shard.
    pub(super) fn node_of(&self, client: usize) -> usize {
        self.doors[self.clients[client].door].node
    }
}

impl Door {
    /// What it knows under this key; nothing, if it is from before.
    fn place(&self, key: ChannelKey) -> Option<(&'static str, bool)> {
        let found = self.feeds.iter().find(|(_, feed)| feed.key == key);
        found.map(|(place, _)| *place)
    }
}

/// Data (or `join`) and offset of a push in a text frame.
fn pushed(frame: &[u8], channel: &str) -> (String, u64) {
    assert_eq!(frame[0], 0x81, "a whole text frame");
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let value: serde_json::Value = serde_json::from_slice(&frame[header..]).expect("JSON");
    let push = &value["push"];
    assert_eq!(push["channel"], channel);
    if push.get("join").is_some() {
        return ("join".to_owned(), 0);
    }
    let publication = &push["pub"];
    let offset = publication["offset"].as_u64().unwrap_or_default();
    (publication["data"].to_string(), offset)
}
