//! The data path: what a side says goes to the other straight from the buffer it came in.
//!
//! Per message: one receive, one send, no allocation, no copy. Behind a side that does not keep up
//! at most `queue_bytes_max` wait (and what the kernel had received already); then the other side is
//! not read until half of that is gone.

use std::time::Instant;

use flux_runtime::ring::{NetRing, Payload, Piece, RecvBuffer, Shutdown};

use super::Flows;
use super::flow::{CLIENT, Name, Stage, UPSTREAM};

impl Flows {
    pub(super) fn on_received(
        &mut self,
        ring: &mut NetRing,
        name: Name,
        buffer: RecvBuffer,
        now: Instant,
    ) {
        let Some(flow) = self.flow_mut(name) else {
            return;
        };
        match (flow.stage, name.side) {
            (Stage::Open, _) => {}
            (Stage::Head, _) => return self.on_head_bytes(ring, name.slot, &buffer, now),
            (Stage::Connecting | Stage::Pausing, _) => {
                return self.hold_until_connected(ring, name.slot, &buffer);
            }
            (Stage::Answering, CLIENT) => self.hold_more(name.slot, &buffer),
            (Stage::Answering, _) => self.on_first_byte(name.slot),
            (Stage::Refusing, _) => return,
        }
        self.forward(ring, name, buffer);
    }

    fn forward(&mut self, ring: &mut NetRing, name: Name, buffer: RecvBuffer) {
        let Some(flow) = self.slots.get_mut(name.slot) else {
            return;
        };
        let (client, upstream) = flow.sides.split_at_mut(UPSTREAM);
        let (from, to) = match name.side {
            CLIENT => (&mut client[0], &mut upstream[0]),
            _ => (&mut upstream[0], &mut client[0]),
        };
        let Some(socket) = to.socket.as_ref().filter(|_| !to.broken) else {
            return;
        };
        let len = buffer.len();
        let piece = if ring.buffers_lent() > self.settings.copy_above {
            // Sides that do not keep up must not take the buffers of all others.
            self.meters.copied.add(1);
            Piece::Owned(buffer.to_vec())
        } else {
            Piece::Received(buffer)
        };
        if !to.sending {
            to.sending = true;
            to.in_flight = len;
            let key = Name {
                slot: name.slot,
                side: 1 - name.side,
                generation: to.generation,
            }
            .into();
            ring.send(socket, key, Payload::from(piece));
            return;
        }
        to.pending.push(piece);
        to.queued += len;
        if to.backlog() > self.settings.queue_bytes_max
            && let Some(receiver) = from.receiver.take()
        {
            self.meters.backpressure.add(1);
            ring.stop_recv(receiver);
        }
    }

    pub(super) fn on_sent(
        &mut self,
        ring: &mut NetRing,
        name: Name,
        mut payload: Payload,
        sent: Option<usize>,
    ) {
        let queue_bytes_max = self.settings.queue_bytes_max;
        let Some(flow) = self.flow_mut(name) else {
            return;
        };
        let to = &mut flow.sides[name.side];
        to.sending = false;
        to.stalled = 0;
        let Some(count) = sent else {
            return self.on_broken(ring, name);
        };
        to.in_flight = to.in_flight.saturating_sub(count);
        payload.advance(count);
        if payload.is_empty() && !to.pending.is_empty() {
            payload = std::mem::take(&mut to.pending);
            to.in_flight = std::mem::take(&mut to.queued);
        }
        let more = !payload.is_empty() && !to.broken;
        if let (true, Some(socket)) = (more, &to.socket) {
            to.sending = true;
            ring.send(socket, name.into(), payload);
        }
        let resumable = to.backlog() <= queue_bytes_max / 2;
        let from = &flow.sides[1 - name.side];
        let (ended, paused) = (from.ended, from.receiver.is_none());
        if !more && (ended || flow.stage == Stage::Refusing) {
            return self.on_drained(ring, name.slot, name.side);
        }
        if resumable
            && paused
            && !ended
            && !matches!(flow.stage, Stage::Connecting | Stage::Pausing)
        {
            self.receive_from(ring, name.slot, 1 - name.side);
        }
    }

    /// Nothing waits for `to` any more and nothing more comes for it: it is told so, and a flow both
    /// of whose directions are over is over.
    pub(super) fn on_drained(&mut self, ring: &mut NetRing, slot: usize, to: usize) {
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        if flow.stage == Stage::Refusing {
            return self.remove(ring, slot);
        }
        let side = &mut flow.sides[to];
        if side.sending || side.shut {
            return;
        }
        side.shut = true;
        if flow.direction_is_over(CLIENT) && flow.direction_is_over(UPSTREAM) {
            // Closing tells the side as well.
            return self.remove(ring, slot);
        }
        let side = &mut flow.sides[to];
        if let (Some(socket), false) = (&side.socket, side.broken) {
            // It may have been reset meanwhile; its receiver says so.
            let _ = ring.shutdown(socket, Shutdown::Write);
        }
    }

    pub(super) fn on_ended(&mut self, ring: &mut NetRing, name: Name, reset: bool, now: Instant) {
        let Some(flow) = self.flow_mut(name) else {
            return;
        };
        let side = &mut flow.sides[name.side];
        side.receiver = None;
        side.ended = true;
        match (flow.stage, name.side) {
            (Stage::Open, _) => {}
            (_, CLIENT) => return self.on_client_ended_early(ring, name.slot, reset, now),
            (_, _) => return self.on_reset_unanswered(ring, name.slot, now),
        }
        if reset {
            self.on_broken(ring, name);
        } else {
            self.on_drained(ring, name.slot, 1 - name.side);
        }
    }

    /// A side was reset or takes nothing more. What it said before still reaches the other side;
    /// what the other says has nowhere to go.
    fn on_broken(&mut self, ring: &mut NetRing, name: Name) {
        let Some(flow) = self.slots.get_mut(name.slot) else {
            return;
        };
        if flow.stage != Stage::Open {
            return match (flow.stage, name.side) {
                // The receiver tells the rest, and decides about the next node.
                (Stage::Answering | Stage::Connecting, UPSTREAM) => {
                    flow.sides[UPSTREAM].broken = true;
                }
                _ => self.remove(ring, name.slot),
            };
        }
        let side = &mut flow.sides[name.side];
        if !side.broken {
            side.broken = true;
            self.meters.reset.add(1);
        }
        side.pending = Payload::new();
        (side.queued, side.in_flight) = (0, 0);
        let over = side.ended;
        let other = &mut flow.sides[1 - name.side];
        other.ended = true;
        if let Some(receiver) = other.receiver.take() {
            ring.stop_recv(receiver);
        }
        if over {
            self.on_drained(ring, name.slot, 1 - name.side);
        }
    }

    /// Closes a side's socket and forgets what waited for it.
    pub(super) fn close_side(&mut self, ring: &mut NetRing, slot: usize, side: usize) {
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        let side = std::mem::take(&mut flow.sides[side]);
        self.forget_age(&side);
        if let Some(socket) = side.socket {
            if side.sending {
                // A send that waits for the peer would keep the connection, and its buffer, for as
                // long as the peer likes.
                let _ = ring.shutdown(&socket, Shutdown::Both);
            }
            ring.close(socket, side.receiver);
        }
    }

    /// Ends a flow, whatever its stage.
    pub(super) fn remove(&mut self, ring: &mut NetRing, slot: usize) {
        self.clear_timer(slot);
        if let Some(connect) = self
            .slots
            .get_mut(slot)
            .and_then(|flow| flow.opening.as_mut()?.connect.take())
        {
            ring.cancel(connect);
        }
        self.close_side(ring, slot, CLIENT);
        self.close_side(ring, slot, UPSTREAM);
        self.leave_node(slot);
        if let Some(flow) = self.slots.try_remove(slot) {
            self.caps.release(flow.client);
            self.meters.flows.set(self.slots.len() as u64);
        }
    }
}
