//! The shards: what clients do there, what the mail brings, what the kernel takes.

use std::sync::Arc;

use flux_runtime::log::LogSlice;

use super::client::{Client, Expectation, control_frame};
use super::{LAG_BYTES_MAX, Mail, Request, SLOTS, World};
use crate::pubsub::{
    Appended, Delivered, Gathered, Released, ShardIndex, StreamPosition, Subscribed, Unsubscribed,
};

impl World {
    pub(super) fn subscribe(&mut self, shard: usize, slot: u32, channel: usize) {
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
    pub(super) fn replied(
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

    pub(super) fn unsubscribe(&mut self, shard: usize, slot: u32, channel: usize) {
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

    pub(super) fn close(&mut self, shard: usize, slot: u32) {
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

    pub(super) fn take_mail(&mut self, shard: usize, count: usize) {
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

    pub(super) fn evict(&mut self, shard: usize) {
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

    /// A turn's sends: all that are prompt, and `most` of a round's.
    pub(super) fn round(&mut self, shard: usize, most: usize) {
        let (now, rest) = (self.now, self.rest);
        let subscriptions = &mut self.shards[shard].subscriptions;
        if subscriptions.is_round_over() && subscriptions.round_wanted(now, rest).is_some() {
            subscriptions.begin_round(now, rest);
        }
        self.send_prompt(shard);
        for _ in 0..most {
            let Some(slot) = self.shards[shard].subscriptions.next_ready() else {
                break;
            };
            self.send(shard, slot);
        }
    }

    fn send_prompt(&mut self, shard: usize) {
        while let Some(slot) = self.shards[shard].subscriptions.next_prompt() {
            self.send(shard, slot);
        }
    }

    fn send(&mut self, shard: usize, slot: u32) {
        let (now, rest) = (self.now, self.rest);
        let at = &mut self.shards[shard];
        let client = &mut at.clients[slot as usize];
        assert!(client.in_flight.is_empty(), "one send at a time");
        let mut control = std::mem::take(&mut client.control);
        let mut pieces: Vec<LogSlice> = Vec::new();
        let gathered = at
            .subscriptions
            .gather(slot, now, rest, &mut control, &mut pieces);
        for piece in pieces {
            control.extend_from_slice(piece.as_bytes());
        }
        match gathered {
            Gathered::Nothing => assert!(control.is_empty()),
            Gathered::Send { bytes } => assert_eq!(bytes, control.len() as u64),
        }
        client.in_flight = control;
    }

    /// The kernel takes some bytes of a send in flight.
    pub(super) fn take_bytes(&mut self, shard: usize, slot: u32, most: usize) {
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
            self.send_prompt(shard);
        } else {
            at.subscriptions.progressed(slot, self.now);
        }
        let client = &mut self.shards[shard].clients[slot as usize];
        self.pushes_checked += client.check(slot, &self.deltas);
    }

    pub(super) fn deliver_all(&mut self, shard: usize) {
        for slot in 0..SLOTS {
            if !self.shards[shard].clients[slot as usize].is_slow {
                self.take_bytes(shard, slot, usize::MAX);
            }
        }
    }
}

fn leave(shard: usize, gone: Released) -> Request {
    Request::Leave(gone.name, gone.variant, shard as ShardIndex, gone.key)
}
