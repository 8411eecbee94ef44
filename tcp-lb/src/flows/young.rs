//! Young flows: their sockets keep their descriptors until the sweep has met them.
//!
//! A direct descriptor saves open files, but costs several operations: taking the socket over, and a descriptor made for
//! the moment where it is shut down. Most of what lasts lasts long, and what does not is over before the sweep comes by,
//! within a second: it never pays for that, nor for the options that only a lasting connection needs.
//!
//! Invariant: at most `young_max` sockets of the shard are young, and none becomes young while others keep their
//! descriptors because the ring's table was full, so that open files are left for those and for everything else.

use std::os::fd::{AsFd, OwnedFd};

use flux_runtime::ring::{NetRing, Socket};

use super::Flows;
use super::flow::{CLIENT, Side, UPSTREAM};
use crate::sockets;

impl Flows {
    fn has_room_for_young(&self) -> bool {
        self.young < self.settings.young_max && self.overflow == 0
    }

    /// A side whose socket was just made.
    pub(super) fn new_side(
        &mut self,
        ring: &mut NetRing,
        socket: OwnedFd,
        generation: u32,
    ) -> Side {
        let young = self.has_room_for_young();
        let socket = if young {
            self.young += 1;
            Socket::from(socket)
        } else {
            ring.adopt(socket)
        };
        self.overflow += usize::from(!young && !socket.is_direct());
        Side {
            young,
            ..Side::new(socket, generation)
        }
    }

    /// A side of the node's, which has more to be given when it lasts.
    pub(super) fn new_upstream(
        &mut self,
        ring: &mut NetRing,
        socket: OwnedFd,
        generation: u32,
    ) -> Side {
        if !self.has_room_for_young() {
            last(&socket);
        }
        self.new_side(ring, socket, generation)
    }

    /// A side's socket is about to be closed.
    pub(super) fn forget_age(&mut self, side: &Side) {
        let keeps_descriptor = side
            .socket
            .as_ref()
            .is_some_and(|socket| !socket.is_direct());
        self.young -= usize::from(side.young);
        self.overflow -= usize::from(keeps_descriptor && !side.young);
    }

    /// The flow has lasted: its sockets become direct descriptors. It is open.
    pub(super) fn grow_up(&mut self, ring: &mut NetRing, slot: usize) {
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        for index in [CLIENT, UPSTREAM] {
            let side = &mut flow.sides[index];
            if !std::mem::take(&mut side.young) {
                continue;
            }
            self.young -= 1;
            if let Some(socket) = side.socket.take() {
                if let (UPSTREAM, Some(descriptor)) = (index, socket.descriptor()) {
                    last(&descriptor);
                }
                let socket = ring.settle(socket, side.receiver);
                self.overflow += usize::from(!socket.is_direct());
                side.socket = Some(socket);
            }
        }
    }
}

fn last(upstream: &impl AsFd) {
    // It may have been reset meanwhile; its receiver says so.
    let _ = sockets::upstream_lasts(upstream.as_fd());
}
