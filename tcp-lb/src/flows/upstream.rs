//! Finding a node that answers: connect, PROXY header and held bytes, and the next node when it fails.
//!
//! A request is sent to a second node only while nothing has come back from the first, and only if it
//! is whole and safe (GET, HEAD, OPTIONS: an upgrade is a GET). Of other connections only failed
//! connects are repeated, and what fails before the client has said anything.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use flux_runtime::proxy_protocol;
use flux_runtime::ring::{NetRing, Payload, Piece};

use super::Flows;
use super::flow::{CLIENT, Flow, Name, Stage, UPSTREAM};
use crate::balance::{Node, Route};
use crate::health::FlowFailure;
use crate::mail::Report;
use crate::{limits, sockets};

/// What a client is told that no node would take.
const NO_NODE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl Flows {
    /// The node to try now: the placement's choice, then what comes after it, none twice.
    fn next_route(&mut self, slot: usize, now: Instant) -> Option<Route> {
        let Some(Flow {
            opening: Some(opening),
            ..
        }) = self.slots.get(slot)
        else {
            return None;
        };
        if opening.tried.len() >= limits::TRIES_MAX {
            return None;
        }
        let choice = self.routes.choose(opening.key, now)?;
        let order = std::iter::once(choice.member).chain(choice.next);
        let untried = |route: &&Route| {
            !opening
                .tried
                .iter()
                .any(|tried| Arc::ptr_eq(tried, &route.node))
        };
        order
            .filter_map(|index| self.routes.route(index))
            .find(untried)
            .cloned()
    }

    pub(super) fn try_next_node(&mut self, ring: &mut NetRing, slot: usize, now: Instant) {
        let Some(route) = self.next_route(slot, now) else {
            return self.pause_or_refuse(ring, slot, now);
        };
        if let Some(Flow {
            opening: Some(opening),
            ..
        }) = self.slots.get_mut(slot)
        {
            opening.tried.push(route.node.clone());
            opening.sources_tried = 0;
            opening.give_up_at.get_or_insert(now + limits::TRY_FOR);
        }
        self.connect(ring, slot, &route, now);
    }

    /// Every node was tried once. They may be overwhelmed or just starting: again after a pause, for a
    /// while; at once no more when none is known.
    fn pause_or_refuse(&mut self, ring: &mut NetRing, slot: usize, now: Instant) {
        let Some(Flow {
            opening: Some(opening),
            stage,
            ..
        }) = self.slots.get_mut(slot)
        else {
            return;
        };
        let known = !self.routes.all().is_empty();
        if !known || opening.give_up_at.is_none_or(|at| at <= now) {
            return self.refuse(ring, slot);
        }
        opening.tried.clear();
        *stage = Stage::Pausing;
        self.set_timer(slot, now + limits::TRY_PAUSE);
    }

    /// No connection in time: the next node, or, where there is none, a little more patience. The kernel
    /// repeats what an overwhelmed node has dropped, so a new attempt would only begin from the start.
    fn on_connect_timeout(&mut self, ring: &mut NetRing, slot: usize, now: Instant) {
        let alone = self.next_route(slot, now).is_none();
        if let Some(Flow {
            opening: Some(opening),
            ..
        }) = self.slots.get(slot)
            && let Some(give_up_at) = opening.give_up_at
            && alone
            && now < give_up_at
        {
            return self.set_timer(slot, give_up_at);
        }
        self.on_attempt_failed(ring, slot, FlowFailure::ConnectTimeout, now);
    }

    fn connect(&mut self, ring: &mut NetRing, slot: usize, route: &Route, now: Instant) {
        let sources = &self.settings.source_addresses;
        let source = sources
            .get(self.next_source % sources.len().max(1))
            .copied();
        self.next_source = self.next_source.wrapping_add(1);
        let speaks_first = self.settings.proxy_protocol
            || self
                .slots
                .get(slot)
                .and_then(|flow| flow.opening.as_ref())
                .is_some_and(|opening| !opening.held.is_empty());
        let socket = match sockets::upstream(route.addr, source, speaks_first) {
            Ok(socket) => socket,
            Err(error) => {
                self.on_no_socket(&error, &route.node, now);
                return self.refuse(ring, slot);
            }
        };
        let generation = self.next_generation();
        let key = Name {
            slot,
            side: UPSTREAM,
            generation,
        }
        .into();
        if self
            .slots
            .get(slot)
            .is_none_or(|flow| flow.opening.is_none())
        {
            return;
        }
        let side = self.new_upstream(ring, socket, generation);
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        if let (Some(opening), Some(socket)) = (&mut flow.opening, &side.socket) {
            opening.connect = Some(ring.connect(socket, key, route.addr));
        }
        flow.sides[UPSTREAM] = side;
        flow.stage = Stage::Connecting;
        if flow.node.is_none() {
            route.node.flow_begins();
            flow.node = Some(route.node.clone());
        }
        // The attempt begins now: a turn that has taken long is not the node's delay.
        self.set_timer(slot, Instant::now() + self.settings.connect_timeout);
    }

    /// Out of descriptors, most often: in a storm for many at once, and said once a second.
    fn on_no_socket(&mut self, error: &io::Error, node: &Node, now: Instant) {
        self.meters.socket_shortages.add(1);
        if self
            .no_socket_said
            .is_none_or(|at| now >= at + limits::SAY_AGAIN)
        {
            self.no_socket_said = Some(now);
            tracing::warn!(%error, node = %node.id(), "no socket for a node");
        }
    }

    pub(super) fn on_connected(
        &mut self,
        ring: &mut NetRing,
        name: Name,
        result: io::Result<()>,
        now: Instant,
    ) {
        let Some(flow) = self.flow_mut(name) else {
            return;
        };
        let Some(opening) = &mut flow.opening else {
            return;
        };
        opening.connect = None;
        match result {
            Ok(()) => self.send_held(ring, name.slot, now),
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                self.on_ports_used_up(ring, name.slot, now);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.on_attempt_failed(ring, name.slot, FlowFailure::ConnectTimeout, now);
            }
            Err(_) => self.on_attempt_failed(ring, name.slot, FlowFailure::Refused, now),
        }
    }

    /// No local port is left for this node from this source address: that is not the node's fault.
    fn on_ports_used_up(&mut self, ring: &mut NetRing, slot: usize, now: Instant) {
        let Some(Flow {
            opening: Some(opening),
            node: Some(node),
            ..
        }) = self.slots.get_mut(slot)
        else {
            return;
        };
        opening.sources_tried += 1;
        let others = opening.sources_tried < self.settings.source_addresses.len();
        let node = node.clone();
        let route = self
            .routes
            .all()
            .iter()
            .find(|route| Arc::ptr_eq(&route.node, &node))
            .cloned();
        self.close_side(ring, slot, UPSTREAM);
        match route.filter(|_| others) {
            Some(route) => self.connect(ring, slot, &route, now),
            None => {
                tracing::warn!(node = %node.id(), "no local port is left: add source_addresses");
                self.leave_node(slot);
                self.try_next_node(ring, slot, now);
            }
        }
    }

    /// Connected: the PROXY header and everything that the client has said so far.
    fn send_held(&mut self, ring: &mut NetRing, slot: usize, now: Instant) {
        let proxied = self.settings.proxy_protocol;
        let key = self.name(slot, UPSTREAM).into();
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        let Some(opening) = &flow.opening else { return };
        let mut bytes = Vec::new();
        if proxied {
            let header = proxy_protocol::encode_v2(opening.peer, opening.local);
            bytes.reserve_exact(header.len() + opening.held.len());
            bytes.extend_from_slice(&header);
        }
        bytes.extend_from_slice(&opening.held);
        let repeatable = opening.replayable || opening.held.is_empty();
        let awaits_answer = opening.replayable;
        let upstream = &mut flow.sides[UPSTREAM];
        if let (Some(socket), false) = (&upstream.socket, bytes.is_empty()) {
            upstream.in_flight = bytes.len();
            upstream.sending = true;
            ring.send(socket, key, Payload::from(Piece::Owned(bytes)));
        }
        flow.stage = Stage::Answering;
        self.receive_from(ring, slot, UPSTREAM);
        self.receive_from(ring, slot, CLIENT);
        self.clear_timer(slot);
        if awaits_answer {
            self.set_timer(slot, now + self.settings.answer_timeout);
            return;
        }
        // Nothing that has to answer: the connection itself is what there is to learn.
        self.note_answered(slot);
        if !repeatable {
            self.open(slot);
        }
    }

    /// An attempt has failed before its first byte: on to the next node.
    pub(super) fn on_attempt_failed(
        &mut self,
        ring: &mut NetRing,
        slot: usize,
        failure: FlowFailure,
        now: Instant,
    ) {
        self.meters.failed(failure);
        if let Some(node) = self.slots.get(slot).and_then(|flow| flow.node.clone()) {
            tracing::debug!(node = %node.id(), failure = failure.as_str(), "attempt failed");
            node.flow_failed();
            self.report(Report::Failed(node, failure));
        }
        self.leave_attempt(ring, slot);
        self.meters.retries.add(1);
        self.try_next_node(ring, slot, now);
    }

    /// Lets go of the node that was being tried.
    fn leave_attempt(&mut self, ring: &mut NetRing, slot: usize) {
        self.clear_timer(slot);
        if let Some(Flow {
            opening: Some(opening),
            ..
        }) = self.slots.get_mut(slot)
            && let Some(connect) = opening.connect.take()
        {
            ring.cancel(connect);
        }
        self.close_side(ring, slot, UPSTREAM);
        self.leave_node(slot);
    }

    pub(super) fn leave_node(&mut self, slot: usize) {
        if let Some(node) = self.slots.get_mut(slot).and_then(|flow| flow.node.take()) {
            node.flow_ends();
        }
    }

    /// The node was silent after a whole request.
    fn on_silence(&mut self, ring: &mut NetRing, slot: usize, now: Instant) {
        if self.next_route(slot, now).is_some() {
            return self.on_attempt_failed(ring, slot, FlowFailure::Silent, now);
        }
        // A slow node is better than none.
        self.open(slot);
    }

    /// The node ended the connection without a byte.
    pub(super) fn on_reset_unanswered(&mut self, ring: &mut NetRing, slot: usize, now: Instant) {
        let client_left = self
            .slots
            .get(slot)
            .is_none_or(|flow| flow.sides[CLIENT].ended);
        if client_left {
            // It may well have closed because the client did.
            return self.remove(ring, slot);
        }
        self.on_attempt_failed(ring, slot, FlowFailure::Reset, now);
    }

    /// The node's first byte is there.
    pub(super) fn on_first_byte(&mut self, slot: usize) {
        self.note_answered(slot);
        self.open(slot);
    }

    fn note_answered(&self, slot: usize) {
        if let Some(node) = self.slots.get(slot).and_then(|flow| flow.node.as_ref())
            && node.flow_answered()
        {
            self.report(Report::Answered(node.clone()));
        }
    }

    /// From here on the flow belongs to its node; what was held for a replay goes.
    pub(super) fn open(&mut self, slot: usize) {
        self.clear_timer(slot);
        if let Some(flow) = self.slots.get_mut(slot) {
            flow.opening = None;
            flow.stage = Stage::Open;
        }
    }

    /// The client went on speaking while the node had not answered.
    pub(super) fn hold_more(&mut self, slot: usize, bytes: &[u8]) {
        let Some(Flow {
            opening: Some(opening),
            ..
        }) = self.slots.get_mut(slot)
        else {
            return;
        };
        if opening.replayable && opening.held.len() + bytes.len() <= limits::REPLAY_BYTES_MAX {
            opening.held.extend_from_slice(bytes);
        } else {
            self.open(slot);
        }
    }

    /// The client goes on speaking while a node is being connected to.
    pub(super) fn hold_until_connected(&mut self, ring: &mut NetRing, slot: usize, bytes: &[u8]) {
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        let Some(opening) = &mut flow.opening else {
            return;
        };
        opening.held.extend_from_slice(bytes);
        if opening.held.len() > limits::REPLAY_BYTES_MAX {
            // The rest can wait in the kernel; the replay of so much is given up.
            opening.replayable = false;
            if let Some(receiver) = flow.sides[CLIENT].receiver.take() {
                ring.stop_recv(receiver);
            }
        }
    }

    fn refuse(&mut self, ring: &mut NetRing, slot: usize) {
        self.meters.no_node.add(1);
        self.leave_attempt(ring, slot);
        let key = self.name(slot, CLIENT).into();
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        let http = flow.opening.take().is_some_and(|opening| opening.http);
        flow.stage = Stage::Refusing;
        let client = &mut flow.sides[CLIENT];
        match (&client.socket, http) {
            (Some(socket), true) => {
                client.sending = true;
                client.in_flight = NO_NODE.len();
                ring.send(socket, key, Payload::from(Piece::Static(NO_NODE)));
            }
            _ => self.remove(ring, slot),
        }
    }

    /// A node is gone for good: its flows end now, so that their clients reconnect elsewhere.
    pub(super) fn cut(&mut self, ring: &mut NetRing, node: &Arc<Node>, now: Instant) {
        let on_node = |flow: &Flow| flow.node.as_ref().is_some_and(|own| Arc::ptr_eq(own, node));
        let slots: Vec<usize> = self
            .slots
            .iter()
            .filter(|(_, flow)| on_node(flow))
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            match self.slots.get(slot).map(|flow| flow.stage) {
                Some(Stage::Connecting | Stage::Answering) => {
                    self.on_attempt_failed(ring, slot, FlowFailure::Reset, now);
                }
                Some(_) => {
                    self.meters.cut.add(1);
                    self.remove(ring, slot);
                }
                None => {}
            }
        }
    }

    pub(super) fn on_timer(&mut self, ring: &mut NetRing, slot: usize, now: Instant) {
        let Some(flow) = self.slots.get_mut(slot) else {
            return;
        };
        if let Some(opening) = &mut flow.opening {
            opening.timer = None;
        }
        match flow.stage {
            Stage::Head => self.on_head_given_up(ring, slot, now),
            Stage::Connecting => self.on_connect_timeout(ring, slot, now),
            Stage::Pausing => self.try_next_node(ring, slot, now),
            Stage::Answering => self.on_silence(ring, slot, now),
            Stage::Open | Stage::Refusing => {}
        }
    }

    pub(super) fn set_timer(&mut self, slot: usize, deadline: Instant) {
        self.clear_timer(slot);
        if let Some(Flow {
            opening: Some(opening),
            ..
        }) = self.slots.get_mut(slot)
        {
            opening.timer = Some(self.timers.insert(deadline, slot as u32));
        }
    }

    pub(super) fn clear_timer(&mut self, slot: usize) {
        if let Some(Flow {
            opening: Some(opening),
            ..
        }) = self.slots.get_mut(slot)
            && let Some(timer) = opening.timer.take()
        {
            self.timers.cancel(timer);
        }
    }
}
