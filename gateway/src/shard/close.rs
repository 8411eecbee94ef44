//! How connections end: close frames, how long the peer may take, and the end of the socket.

use std::time::{Duration, Instant};

use flux_runtime::ring::{Key, NetRing, Shutdown};

use crate::http::stream_end_into;
use crate::limits::{CLOSE_WAIT_MAX, LINGER_MAX};
use crate::protocol::{Disconnect, Push};
use crate::pubsub::{Framing, Slot, SlowReason};
use crate::websocket::{CloseCode, Event, close_frame_into, close_reply_into};

use super::Shard;
use super::connection::{Closing, Phase, slot};
use super::core::At;
use super::counters::Ended;

impl Shard {
    /// Tells the client why, in its transport's way, and ends the connection: a WebSocket gets a
    /// close frame, whose echo is waited for; a stream gets a push and its end.
    pub(super) fn disconnect(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        disconnect: Disconnect<'_>,
        ended: Ended,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let wire = connection.wire;
        if wire.transport == Framing::WebSocket {
            let code = CloseCode::new(disconnect.code).unwrap_or(CloseCode::INTERNAL_ERROR);
            return self.close_with_code(ring, key, code, disconnect.reason, ended, now);
        }
        let mut push = Vec::new();
        wire.push(&mut push, &Push::Disconnect(disconnect));
        wire.frame_into(&mut connection.out, &push);
        stream_end_into(&mut connection.out);
        self.begin_closing(ring, key, false, CLOSE_WAIT_MAX, ended, now);
    }

    /// Sends a close frame and waits for the client's.
    pub(super) fn close_with_code(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        code: CloseCode,
        reason: &str,
        ended: Ended,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        close_frame_into(&mut connection.out, code, reason);
        // After a framing error nothing the client sends can be understood any more.
        let awaits_close_frame = !connection.decoder.is_closed();
        self.begin_closing(ring, key, awaits_close_frame, CLOSE_WAIT_MAX, ended, now);
    }

    /// Answers the client's close frame.
    pub(super) fn close_replying(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        code: Option<CloseCode>,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        close_reply_into(&mut connection.out, code);
        self.begin_closing(ring, key, false, CLOSE_WAIT_MAX, Ended::ClientClosed, now);
    }

    /// Ends a connection whose last answer stands in `out`.
    pub(super) fn close_answered(&mut self, ring: &mut NetRing, key: Key, now: Instant) {
        self.begin_closing(ring, key, false, LINGER_MAX, Ended::Answered, now);
    }

    fn begin_closing(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        awaits_close_frame: bool,
        patience: Duration,
        ended: Ended,
        now: Instant,
    ) {
        self.leave(key);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let deadline = now + patience;
        self.closing_count += 1;
        connection.phase = Phase::Closing(Closing {
            deadline,
            awaits_close_frame,
            is_write_closed: false,
            ended,
        });
        if let Some(timer) = connection.timer.take() {
            self.core.wheel.cancel(timer);
        }
        connection.timer = Some(self.core.wheel.insert(deadline, key));
        // Its close frame, or its end, must be seen.
        if connection.is_paused && !connection.is_read_closed {
            connection.is_paused = false;
            connection.receiver = Some(ring.recv(&connection.socket, key));
        }
        let mut held = self.held.remove(key);
        self.on_bytes_while_closing(ring, key, &mut held);
        self.send_last(ring, key, now);
    }

    /// Takes the session's last wishes, its subscriptions and its id out of the shard.
    fn leave(&mut self, key: Key) {
        let core = &mut self.core;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let at = At {
            key,
            wire: connection.wire,
        };
        if let Phase::Session(session) = &mut connection.phase {
            session.on_gone(&mut |effect| core.effect(at, effect));
            // Nobody is there any more who could be disconnected.
            core.disconnected = None;
        }
        if matches!(connection.phase, Phase::Session(_) | Phase::Echo) {
            core.counters.client_left();
        }
        if let Some(directory_key) = connection.directory_key.take() {
            core.shared.directory.remove(directory_key);
        }
        core.users.remove(slot(key));
        core.release(key);
    }

    /// Everything is sent, or something else has changed: takes the next step towards the end.
    pub(super) fn go_on_closing(&mut self, ring: &mut NetRing, key: Key, _now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Phase::Closing(closing) = &mut connection.phase else {
            return;
        };
        let ended = closing.ended;
        if connection.is_read_closed && !connection.is_sending {
            self.finish(ring, key, ended);
            return;
        }
        if connection.is_sending || closing.awaits_close_frame || closing.is_write_closed {
            return;
        }
        // Closing a socket on which unread bytes lie would reset the connection, and the client
        // might never see what was sent last: finish our direction and wait for the client's.
        closing.is_write_closed = true;
        if ring.shutdown(&connection.socket, Shutdown::Write).is_err() {
            self.finish(ring, key, ended);
        }
    }

    /// Looks for the client's close frame; everything else is of no use any more.
    pub(super) fn on_bytes_while_closing(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        bytes: &mut [u8],
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let limits = self.core.shared.limits_of(connection.wire);
        let Phase::Closing(closing) = &mut connection.phase else {
            return;
        };
        if !closing.awaits_close_frame {
            return;
        }
        let mut has_closed = false;
        let outcome = connection.decoder.feed(bytes, &limits, &mut |event| {
            has_closed |= matches!(event, Event::Close(..));
        });
        if has_closed || outcome.is_err() {
            closing.awaits_close_frame = false;
            let ended = closing.ended;
            if !connection.is_sending && connection.out.is_empty() {
                // Both close frames have passed: the server closes first (RFC 6455 section 7.1.1).
                self.finish(ring, key, ended);
            }
        }
    }

    /// A slow consumer is told so, behind what it has not taken, and given a moment.
    pub(super) fn evict(
        &mut self,
        ring: &mut NetRing,
        slot: Slot,
        reason: SlowReason,
        now: Instant,
    ) {
        let Some((key, connection)) = self.connections.at(slot) else {
            return;
        };
        if matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        tracing::debug!(shard = self.index, ?reason, "a slow consumer is closed");
        // What waits in `out` would only delay the word.
        connection.out.clear();
        self.disconnect(ring, key, Disconnect::SLOW, Ended::Slow, now);
    }

    /// Closes up to `count` clients, chosen at random, with the code that makes them reconnect.
    pub(super) fn drain(&mut self, ring: &mut NetRing, count: usize, now: Instant) {
        if self.drain_order.is_empty() {
            self.drain_order = self.connections.keys();
            fastrand::shuffle(&mut self.drain_order);
        }
        let mut closed = 0;
        while closed < count {
            let Some(key) = self.drain_order.pop() else {
                break;
            };
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            match connection.phase {
                Phase::Session(_) | Phase::Echo => {
                    // What was published before the close is not the client's to lose.
                    self.core
                        .subscriptions
                        .take_pending(slot(key), &mut connection.out);
                    self.disconnect(ring, key, Disconnect::SHUTDOWN, Ended::Drained, now);
                    closed += 1;
                }
                Phase::Head(_) | Phase::Body(_) | Phase::Answering(_) | Phase::Closing(_) => {}
            }
        }
    }

    /// Cuts whatever is left, without waiting for anybody.
    pub(super) fn cut_all(&mut self, ring: &mut NetRing) {
        for key in self.connections.keys() {
            self.finish(ring, key, Ended::Forced);
        }
    }

    /// The end of a connection, in whatever phase it is.
    pub(super) fn finish(&mut self, ring: &mut NetRing, key: Key, ended: Ended) {
        self.leave(key);
        self.held.remove(key);
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        if matches!(connection.phase, Phase::Closing(_)) {
            self.closing_count -= 1;
        }
        self.core.counters.ended[ended as usize].add(1);
        if let Some(timer) = connection.timer {
            self.core.wheel.cancel(timer);
        }
        self.core.spares.give(connection.out);
        if connection.is_sending {
            // The peer does not take its bytes: without this the kernel would keep them, and the
            // send in flight, for minutes.
            ring.reset(connection.socket, connection.receiver);
        } else {
            ring.close(connection.socket, connection.receiver);
        }
    }
}
