//! What a client has got, held against what it should.

use std::collections::{HashMap, HashSet};

use super::{VARIANTS, World};

/// Tag of what stands for a delta.
pub(super) const WHOLE: (&str, &str) = ("whole", "1");

/// What the model expects of one subscription.
#[derive(Default, Clone)]
pub(super) struct Expectation {
    /// Number that the next push of this channel must have.
    pub(super) next: Option<u64>,
    /// At the moment of the subscribe reply nothing below this had been published.
    pub(super) not_after: u64,
    /// The offset that was seen last in this subscription; none before its reply has arrived, and
    /// without history.
    pub(super) offset: Option<u64>,
    /// Whether a whole publication has arrived.
    pub(super) has_base: bool,
}

#[derive(Default)]
pub(super) struct Client {
    /// Bytes that the kernel has taken.
    pub(super) received: Vec<u8>,
    /// The send in flight.
    pub(super) in_flight: Vec<u8>,
    /// A slow one takes next to nothing.
    pub(super) is_slow: bool,
    pub(super) subscriptions: HashMap<usize, Expectation>,
    pub(super) control: Vec<u8>,
    /// Where it goes on when it subscribes again.
    pub(super) seen: HashMap<usize, u64>,
}

impl Client {
    /// What is in flight may still arrive; only a new subscribe reply opens the channel again.
    pub(super) fn left(&mut self, channel: usize) {
        if let Some(expectation) = self.subscriptions.get_mut(&channel) {
            expectation.not_after = u64::MAX;
        }
    }

    /// Reads the frames that have arrived whole and holds them against the model.
    /// Gives how many pushes there were. `slot` tells its variant; `deltas`: channel and number of what
    /// was sent as a delta.
    pub(super) fn check(&mut self, slot: u32, deltas: &HashSet<(usize, u64)>) -> u64 {
        let mut pushes = 0;
        while let Some((payload, len)) = frame(&self.received) {
            let value: serde_json::Value = serde_json::from_slice(payload).expect("whole JSON");
            self.received.drain(..len);
            if let Some(channel) = value.get("subscribed") {
                let channel = channel.as_u64().expect("a number") as usize;
                let expectation = self.subscriptions.get_mut(&channel);
                let expectation = expectation.expect("a reply to a subscribe");
                expectation.next = None;
                expectation.has_base = false;
                expectation.offset = value["offset"].as_u64();
                if let Some(offset) = expectation.offset {
                    self.seen.insert(channel, offset);
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
            let expectation = self
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
            if World::variant_of(slot).delta && is_publication && !is_marked {
                let is_delta = deltas.contains(&(channel, number));
                assert!(
                    !is_delta || expectation.has_base,
                    "a delta without its base"
                );
                expectation.has_base |= !is_delta;
            }
            let offset = push["pub"]["offset"].as_u64();
            assert_eq!(
                offset.is_some(),
                is_publication && World::has_history(channel)
            );
            if let (Some(offset), Some(last)) = (offset, expectation.offset) {
                assert_eq!(offset, last + 1, "offsets without a gap");
                expectation.offset = Some(offset);
                if expectation.not_after != u64::MAX {
                    self.seen.insert(channel, offset);
                }
            }
            pushes += 1;
        }
        pushes
    }
}

pub(super) fn control_frame(channel: usize, offset: Option<u64>) -> Vec<u8> {
    let offset = offset.map_or("null".to_owned(), |offset| offset.to_string());
    let text = format!("{{\"subscribed\":{channel},\"offset\":{offset}}}");
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
