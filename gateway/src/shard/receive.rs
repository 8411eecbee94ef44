//! Bytes of an open connection: frames, then what they carry; and its timer.

use std::time::Instant;

use flux_runtime::ring::{Key, NetRing, RecvBuffer};

use crate::limits::READ_PAUSE_BYTES;
use crate::protocol::{Disconnect, WireFormat};
use crate::pubsub::Framing;
use crate::websocket::{self, CloseCode, CloseReason, Event, Opcode};

use crate::session::Session;

use super::Shard;
use super::connection::{Connection, Phase, slot};
use super::core::{At, Core, Disconnected};
use super::counters::Ended;

impl Shard {
    pub(super) fn on_received(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        mut buffer: RecvBuffer,
        now: Instant,
    ) {
        let connection = self.connections.get_mut(key);
        if connection.is_some_and(|connection| connection.is_paused) {
            self.held.keep(key, &buffer);
        } else {
            self.take_bytes(ring, key, &mut buffer, now);
        }
    }

    /// What a connection has sent, in the order in which it has.
    pub(super) fn take_bytes(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        bytes: &mut [u8],
        now: Instant,
    ) {
        // It arrived for somebody who has left.
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match connection.phase {
            Phase::Head(_) => self.on_head_bytes(ring, key, bytes, now),
            Phase::Body(_) => self.on_body_bytes(ring, key, bytes, now),
            Phase::Session(_) | Phase::Echo => self.on_frame_bytes(ring, key, bytes, now),
            // One request a connection: what else stands on it is nobody's.
            Phase::Answering(_) => {}
            Phase::Closing(_) => self.on_bytes_while_closing(ring, key, bytes),
        }
    }

    /// Takes bytes after the handshake; they are unmasked in place.
    pub(super) fn on_frame_bytes(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        bytes: &mut [u8],
        now: Instant,
    ) {
        let core = &mut self.core;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Connection {
            phase,
            decoder,
            out,
            timer,
            wire,
            ..
        } = connection;
        if wire.transport != Framing::WebSocket {
            // The request has been read whole; a stream takes nothing more.
            return;
        }
        let at = At { key, wire: *wire };
        core.spares.lend(out);
        let limits = core.shared.limits_of(*wire);
        let mut messages = 0;
        let mut close_frame = None;
        let outcome = match phase {
            Phase::Echo => decoder.feed(bytes, &limits, &mut |event| match event {
                Event::Text(text) => {
                    messages += 1;
                    websocket::frame_into(out, Opcode::Text, text.as_bytes());
                }
                Event::Binary(data) => {
                    messages += 1;
                    websocket::frame_into(out, Opcode::Binary, data);
                }
                Event::Ping(data) => websocket::frame_into(out, Opcode::Pong, data),
                Event::Pong(_) => {}
                Event::Close(code, _) => close_frame = Some(code),
            }),
            Phase::Session(session) => {
                let due = session.deadline();
                let outcome = decoder.feed(bytes, &limits, &mut |event| match event {
                    Event::Text(text) => {
                        messages += 1;
                        core.take_message(at, session, out, WireFormat::Json, text.as_bytes(), now);
                    }
                    Event::Binary(data) => {
                        messages += 1;
                        core.take_message(at, session, out, WireFormat::Protobuf, data, now);
                    }
                    Event::Ping(data) => websocket::frame_into(out, Opcode::Pong, data),
                    Event::Pong(_) => {}
                    Event::Close(code, _) => close_frame = Some(code),
                });
                core.bring_forward(*timer, due, session.deadline());
                outcome
            }
            Phase::Head(_) | Phase::Body(_) | Phase::Answering(_) | Phase::Closing(_) => return,
        };
        core.counters.messages_in.add(messages);
        self.after_frames(ring, key, outcome, close_frame, now);
    }

    /// Takes a frame of commands that came as a request's body.
    pub(super) fn on_commands(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        commands: &[u8],
        now: Instant,
    ) {
        self.step(ring, key, now, |session, replies, core, at| {
            core.counters.messages_in.add(1);
            session.on_message(commands, now, replies, &mut |effect| {
                core.effect(at, effect);
            });
        });
    }

    /// Lets the session behind `key` take a step, if it is still there.
    pub(super) fn step(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        now: Instant,
        step: impl FnOnce(&mut Session, &mut Vec<u8>, &mut Core, At),
    ) {
        let Some(Connection {
            phase: Phase::Session(session),
            out,
            wire,
            timer,
            ..
        }) = self.connections.get_mut(key)
        else {
            return;
        };
        let at = At { key, wire: *wire };
        let due = session.deadline();
        let core = &mut self.core;
        core.spares.lend(out);
        core.drive(at, session, out, now, |session, replies, core| {
            step(session, replies, core, at);
        });
        core.bring_forward(*timer, due, session.deadline());
        self.after_drive(ring, key, now);
    }

    fn after_frames(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        outcome: Result<(), CloseReason>,
        close_frame: Option<Option<CloseCode>>,
        now: Instant,
    ) {
        if self.core.disconnected.is_some() {
            self.after_drive(ring, key, now);
        } else if let Err(reason) = outcome {
            let index = CloseReason::ALL
                .iter()
                .position(|other| *other == reason)
                .unwrap_or_default();
            self.core.counters.frame_errors[index].add(1);
            self.close_with_code(
                ring,
                key,
                reason.code(),
                reason.text(),
                Ended::ProtocolError,
                now,
            );
        } else if let Some(code) = close_frame {
            self.close_replying(ring, key, code, now);
        } else {
            self.after_step(ring, key);
        }
    }

    /// After a session has taken a step: it is closed if it asked for that.
    pub(super) fn after_drive(&mut self, ring: &mut NetRing, key: Key, now: Instant) {
        match self.core.disconnected.take() {
            Some(disconnected) => self.close_disconnected(ring, key, &disconnected, now),
            None => self.after_step(ring, key),
        }
    }

    /// After anything that may have given the connection something to send.
    fn after_step(&mut self, ring: &mut NetRing, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !connection.out.is_empty() {
            self.core.subscriptions.mark_ready(slot(key));
        } else if connection.out.capacity() > 0 {
            self.core.spares.give(std::mem::take(&mut connection.out));
        }
        self.update_reading(ring, key);
    }

    /// Whether a client is behind with taking its answers, or its session with what it has been asked.
    pub(super) fn is_behind(&mut self, key: Key) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        match &connection.phase {
            Phase::Session(session) => {
                session.wants_pause() || connection.out.len() > READ_PAUSE_BYTES
            }
            Phase::Echo => connection.out.len() > READ_PAUSE_BYTES,
            Phase::Head(_) | Phase::Body(_) | Phase::Answering(_) | Phase::Closing(_) => false,
        }
    }

    /// Stops reading from a client that is behind, and starts again once what it had sent before is taken.
    pub(super) fn update_reading(&mut self, ring: &mut NetRing, key: Key) {
        let is_behind = self.is_behind(key);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if is_behind && !connection.is_paused {
            connection.is_paused = true;
            if let Some(receiver) = connection.receiver.take() {
                ring.stop_recv(receiver);
            }
        } else if !is_behind && connection.is_paused {
            if self.held.has(key) {
                return self.held.make_ready(key);
            }
            connection.is_paused = false;
            connection.receiver = Some(ring.recv(&connection.socket, key));
        }
    }

    /// The stream has ended, or broken.
    pub(super) fn on_receive_ended(&mut self, ring: &mut NetRing, key: Key, now: Instant) {
        if self.held.has(key) {
            // It is read from again behind what is held, and the end is there again then.
            return;
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.receiver = None;
        connection.is_read_closed = true;
        match &connection.phase {
            Phase::Closing(_) => self.go_on_closing(ring, key, now),
            // It has asked for its last page.
            Phase::Head(_) if connection.is_sending || !connection.out.is_empty() => {
                self.close_answered(ring, key, now);
            }
            Phase::Head(_)
            | Phase::Body(_)
            | Phase::Answering(_)
            | Phase::Echo
            | Phase::Session(_) => {
                self.finish(ring, key, Ended::ClientGone);
            }
        }
    }

    /// The connection's timer has fired: what it waits for is due, or will be later.
    pub(super) fn on_timer(&mut self, ring: &mut NetRing, key: Key, now: Instant) {
        let core = &mut self.core;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if let Some(later) = connection.phase.deadline().filter(|at| *at > now) {
            connection.timer = Some(core.wheel.insert(later, key));
            return;
        }
        connection.timer = None;
        let Connection {
            phase, out, wire, ..
        } = connection;
        let at = At { key, wire: *wire };
        match phase {
            Phase::Head(_) => self.on_head_timeout(ring, key, now),
            Phase::Body(_) => self.on_body_timeout(ring, key, now),
            Phase::Answering(_) => self.on_answer_timeout(ring, key, now),
            Phase::Echo => {}
            Phase::Closing(closing) => {
                let ended = closing.ended;
                self.finish(ring, key, ended);
            }
            Phase::Session(session) => {
                core.drive(at, session, out, now, |session, replies, core| {
                    session.on_timer(now, replies, &mut |effect| core.effect(at, effect));
                });
                connection.timer = session.deadline().map(|at| core.wheel.insert(at, key));
                self.after_drive(ring, key, now);
            }
        }
    }

    fn close_disconnected(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        why: &Disconnected,
        now: Instant,
    ) {
        let ended = match why.code {
            code if code == Disconnect::NO_PONG.code => Ended::NoPong,
            code if code == Disconnect::STALE.code => Ended::Stale,
            _ => Ended::Disconnected,
        };
        let disconnect = Disconnect::new(why.code, &why.reason);
        self.disconnect(ring, key, disconnect, ended, now);
    }
}
