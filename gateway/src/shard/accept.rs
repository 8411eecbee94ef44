//! A new connection.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use flux_runtime::ring::NetRing;
use socket2::{SockRef, Socket};

use crate::http::{HEAD_TIME_MAX, HeadScan, Rejection};
use crate::limits::LINGER_MAX;
use crate::pubsub::Wire;
use crate::websocket::Decoder;

use super::Shard;
use super::connection::{Closing, Connection, Head, Phase};
use super::counters::Ended;

impl Shard {
    pub(super) fn on_accepted(&mut self, ring: &mut NetRing, socket: OwnedFd, now: Instant) {
        self.core.counters.accepted.add(1);
        let peer = peer_of(&socket);
        let trusted = &self.core.shared.trusted_proxies;
        let counters = &self.core.shared.counters;
        // Others' counts are as old as their last turn; the own one must not be, or a burst of
        // connections in one turn would go far beyond the limit.
        let own = &self.core.counters;
        own.connections.set(self.connections.len() as u64);
        let connected: u64 = counters
            .iter()
            .map(|counters| counters.connections.get())
            .sum();
        let is_full = connected >= self.core.shared.connections_max;
        let (phase, deadline) = if is_full {
            self.closing_count += 1;
            let deadline = now + LINGER_MAX;
            let closing = Closing {
                deadline,
                awaits_close_frame: false,
                is_write_closed: false,
                ended: Ended::Answered,
            };
            (Phase::Closing(closing), deadline)
        } else {
            let deadline = now + HEAD_TIME_MAX;
            let head = Head {
                scan: HeadScan::new(),
                bytes: Vec::new(),
                may_have_proxy_header: trusted.iter().any(|net| net.contains(&peer)),
                peer,
                deadline,
            };
            (Phase::Head(Box::new(head)), deadline)
        };
        let socket = ring.adopt(socket);
        let generation = self.connections.next_generation();
        let key = self.connections.insert(Connection {
            socket,
            generation,
            receiver: None,
            timer: None,
            out: Vec::new(),
            decoder: Decoder::new(),
            phase,
            wire: Wire::default(),
            directory_key: None,
            is_sending: false,
            is_paused: false,
            is_read_closed: false,
        });
        let timer = self.core.wheel.insert(deadline, key);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.timer = Some(timer);
        connection.receiver = Some(ring.recv(&connection.socket, key));
        if is_full {
            self.core.counters.rejections[rejection_index(Rejection::ConnectionLimit)].add(1);
            Rejection::ConnectionLimit.answer_into(&mut connection.out);
            self.send_last(ring, key, now);
        }
    }

    pub(super) fn on_accept_failed(&mut self, error: &io::Error, again: bool) {
        self.core.counters.accept_failures.add(1);
        if again {
            tracing::warn!(shard = self.index, %error, "a connection could not be accepted; trying again shortly");
        } else {
            tracing::error!(shard = self.index, %error, "the listener has failed and accepts no more");
        }
    }

    /// Takes what the kernel has queued, then gives the listener up: a connection that is still
    /// queued on a closed listener would be reset.
    pub(super) fn stop_accepting(&mut self, ring: &mut NetRing, now: Instant) {
        if let Some(handle) = self.accepting.take() {
            ring.cancel(handle);
        }
        let Some(listener) = self.listener.take() else {
            return;
        };
        let listener = Socket::from(listener);
        if listener.set_nonblocking(true).is_ok() {
            while let Ok((socket, _)) = listener.accept() {
                if socket.set_nonblocking(false).is_ok() {
                    self.on_accepted(ring, socket.into(), now);
                }
            }
        }
        // Behind the accept's cancellation, which the kernel has not seen yet.
        ring.close(OwnedFd::from(listener), None);
    }
}

/// Place of a rejection among the counters.
pub(super) fn rejection_index(rejection: Rejection) -> usize {
    Rejection::ALL
        .iter()
        .position(|other| *other == rejection)
        .unwrap_or_default()
}

fn peer_of(socket: &OwnedFd) -> IpAddr {
    SockRef::from(socket)
        .peer_addr()
        .ok()
        .and_then(|address| address.as_socket())
        // The peer is gone already; no list of trusted networks contains this.
        .map_or(IpAddr::from([0, 0, 0, 0]), |address| {
            address.ip().to_canonical()
        })
}
