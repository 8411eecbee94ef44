//! What engines tell the clients of a world. What holds for every client at every moment is checked here,
//! whatever the model says:
//! - Deliveries of a channel with history rise by one from the position that was answered; what a
//!   recovery says is contiguous and ends where the shard is.
//! - All clients see the same publication at the same offset of the same epoch: data, publisher, tags; and a
//!   delta makes of the publication before it the one that it stands for.
//! - Each question has one answer.

use flux_gateway::engine::history::Recovery;
use flux_gateway::engine::{Asker, Event};
use flux_gateway::protocol::ErrorCode;
use flux_gateway::pubsub::{ChannelKey, StreamPosition};

use super::content::pushed;
use super::model::read;
use super::world::{Answer, Kind, State, World};

impl World {
    pub(super) fn event(&mut self, at: usize, event: Event) {
        match event {
            Event::Subscribed { key, result } => self.on_subscribed(at, key, result),
            Event::Recovered { key, asker, result } => self.on_recovered(at, key, asker, result),
            Event::Delivery {
                key,
                slice,
                whole,
                offset,
            } => {
                let whole = whole.map(|whole| whole.encode(offset));
                let whole = whole.as_ref().map(|whole| whole.as_bytes());
                self.on_delivery(at, key, slice.as_bytes(), whole, offset);
            }
            Event::Lost { key } => {
                let Some(place) = self.doors[at].place(key) else {
                    return;
                };
                let feed = self.doors[at].feeds.remove(&place).expect("just found");
                for client in feed.clients {
                    self.subscription(client, place.0).state = State::Lost;
                    self.told += 1;
                }
            }
            Event::Inappropriate { .. } => panic!("all data here is JSON"),
            Event::Published { asker, result } => self.answer(asker, Answer::Published(result)),
            Event::History { asker, result } => self.answer(asker, Answer::History(result)),
            Event::Presence { asker, result } => self.answer(asker, Answer::Presence(result)),
            Event::PresenceStats { asker, result } => {
                self.answer(asker, Answer::PresenceStats(result));
            }
        }
    }

    fn answer(&mut self, asker: Asker, answer: Answer) {
        let before = self.answers.insert(asker.command, answer);
        assert!(before.is_none(), "{asker:?} is answered twice");
    }

    fn on_subscribed(
        &mut self,
        at: usize,
        key: ChannelKey,
        result: Result<Option<StreamPosition>, ErrorCode>,
    ) {
        let Some(place) = self.doors[at].place(key) else {
            return;
        };
        let feed = self.doors[at].feeds.get_mut(&place).expect("just found");
        assert!(!feed.is_confirmed, "{} is confirmed twice", place.0);
        let clients = feed.clients.clone();
        match result {
            Ok(position) => {
                feed.is_confirmed = true;
                feed.position = position;
                for client in clients {
                    let subscription = self.subscription(client, place.0);
                    if subscription.state == State::Waiting(0) {
                        subscription.state = State::Active;
                        subscription.position = position;
                    }
                }
            }
            Err(code) => {
                self.doors[at].feeds.remove(&place);
                for client in clients {
                    self.subscription(client, place.0).state = State::Refused(code);
                }
            }
        }
    }

    fn on_recovered(
        &mut self,
        at: usize,
        key: ChannelKey,
        asker: Asker,
        result: Result<Recovery, ErrorCode>,
    ) {
        let Some(place) = self.doors[at].place(key) else {
            return;
        };
        let client = asker.connection as usize;
        let feed = &self.doors[at].feeds[&place];
        let (channel, position) = (place.0, feed.position);
        if !feed.clients.contains(&client) {
            return;
        }
        assert!(feed.is_confirmed, "{channel}: before its confirmation");
        let subscription = self.subscription(client, channel);
        if subscription.state != State::Waiting(asker.command) {
            // It has left and come again meanwhile.
            return;
        }
        let recovery = match result {
            Ok(recovery) => recovery,
            Err(code) => {
                subscription.state = State::Refused(code);
                return;
            }
        };
        assert_eq!(
            Some(recovery.position),
            position,
            "{channel}: a recovery ends where the shard is"
        );
        let missed = read(&recovery.publications);
        assert!(recovery.recovered || missed.is_empty(), "{channel}");
        let ends = missed.last().map(|(offset, _)| *offset);
        assert!(ends.is_none() || ends == Some(recovery.position.offset));
        for pair in missed.windows(2) {
            assert_eq!(pair[0].0 + 1, pair[1].0, "{channel}: a hole in a recovery");
        }
        subscription.state = State::Active;
        subscription.position = Some(recovery.position);
        let data = missed.iter().map(|(_, data)| data.clone());
        subscription.seen.extend(data);
        subscription.recovered = Some((recovery.recovered, missed.clone()));
        self.told += u64::from(!recovery.recovered);
        for (offset, data) in missed {
            self.saw(channel, recovery.position.epoch, offset, &data);
        }
    }

    fn on_delivery(
        &mut self,
        at: usize,
        key: ChannelKey,
        slice: &[u8],
        full: Option<&[u8]>,
        offset: u64,
    ) {
        let Some(place) = self.doors[at].place(key) else {
            return;
        };
        let channel = place.0;
        let feed = self.doors[at].feeds.get_mut(&place).expect("just found");
        let deltas = place.1 == Kind::WithDeltas;
        let whole = pushed(full.unwrap_or(slice), channel, deltas, None).expect("no delta");
        if full.is_some() {
            // Where this shard has heard nothing yet, the one before is known to others only.
            let changed = pushed(slice, channel, deltas, feed.previous.as_deref());
            let changed = changed.map(|changed| changed.text);
            assert!(
                changed.is_none_or(|changed| changed == whole.text),
                "{channel}"
            );
        }
        if let Some(payload) = whole.payload {
            feed.previous = Some(payload);
        }
        let (data, said) = (whole.text, whole.offset);
        assert_eq!(said, offset, "{channel}: what the push says");
        if !feed.is_confirmed {
            // Its position will stand in the confirmation.
            return;
        }
        if let (Some(position), true) = (&mut feed.position, offset > 0) {
            assert_eq!(
                offset,
                position.offset + 1,
                "{channel}: offsets rise by one"
            );
            position.offset = offset;
        }
        let position = feed.position;
        for client in feed.clients.clone() {
            let subscription = self.subscription(client, channel);
            if subscription.state == State::Active {
                subscription.seen.push(data.clone());
                subscription.position = position;
            }
        }
        if let (Some(position), true) = (position, offset > 0) {
            self.saw(channel, position.epoch, offset, &data);
        }
    }
}
