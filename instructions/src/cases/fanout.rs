//! One publication to 1,000 subscribers: ours by cursors into a log, tokio's broadcast channel by a reference that
//! each receiver takes, and a queue for each connection.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::log::LogWriter;
use crate::protocol::WireFormat;
use crate::pubsub::{
    Appended, ChannelKey, Gathered, MessageRef, Sequencer, Subscribed, Subscriptions,
    SubscriptionsConfig, Variant, Wire,
};

use super::TICK;
use crate::harness::{OURS, case};

const SUBSCRIBERS: u32 = 1_000;
const TIMES: u32 = 50;

pub(crate) fn run() {
    let name = "fan-out, each of 1,000 deliveries";
    let now = Instant::now();
    let mut subscriptions = Subscriptions::new(SubscriptionsConfig::default(), now);
    for slot in 0..SUBSCRIBERS {
        let answer = subscriptions.subscribe(slot, "news", Variant::JSON, 1, false);
        if let Subscribed::First { key, .. } = answer {
            subscriptions.confirm(key, None, &mut |_, _| {});
        }
    }
    let key = ChannelKey {
        index: 0,
        generation: 0,
    };
    let (mut log, mut control, mut pieces) = (LogWriter::new(), Vec::new(), Vec::new());
    let mut sends = 0;
    case(name, OURS, TIMES, SUBSCRIBERS, || {
        let slice = log.append(&[black_box(TICK.as_bytes())]);
        assert_eq!(subscriptions.append(key, &slice, None, 0), Appended::Taken);
        subscriptions.begin_round(now, Duration::ZERO);
        while let Some(slot) = subscriptions.next_ready() {
            let gathered =
                subscriptions.gather(slot, now, Duration::ZERO, &mut control, &mut pieces);
            sends += u32::from(matches!(gathered, Gathered::Send { .. }));
            black_box(&pieces);
            pieces.clear();
            subscriptions.sent(slot);
        }
    });
    assert_eq!(
        sends,
        (TIMES + 1) * SUBSCRIBERS,
        "everybody gets everything"
    );

    let (sender, receiver) = tokio::sync::broadcast::channel::<Arc<[u8]>>(16);
    let mut receivers: Vec<_> = (1..SUBSCRIBERS).map(|_| sender.subscribe()).collect();
    receivers.push(receiver);
    case(name, "tokio broadcast", TIMES, SUBSCRIBERS, || {
        let sent = sender.send(Arc::from(black_box(TICK.as_bytes())));
        black_box(sent.is_ok());
        for receiver in &mut receivers {
            black_box(receiver.try_recv().is_ok());
        }
    });

    let mut queues: Vec<VecDeque<Arc<[u8]>>> = vec![VecDeque::new(); SUBSCRIBERS as usize];
    case(name, "queues", TIMES, SUBSCRIBERS, || {
        let frame: Arc<[u8]> = Arc::from(black_box(TICK.as_bytes()));
        for queue in &mut queues {
            queue.push_back(Arc::clone(&frame));
        }
        for queue in &mut queues {
            black_box(queue.pop_front());
        }
    });
    sequence();
}

/// A publication gets its place in the channel's order and its encoded frame, for two shards.
fn sequence() {
    for (name, format) in [
        ("sequence a publication, JSON", WireFormat::Json),
        ("sequence a publication, Protobuf", WireFormat::Protobuf),
    ] {
        let variant = Variant {
            wire: Wire {
                format,
                ..Wire::default()
            },
            ..Variant::default()
        };
        let (mut sequencer, channel) = (Sequencer::new(), Arc::from("news"));
        for shard in 0..2 {
            let key = ChannelKey {
                index: 0,
                generation: 0,
            };
            sequencer.join(&channel, variant, shard, key);
        }
        case(name, OURS, 500, 1, || {
            let message = MessageRef::data(black_box(TICK.as_bytes()));
            let sequenced = sequencer.publish(&channel, message, None, &mut |_, _, delivered| {
                black_box(delivered);
                true
            });
            assert_eq!(sequenced.taken, 2, "{name}: taken by both shards");
        });
    }
}
