//! The sequencer's thread: requests of the shards in, mail for them out.

use flux_runtime::log::LogWriter;

use super::{Mail, Request, VARIANTS, World};
use crate::protocol::{ClientId, ClientInfo, Tags, tags};
use crate::pubsub::{MessageKind, MessageRef, StreamPosition, Whole};

use super::client::WHOLE;

impl World {
    pub(super) fn sequence(&mut self, shard: usize) {
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
            Request::Publish(channel, kind) => self.publish(channel, kind),
        }
    }

    /// A message with the numbers that it has in each variant, some of them as deltas in name only.
    fn publish(&mut self, channel: usize, kind: MessageKind) {
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
