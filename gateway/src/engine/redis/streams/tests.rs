//! Single situations of a channel with history; `simulation` has all of them in any order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_runtime::mailbox::{Receiver, WakeSource, mailbox, wake_pair};

use super::super::super::history::{HistoryOptions, RecoveryMode, RecoveryRequest};
use super::super::super::outbox::Outbox;
use super::super::super::request::Mail;
use super::super::super::{Asker, EngineMetrics, Event};
use super::super::scripts::Stretch;
use super::super::shards::Shards;
use super::{Pushed, Streams};
use crate::protocol::ErrorCode;
use crate::pubsub::{ChannelKey, Epoch, KnownEpoch, MessageRef, StreamPosition, Variant};

const CHANNEL: &str = "c";
const KEY: ChannelKey = ChannelKey {
    index: 1,
    generation: 0,
};
const OPTIONS: HistoryOptions = HistoryOptions {
    size: 50,
    ttl: Duration::from_secs(300),
    meta_ttl: Duration::from_secs(3_600),
};
const DATA: MessageRef<'static> = MessageRef::Join(crate::protocol::ClientInfo {
    client: crate::protocol::ClientId::from_random(1),
    user: "",
    conn_info: b"",
    chan_info: b"",
});

struct World {
    name: Arc<str>,
    now: Instant,
    streams: Streams,
    shards: Shards,
    inbox: Receiver<Mail>,
    _wake: WakeSource,
    epoch: Epoch,
}

impl World {
    /// A connected server, one listener, whose subscription is not confirmed.
    fn new() -> Self {
        let (waker, wake) = wake_pair().expect("an eventfd");
        let (sender, inbox) = mailbox(1_024, waker);
        let metrics = Arc::new(EngineMetrics::default());
        let outboxes = vec![Outbox::new(sender, Arc::clone(&metrics))];
        let mut world = Self {
            name: CHANNEL.into(),
            now: Instant::now(),
            streams: Streams::new(Duration::from_secs(40)),
            shards: Shards::new(outboxes, metrics),
            inbox,
            _wake: wake,
            epoch: Epoch::from_random(1),
        };
        world.streams.connect();
        world
            .shards
            .join(&world.name, Variant::JSON_JOIN_LEAVE, 0, KEY);
        let (streams, shards) = (&mut world.streams, &mut world.shards);
        streams.join(&world.name, (0, KEY), OPTIONS, false, world.now, shards);
        world
    }

    /// The same, when the first read has found `top`.
    fn at(top: u64) -> Self {
        let mut world = Self::new();
        world.streams.confirmed(CHANNEL, world.now);
        world.answer(top, &[], top + 1);
        assert_eq!(world.heard(), ["subscribed"]);
        world
    }

    fn position(&self, offset: u64) -> StreamPosition {
        StreamPosition {
            epoch: self.epoch,
            offset,
        }
    }

    fn recover(&mut self, offset: u64) {
        let request = RecoveryRequest {
            mode: RecoveryMode::Stream,
            offset,
            epoch: KnownEpoch::Any,
            publications_max: 300,
        };
        let asker = Asker {
            connection: 1,
            command: 1,
        };
        let (now, shards) = (self.now, &mut self.shards);
        self.streams
            .recover(CHANNEL, (0, KEY), request, asker, now, shards);
    }

    fn push(&mut self, offset: u64) {
        let place = (self.position(offset), u128::from(offset));
        let (now, shards) = (self.now, &mut self.shards);
        let pushed = self.streams.push(CHANNEL, place, DATA, now, shards);
        assert_eq!(pushed, Pushed::Taken);
    }

    /// Whether something is to be read now.
    fn reads(&mut self) -> bool {
        self.now += Duration::from_secs(1);
        !self.streams.next_reads(1, self.now).is_empty()
    }

    /// Redis answers the read that is wanted now.
    fn answer(&mut self, top: u64, offsets: &[u64], oldest: u64) {
        assert!(self.reads(), "a read is wanted");
        self.answer_with(top, offsets, oldest);
    }

    /// Redis answers the read that was sent.
    fn answer_with(&mut self, top: u64, offsets: &[u64], oldest: u64) {
        let stretch = Stretch {
            position: self.position(top),
            entries: offsets.iter().map(|offset| (*offset, DATA)).collect(),
            marks: offsets.iter().map(|offset| u128::from(*offset)).collect(),
            rejected: Vec::new(),
            oldest,
            expires_in: Some(OPTIONS.ttl),
        };
        let (now, shards) = (self.now, &mut self.shards);
        self.streams.read(CHANNEL, &stretch, now, shards);
    }

    /// What the listener was told.
    fn heard(&mut self) -> Vec<String> {
        self.shards.flush();
        std::iter::from_fn(|| self.inbox.pop())
            .map(|mail| match mail {
                Mail::Event(Event::Subscribed { result: Ok(_), .. }) => "subscribed".into(),
                Mail::Event(Event::Subscribed { result, .. }) => {
                    assert_eq!(result, Err(ErrorCode::Internal));
                    "refused".into()
                }
                Mail::Event(Event::Recovered { result, .. }) => match result {
                    Ok(recovery) if recovery.recovered => {
                        format!("recovered {}", recovery.publications.len())
                    }
                    Ok(_) => "not recovered".into(),
                    Err(_) => "recovery refused".into(),
                },
                Mail::Event(Event::Delivery { offset, .. }) => offset.to_string(),
                Mail::Event(Event::Lost { .. }) => "lost".into(),
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

#[test]
fn a_recovery_is_refused_behind_its_subscription_however_that_is_refused() {
    // The connection is lost before the first read.
    let mut world = World::new();
    world.recover(3);
    world.streams.disconnect(world.now, &mut world.shards);
    assert_eq!(world.heard(), ["refused", "recovery refused"]);
    // Redis does not give what is to be read.
    let mut world = World::new();
    world.streams.confirmed(CHANNEL, world.now);
    world.recover(3);
    assert!(world.reads());
    world.streams.failed(CHANNEL, world.now, &mut world.shards);
    assert_eq!(world.heard(), ["refused", "recovery refused"]);
    // The channel goes to a server that is away.
    let mut world = World::new();
    world.recover(3);
    let stream = world.streams.release(CHANNEL, &mut world.shards);
    let mut away = Streams::new(Duration::from_secs(40));
    let stream = stream.expect("it is known");
    assert!(away.adopt(&world.name, stream, world.now, &mut world.shards));
    assert_eq!(world.heard(), ["refused", "recovery refused"]);
    // Redis does not permit the channel.
    let mut world = World::new();
    world.recover(3);
    let (now, shards) = (world.now, &mut world.shards);
    world.streams.refused(CHANNEL, Vec::new(), now, shards);
    assert_eq!(world.heard(), ["refused", "recovery refused"]);
}

#[test]
fn who_listens_when_a_channel_goes_to_a_server_that_is_away_keeps_its_place() {
    let mut world = World::new();
    world.streams.confirmed(CHANNEL, world.now);
    world.answer(5, &[], 1);
    world.recover(3);
    let stream = world.streams.release(CHANNEL, &mut world.shards);
    let mut away = Streams::new(Duration::from_secs(40));
    let stream = stream.expect("it is known");
    assert!(!away.adopt(&world.name, stream, world.now, &mut world.shards));
    assert_eq!(world.heard(), ["subscribed", "recovery refused"]);
}

#[test]
fn what_a_short_history_has_lost_is_taken_from_what_was_pushed_since() {
    let mut world = World::at(5);
    // Confirmed anew, as after a connection was lost.
    world.streams.confirmed(CHANNEL, world.now);
    assert!(world.reads());
    (6..=9).for_each(|offset| world.push(offset));
    assert_eq!(world.heard(), [""; 0], "held back until nothing is missing");
    // Only the newest one is kept.
    world.answer_with(8, &[8], 8);
    assert_eq!(world.heard(), ["6", "7", "8", "9"]);
    // What was not pushed either is lost.
    world.streams.confirmed(CHANNEL, world.now);
    assert!(world.reads());
    world.push(12);
    world.answer_with(12, &[12], 12);
    assert_eq!(world.heard(), ["lost"]);
}

#[test]
fn what_redis_keeps_no_longer_is_not_recovered() {
    // Removed, as is heard.
    let mut world = World::at(5);
    (6..=9).for_each(|offset| world.push(offset));
    world.recover(7);
    world.streams.removed(CHANNEL);
    world.recover(7);
    world.push(10);
    world.recover(7);
    world.recover(9);
    let heard = world.heard();
    assert_eq!(
        heard[4..],
        [
            "recovered 2",
            "not recovered",
            "10",
            "not recovered",
            "recovered 1"
        ]
    );
    // Expired: what has come since at Redis is asked for there.
    world.now += OPTIONS.ttl;
    world.recover(9);
    assert_eq!(world.heard(), [""; 0]);
    world.answer(10, &[], 11);
    assert_eq!(world.heard(), ["not recovered"]);
    // What comes after it does not bring it back.
    world.push(11);
    world.now += OPTIONS.ttl;
    world.push(12);
    world.recover(10);
    assert_eq!(world.heard(), ["11", "12"]);
    world.answer(12, &[], 12);
    assert_eq!(world.heard(), ["not recovered"]);
    // Removed on another node while nobody listened here: the first read shows it.
    let mut world = World::at(5);
    (6..=9).for_each(|offset| world.push(offset));
    let has_ended = world
        .shards
        .leave(CHANNEL, Variant::JSON_JOIN_LEAVE, 0, KEY);
    let (now, shards) = (world.now, &mut world.shards);
    world
        .streams
        .leave(CHANNEL, (0, KEY), has_ended, now, shards);
    world
        .shards
        .join(&world.name, Variant::JSON_JOIN_LEAVE, 0, KEY);
    let shards = &mut world.shards;
    world
        .streams
        .join(&world.name, (0, KEY), OPTIONS, true, now, shards);
    world.recover(7);
    world.answer(9, &[], 10);
    assert_eq!(world.heard()[4..], ["subscribed", "not recovered"]);
}

#[test]
fn what_was_read_before_a_removal_is_not_remembered_behind_it() {
    let mut world = World::at(5);
    world.streams.confirmed(CHANNEL, world.now);
    assert!(world.reads());
    world.streams.removed(CHANNEL);
    // As it was before.
    world.answer_with(7, &[6, 7], 1);
    world.recover(6);
    assert_eq!(world.heard(), ["6", "7"]);
    world.answer(7, &[], 8);
    assert_eq!(world.heard(), ["not recovered"]);
}
