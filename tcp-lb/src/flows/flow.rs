//! One proxied connection: two sides, and what is held until the node has answered.
//!
//! Invariants:
//! - a side has at most one send in flight; what comes meanwhile waits in `pending`;
//! - `opening` is there exactly until the flow is open or refused: an idle open flow holds no buffer;
//! - `shut` and `broken` sides are sent nothing more.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use flux_runtime::ring::{Key, OpHandle, Payload, RecvHandle, Socket};
use flux_runtime::wheel::TimerKey;

use crate::balance::Node;
use crate::head::HeadReader;

/// The side of the client.
pub(super) const CLIENT: usize = 0;
/// The side of the node.
pub(super) const UPSTREAM: usize = 1;

/// How far a flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The request head is being read.
    Head,
    /// A node is being connected to.
    Connecting,
    /// Every node was tried; all of them again after a pause.
    Pausing,
    /// Connected; no byte has come back, and the next node could still be tried.
    Answering,
    /// Bytes go both ways; the flow belongs to its node for good.
    Open,
    /// No node took it; the client is being told.
    Refusing,
}

pub(super) struct Flow {
    pub(super) sides: [Side; 2],
    pub(super) stage: Stage,
    /// Visits of the sweep (about one a second) since one direction closed.
    pub(super) half_closed: u16,
    pub(super) client: IpAddr,
    pub(super) node: Option<Arc<Node>>,
    pub(super) opening: Option<Box<Opening>>,
}

/// What a flow needs until it is open.
pub(super) struct Opening {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) reader: HeadReader,
    /// Everything that the client has sent, for the next node.
    pub(super) held: Vec<u8>,
    /// A whole request that does no harm when another node gets it too.
    pub(super) replayable: bool,
    /// Whether the head is HTTP, so that the client understands a 503.
    pub(super) http: bool,
    /// Affinity key, hashed.
    pub(super) key: u64,
    pub(super) tried: Vec<Arc<Node>>,
    /// When no further node is tried.
    pub(super) give_up_at: Option<Instant>,
    /// Source addresses that were out of ports for the present node.
    pub(super) sources_tried: usize,
    pub(super) connect: Option<OpHandle>,
    pub(super) timer: Option<TimerKey>,
}

#[derive(Default)]
pub(super) struct Side {
    pub(super) socket: Option<Socket>,
    /// Tells completions of this socket from those of an earlier one in the same place.
    pub(super) generation: u32,
    /// Set while the ring receives from it.
    pub(super) receiver: Option<RecvHandle>,
    /// A send to it is in flight.
    pub(super) sending: bool,
    /// Nothing more comes from it, or is wanted.
    pub(super) ended: bool,
    /// It was told that nothing more comes.
    pub(super) shut: bool,
    /// Nothing more can be sent to it.
    pub(super) broken: bool,
    /// It keeps its descriptor for now; see `young`.
    pub(super) young: bool,
    /// Visits of the sweep since the send in flight began or last got on.
    pub(super) stalled: u16,
    /// Bytes of the send in flight.
    pub(super) in_flight: usize,
    /// Bytes in `pending`.
    pub(super) queued: usize,
    /// What waits for the send in flight.
    pub(super) pending: Payload,
}

impl Side {
    pub(super) fn new(socket: Socket, generation: u32) -> Side {
        Side {
            socket: Some(socket),
            generation,
            ..Side::default()
        }
    }

    /// Bytes that wait for it in this process.
    pub(super) fn backlog(&self) -> usize {
        self.in_flight + self.queued
    }
}

impl Flow {
    pub(super) fn new(client: IpAddr, side: Side, opening: Box<Opening>) -> Flow {
        Flow {
            sides: [side, Side::default()],
            stage: Stage::Head,
            half_closed: 0,
            client,
            node: None,
            opening: Some(opening),
        }
    }

    /// Whether everything that came from `from` has reached the other side, its end included.
    pub(super) fn direction_is_over(&self, from: usize) -> bool {
        let to = &self.sides[1 - from];
        self.sides[from].ended && (to.shut || to.broken)
    }
}

/// Names one side of a flow in completions: slot, side, generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) slot: usize,
    pub(super) side: usize,
    pub(super) generation: u32,
}

/// The listener's key; no flow has it, since its slot would be out of bounds.
pub(super) const LISTENER: Key = Key(u64::MAX);
/// Generations wrap here.
pub(super) const GENERATION_MASK: u32 = u32::MAX >> 1;

impl From<Name> for Key {
    fn from(name: Name) -> Key {
        debug_assert!(name.generation <= GENERATION_MASK);
        Key((name.slot as u64) << 32 | (name.side as u64) << 31 | u64::from(name.generation))
    }
}

impl From<Key> for Name {
    fn from(Key(key): Key) -> Name {
        Name {
            slot: (key >> 32) as usize,
            side: (key >> 31 & 1) as usize,
            generation: key as u32 & GENERATION_MASK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_key() {
        for slot in [0, 1, 77, u32::MAX as usize - 1] {
            for side in [CLIENT, UPSTREAM] {
                for generation in [0, 1, GENERATION_MASK] {
                    let name = Name {
                        slot,
                        side,
                        generation,
                    };
                    assert_eq!(Name::from(Key::from(name)), name);
                    assert_ne!(Key::from(name), LISTENER);
                }
            }
        }
    }
}
