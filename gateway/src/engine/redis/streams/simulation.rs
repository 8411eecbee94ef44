//! Seeded simulation of a channel's stream at one node: pushes that never arrive, connections that
//! break, a history that is cut short or begins anew, reads that are answered whenever it pleases.
//!
//! Promise: what a listener is handed follows without a gap from the position it was told, and is
//! what stands there; in the end it has everything, or was told that it has not.
//!
//! `FLUX_SEED=n` repeats a run.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use flux_runtime::mailbox::{Receiver, WakeSource, mailbox, wake_pair};

use super::super::super::history::{HistoryOptions, RecoveryMode, RecoveryRequest};
use super::super::super::outbox::Outbox;
use super::super::super::request::Mail;
use super::super::super::{Asker, EngineMetrics, Event};
use super::super::scripts::{Range, Stretch};
use super::super::shards::Shards;
use super::{Pushed, Streams, Wanted};
use crate::pubsub::{ChannelKey, Epoch, KnownEpoch, MessageRef, StreamPosition, Variant};

const CHANNEL: &str = "c";
const CHECK_DELAY: Duration = Duration::from_secs(40);
const OPTIONS: HistoryOptions = HistoryOptions {
    size: 50,
    ttl: Duration::from_secs(300),
    meta_ttl: Duration::from_secs(3_600),
};

/// What Redis answers to a read: the newest position, the entries, the oldest that is kept.
type Answer = (StreamPosition, Vec<u64>, u64);

struct World {
    rng: Rng,
    now: Instant,
    streams: Streams,
    shards: Shards,
    inbox: Receiver<Mail>,
    _wake: WakeSource,
    // Redis.
    top: StreamPosition,
    first: u64,
    is_subscribed: bool,
    // On their way to the node.
    pushes: VecDeque<StreamPosition>,
    reads: VecDeque<(Wanted, Option<Answer>)>,
    is_connected: bool,
    // The listener.
    keys: u32,
    key: Option<ChannelKey>,
    at: Option<StreamPosition>,
    asked: u32,
    answered: u32,
    delivered: u64,
    lost: u64,
}

/// What was published at a place: the same for everybody who looks.
fn data_at(position: StreamPosition) -> String {
    format!("\"{}:{}\"", position.epoch, position.offset)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (waker, wake) = wake_pair().expect("an eventfd");
        let (sender, inbox) = mailbox(1_024, waker);
        let metrics = Arc::new(EngineMetrics::default());
        let outboxes = vec![Outbox::new(sender, Arc::clone(&metrics))];
        Self {
            now: Instant::now(),
            streams: Streams::new(CHECK_DELAY),
            shards: Shards::new(outboxes, metrics),
            inbox,
            _wake: wake,
            top: StreamPosition {
                epoch: Epoch::from_random(rng.u64(..)),
                offset: 0,
            },
            first: 1,
            is_subscribed: false,
            pushes: VecDeque::new(),
            reads: VecDeque::new(),
            is_connected: false,
            keys: 0,
            key: None,
            at: None,
            asked: 0,
            answered: 0,
            delivered: 0,
            lost: 0,
            rng,
        }
    }

    fn listen(&mut self) {
        if self.key.is_some() || !self.streams.can_join(CHANNEL) {
            return;
        }
        self.keys += 1;
        let key = ChannelKey {
            index: self.keys,
            generation: 0,
        };
        self.key = Some(key);
        let name: Arc<str> = Arc::from(CHANNEL);
        self.shards.join(&name, Variant::JSON, 0, key);
        let (streams, shards) = (&mut self.streams, &mut self.shards);
        streams.join(
            &name,
            (0, key),
            OPTIONS,
            self.is_subscribed,
            self.now,
            shards,
        );
        self.hear();
    }

    fn leave(&mut self) {
        let Some(key) = self.key.take() else { return };
        self.at = None;
        let has_ended = self.shards.leave(CHANNEL, Variant::JSON, 0, key);
        let shards = &mut self.shards;
        self.streams
            .leave(CHANNEL, (0, key), has_ended, self.now, shards);
        self.hear();
        self.unsubscribed();
    }

    /// Nobody listens: the subscription ends, and what is pushed is on its way no more.
    fn unsubscribed(&mut self) {
        self.is_subscribed = false;
        self.pushes.clear();
    }

    fn publish(&mut self) {
        self.top.offset += 1;
        self.first = self
            .first
            .max((self.top.offset + 1).saturating_sub(u64::from(OPTIONS.size)));
        if self.is_subscribed {
            self.pushes.push_back(self.top);
        }
    }

    fn push(&mut self) {
        let Some(position) = self.pushes.pop_front() else {
            return;
        };
        let data = data_at(position);
        let message = MessageRef::data(data.as_bytes());
        let place = (position, u128::from(position.offset));
        let shards = &mut self.shards;
        if self.streams.push(CHANNEL, place, message, self.now, shards) == Pushed::Ended {
            self.unsubscribed();
        }
        self.hear();
    }

    fn send_reads(&mut self) {
        if self.is_connected {
            let reads = self.streams.next_reads(4, self.now);
            self.reads
                .extend(reads.into_iter().map(|wanted| (wanted, None)));
        }
    }

    /// Redis carries out the next read that it has not.
    fn execute(&mut self) {
        let Some((wanted, answer)) = self.reads.iter_mut().find(|(_, answer)| answer.is_none())
        else {
            return;
        };
        let Range {
            after,
            before,
            limit,
            reverse,
        } = wanted.range;
        let low = self.first.max(after + 1);
        let high = before.map_or(self.top.offset, |before| self.top.offset.min(before - 1));
        let mut offsets: Vec<u64> = (low..=high).collect();
        if reverse {
            offsets.reverse();
        }
        offsets.truncate(limit as usize);
        *answer = Some((self.top, offsets, self.first));
    }

    fn answer(&mut self) {
        let Some((wanted, Some((top, offsets, oldest)))) =
            self.reads.pop_front_if(|(_, answer)| answer.is_some())
        else {
            return;
        };
        let texts: Vec<String> = offsets
            .iter()
            .map(|offset| {
                data_at(StreamPosition {
                    offset: *offset,
                    ..top
                })
            })
            .collect();
        let stretch = Stretch {
            position: top,
            entries: offsets
                .iter()
                .zip(&texts)
                .map(|(offset, text)| (*offset, MessageRef::data(text.as_bytes())))
                .collect(),
            marks: offsets.iter().map(|offset| u128::from(*offset)).collect(),
            rejected: Vec::new(),
            oldest,
            expires_in: None,
        };
        let shards = &mut self.shards;
        if self
            .streams
            .read(&wanted.channel, &stretch, self.now, shards)
        {
            self.unsubscribed();
        }
        self.hear();
    }

    fn connect(&mut self) {
        if !std::mem::replace(&mut self.is_connected, true) {
            self.streams.connect();
        }
    }

    fn confirm(&mut self) {
        if self.is_connected && !self.is_subscribed && self.key.is_some() {
            self.is_subscribed = true;
            self.streams.confirmed(CHANNEL, self.now);
        }
    }

    fn disconnect(&mut self) {
        if std::mem::replace(&mut self.is_connected, false) {
            self.unsubscribed();
            self.reads.clear();
            self.streams.disconnect(self.now, &mut self.shards);
            self.hear();
        }
    }

    fn recover(&mut self) {
        let Some(key) = self.key else { return };
        self.asked += 1;
        let asker = Asker {
            connection: 0,
            command: self.asked,
        };
        let request = RecoveryRequest {
            mode: match self.rng.bool() {
                true => RecoveryMode::Stream,
                false => RecoveryMode::Cache,
            },
            offset: self.rng.u64(..=self.top.offset + 1),
            epoch: KnownEpoch::Is(self.top.epoch),
            publications_max: self.rng.u32(1..60),
        };
        let (streams, shards) = (&mut self.streams, &mut self.shards);
        streams.recover(CHANNEL, (0, key), request, asker, self.now, shards);
        self.hear();
    }

    /// The listener reads its mail, and the model checks it.
    fn hear(&mut self) {
        self.shards.flush();
        while let Some(Mail::Event(event)) = self.inbox.pop() {
            match event {
                Event::Subscribed { key, result } if self.key == Some(key) => match result {
                    Ok(position) => self.at = Some(position.expect("a position")),
                    Err(_) => {
                        self.key = None;
                        self.unsubscribed();
                    }
                },
                Event::Delivery {
                    key, slice, offset, ..
                } if self.key == Some(key) => {
                    // What comes before the answer is in the position that it names.
                    let Some(at) = &mut self.at else { continue };
                    assert_eq!(offset, at.offset + 1, "a gap, or twice");
                    at.offset = offset;
                    let text = String::from_utf8_lossy(slice.as_bytes()).into_owned();
                    assert!(
                        text.contains(&data_at(*at)),
                        "{text} is not what stands there"
                    );
                    self.delivered += 1;
                }
                Event::Lost { key } if self.key == Some(key) => {
                    (self.key, self.at) = (None, None);
                    self.lost += 1;
                    self.unsubscribed();
                }
                Event::Recovered { result, .. } => {
                    self.answered += 1;
                    if let Ok(recovery) = result
                        && let Some(at) = self.at
                    {
                        assert_eq!(recovery.position, at, "where the shard is");
                        let offsets = recovery.publications.iter().map(|stored| stored.offset);
                        let count = recovery.publications.len() as u64;
                        assert!(offsets.eq(at.offset + 1 - count..=at.offset), "no hole");
                    }
                }
                _ => {}
            }
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(..100));
        match self.rng.u32(..100) {
            0..4 => self.listen(),
            4 => self.leave(),
            5..30 => self.publish(),
            30..50 => self.push(),
            50..53 => drop(self.pushes.pop_front()),
            53..60 => self.send_reads(),
            60..70 => self.execute(),
            70..80 => self.answer(),
            80..84 => self.connect(),
            84..90 => self.confirm(),
            90 => self.disconnect(),
            91..95 => self.recover(),
            95 if self.rng.u32(..5) == 0 => {
                self.top = StreamPosition {
                    epoch: Epoch::from_random(self.rng.u64(..)),
                    offset: 0,
                };
                self.first = 1;
            }
            96 => self.first = self.rng.u64(self.first..=self.top.offset + 1),
            97 => self.streams.removed(CHANNEL),
            _ => self.streams.tick(self.now),
        }
    }

    /// All that is under way arrives; quiet for longer than positions stay unchecked.
    fn settle(&mut self) {
        for _ in 0..600 {
            self.now += Duration::from_millis(250);
            self.connect();
            self.listen();
            self.confirm();
            self.streams.tick(self.now);
            while !self.pushes.is_empty() {
                self.push();
            }
            self.send_reads();
            self.execute();
            self.answer();
        }
    }
}

#[test]
fn what_a_listener_gets_has_no_gap_and_in_the_end_it_has_everything_or_knows() {
    let seed = std::env::var("FLUX_SEED").ok().and_then(|s| s.parse().ok());
    let (first, runs) = match seed {
        Some(seed) => (seed, 1),
        None => (fastrand::u64(..1 << 40), 40),
    };
    let (mut delivered, mut lost) = (0, 0);
    for seed in first..first + runs {
        println!("FLUX_SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..4_000 {
            world.step();
        }
        world.settle();
        assert_eq!(
            world.at,
            Some(world.top),
            "everything, or told and here anew"
        );
        assert_eq!(world.answered, world.asked, "each recovery is answered");
        delivered += world.delivered;
        lost += world.lost;
    }
    println!("{delivered} delivered, told {lost} times");
    assert!(delivered > 0 && lost > 0);
}
