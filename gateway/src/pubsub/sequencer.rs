//! The one place where a channel's messages get their order.
//!
//! There is one sequencer per owner: in the memory engine the shard that the channel's name hashes
//! to, in the Redis engine the thread that reads what Redis delivers. It encodes each message once
//! per encoding in use, frames it once per variant that somebody listens to, and hands out the
//! slice, one per shard, not per subscriber.
//!
//! Invariants
//! - A channel is in the table exactly while some shard listens to some variant of it.
//! - A feed (a variant's log and its listeners) exists exactly while it has listeners.
//! - A channel's last payload is kept only while some feed of it has deltas.
//! - A shard is at most once among the listeners of a feed, with the key it last joined with.

use std::sync::Arc;

use flux_runtime::log::{LogSlice, LogWriter};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::encodings::{Content, Encodings};
use super::{ChannelKey, MessageKind, MessageRef, ShardIndex, StreamPosition, Variant, Whole};
use crate::limits::DELTA_BYTES_MAX;

/// How a listener's coming or going changed what this sequencer needs of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// The channel has its first listener: somewhere a subscription has to begin.
    Began,
    /// The channel has lost its last listener: a subscription may end.
    Ended,
    /// Neither.
    Unchanged,
}

/// What a shard gets of one message.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The message as the variant has it, ready for the socket.
    pub slice: LogSlice,
    /// Where `slice` is a delta: the whole message, for subscribers who have not had one yet.
    pub whole: Option<Whole>,
    /// Its place in the channel's history; 0 for what has none.
    pub offset: u64,
}

/// What became of a message.
#[derive(Debug)]
pub struct Sequenced {
    /// How many shards took it.
    pub taken: usize,
    /// Whether the channel has lost its last listener by it.
    pub interest: Interest,
    /// Listeners whose clients speak JSON, which the message is not. They are no longer listeners;
    /// the shards must be told so ([`crate::engine::Event::Inappropriate`]).
    pub inappropriate: SmallVec<[(ShardIndex, ChannelKey); 2]>,
}

/// One variant of a channel: its log and who gets it.
struct Feed {
    variant: Variant,
    writer: LogWriter,
    listeners: SmallVec<[(ShardIndex, ChannelKey); 2]>,
    /// Tells this feed from a later one of the same channel and variant.
    id: u64,
    /// Whether it is in the list of feeds that hold memory.
    is_listed: bool,
    /// Whether something was written since the last sweep.
    has_written: bool,
}

#[derive(Default)]
struct Channel {
    /// In no order: few, and rarely more than one or two.
    feeds: SmallVec<[Box<Feed>; 2]>,
    previous: Option<Box<Previous>>,
}

/// The payload of a channel's last publication, of which the next one may be told as a delta.
struct Previous {
    payload: Vec<u8>,
}

impl Channel {
    fn is_unheard(&self) -> bool {
        self.feeds.is_empty()
    }

    fn feed(&mut self, variant: Variant) -> Option<&mut Feed> {
        let found = self.feeds.iter_mut().find(|feed| feed.variant == variant);
        found.map(Box::as_mut)
    }

    fn drop_unheard_feeds(&mut self) {
        self.feeds.retain(|feed| !feed.listeners.is_empty());
        if !self.has_deltas() {
            self.previous = None;
        }
    }

    fn has_deltas(&self) -> bool {
        self.feeds.iter().any(|feed| feed.variant.delta)
    }

    /// Keeps a publication's payload for the next one, where that may become a delta.
    fn remember(&mut self, payload: &[u8]) {
        if !self.has_deltas() || payload.len() > DELTA_BYTES_MAX {
            self.previous = None;
            return;
        }
        let previous = self.previous.get_or_insert_with(|| {
            Box::new(Previous {
                payload: Vec::new(),
            })
        });
        previous.payload.clear();
        previous.payload.extend_from_slice(payload);
    }
}

/// Gives the messages of its channels their order and their encoded form.
#[derive(Default)]
pub struct Sequencer {
    channels: HashMap<Arc<str>, Channel, RandomState>,
    /// Feeds that hold memory for their log, for the next sweep.
    warm: Vec<(Arc<str>, Variant, u64)>,
    feeds_made: u64,
    encodings: Encodings,
    /// Memory for the messages behind deltas.
    arena: LogWriter,
}

impl Sequencer {
    /// A sequencer without channels.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on `shard` gets the messages of `channel` in `variant`, addressed with `key`.
    /// A shard that already listens is known by the new key from now on.
    pub fn join(
        &mut self,
        channel: &Arc<str>,
        variant: Variant,
        shard: ShardIndex,
        key: ChannelKey,
    ) -> Interest {
        let entry = self.channels.entry(Arc::clone(channel)).or_default();
        let interest = match entry.is_unheard() {
            true => Interest::Began,
            false => Interest::Unchanged,
        };
        let at = match entry.feeds.iter().position(|feed| feed.variant == variant) {
            Some(at) => at,
            None => {
                self.feeds_made += 1;
                entry.feeds.push(Box::new(Feed {
                    variant,
                    writer: LogWriter::new(),
                    listeners: SmallVec::new(),
                    id: self.feeds_made,
                    is_listed: false,
                    has_written: false,
                }));
                entry.feeds.len() - 1
            }
        };
        let feed = &mut entry.feeds[at];
        match feed.listeners.iter_mut().find(|(at, _)| *at == shard) {
            Some((_, old)) => *old = key,
            None => feed.listeners.push((shard, key)),
        }
        self.check_invariants();
        interest
    }

    /// `shard` no longer listens under `key`. A key that it has meanwhile replaced is ignored.
    pub fn leave(
        &mut self,
        channel: &str,
        variant: Variant,
        shard: ShardIndex,
        key: ChannelKey,
    ) -> Interest {
        let Some(entry) = self.channels.get_mut(channel) else {
            return Interest::Unchanged;
        };
        if let Some(feed) = entry.feed(variant) {
            feed.listeners.retain(|listener| *listener != (shard, key));
        }
        entry.drop_unheard_feeds();
        let ended = entry.is_unheard();
        if ended {
            self.channels.remove(channel);
        }
        self.check_invariants();
        match ended {
            true => Interest::Ended,
            false => Interest::Unchanged,
        }
    }

    /// The channel will not be delivered any longer: hands out its listeners, who are gone.
    pub fn remove(&mut self, channel: &str) -> Vec<(ShardIndex, ChannelKey)> {
        let gone = self.channels.remove(channel);
        gone.into_iter()
            .flat_map(|channel| channel.feeds)
            .flat_map(|feed| feed.listeners)
            .collect()
    }

    /// Puts `message` into the log of each variant of `channel` that somebody listens to and hands
    /// the slice out, one per listening shard. `position` is the message's own place in the
    /// channel's history, where it has one. `deliver` says whether the shard took it; one that could
    /// not is no longer a listener (it must be told that it missed something).
    pub fn publish(
        &mut self,
        channel: &str,
        message: MessageRef<'_>,
        position: Option<StreamPosition>,
        deliver: &mut impl FnMut(ShardIndex, ChannelKey, Delivered) -> bool,
    ) -> Sequenced {
        let mut sequenced = Sequenced {
            taken: 0,
            interest: Interest::Unchanged,
            inappropriate: SmallVec::new(),
        };
        let Some((name, entry)) = self.channels.get_key_value_mut(channel) else {
            return sequenced;
        };
        let content = Content {
            channel: name,
            message,
            offset: position.map_or(0, |position| position.offset),
            previous: entry.previous.as_ref().map(|previous| &*previous.payload),
        };
        self.encodings.begin();
        let mut stored = None;
        for feed in &mut entry.feeds {
            let variant = feed.variant;
            if !variant.carries(message.kind()) {
                continue;
            }
            if !self.encodings.is_appropriate(&content, variant) {
                sequenced.inappropriate.append(&mut feed.listeners);
                continue;
            }
            let (slice, whole) = match self.encodings.delta(&content, variant) {
                Some(delta) => {
                    let slice = variant.wire.append(&mut feed.writer, delta);
                    let stored = stored.get_or_insert_with(|| message.store(&mut self.arena, name));
                    (slice, Some(Whole::new(stored.clone(), variant)))
                }
                None => {
                    let whole = self.encodings.whole(&content, variant);
                    (variant.wire.append(&mut feed.writer, whole), None)
                }
            };
            feed.has_written = true;
            if !std::mem::replace(&mut feed.is_listed, true) {
                self.warm.push((Arc::clone(name), variant, feed.id));
            }
            let delivered = Delivered {
                slice,
                whole,
                offset: content.offset,
            };
            feed.listeners
                .retain(|(shard, key)| deliver(*shard, *key, delivered.clone()));
            sequenced.taken += feed.listeners.len();
        }
        if message.kind() == MessageKind::Publication {
            entry.remember(message.payload());
        }
        entry.drop_unheard_feeds();
        if entry.is_unheard() {
            sequenced.interest = Interest::Ended;
            self.channels.remove(channel);
        }
        self.check_invariants();
        sequenced
    }

    /// Gives back the log memory of channels that were quiet since the last call. To be called
    /// every few seconds; costs as much as there were busy channels, not as there are channels.
    pub fn sweep(&mut self) {
        let channels = &mut self.channels;
        self.warm.retain(|(name, variant, id)| {
            let feed = channels
                .get_mut(name)
                .and_then(|channel| channel.feed(*variant))
                .filter(|feed| feed.id == *id);
            let Some(feed) = feed else { return false };
            feed.is_listed = std::mem::replace(&mut feed.has_written, false);
            if !feed.is_listed {
                feed.writer.release();
            }
            feed.is_listed
        });
        self.arena.release();
    }

    /// How many channels have listeners.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Whether `channel` has listeners.
    pub fn is_heard(&self, channel: &str) -> bool {
        self.channels.contains_key(channel)
    }

    /// The channels that have listeners, in no order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.channels.keys()
    }

    /// Checked after each change in debug builds; the cost is the size of one channel.
    fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.channels.len() <= 64 {
            for (name, channel) in &self.channels {
                assert!(!channel.is_unheard(), "{name}: kept without listeners");
                let keeps = channel.previous.is_some();
                assert!(!keeps || channel.has_deltas(), "{name}: kept for no delta");
                for (at, feed) in channel.feeds.iter().enumerate() {
                    assert!(!feed.listeners.is_empty(), "{name}: feed without listeners");
                    let twice = channel.feeds[..at]
                        .iter()
                        .any(|other| other.variant == feed.variant);
                    assert!(!twice, "{name}: two feeds of {:?}", feed.variant);
                    for (at, (shard, _)) in feed.listeners.iter().enumerate() {
                        let again = feed.listeners[..at].iter().any(|(s, _)| s == shard);
                        assert!(!again, "{name}: shard {shard} listens twice");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Tags, WireFormat};
    use crate::pubsub::{Framing, Wire};

    fn variant(format: WireFormat, transport: Framing, delta: bool) -> Variant {
        Variant {
            wire: Wire {
                format,
                transport,
                unidirectional: false,
            },
            join_leave: false,
            delta,
        }
    }

    /// A sequencer whose channel "c" one shard after the other listens to.
    fn heard_in(variants: &[Variant]) -> Sequencer {
        let mut sequencer = Sequencer::new();
        let (name, key) = (
            Arc::from("c"),
            ChannelKey {
                index: 0,
                generation: 0,
            },
        );
        for (shard, variant) in (0..).zip(variants) {
            sequencer.join(&name, *variant, shard, key);
        }
        sequencer
    }

    /// Publishes a payload that differs little from one to the next: how many encodings were made,
    /// and how many shards were given the message behind a delta.
    fn publish(sequencer: &mut Sequencer, number: u64) -> (usize, usize) {
        let payload = format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(200));
        let message = MessageRef::Publication {
            data: payload.as_bytes(),
            info: None,
            tags: Tags::NONE,
            delta: true,
        };
        let mut wholes = 0;
        sequencer.publish("c", message, None, &mut |_, _, delivered| {
            wholes += usize::from(delivered.whole.is_some());
            true
        });
        (sequencer.encodings.used, wholes)
    }

    #[test]
    fn a_channel_without_subscribers_of_deltas_pays_nothing_for_them() {
        let (json, protobuf) = (WireFormat::Json, WireFormat::Protobuf);
        let mut sequencer = heard_in(&[
            variant(json, Framing::WebSocket, false),
            variant(json, Framing::Sse, false),
            variant(protobuf, Framing::WebSocket, false),
        ]);
        for number in 0..3 {
            assert_eq!(publish(&mut sequencer, number), (2, 0), "one a format");
        }
        let channel = &sequencer.channels["c"];
        assert!(channel.previous.is_none(), "no payload is kept");
        assert_eq!(
            format!("{:?}", sequencer.arena),
            format!("{:?}", LogWriter::new())
        );
    }

    #[test]
    fn a_delta_is_encoded_once_a_format_and_what_it_stands_for_not_at_all() {
        let (json, protobuf) = (WireFormat::Json, WireFormat::Protobuf);
        let mut sequencer = heard_in(&[
            variant(json, Framing::WebSocket, false),
            variant(json, Framing::WebSocket, true),
            variant(json, Framing::HttpStream, true),
            variant(protobuf, Framing::WebSocket, false),
            variant(protobuf, Framing::WebSocket, true),
        ]);
        let first = publish(&mut sequencer, 0);
        assert_eq!(first, (3, 0), "JSON, JSON in a string, Protobuf");
        for number in 1..4 {
            let made = publish(&mut sequencer, number);
            assert_eq!(made, (4, 3), "two formats, each plain and as a delta");
        }
    }
}
