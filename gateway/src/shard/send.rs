//! What goes out: one send of a connection at a time, with everything that is due to it.

use std::io;
use std::time::Instant;

use flux_runtime::ring::{Key, NetRing, Payload};

use crate::pubsub::{Gathered, Slot};

use super::Shard;
use super::connection::{Phase, slot};
use super::counters::Ended;

impl Shard {
    /// Sends the occupant of `slot` its replies and everything pending of its channels.
    pub(super) fn send(&mut self, ring: &mut NetRing, slot: Slot, now: Instant) {
        let Some((key, connection)) = self.connections.at(slot) else {
            return;
        };
        if connection.is_sending || matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        let mut control = std::mem::take(&mut connection.out);
        // Small ranges of several channels are copied behind each other into it.
        self.core.spares.lend(&mut control);
        // Publications wait for the reply that names their subscriptions.
        let is_held =
            matches!(&connection.phase, Phase::Session(session) if session.holds_publications());
        let subscriptions = &mut self.core.subscriptions;
        let gathered = match is_held {
            true => subscriptions.send_alone(slot, now, &control),
            false => {
                subscriptions.gather(slot, now, self.pacer.rest(), &mut control, &mut self.pieces)
            }
        };
        match gathered {
            Gathered::Nothing => self.core.spares.give(control),
            Gathered::Send { .. } => {
                connection.is_sending = true;
                let mut payload = Payload::new();
                if control.is_empty() {
                    self.core.spares.give(control);
                } else {
                    payload.push(control);
                }
                for piece in self.pieces.drain(..) {
                    payload.push(piece);
                }
                ring.send(&connection.socket, key, payload);
            }
        }
    }

    /// Sends what a closing connection has left, outside the rounds.
    pub(super) fn send_last(&mut self, ring: &mut NetRing, key: Key, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.is_sending {
            return;
        }
        if connection.out.is_empty() {
            self.go_on_closing(ring, key, now);
            return;
        }
        connection.is_sending = true;
        let mut payload = Payload::new();
        payload.push(std::mem::take(&mut connection.out));
        ring.send(&connection.socket, key, payload);
    }

    pub(super) fn on_sent(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        mut payload: Payload,
        result: &io::Result<usize>,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match result {
            Ok(count) if *count >= payload.len() => {}
            Ok(count) if *count > 0 => {
                payload.advance(*count);
                self.core.subscriptions.progressed(slot(key), now);
                ring.send(&connection.socket, key, payload);
                return;
            }
            Ok(_) | Err(_) => {
                connection.is_sending = false;
                self.finish(ring, key, Ended::ClientGone);
                return;
            }
        }
        connection.is_sending = false;
        if let Some(spare) = payload.into_spare_vec() {
            self.core.spares.give(spare);
        }
        if matches!(connection.phase, Phase::Closing(_)) {
            self.send_last(ring, key, now);
            return;
        }
        let has_more = !connection.out.is_empty();
        self.core.subscriptions.sent(slot(key));
        if has_more {
            self.core.subscriptions.mark_ready(slot(key));
        }
        self.update_reading(ring, key);
    }
}
