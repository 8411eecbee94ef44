//! Seeded simulation of one sequencer and several shards against a simple model: from its
//! subscription on, every subscriber sees each publication once and in order, or it is evicted.
//!
//! `FLUX_SEED=n` repeats a run.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use flux_runtime::log::LogSlice;

use super::*;
use crate::protocol::{ClientId, ClientInfo, Tags};

const SHARDS: usize = 3;
const SLOTS: u32 = 12;
const CHANNELS: usize = 5;
const LAG_BYTES_MAX: u64 = 3_000;
const VARIANTS: [Variant; 2] = [Variant::JSON, Variant::JSON_JOIN_LEAVE];

/// What goes to the sequencer's thread.
enum Request {
    Join(Arc<str>, Variant, ShardIndex, ChannelKey),
    Leave(Arc<str>, Variant, ShardIndex, ChannelKey),
    Publish(usize, MessageKind),
}

/// What comes back to a shard.
enum Mail {
    Confirmed(ChannelKey),
    Delivery(ChannelKey, LogSlice),
}

/// What the model expects of one subscription.
#[derive(Default, Clone)]
struct Expectation {
    /// Number that the next push of this channel must have.
    next: Option<u64>,
    /// At the moment of the subscribe reply nothing below this had been published.
    not_after: u64,
}

#[derive(Default)]
struct Client {
    /// Bytes that the kernel has taken.
    received: Vec<u8>,
    /// The send in flight.
    in_flight: Vec<u8>,
    /// A slow one takes next to nothing.
    is_slow: bool,
    subscriptions: HashMap<usize, Expectation>,
    control: Vec<u8>,
}

struct Shard {
    subscriptions: Subscriptions,
    clients: Vec<Client>,
    mail: VecDeque<Mail>,
    outgoing: VecDeque<Request>,
}

struct World {
    rng: Rng,
    now: Instant,
    sequencer: Sequencer,
    shards: Vec<Shard>,
    /// Messages published per channel and variant so far: their numbers are 0, 1, 2, ...
    published: HashMap<(usize, Variant), u64>,
    names: Vec<Arc<str>>,
    pushes_checked: u64,
    evicted: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let config = SubscriptionsConfig {
            lag_bytes_max: LAG_BYTES_MAX,
            stuck_max: Duration::from_secs(10),
        };
        let shard = || Shard {
            subscriptions: Subscriptions::new(config, now),
            clients: (0..SLOTS).map(|_| Client::default()).collect(),
            mail: VecDeque::new(),
            outgoing: VecDeque::new(),
        };
        Self {
            rng: Rng::with_seed(seed),
            now,
            sequencer: Sequencer::new(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            published: HashMap::new(),
            names: (0..CHANNELS).map(|n| format!("c{n}").into()).collect(),
            pushes_checked: 0,
            evicted: 0,
        }
    }

    fn variant_of(slot: u32) -> Variant {
        VARIANTS[slot as usize % VARIANTS.len()]
    }

    fn subscribe(&mut self, shard: usize, slot: u32, channel: usize) {
        let variant = Self::variant_of(slot);
        let name = Arc::clone(&self.names[channel]);
        let at = &mut self.shards[shard];
        match at
            .subscriptions
            .subscribe(slot, &name, variant, channel as u32, false)
        {
            Subscribed::Active { .. } => self.replied(shard, slot, channel),
            Subscribed::Waiting | Subscribed::Recovering { .. } => {}
            Subscribed::First { key, name } => {
                at.outgoing
                    .push_back(Request::Join(name, variant, shard as ShardIndex, key));
            }
            Subscribed::Duplicate => {
                assert!(at.subscriptions.is_subscribed(slot, &name));
            }
        }
    }

    /// The client has got its subscribe reply.
    fn replied(&mut self, shard: usize, slot: u32, channel: usize) {
        let not_after = self
            .published
            .get(&(channel, Self::variant_of(slot)))
            .copied()
            .unwrap_or_default();
        let at = &mut self.shards[shard];
        let client = &mut at.clients[slot as usize];
        let expectation = Expectation {
            next: None,
            not_after,
        };
        client.subscriptions.insert(channel, expectation);
        client.control.extend_from_slice(&control_frame(channel));
        at.subscriptions.mark_ready(slot);
    }

    fn unsubscribe(&mut self, shard: usize, slot: u32, channel: usize) {
        let at = &mut self.shards[shard];
        let was = at
            .subscriptions
            .is_subscribed(slot, &self.names[channel].clone());
        match at.subscriptions.unsubscribe(slot, &self.names[channel]) {
            Unsubscribed::NotSubscribed => assert!(!was),
            Unsubscribed::Left(released) => {
                assert!(was);
                if let Some(gone) = released {
                    at.outgoing.push_back(leave(shard, gone));
                }
            }
        }
        // What is in flight may still arrive; only a new subscribe reply opens the channel again.
        if let Some(expectation) = at.clients[slot as usize].subscriptions.get_mut(&channel) {
            expectation.not_after = u64::MAX;
        }
    }

    fn close(&mut self, shard: usize, slot: u32) {
        let at = &mut self.shards[shard];
        let outgoing = &mut at.outgoing;
        at.subscriptions
            .close(slot, &mut |gone| outgoing.push_back(leave(shard, gone)));
        at.clients[slot as usize] = Client::default();
    }

    fn sequence(&mut self, shard: usize) {
        let Some(request) = self.shards[shard].outgoing.pop_front() else {
            return;
        };
        match request {
            Request::Join(name, variant, shard, key) => {
                self.sequencer.join(&name, variant, shard, key);
                self.shards[shard as usize]
                    .mail
                    .push_back(Mail::Confirmed(key));
            }
            Request::Leave(name, variant, shard, key) => {
                self.sequencer.leave(&name, variant, shard, key);
            }
            Request::Publish(channel, kind) => {
                let mut numbers = String::new();
                for (index, variant) in VARIANTS.into_iter().enumerate() {
                    if variant.carries(kind) {
                        let next = self.published.entry((channel, variant)).or_default();
                        numbers += &format!("{index}_{next}.");
                        *next += 1;
                    }
                }
                let padding = "x".repeat(self.rng.usize(..200));
                let text = format!("\"{channel};{numbers};{padding}\"");
                let info = ClientInfo {
                    user: "",
                    client: ClientId::from_random(1),
                    conn_info: text.as_bytes(),
                    chan_info: b"",
                };
                let message = match kind {
                    MessageKind::Publication => MessageRef::Publication {
                        data: b"{}",
                        info: Some(info),
                        tags: Tags::NONE,
                        delta: false,
                    },
                    MessageKind::Join => MessageRef::Join(info),
                    MessageKind::Leave => MessageRef::Leave(info),
                };
                let shards = &mut self.shards;
                self.sequencer.publish(
                    &self.names[channel],
                    message,
                    None,
                    &mut |shard, key, delivered| {
                        shards[shard as usize]
                            .mail
                            .push_back(Mail::Delivery(key, delivered.slice));
                        true
                    },
                );
            }
        }
    }

    fn take_mail(&mut self, shard: usize, count: usize) {
        for _ in 0..count {
            let at = &mut self.shards[shard];
            if at.subscriptions.is_urgent() {
                break;
            }
            match at.mail.pop_front() {
                None => break,
                Some(Mail::Delivery(key, slice)) => {
                    let appended = at.subscriptions.append(key, &slice, None, 0);
                    assert_eq!(appended, Appended::Taken);
                }
                Some(Mail::Confirmed(key)) => {
                    let mut told = Vec::new();
                    at.subscriptions
                        .confirm(key, None, &mut |slot, command| told.push((slot, command)));
                    for (slot, command) in told {
                        self.replied(shard, slot, command as usize);
                    }
                }
            }
        }
        self.evict(shard);
        self.check_lags(shard);
    }

    /// Nobody who is not evicted is behind by more than the bound and the one frame that is kept.
    fn check_lags(&self, shard: usize) {
        let subscriptions = &self.shards[shard].subscriptions;
        for connection in &subscriptions.connections {
            for entry in &connection.entries {
                let head = subscriptions.heads[entry.channel as usize];
                let lag = head.saturating_sub(entry.cursor);
                assert!(lag <= LAG_BYTES_MAX + 500, "{lag} bytes behind");
            }
        }
    }

    fn evict(&mut self, shard: usize) {
        while let Some((slot, _)) = self.shards[shard].subscriptions.next_evicted() {
            let client = &self.shards[shard].clients[slot as usize];
            assert!(
                !client.in_flight.is_empty(),
                "only who has not taken its last send is slow"
            );
            self.evicted += 1;
            self.close(shard, slot);
        }
    }

    fn round(&mut self, shard: usize) {
        self.shards[shard].subscriptions.begin_round();
        self.send_ready(shard);
    }

    fn send_ready(&mut self, shard: usize) {
        let now = self.now;
        let at = &mut self.shards[shard];
        while let Some(slot) = at.subscriptions.next_ready() {
            let client = &mut at.clients[slot as usize];
            assert!(client.in_flight.is_empty(), "one send at a time");
            let mut control = std::mem::take(&mut client.control);
            let mut pieces: Vec<LogSlice> = Vec::new();
            let gathered = at
                .subscriptions
                .gather(slot, now, &mut control, &mut pieces);
            for piece in pieces {
                control.extend_from_slice(piece.as_bytes());
            }
            match gathered {
                Gathered::Nothing => assert!(control.is_empty()),
                Gathered::Send { bytes } => assert_eq!(bytes, control.len() as u64),
            }
            client.in_flight = control;
        }
    }

    /// The kernel takes some bytes of a send in flight.
    fn take_bytes(&mut self, shard: usize, slot: u32, most: usize) {
        let at = &mut self.shards[shard];
        let client = &mut at.clients[slot as usize];
        if client.in_flight.is_empty() {
            return;
        }
        let taken = most.min(client.in_flight.len());
        client.received.extend(client.in_flight.drain(..taken));
        if client.in_flight.is_empty() {
            at.subscriptions.sent(slot);
            if !client.control.is_empty() {
                at.subscriptions.mark_ready(slot);
            }
            self.send_ready(shard);
        } else {
            at.subscriptions.progressed(slot, self.now);
        }
        self.check(shard, slot);
    }

    /// Reads the frames that have arrived whole and holds them against the model.
    fn check(&mut self, shard: usize, slot: u32) {
        let client = &mut self.shards[shard].clients[slot as usize];
        while let Some((payload, len)) = frame(&client.received) {
            let value: serde_json::Value = serde_json::from_slice(payload).expect("whole JSON");
            client.received.drain(..len);
            if let Some(channel) = value.get("subscribed") {
                let channel = channel.as_u64().expect("a number") as usize;
                let expectation = client.subscriptions.get_mut(&channel);
                expectation.expect("a reply to a subscribe").next = None;
                continue;
            }
            let push = &value["push"];
            let text = ["pub", "join", "leave"]
                .iter()
                .find_map(|kind| push[kind]["info"]["conn_info"].as_str())
                .expect("the message's text");
            let mut parts = text.split(';');
            let channel: usize = parts.next().expect("channel").parse().expect("a number");
            let number: u64 = parts
                .next()
                .expect("numbers")
                .split('.')
                .find_map(|number| {
                    number.strip_prefix(&format!("{}_", slot as usize % VARIANTS.len()))
                })
                .expect("this variant carries it")
                .parse()
                .expect("a number");
            let expectation = client
                .subscriptions
                .get_mut(&channel)
                .expect("a push only after the subscribe reply");
            match expectation.next {
                None => assert!(
                    number <= expectation.not_after,
                    "missed what came after the reply: {number} after {}",
                    expectation.not_after
                ),
                Some(next) => assert_eq!(number, next, "lost, repeated or out of order"),
            }
            expectation.next = Some(number + 1);
            self.pushes_checked += 1;
        }
    }

    fn step(&mut self) {
        let shard = self.rng.usize(..SHARDS);
        let slot = self.rng.u32(..SLOTS);
        let channel = self.rng.usize(..CHANNELS);
        self.now += Duration::from_millis(self.rng.u64(..20));
        match self.rng.u32(..100) {
            0..8 => self.subscribe(shard, slot, channel),
            8..12 => self.unsubscribe(shard, slot, channel),
            12 => self.close(shard, slot),
            13 => {
                let client = &mut self.shards[shard].clients[slot as usize];
                client.is_slow = !client.is_slow && slot.is_multiple_of(3);
            }
            14..35 => {
                let kind = match self.rng.u32(..10) {
                    0 => MessageKind::Join,
                    1 => MessageKind::Leave,
                    _ => MessageKind::Publication,
                };
                let request = Request::Publish(channel, kind);
                self.shards[shard].outgoing.push_back(request);
            }
            35..55 => self.sequence(shard),
            55..70 => {
                let count = self.rng.usize(1..8);
                self.take_mail(shard, count);
            }
            70..80 => {
                self.round(shard);
                self.deliver_all(shard);
            }
            80..85 => self.round(shard),
            85..90 => self.sequencer.sweep(),
            90 => {
                self.shards[shard].subscriptions.sweep(3, self.now);
                self.evict(shard);
            }
            _ => {
                let most = self.rng.usize(1..300);
                if !self.shards[shard].clients[slot as usize].is_slow {
                    self.take_bytes(shard, slot, most);
                }
            }
        }
    }

    fn deliver_all(&mut self, shard: usize) {
        for slot in 0..SLOTS {
            if !self.shards[shard].clients[slot as usize].is_slow {
                self.take_bytes(shard, slot, usize::MAX);
            }
        }
    }

    /// Lets everything that is under way arrive.
    fn settle(&mut self) {
        for _ in 0..10 {
            for shard in 0..SHARDS {
                while !self.shards[shard].outgoing.is_empty() {
                    self.sequence(shard);
                }
            }
            for shard in 0..SHARDS {
                while !self.shards[shard].mail.is_empty() {
                    self.take_mail(shard, usize::MAX);
                    self.round(shard);
                    for client in &mut self.shards[shard].clients {
                        client.is_slow = false;
                    }
                    self.deliver_all(shard);
                }
                self.round(shard);
                self.deliver_all(shard);
            }
        }
        for (number, shard) in self.shards.iter().enumerate() {
            for (slot, client) in shard.clients.iter().enumerate() {
                assert!(client.in_flight.is_empty() && client.received.is_empty());
                for (channel, expectation) in &client.subscriptions {
                    let variant = Self::variant_of(slot as u32);
                    let last = self.published.get(&(*channel, variant));
                    let last = last.copied().unwrap_or_default();
                    let is_open = expectation.not_after != u64::MAX;
                    match expectation.next {
                        Some(next) if is_open => assert_eq!(
                            next, last,
                            "shard {number}, slot {slot}, c{channel}: end of the channel missed"
                        ),
                        None if is_open => assert!(last <= expectation.not_after),
                        _ => {}
                    }
                }
            }
        }
    }
}

fn leave(shard: usize, gone: Released) -> Request {
    Request::Leave(gone.name, gone.variant, shard as ShardIndex, gone.key)
}

fn control_frame(channel: usize) -> Vec<u8> {
    let text = format!("{{\"subscribed\":{channel}}}");
    let mut out = vec![0x81, text.len() as u8];
    out.extend_from_slice(text.as_bytes());
    out
}

/// Payload and whole length of the first frame, when it is there completely.
fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (header, len) = match *bytes.get(1)? {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        ),
        len => (2, usize::from(len)),
    };
    Some((bytes.get(header..header + len)?, header + len))
}

#[test]
fn every_subscriber_sees_each_publication_once_and_in_order_or_is_evicted() {
    let seed = std::env::var("FLUX_SEED").ok().and_then(|s| s.parse().ok());
    let (first, runs) = match seed {
        Some(seed) => (seed, 1),
        None => (fastrand::u64(..1 << 40), 20),
    };
    let (mut checked, mut evicted) = (0, 0);
    for seed in first..first + runs {
        println!("FLUX_SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..4_000 {
            world.step();
        }
        world.settle();
        checked += world.pushes_checked;
        evicted += world.evicted;
    }
    println!("{checked} pushes checked, {evicted} slow consumers evicted");
    assert!(
        checked > runs * 100,
        "the simulation must deliver something"
    );
}
