//! A connection becomes a client: over a WebSocket, or as a stream whose request has come whole.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use flux_runtime::ring::{Key, NetRing};

use crate::authority::Headers;
use crate::http::{Cors, stream_head_into};
use crate::protocol::ClientId;
use crate::pubsub::{Framing, Wire};
use crate::session::{Door, Session};

use super::call::EmulatedSession;

use super::connection::Phase;
use super::{Client, Shard};

/// Who comes.
pub(super) struct Guest {
    /// Its address.
    pub(super) peer: IpAddr,
    /// Of the fields of its request, those that the backend may be told of.
    pub(super) headers: Headers,
}

/// What a WebSocket becomes.
pub(super) enum Opening {
    /// `/echo`.
    Echo,
    /// A client of the protocol.
    Session(Wire),
    /// One that only listens, with its connect request where that came with the handshake.
    Unidirectional(Wire, Option<Vec<u8>>),
}

impl Shard {
    /// The handshake is done and its answer stands in `out`.
    pub(super) fn open_websocket(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        opening: Opening,
        guest: Guest,
        now: Instant,
    ) {
        match opening {
            Opening::Echo => {
                let Some(connection) = self.connections.get_mut(key) else {
                    return;
                };
                self.core.counters.client_came();
                if let Some(timer) = connection.timer.take() {
                    self.core.wheel.cancel(timer);
                }
                connection.phase = Phase::Echo;
            }
            Opening::Session(wire) => self.open(key, wire, guest, now),
            Opening::Unidirectional(wire, connect) => {
                self.open(key, wire, guest, now);
                if let Some(connect) = connect {
                    self.connect_unidirectional(ring, key, &connect, now);
                }
            }
        }
    }

    /// The request has come: the head of the answer goes first, then what `first` brings about.
    /// `first`: a connect command, or in the unidirectional form a connect request.
    #[expect(clippy::too_many_arguments, reason = "each is a part of one request")]
    pub(super) fn open_stream(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        wire: Wire,
        first: &[u8],
        cors: &Cors,
        guest: Guest,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        stream_head_into(&mut connection.out, wire, cors);
        self.open(key, wire, guest, now);
        if wire.unidirectional {
            self.connect_unidirectional(ring, key, first, now);
        } else {
            self.on_commands(ring, key, first, now);
        }
    }

    /// Takes the connect request of a client that only listens.
    fn connect_unidirectional(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        request: &[u8],
        now: Instant,
    ) {
        self.step(ring, key, now, |session, replies, core, at| {
            core.counters.messages_in.add(1);
            core.take_connect(at, session, request, now, replies);
        });
    }

    fn open(&mut self, key: Key, wire: Wire, guest: Guest, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        self.core.counters.client_came();
        let client = self.core.shared.directory.insert(Client {
            shard: self.index,
            connection: key,
            peer: guest.peer,
        });
        let id = client.map_or_else(
            || ClientId::from_random(fastrand::u128(..)),
            |(id, directory_key)| {
                connection.directory_key = Some(directory_key);
                id
            },
        );
        connection.wire = wire;
        let mut door = Door {
            format: wire.format,
            transport: wire.transport,
            unidirectional: wire.unidirectional,
            headers: guest.headers,
            ..Door::default()
        };
        if wire.transport != Framing::WebSocket && !wire.unidirectional {
            let session = EmulatedSession::new(self.index, key, fastrand::u128(..));
            door.session_token = session.to_string().into();
        }
        let config = Rc::clone(&self.core.session_config);
        let session = Session::new(config, door, id, now);
        if let Some(timer) = connection.timer.take() {
            self.core.wheel.cancel(timer);
        }
        connection.timer = session.deadline().map(|at| self.core.wheel.insert(at, key));
        connection.phase = Phase::Session(session);
    }
}
