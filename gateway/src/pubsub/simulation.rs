//! Seeded simulation of one sequencer and several shards against a simple model: from its
//! subscription on, every subscriber sees each publication once and in order, or it is evicted or
//! told that something was lost. In channels with history a client that comes back goes on where
//! it was: over all its subscriptions it sees every offset once. Where deltas are sent, no client
//! gets one before a whole publication.
//!
//! `FLUX_SEED=n` repeats a run.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use flux_runtime::log::{LogSlice, LogWriter};

use super::*;
use crate::protocol::{ClientId, ClientInfo, Tags, tags};

const SHARDS: usize = 3;
const SLOTS: u32 = 12;
const CHANNELS: usize = 5;
const LAG_BYTES_MAX: u64 = 3_000;
const VARIANTS: [Variant; 3] = [
    Variant::JSON,
    Variant::JSON_JOIN_LEAVE,
    Variant {
        delta: true,
        ..Variant::JSON
    },
];

/// Tag of what stands for a delta.
const WHOLE: (&str, &str) = ("whole", "1");

/// What goes to the sequencer's thread.
enum Request {
    Join(Arc<str>, Variant, ShardIndex, ChannelKey),
    Leave(Arc<str>, Variant, ShardIndex, ChannelKey),
    Publish(usize, MessageKind),
    /// Channel, who asks, and from where it goes on.
    Recover {
        channel: usize,
        shard: ShardIndex,
        key: ChannelKey,
        slot: Slot,
        since: u64,
    },
}

/// What comes back to a shard.
enum Mail {
    Confirmed(ChannelKey, Option<StreamPosition>),
    Delivery(ChannelKey, Delivered),
    Lost(ChannelKey),
    Recovered {
        channel: usize,
        key: ChannelKey,
        slot: Slot,
        since: u64,
        position: StreamPosition,
    },
}

/// What the model expects of one subscription.
#[derive(Default, Clone)]
struct Expectation {
    /// Number that the next push of this channel must have.
    next: Option<u64>,
    /// At the moment of the subscribe reply nothing below this had been published.
    not_after: u64,
    /// The offset that was seen last in this subscription; none before its reply has arrived, and
    /// without history.
    offset: Option<u64>,
    /// Whether a whole publication has arrived.
    has_base: bool,
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
    /// Where it goes on when it subscribes again.
    seen: HashMap<usize, u64>,
}

impl Client {
    /// What is in flight may still arrive; only a new subscribe reply opens the channel again.
    fn left(&mut self, channel: usize) {
        if let Some(expectation) = self.subscriptions.get_mut(&channel) {
            expectation.not_after = u64::MAX;
        }
    }
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
    /// Newest offset of each channel with history.
    tops: HashMap<usize, u64>,
    epoch: Epoch,
    /// Channel and number, in the variant with deltas, of what was sent as a delta.
    deltas: HashSet<(usize, u64)>,
    pushes_checked: u64,
    recovered: u64,
    lost: u64,
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
            tops: HashMap::new(),
            epoch: Epoch::from_random(seed),
            deltas: HashSet::new(),
            pushes_checked: 0,
            recovered: 0,
            lost: 0,
            evicted: 0,
        }
    }

    fn variant_of(slot: u32) -> Variant {
        VARIANTS[slot as usize % VARIANTS.len()]
    }

    /// Every second channel has a history.
    fn has_history(channel: usize) -> bool {
        channel.is_multiple_of(2)
    }

    fn position(&self, channel: usize) -> Option<StreamPosition> {
        let offset = self.tops.get(&channel).copied().unwrap_or_default();
        let epoch = self.epoch;
        Self::has_history(channel).then_some(StreamPosition { epoch, offset })
    }

    fn subscribe(&mut self, shard: usize, slot: u32, channel: usize) {
        let variant = Self::variant_of(slot);
        let name = Arc::clone(&self.names[channel]);
        let wants_recovery = self.rng.bool();
        let at = &mut self.shards[shard];
        let seen = at.clients[slot as usize].seen.get(&channel).copied();
        let since = seen.filter(|_| wants_recovery);
        let subscribed =
            at.subscriptions
                .subscribe(slot, &name, variant, channel as u32, since.is_some());
        let number = shard as ShardIndex;
        let recover = |key| {
            since.map(|since| Request::Recover {
                channel,
                shard: number,
                key,
                slot,
                since,
            })
        };
        match subscribed {
            Subscribed::Active { position } => self.replied(shard, slot, channel, position),
            Subscribed::Waiting => assert!(since.is_none()),
            Subscribed::First { key, name } => {
                at.outgoing
                    .push_back(Request::Join(name, variant, number, key));
                at.outgoing.extend(recover(key));
            }
            Subscribed::Recovering { key, .. } => at.outgoing.extend(recover(key)),
            Subscribed::Duplicate => {
                assert!(at.subscriptions.is_subscribed(slot, &name));
            }
        }
    }

    /// The client has got its subscribe reply.
    fn replied(
        &mut self,
        shard: usize,
        slot: u32,
        channel: usize,
        position: Option<StreamPosition>,
    ) {
        let not_after = self
            .published
            .get(&(channel, Self::variant_of(slot)))
            .copied()
            .unwrap_or_default();
        assert_eq!(position.is_some(), Self::has_history(channel));
        let at = &mut self.shards[shard];
        let client = &mut at.clients[slot as usize];
        // What is still in flight belongs to the subscription before, whose deltas had their base.
        let before = client.subscriptions.get(&channel);
        let expectation = Expectation {
            not_after,
            has_base: before.is_some_and(|before| before.has_base),
            ..Expectation::default()
        };
        client.subscriptions.insert(channel, expectation);
        let offset = position.map(|position| position.offset);
        client
            .control
            .extend_from_slice(&control_frame(channel, offset));
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
        at.clients[slot as usize].left(channel);
    }

    fn close(&mut self, shard: usize, slot: u32) {
        let at = &mut self.shards[shard];
        let outgoing = &mut at.outgoing;
        at.subscriptions
            .close(slot, &mut |gone| outgoing.push_back(leave(shard, gone)));
        let seen = std::mem::take(&mut at.clients[slot as usize].seen);
        // Its successor is the same client, which has connected again.
        at.clients[slot as usize] = Client {
            seen,
            ..Client::default()
        };
    }

    fn sequence(&mut self, shard: usize) {
        let Some(request) = self.shards[shard].outgoing.pop_front() else {
            return;
        };
        match request {
            Request::Join(name, variant, shard, key) => {
                self.sequencer.join(&name, variant, shard, key);
                let channel = self.names.iter().position(|known| *known == name);
                let position = self.position(channel.expect("one of ours"));
                self.shards[shard as usize]
                    .mail
                    .push_back(Mail::Confirmed(key, position));
            }
            Request::Recover {
                channel,
                shard,
                key,
                slot,
                since,
            } => {
                let position = self.position(channel).expect("it has a history");
                self.shards[shard as usize].mail.push_back(Mail::Recovered {
                    channel,
                    key,
                    slot,
                    since,
                    position,
                });
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
                let position = self.position(channel).map(|position| StreamPosition {
                    offset: position.offset + 1,
                    ..position
                });
                let position = position.filter(|_| kind == MessageKind::Publication);
                if let Some(position) = position {
                    self.tops.insert(channel, position.offset);
                }
                let number = self.published.get(&(channel, VARIANTS[2])).copied();
                let number = number.unwrap_or_default().saturating_sub(1);
                let (shards, rng) = (&mut self.shards, &mut self.rng);
                let deltas = &mut self.deltas;
                let is_delta = rng.bool();
                let mut lost = 0;
                self.sequencer.publish(
                    &self.names[channel],
                    message,
                    position,
                    &mut |shard, key, mut delivered| {
                        let at = &mut shards[shard as usize];
                        if rng.u32(..300) == 0 {
                            lost += 1;
                            at.mail.push_back(Mail::Lost(key));
                            return false;
                        }
                        let name = at.subscriptions.names(key);
                        if is_delta && name.is_some_and(|(_, variant)| variant.delta) {
                            deltas.insert((channel, number));
                            delivered.whole = Some(marked_whole(message));
                        }
                        at.mail.push_back(Mail::Delivery(key, delivered));
                        true
                    },
                );
                self.lost += lost;
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
                Some(Mail::Delivery(key, delivered)) => {
                    let Delivered {
                        slice,
                        whole,
                        offset,
                    } = delivered;
                    let appended = at.subscriptions.append(key, &slice, whole.as_ref(), offset);
                    assert_eq!(appended, Appended::Taken);
                }
                Some(Mail::Confirmed(key, position)) => {
                    let mut told = Vec::new();
                    at.subscriptions
                        .confirm(key, position, &mut |slot, command| {
                            told.push((slot, command));
                        });
                    for (slot, command) in told {
                        self.replied(shard, slot, command as usize, position);
                    }
                }
                Some(Mail::Recovered {
                    channel,
                    key,
                    slot,
                    since,
                    position,
                }) => {
                    let here = at.subscriptions.position(key);
                    if at.subscriptions.recovered(key, slot, channel as u32) {
                        assert_eq!(here, Some(position), "the shard is where the answer says");
                        assert!(since <= position.offset);
                        self.recovered += 1;
                        self.replied(shard, slot, channel, Some(position));
                    }
                }
                Some(Mail::Lost(key)) => {
                    let mut ended = Vec::new();
                    let name = at.subscriptions.lose(key, &mut |slot| ended.push(slot));
                    let Some(name) = name else { continue };
                    let channel = self.names.iter().position(|known| *known == name);
                    for slot in ended {
                        at.clients[slot as usize].left(channel.expect("one of ours"));
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
                let expectation = expectation.expect("a reply to a subscribe");
                expectation.next = None;
                expectation.has_base = false;
                expectation.offset = value["offset"].as_u64();
                if let Some(offset) = expectation.offset {
                    client.seen.insert(channel, offset);
                }
                continue;
            }
            let push = &value["push"];
            let is_marked = push["pub"]["tags"].get(WHOLE.0).is_some();
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
            expectation.has_base |= is_marked;
            let is_publication = push.get("pub").is_some();
            if Self::variant_of(slot).delta && is_publication && !is_marked {
                let is_delta = self.deltas.contains(&(channel, number));
                assert!(
                    !is_delta || expectation.has_base,
                    "a delta without its base"
                );
                expectation.has_base |= !is_delta;
            }
            let offset = push["pub"]["offset"].as_u64();
            assert_eq!(
                offset.is_some(),
                is_publication && Self::has_history(channel)
            );
            if let (Some(offset), Some(last)) = (offset, expectation.offset) {
                assert_eq!(offset, last + 1, "offsets without a gap");
                expectation.offset = Some(offset);
                if expectation.not_after != u64::MAX {
                    client.seen.insert(channel, offset);
                }
            }
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
                    if is_open && let Some(offset) = expectation.offset {
                        let top = self.tops.get(channel).copied().unwrap_or_default();
                        assert_eq!(offset, top, "shard {number}, slot {slot}, c{channel}");
                    }
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

fn control_frame(channel: usize, offset: Option<u64>) -> Vec<u8> {
    let offset = offset.map_or("null".to_owned(), |offset| offset.to_string());
    let text = format!("{{\"subscribed\":{channel},\"offset\":{offset}}}");
    let mut out = vec![0x81, text.len() as u8];
    out.extend_from_slice(text.as_bytes());
    out
}

/// The whole form of a publication that is to be taken for a delta, to be told from it by its tags.
fn marked_whole(message: MessageRef<'_>) -> Whole {
    let packed = tags::pack([WHOLE]).expect("one tag");
    let marked = MessageRef::Publication {
        data: message.payload(),
        info: message.info(),
        tags: Tags::from_packed(&packed).expect("as packed"),
        delta: true,
    };
    Whole::new(marked.store(&mut LogWriter::new(), "c"), VARIANTS[2])
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
    let (mut checked, mut evicted, mut recovered, mut lost) = (0, 0, 0, 0);
    for seed in first..first + runs {
        println!("FLUX_SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..4_000 {
            world.step();
        }
        world.settle();
        checked += world.pushes_checked;
        evicted += world.evicted;
        recovered += world.recovered;
        lost += world.lost;
    }
    println!(
        "{checked} pushes checked, {recovered} recoveries, {lost} channels lost, {evicted} slow consumers evicted"
    );
    assert!(
        checked > runs * 100,
        "the simulation must deliver something"
    );
    assert!(
        recovered > runs && lost > 0,
        "the simulation must lose and recover something"
    );
}

#[test]
fn a_gap_is_never_delivered_and_what_was_delivered_is_not_delivered_again() {
    let mut subscriptions = Subscriptions::new(SubscriptionsConfig::default(), Instant::now());
    let Subscribed::First { key, .. } = subscriptions.subscribe(0, "c", Variant::JSON, 1, false)
    else {
        panic!("the first subscription")
    };
    let epoch = Epoch::from_random(1);
    let at = |offset| StreamPosition { epoch, offset };
    subscriptions.confirm(key, Some(at(5)), &mut |_, _| {});
    let slice = LogWriter::new().append(&[b"x"]);
    for (offset, expected, position) in [
        (5, Appended::Taken, 5),
        (6, Appended::Taken, 6),
        (0, Appended::Taken, 6),
        (6, Appended::Taken, 6),
        (8, Appended::Gap, 6),
        (7, Appended::Taken, 7),
    ] {
        let appended = subscriptions.append(key, &slice, None, offset);
        assert_eq!((appended, offset), (expected, offset));
        assert_eq!(subscriptions.position(key), Some(at(position)));
    }
    subscriptions.begin_round();
    let (mut control, mut pieces) = (Vec::new(), Vec::<LogSlice>::new());
    let now = Instant::now();
    let gathered = subscriptions.gather(0, now, &mut control, &mut pieces);
    assert_eq!(gathered, Gathered::Send { bytes: 3 }, "6, the join, and 7");
}
