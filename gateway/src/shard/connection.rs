//! One client's connection, and the table of them.

use std::net::IpAddr;
use std::time::Instant;

use flux_runtime::ring::{Key, RecvHandle, Socket};
use flux_runtime::wheel::TimerKey;
use slab::Slab;

use crate::http::{Body, Cors, HeadScan, Purpose};
use crate::pubsub::{Slot, Wire};
use crate::session::Session;
use crate::websocket::Decoder;

use super::counters::Ended;
use super::open::Guest;

/// A connection. An idle one holds no buffer.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) generation: u32,
    pub(super) receiver: Option<RecvHandle>,
    /// Fires at the phase's deadline, or earlier and is then armed again.
    pub(super) timer: Option<TimerKey>,
    /// Encoded bytes that go out before any publication.
    pub(super) out: Vec<u8>,
    pub(super) decoder: Decoder,
    pub(super) phase: Phase,
    /// How what is said to its client looks; chosen when it becomes one.
    pub(super) wire: Wire,
    /// Its entry in the node's directory of clients, once it has a client id.
    pub(super) directory_key: Option<usize>,
    /// Whether a send is in flight.
    pub(super) is_sending: bool,
    /// Whether reading has stopped until the client takes what it was sent.
    pub(super) is_paused: bool,
    /// Whether the client has finished its direction of the stream.
    pub(super) is_read_closed: bool,
}

/// What a connection is in the middle of.
pub(super) enum Phase {
    /// Its request head comes in.
    Head(Box<Head>),
    /// Its request body comes in.
    Body(Box<BodyIn>),
    /// The control plane answers its request.
    Answering(Box<Answering>),
    /// A client of the protocol.
    Session(Session),
    /// `/echo`.
    Echo,
    /// Its last bytes go out; nothing that comes in matters any more but the end.
    Closing(Closing),
}

impl Phase {
    /// When its patience ends, where it is not a session's to say.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Phase::Head(head) => Some(head.deadline),
            Phase::Body(body) => Some(body.deadline),
            Phase::Answering(answering) => Some(answering.deadline),
            Phase::Closing(closing) => Some(closing.deadline),
            Phase::Session(_) | Phase::Echo => None,
        }
    }
}

/// A request head on its way in.
pub(super) struct Head {
    pub(super) scan: HeadScan,
    /// What came so far, once it did not come at once.
    pub(super) bytes: Vec<u8>,
    /// Whether a PROXY header may still stand first.
    pub(super) may_have_proxy_header: bool,
    pub(super) peer: IpAddr,
    pub(super) deadline: Instant,
}

/// A request body on its way in.
pub(super) struct BodyIn {
    pub(super) body: Body,
    pub(super) purpose: Purpose,
    pub(super) cors: Cors,
    pub(super) guest: Guest,
    pub(super) deadline: Instant,
}

/// A request that the control plane has been given.
pub(super) struct Answering {
    pub(super) cors: Cors,
    pub(super) deadline: Instant,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    /// When its patience ends and the socket is closed whatever is outstanding.
    pub(super) deadline: Instant,
    /// Whether a close frame was sent and the client's is awaited.
    pub(super) awaits_close_frame: bool,
    /// Whether our direction of the stream is finished.
    pub(super) is_write_closed: bool,
    pub(super) ended: Ended,
}

/// The connections of a shard. A place is used again with another generation, so that late
/// completions and answers for the former occupant are recognised.
#[derive(Default)]
pub(super) struct Connections {
    slab: Slab<Connection>,
    generations: u32,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn next_generation(&mut self) -> u32 {
        self.generations = self.generations.wrapping_add(1);
        self.generations
    }

    pub(super) fn insert(&mut self, connection: Connection) -> Key {
        let generation = connection.generation;
        key(self.slab.insert(connection) as Slot, generation)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        self.slab
            .get_mut(slot(key) as usize)
            .filter(|connection| connection.generation == generation(key))
    }

    /// The occupant of a place.
    pub(super) fn at(&mut self, slot: Slot) -> Option<(Key, &mut Connection)> {
        let connection = self.slab.get_mut(slot as usize)?;
        Some((key(slot, connection.generation), connection))
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Connection> {
        self.get_mut(key)?;
        Some(self.slab.remove(slot(key) as usize))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slab.iter().map(|(_, connection)| connection)
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.slab
            .iter()
            .map(|(at, connection)| key(at as Slot, connection.generation))
            .collect()
    }
}

/// Names the occupant of a place for the ring and the engine.
fn key(slot: Slot, generation: u32) -> Key {
    Key(u64::from(generation) << 32 | u64::from(slot))
}

/// The place that a key names.
pub(super) fn slot(key: Key) -> Slot {
    key.0 as u32
}

fn generation(key: Key) -> u32 {
    (key.0 >> 32) as u32
}
