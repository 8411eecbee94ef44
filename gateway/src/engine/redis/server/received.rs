//! What arrives through Redis: publications of this node and of others, probes, words about a history.

use std::time::Instant;

use super::super::ledger::Echo;
use super::super::record::{self, Body, Mark, ORIGIN_OF_NOBODY, Record, Rejected};
use super::super::shards::Shards;
use super::super::streams::Pushed;
use super::{Server, count_rejected};
use crate::pubsub::{MessageRef, StreamPosition};

/// Other processes whose last sequence number is remembered; beyond it all are forgotten.
const HEARD_MAX: usize = 4_096;

impl Server {
    /// A record has arrived in `channel`; without one, in this process's own probe channel. True
    /// when it shows that the way through Redis and back works.
    pub(in super::super) fn received(
        &mut self,
        channel: Option<&str>,
        bytes: &[u8],
        now: Instant,
        shards: &mut Shards,
    ) -> bool {
        let mut is_echo = false;
        let (position, record) = match record::decode_pushed(bytes) {
            Ok(pushed) => pushed,
            Err(why) => {
                count_rejected(why, shards);
                return false;
            }
        };
        match (position, record.body, channel) {
            (Some(position), Body::Message(message), Some(channel)) => {
                shards
                    .metrics
                    .redis_received
                    .add(u64::from(record.origin != self.origin));
                let place = (position, record.mark());
                self.placed(channel, place, message, now, shards);
                return false;
            }
            (None, Body::Removed, Some(channel)) => {
                self.streams.removed(channel);
                return false;
            }
            (Some(_), ..) => {
                count_rejected(Rejected::Content, shards);
                return false;
            }
            _ => {}
        }
        let metrics = &shards.metrics;
        if let (ORIGIN_OF_NOBODY, Body::Message(message @ MessageRef::Leave(_)), Some(channel)) =
            (record.origin, record.body, channel)
        {
            metrics.redis_received.add(1);
            self.sequence(channel, message, None, shards);
            return false;
        }
        match (record, channel) {
            (
                Record {
                    origin,
                    sequence,
                    body: Body::Message(message),
                },
                Some(channel),
            ) if origin != self.origin => {
                metrics.redis_received.add(1);
                if self.heard.len() >= HEARD_MAX && !self.heard.contains_key(&origin) {
                    self.heard.clear();
                }
                match self.heard.insert(origin, sequence) {
                    Some(last) if last >= sequence => {
                        self.heard.insert(origin, last);
                        metrics.redis_stale.add(1);
                    }
                    _ => self.sequence(channel, message, None, shards),
                }
            }
            (
                Record {
                    origin,
                    sequence,
                    body,
                },
                channel,
            ) if origin == self.origin && (body == Body::Probe) == channel.is_none() => {
                let mut answered = Vec::new();
                let echo = self
                    .ledger
                    .echo(sequence, &mut |asker| answered.push(asker));
                match echo {
                    Echo::Unknown => metrics.rejected_content.add(1),
                    Echo::Late => metrics.redis_late_echoes.add(1),
                    Echo::Fresh { sent } => {
                        metrics.redis_echoed.add(1);
                        is_echo = true;
                        if let Some(sent) = sent {
                            let took = now.saturating_duration_since(sent);
                            metrics.redis_probe_us.set(took.as_micros() as u64);
                            self.probed = Some(now);
                        }
                        if let (Body::Message(message), Some(channel)) = (body, channel) {
                            self.sequence(channel, message, None, shards);
                        }
                    }
                }
                for asker in answered {
                    shards.published(asker, Ok(None));
                }
                self.rise();
            }
            _ => metrics.rejected_content.add(1),
        }
        is_echo
    }

    /// A publication that has a place has arrived.
    fn placed(
        &mut self,
        channel: &str,
        (position, mark): (StreamPosition, Mark),
        message: MessageRef<'_>,
        now: Instant,
        shards: &mut Shards,
    ) {
        match self
            .streams
            .push(channel, (position, mark), message, now, shards)
        {
            Pushed::Taken => {}
            Pushed::Ended => self.interest.forget(channel),
            // Who listens here does not ask for positions.
            Pushed::Untracked => self.sequence(channel, message, Some(position), shards),
        }
    }
}
