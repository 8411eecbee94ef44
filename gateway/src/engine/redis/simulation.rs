//! Seeded simulation: nodes joined by a model of Redis that carries out the commands of each
//! connection in order, but those of different connections, also of connections that their node
//! has given up, whenever it pleases.
//!
//! Promise, whatever is lost and when: a listener gets each message of its own node once and in
//! order, from its confirmation on; messages of other nodes at most once and in order, and all of
//! them, in one order for everybody, while no connection is lost. Each publish is answered once.
//!
//! `FLUX_SEED=n` repeats a run.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;
use flux_runtime::log::LogWriter;
use flux_runtime::mailbox::{Receiver, WakeSource, mailbox, wake_pair};

use super::super::outbox::Outbox;
use super::super::request::{Mail, ReplyTo, Request};
use super::super::{Asker, EngineMetrics, Event};
use super::interest::Command;
use super::scripts::Outcome;
use super::server::{Outgoing, Phase, Server};
use super::shards::Shards;
use crate::pubsub::{ChannelKey, MessageRef, ShardIndex, Variant};

const NODES: usize = 3;
const SHARDS: usize = 2;
const CHANNELS: [&str; 3] = ["a", "b", "c"];

/// What stands in a connection on its way to Redis.
enum Order {
    Publish(Option<String>, Vec<u8>, u64),
    Command(Command, Vec<Arc<str>>),
}

/// What stands in a connection on its way to the node.
enum Answer {
    Published(u64),
    Message(Option<String>, Vec<u8>),
    Subscribed(Arc<str>),
    Unsubscribed(Arc<str>),
    Done,
}

#[derive(Default)]
struct Connection {
    node: usize,
    orders: VecDeque<Order>,
    answers: VecDeque<Answer>,
    channels: HashSet<Option<String>>,
}

/// Somebody on a shard who listens to a channel.
struct Listener {
    key: ChannelKey,
    /// Set when confirmed: of its own node, nothing from this number on may be missed.
    must_have: Option<u64>,
    got: Vec<(usize, u64)>,
}

struct Node {
    server: Server,
    shards: Shards,
    inboxes: Vec<Receiver<Mail>>,
    _wakes: Vec<WakeSource>,
    /// Publishing and subscriber connection.
    link: Option<(usize, usize)>,
    has_command: bool,
    listeners: BTreeMap<(usize, &'static str), Listener>,
    published: HashMap<&'static str, u64>,
    asked: u32,
    answers: HashMap<u32, u32>,
    keys: u32,
    arena: LogWriter,
}

struct World {
    rng: Rng,
    now: Instant,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    losses: u64,
    delivered: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let node = |origin: usize| {
            let metrics = Arc::new(EngineMetrics::default());
            let (mut inboxes, mut wakes, mut outboxes) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..SHARDS {
                let (waker, source) = wake_pair().expect("an eventfd");
                let (sender, inbox) = mailbox(64, waker);
                outboxes.push(Outbox::new(sender, Arc::clone(&metrics)));
                inboxes.push(inbox);
                wakes.push(source);
            }
            Node {
                server: Server::new(origin as u64, std::time::Duration::from_secs(40)),
                shards: Shards::new(outboxes, metrics),
                inboxes,
                _wakes: wakes,
                link: None,
                has_command: false,
                listeners: BTreeMap::new(),
                published: HashMap::new(),
                asked: 0,
                answers: HashMap::new(),
                keys: 0,
                arena: LogWriter::new(),
            }
        };
        Self {
            rng: Rng::with_seed(seed),
            now: Instant::now(),
            nodes: (0..NODES).map(node).collect(),
            connections: Vec::new(),
            losses: 0,
            delivered: 0,
        }
    }

    fn connect(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.link.is_some() {
            return;
        }
        let first = self.connections.len();
        for _ in 0..2 {
            self.connections.push(Connection {
                node: at,
                ..Connection::default()
            });
        }
        // The probe channel is subscribed before the link is handed over.
        self.connections[first + 1].channels.insert(None);
        node.link = Some((first, first + 1));
        node.has_command = false;
        node.server.connected(self.now);
    }

    fn lose(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some((publisher, subscriber)) = node.link.take() else {
            return;
        };
        self.losses += 1;
        // What was on its way to the node is gone; what is on its way to Redis may still be
        // carried out, or is gone from some point on.
        for connection in [publisher, subscriber] {
            let connection = &mut self.connections[connection];
            connection.answers.clear();
            let kept = self.rng.usize(..=connection.orders.len());
            connection.orders.truncate(kept);
        }
        node.server.lost(self.now, &mut node.shards);
    }

    /// The node hands its connections what it has.
    fn send(&mut self, at: usize, count: usize) {
        let node = &mut self.nodes[at];
        let Some((publisher, subscriber)) = node.link else {
            return;
        };
        let mut orders = Vec::new();
        let handed = node.server.next_publications(count, |outgoing, record| {
            let channel = match outgoing {
                Outgoing::Message(channel) => Some(channel.to_owned()),
                _ => None,
            };
            orders.push((channel, record.to_vec()));
        });
        if let Some((first, count)) = handed {
            assert_eq!(count, orders.len());
            for (sequence, (channel, record)) in (first..).zip(orders) {
                let order = Order::Publish(channel, record, sequence);
                self.connections[publisher].orders.push_back(order);
            }
        }
        if !node.has_command
            && let Some((command, channels)) = node.server.next_command()
        {
            node.has_command = true;
            let order = Order::Command(command, channels);
            self.connections[subscriber].orders.push_back(order);
        }
    }

    /// Redis carries out one order of a connection.
    fn execute(&mut self, at: usize) {
        let Some(order) = self.connections[at].orders.pop_front() else {
            return;
        };
        match order {
            Order::Publish(channel, record, sequence) => {
                let from = self.connections[at].node;
                for connection in &mut self.connections {
                    // Each node has a probe channel of its own.
                    let is_private = channel.is_none() && connection.node != from;
                    if !is_private && connection.channels.contains(&channel) {
                        let message = Answer::Message(channel.clone(), record.clone());
                        connection.answers.push_back(message);
                    }
                }
                let answer = Answer::Published(sequence);
                self.connections[at].answers.push_back(answer);
            }
            Order::Command(command, channels) => {
                let connection = &mut self.connections[at];
                for channel in channels {
                    let name = Some(channel.to_string());
                    let answer = match command {
                        Command::Subscribe => {
                            connection.channels.insert(name);
                            Answer::Subscribed(channel)
                        }
                        Command::Unsubscribe => {
                            connection.channels.remove(&name);
                            Answer::Unsubscribed(channel)
                        }
                    };
                    connection.answers.push_back(answer);
                }
                connection.answers.push_back(Answer::Done);
            }
        }
    }

    /// A node hears one thing on one of its connections.
    fn hear(&mut self, at: usize, of_subscriber: bool) {
        let node = &mut self.nodes[at];
        let Some((publisher, subscriber)) = node.link else {
            return;
        };
        let connection = if of_subscriber { subscriber } else { publisher };
        let Some(answer) = self.connections[connection].answers.pop_front() else {
            return;
        };
        let (server, shards) = (&mut node.server, &mut node.shards);
        match answer {
            Answer::Published(sequence) => server.published(sequence, Outcome::Taken, shards),
            Answer::Message(channel, record) => {
                server.received(channel.as_deref(), &record, self.now, shards);
            }
            Answer::Subscribed(channel) => server.subscribed(&channel, self.now, shards),
            Answer::Unsubscribed(channel) => server.unsubscribed(&channel),
            Answer::Done => node.has_command = false,
        }
        self.read_mail(at);
    }

    fn listen(&mut self, at: usize, shard: usize, channel: &'static str) {
        let node = &mut self.nodes[at];
        if node.listeners.contains_key(&(shard, channel)) {
            return;
        }
        node.keys += 1;
        let key = ChannelKey {
            index: node.keys,
            generation: 0,
        };
        let listener = Listener {
            key,
            must_have: None,
            got: Vec::new(),
        };
        node.listeners.insert((shard, channel), listener);
        let request = Request::Subscribe {
            channel: channel.into(),
            variant: Variant::JSON,
            shard: shard as ShardIndex,
            key,
            history: None,
        };
        node.server.carry_out(request, self.now, &mut node.shards);
        self.read_mail(at);
    }

    fn leave(&mut self, at: usize, shard: usize, channel: &'static str) {
        let node = &mut self.nodes[at];
        let Some(listener) = node.listeners.remove(&(shard, channel)) else {
            return;
        };
        let request = Request::Unsubscribe {
            channel: channel.into(),
            variant: Variant::JSON,
            shard: shard as ShardIndex,
            key: listener.key,
        };
        node.server.carry_out(request, self.now, &mut node.shards);
    }

    fn publish(&mut self, at: usize, channel: &'static str) {
        let node = &mut self.nodes[at];
        let next = node.published.entry(channel).or_default();
        let data = format!("[{at},{next}]");
        *next += 1;
        node.asked += 1;
        let asker = Asker {
            connection: 0,
            command: node.asked,
        };
        let message = MessageRef::data(data.as_bytes());
        let request = Request::Publish {
            message: message.store(&mut node.arena, channel),
            history: None,
            conditions: None,
            reply: Some(ReplyTo::Shard(0, asker)),
        };
        node.server.carry_out(request, self.now, &mut node.shards);
        self.read_mail(at);
    }

    /// The shards of a node read their mail, and the model checks it.
    fn read_mail(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        loop {
            let is_clear = node.shards.flush();
            for (shard, inbox) in node.inboxes.iter().enumerate() {
                while let Some(mail) = inbox.pop() {
                    let Mail::Event(event) = mail else {
                        panic!("a request for a shard")
                    };
                    let by_key = |key: ChannelKey| {
                        move |((of, _), listener): &(&(usize, &str), &mut Listener)| {
                            *of == shard && listener.key == key
                        }
                    };
                    match event {
                        Event::Published { asker, result } => {
                            assert_eq!(result, Ok(None));
                            *node.answers.entry(asker.command).or_default() += 1;
                        }
                        Event::Subscribed { key, result } => {
                            assert_eq!(result, Ok(None));
                            if let Some(((_, channel), listener)) =
                                node.listeners.iter_mut().find(by_key(key))
                            {
                                assert_eq!(listener.must_have, None, "confirmed twice");
                                let next = node.published.get(channel);
                                listener.must_have = Some(next.copied().unwrap_or_default());
                            }
                        }
                        Event::Recovered { .. }
                        | Event::History { .. }
                        | Event::Presence { .. }
                        | Event::PresenceStats { .. } => panic!("nobody asked"),
                        Event::Delivery { key, slice, .. } => {
                            let Some((_, listener)) = node.listeners.iter_mut().find(by_key(key))
                            else {
                                continue;
                            };
                            let Some(must_have) = listener.must_have else {
                                continue;
                            };
                            let text = String::from_utf8_lossy(slice.as_bytes()).into_owned();
                            let data = text.split("\"data\":").nth(1).expect("a publication");
                            let data = data.trim_end_matches('}');
                            let (of, number): (usize, u64) =
                                serde_json::from_str(data).expect("what was published");
                            let last = listener.got.iter().rev().find(|(from, _)| *from == of);
                            match last {
                                Some((_, last)) if of == at || self.losses == 0 => {
                                    assert_eq!(number, last + 1, "lost, doubled or reordered");
                                }
                                Some((_, last)) => assert!(number > *last, "doubled or reordered"),
                                None if of == at => {
                                    assert!(number <= must_have, "missed after the confirmation");
                                }
                                None => {}
                            }
                            listener.got.push((of, number));
                            self.delivered += 1;
                        }
                        Event::Inappropriate { .. } => panic!("only JSON is published here"),
                        Event::Lost { .. } => panic!("nothing is lost here"),
                    }
                }
            }
            if is_clear {
                break;
            }
        }
    }

    fn step(&mut self, losses_too: bool) {
        let at = self.rng.usize(..NODES);
        let shard = self.rng.usize(..SHARDS);
        let channel = CHANNELS[self.rng.usize(..CHANNELS.len())];
        match self.rng.u32(..100) {
            0..4 => self.listen(at, shard, channel),
            4..7 => self.leave(at, shard, channel),
            7..25 => self.publish(at, channel),
            25 => self.nodes[at].server.probe(self.now),
            26 if losses_too => self.lose(at),
            26..30 => self.connect(at),
            30..45 => {
                let count = self.rng.usize(1..4);
                self.send(at, count);
            }
            45..70 if !self.connections.is_empty() => {
                // Mostly the latest ones; older ones are given up and run late.
                let len = self.connections.len();
                let recent = len.saturating_sub(2 * NODES + 4);
                let connection = self.rng.usize(recent..len);
                self.execute(connection);
            }
            _ => {
                let of_subscriber = self.rng.u32(..3) > 0;
                self.hear(at, of_subscriber);
            }
        }
    }

    /// Everything that is under way arrives, and everybody is connected.
    fn settle(&mut self) {
        for round in 0..60 {
            for at in 0..NODES {
                self.connect(at);
                if round % 10 == 0 {
                    self.nodes[at].server.probe(self.now);
                }
                self.send(at, 1_000);
            }
            for connection in 0..self.connections.len() {
                while !self.connections[connection].orders.is_empty() {
                    self.execute(connection);
                }
            }
            for at in 0..NODES {
                for of_subscriber in [true, false] {
                    for _ in 0..2_000 {
                        self.hear(at, of_subscriber);
                    }
                }
            }
        }
    }

    fn check_end(&mut self) {
        self.settle();
        for node in &self.nodes {
            assert_eq!(node.server.phase(), Phase::Up, "all heals by itself");
            for command in 1..=node.asked {
                assert_eq!(node.answers.get(&command), Some(&1), "answered once");
            }
        }
        // From here on everything reaches everybody, in one order.
        for node in &mut self.nodes {
            for ((_, channel), listener) in &mut node.listeners {
                listener.got.clear();
                listener.must_have.expect("confirmed");
                listener.must_have = node.published.get(channel).copied().or(Some(0));
            }
        }
        for n in 0..30 {
            for channel in CHANNELS {
                self.publish((n * 7) % NODES, channel);
                self.publish(n % NODES, channel);
            }
        }
        self.settle();
        let mut orders: HashMap<&str, &Vec<(usize, u64)>> = HashMap::new();
        for node in &self.nodes {
            for ((_, channel), listener) in &node.listeners {
                assert_eq!(listener.got.len(), 60, "all of them");
                let first = orders.entry(channel).or_insert(&listener.got);
                assert_eq!(*first, &listener.got, "one order");
            }
        }
    }
}

fn run(losses_too: bool, runs: u64, steps: usize) {
    let seed = std::env::var("FLUX_SEED").ok().and_then(|s| s.parse().ok());
    let (first, runs) = match seed {
        Some(seed) => (seed, 1),
        None => (fastrand::u64(..1 << 40), runs),
    };
    let (mut losses, mut late, mut delivered) = (0, 0, 0);
    for seed in first..first + runs {
        println!("FLUX_SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..steps {
            world.step(losses_too);
        }
        world.check_end();
        losses += world.losses;
        delivered += world.delivered;
        for node in &world.nodes {
            late += node.shards.metrics.redis_late_echoes.get();
        }
    }
    println!("{delivered} delivered, {losses} links lost, {late} late echoes");
    assert!(delivered > runs);
}

#[test]
fn whatever_is_lost_own_messages_arrive_once_and_in_order() {
    run(true, 20, 6_000);
}

#[test]
fn while_nothing_is_lost_all_nodes_see_one_order_without_gaps() {
    run(false, 10, 6_000);
}
