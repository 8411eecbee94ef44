//! Engines of one or several nodes, driven from one thread; clients with their positions.
//!
//! What engines tell them is `told`'s.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use flux_gateway::engine::history::{HistoryOptions, HistoryPage, HistoryQuery, RecoveryRequest};
use flux_gateway::engine::{Asker, Engine, EngineHandle, Members, PresenceStats, PublishOptions};
use flux_gateway::protocol::{ClientId, ClientInfo, ErrorCode};
use flux_gateway::pubsub::{ChannelKey, Epoch, MessageRef, StreamPosition, Variant};
use flux_registry::RedisDeployment;
use flux_runtime::mailbox::WakeSource;

use super::model::{Model, Read};
use super::nodes::{Joined, Node};
use crate::node::{PATIENCE, wakes};

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
pub(super) struct Feed {
    pub(super) key: ChannelKey,
    pub(super) name: Arc<str>,
    pub(super) is_confirmed: bool,
    pub(super) position: Option<StreamPosition>,
    /// The payload of the last publication.
    pub(super) previous: Option<String>,
    pub(super) clients: Vec<usize>,
}

/// How a client gets a channel's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Plain,
    WithJoins,
    WithDeltas,
}

impl Kind {
    fn variant(self) -> Variant {
        Variant {
            join_leave: self == Kind::WithJoins,
            delta: self == Kind::WithDeltas,
            ..Variant::JSON
        }
    }
}

/// A shard's end of its engine.
pub(super) struct Door {
    pub(super) node: usize,
    pub(super) engine: Engine,
    pub(super) feeds: BTreeMap<(&'static str, Kind), Feed>,
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
    pub(super) request: Option<RecoveryRequest>,
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
    pub(super) doors: Vec<Door>,
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
    joins: u32,
    joined: Option<Joined>,
    _wakes: Vec<WakeSource>,
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

    /// Nodes joined by Redis, once everything travels through it.
    pub(super) fn redis(deployment: &RedisDeployment, nodes: usize, shards: usize) -> Self {
        let (joined, nodes, wakes) = Joined::start(deployment, nodes, shards);
        let mut world = Self::new(nodes, wakes);
        world.joined = Some(joined);
        world
    }

    /// Whether nodes are joined by Redis.
    pub(super) fn is_joined(&self) -> bool {
        self.joined.is_some()
    }

    /// How often connections to Redis were lost.
    pub(super) fn losses(&self) -> u64 {
        self.joined.as_ref().map_or(0, Joined::losses)
    }

    /// What nodes joined by Redis have.
    pub(super) fn joined(&self) -> &Joined {
        self.joined.as_ref().expect("joined by Redis")
    }

    fn new(nodes: Vec<Node>, wakes: Vec<WakeSource>) -> Self {
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
            joins: 0,
            joined: None,
            _wakes: wakes,
        }
    }

    /// How a client gets a channel's messages: by its number.
    pub(super) fn kind(client: usize) -> Kind {
        [Kind::WithJoins, Kind::Plain, Kind::WithDeltas][client % 3]
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
        let kind = Self::kind(client);
        let asker = self.asker(client);
        let door = &mut self.doors[self.clients[client].door];
        let (keys, engine) = (&mut self.keys, &mut door.engine);
        let feed = door.feeds.entry((channel, kind)).or_insert_with(|| {
            *keys += 1;
            let key = ChannelKey {
                index: *keys,
                generation: *keys % 3,
            };
            let name: Arc<str> = channel.into();
            engine.subscribe(&name, kind.variant(), key, history);
            Feed {
                key,
                name,
                is_confirmed: false,
                position: None,
                previous: None,
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
        let kind = Self::kind(client);
        let door = &mut self.doors[of.door];
        let feed = door.feeds.get_mut(&(channel, kind)).expect("its feed");
        feed.clients.retain(|other| *other != client);
        if feed.clients.is_empty() {
            door.engine
                .unsubscribe(&feed.name, kind.variant(), feed.key);
            door.feeds.remove(&(channel, kind));
        }
    }

    /// Publishes from the client's shard; the answer will stand under the number returned.
    pub(super) fn publish(
        &mut self,
        client: usize,
        channel: &str,
        message: MessageRef<'_>,
        options: &PublishOptions<'_>,
    ) -> u32 {
        let asker = self.asker(client);
        let engine = &mut self.doors[self.clients[client].door].engine;
        engine.publish(channel, message, options, Some(asker));
        asker.command
    }

    /// Somebody joins, from the client's shard; what those see who want to.
    pub(super) fn join(&mut self, client: usize, channel: &str) -> String {
        self.joins += 1;
        let user = self.joins.to_string();
        let info = ClientInfo {
            user: &user,
            client: ClientId::from_random(client as u128),
            conn_info: b"",
            chan_info: b"",
        };
        let engine = &mut self.doors[self.clients[client].door].engine;
        let message = MessageRef::Join(info);
        engine.publish(channel, message, &PublishOptions::default(), None);
        format!("join {user}")
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

    pub(super) fn subscription(
        &mut self,
        client: usize,
        channel: &'static str,
    ) -> &mut Subscription {
        let found = self.clients[client].subscriptions.get_mut(channel);
        found.expect("a feed's client is subscribed")
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
    pub(super) fn place(&self, key: ChannelKey) -> Option<(&'static str, Kind)> {
        let found = self.feeds.iter().find(|(_, feed)| feed.key == key);
        found.map(|(place, _)| *place)
    }
}
