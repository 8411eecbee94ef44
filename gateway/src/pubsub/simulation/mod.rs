//! Seeded simulation of one sequencer and several shards against a simple model: from its
//! subscription on, every subscriber sees each publication once and in order, or it is evicted or
//! told that something was lost. In channels with history a client that comes back goes on where
//! it was: over all its subscriptions it sees every offset once. Where deltas are sent, no client
//! gets one before a whole publication.
//!
//! `FLUX_SEED=n` repeats a run.

mod client;
mod ordering;
mod shards;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use flux_runtime::log::{LogSlice, LogWriter};

use self::client::Client;
use super::*;

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

struct Shard {
    subscriptions: Subscriptions,
    clients: Vec<Client>,
    mail: VecDeque<Mail>,
    outgoing: VecDeque<Request>,
}

struct World {
    rng: Rng,
    now: Instant,
    /// How long connections rest at present.
    rest: Duration,
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
            rest: Duration::ZERO,
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
                self.round(shard, usize::MAX);
                self.deliver_all(shard);
            }
            80..85 => {
                let most = self.rng.usize(..SLOTS as usize);
                self.round(shard, most);
            }
            85 => {
                let longest = if self.rng.bool() { 200 } else { 0 };
                self.rest = Duration::from_millis(self.rng.u64(..=longest));
            }
            86..90 => self.sequencer.sweep(),
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

    /// Lets everything that is under way arrive.
    fn settle(&mut self) {
        self.rest = Duration::ZERO;
        for _ in 0..10 {
            for shard in 0..SHARDS {
                while !self.shards[shard].outgoing.is_empty() {
                    self.sequence(shard);
                }
            }
            for shard in 0..SHARDS {
                while !self.shards[shard].mail.is_empty() {
                    self.take_mail(shard, usize::MAX);
                    self.round(shard, usize::MAX);
                    for client in &mut self.shards[shard].clients {
                        client.is_slow = false;
                    }
                    self.deliver_all(shard);
                }
                self.round(shard, usize::MAX);
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
    let (now, rest) = (Instant::now(), Duration::ZERO);
    subscriptions.begin_round(now, rest);
    let (mut control, mut pieces) = (Vec::new(), Vec::<LogSlice>::new());
    let gathered = subscriptions.gather(0, now, rest, &mut control, &mut pieces);
    assert_eq!(gathered, Gathered::Send { bytes: 3 }, "6, the join, and 7");
}
