//! Publications that go on while something happens, and what their subscribers make of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flux_gateway::engine::history::HistoryOptions;

use crate::node::{Ending, Node, PATIENCE, Seen, wait_for};

/// Channels, so that every server of a deployment has some.
pub(crate) const CHANNELS: [&str; 6] = ["a", "room:b", "c", "news:d", "e", "f"];

/// Publications a channel that say something.
const SENT_MIN: u64 = 30;

/// A subscription, and those that followed it because it was lost.
struct Subscriber {
    channel: &'static str,
    keys: Vec<u32>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Subscribers who were told that they missed something.
    pub(crate) told: usize,
    /// Publications that were refused for the moment and tried again.
    pub(crate) refused: u64,
    /// Longest time between two publications at one subscriber.
    pub(crate) longest_pause: Duration,
}

/// Publishes from `nodes[0]` to every channel, one after the other, while `happen` runs and for a while
/// behind it; subscribers are on both nodes.
///
/// In channels with history every subscriber that was not told has got every publication, once and in
/// order. In those without, what it got was in order and came once, and after all it gets them again.
pub(crate) fn survives(
    what: &str,
    nodes: &[Node; 2],
    history: Option<HistoryOptions>,
    happen: impl FnOnce(),
) -> Verdict {
    let mut subscribers: [Vec<Subscriber>; 2] = [Vec::new(), Vec::new()];
    for (node, list) in nodes.iter().zip(&mut subscribers) {
        for channel in CHANNELS {
            let (key, position) = node.subscribe(channel, history);
            assert_eq!(position.is_some(), history.is_some(), "{channel}");
            let keys = vec![key];
            list.push(Subscriber { channel, keys });
        }
    }
    nodes[0].run.fetch_add(1, Ordering::Relaxed);
    let stop = AtomicBool::new(false);
    let since = Instant::now();
    let (sent, refused) = std::thread::scope(|scope| {
        let _ending = Ending(&stop);
        let publisher = scope.spawn(|| {
            let (mut number, mut refused) = (0, 0);
            // A machine that is busy with other things gets its time.
            while !stop.load(Ordering::SeqCst) || number < SENT_MIN {
                for channel in CHANNELS {
                    let until = Instant::now() + PATIENCE;
                    while let Err(error) = nodes[0].publish(channel, number, history) {
                        assert!(Instant::now() < until, "{channel}: {error:?}");
                        refused += 1;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
                number += 1;
            }
            (number, refused)
        });
        std::thread::sleep(Duration::from_millis(300));
        happen();
        for node in nodes {
            node.wait_until_up();
        }
        std::thread::sleep(Duration::from_millis(700));
        stop.store(true, Ordering::SeqCst);
        publisher.join().expect("the publisher ends well")
    });
    let mut verdict = Verdict {
        refused,
        ..Verdict::default()
    };
    for (node, list) in nodes.iter().zip(&mut subscribers) {
        for subscriber in list {
            check(node, subscriber, sent, history.is_some(), &mut verdict);
        }
    }
    println!(
        "{what}: {sent} publications a channel in {:?}; longest pause {:?}; {} refused and tried again; {} of {} \
         subscribers told",
        since.elapsed(),
        verdict.longest_pause,
        verdict.refused,
        verdict.told,
        2 * CHANNELS.len(),
    );
    verdict
}

fn check(
    node: &Node,
    subscriber: &mut Subscriber,
    sent: u64,
    is_stored: bool,
    verdict: &mut Verdict,
) {
    let channel = subscriber.channel;
    let key = subscriber.keys[0];
    let is_lost = |seen: &[Seen]| {
        seen.iter()
            .any(|seen| matches!(seen, Seen::Lost(of) if *of == key))
    };
    wait_for(
        "the last publication, or the word that some are missing",
        || {
            let seen = node.seen();
            let is_last = |seen: &Seen| matches!(seen, Seen::Data { key: of, number, .. } if *of == key && *number == sent - 1);
            seen.iter().any(is_last) || is_lost(&seen)
        },
    );
    let seen = node.seen();
    let was_told = is_lost(&seen);
    let mut before: Option<(u64, u64, Instant)> = None;
    for seen in seen {
        let Seen::Data {
            key: of,
            number,
            offset,
            at,
        } = seen
        else {
            continue;
        };
        if of != key {
            continue;
        }
        let next = before.map_or(0, |(number, ..)| number + 1);
        if is_stored {
            assert_eq!(
                number, next,
                "{channel}: a gap that nobody was told of, or a second time"
            );
            if let Some((_, last, _)) = before {
                assert_eq!(offset, last + 1, "{channel}: offsets");
            }
        } else {
            assert!(number >= next, "{channel}: {number} after {before:?}");
        }
        if let Some((.., last)) = before {
            verdict.longest_pause = verdict.longest_pause.max(at - last);
        }
        before = Some((number, offset, at));
    }
    verdict.told += usize::from(was_told);
}
