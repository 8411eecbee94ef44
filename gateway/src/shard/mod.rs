//! One shard: everything between the sockets of a core and the pure parts.
//!
//! | stage | file |
//! |---|---|
//! | listening sockets, one a shard on one address | `listener` |
//! | a new connection | `accept` |
//! | how many connections a second, and of one user | `admission` |
//! | PROXY header, request head, upgrade or answer | `handshake` |
//! | request bodies: streams, emulation, requests for the control plane | `request` |
//! | a connection becomes a client | `open` |
//! | bytes -> frames -> session (or echo) | `receive` |
//! | what came for a session that is behind | `held` |
//! | what sessions ask for: subscriptions, engine | `core` |
//! | what the engine says; what the control plane orders | `events`, `order` |
//! | what the control plane asks of sessions, and how that is carried out | `call`, `actions` |
//! | users and their connections | `users` |
//! | requests that the control plane answers; all its links with a shard | `plain`, `links` |
//! | rounds of fan-out; one send a connection at a time | `send` |
//! | close frames, patience, the end of a socket | `close` |
//! | connections by place and generation; spare memory; counters; clients by id | `connection`, `buffers`, `counters`, `directory` |
//!
//! Invariants
//! - At most one send of a connection is in flight.
//! - A connection whose phase is `Closing` has no session, subscriptions or directory entry.
//! - An idle connection holds no buffer: `out` has memory only while there is something to send.
//! - Every connection that waits for its peer has a timer, but `/echo`, which is for tests: there a
//!   client may say nothing for as long as it likes.

mod accept;
mod actions;
mod admission;
mod buffers;
pub mod call;
mod close;
mod connection;
mod core;
mod counters;
mod directory;
mod events;
mod handshake;
mod held;
mod links;
mod listener;
mod open;
mod order;
pub mod plain;
mod receive;
mod request;
mod send;
mod users;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use flux_runtime::control::Readiness;
use flux_runtime::log::LogSlice;
use flux_runtime::mailbox::{Receiver, Sender};
use flux_runtime::ring::{Completion, Key, NetRing, OpHandle};
use flux_runtime::shard::{Service, Turn};
use flux_runtime::wheel::TimerWheel;
use ipnet::IpNet;

use crate::authority::Answered;
use crate::engine::Engine;
use crate::http::Policy;
use crate::limits::ROUND_SENDS_A_TURN_MAX;
use crate::pubsub::{Pacer, PacingConfig, Subscriptions, SubscriptionsConfig, Wire};
use crate::session::SessionConfig;
use crate::websocket::Limits;

pub use admission::{ConnectionRate, UserLimit};
pub use counters::{Counter, Counters, Ended};
pub use directory::{Client, Directory};
pub use links::{ControlPlane, QUESTIONS_MAX, ShardLinks, ShardsEnd, links};
pub use listener::bind;
pub use order::{ORDERS_MAX, Order};

use self::actions::Actions;
use self::call::Call;
use self::core::Core;
use self::plain::PlainAnswered;
use connection::Connections;
use held::Held;

/// Key of the listener; connections never have it, since their generations begin at 1.
const LISTENER: Key = Key(0);
/// How often slow consumers are looked for.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// How often the engine gives back the memory of channels gone quiet.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// When to try again to hand over what another shard had no room for.
const FLUSH_RETRY: Duration = Duration::from_millis(1);
/// Sweeps that together look at every connection: each has its turn about once a second.
const SWEEP_PARTS: usize = 10;

/// What all shards of a node have in common.
pub struct Shared {
    /// What the client port allows.
    pub policy: Policy,
    /// What a client may send in a message.
    pub limits: Limits,
    /// What a client that only listens may send in its one message.
    pub unidirectional_limits: Limits,
    /// Connections at most on the node.
    pub connections_max: u64,
    /// How many may come in a second; none: as many as want to.
    pub connection_rate: Option<ConnectionRate>,
    /// How many a user may have; none: as many as it likes.
    pub user_limit: Option<Arc<UserLimit>>,
    /// Peers whose PROXY header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What `/ready` says.
    pub readiness: Readiness,
    /// Whether upgrades are refused because the node drains.
    pub is_draining: AtomicBool,
    /// Clients by their ids, for the control plane.
    pub directory: Directory,
    /// What each shard counts, by its number.
    pub counters: Vec<Arc<Counters>>,
    /// The way to the control plane and to one another.
    pub control: ControlPlane,
}

impl Shared {
    /// What a client of this kind may send in a message.
    fn limits_of(&self, wire: Wire) -> Limits {
        match wire.unidirectional {
            false => self.limits,
            true => self.unidirectional_limits,
        }
    }
}

/// What one shard is made from.
pub struct ShardParts {
    /// Common to all shards.
    pub shared: Arc<Shared>,
    /// What sessions are told.
    pub session: SessionConfig,
    /// Bounds of lag.
    pub subscriptions: SubscriptionsConfig,
    /// When rounds run.
    pub pacing: PacingConfig,
    /// The shard's end of the engine.
    pub engine: Engine,
    /// What the control plane says to it.
    pub links: ShardLinks,
    /// Its listening socket.
    pub listener: OwnedFd,
    /// Its number.
    pub index: u16,
}

/// The connections of one core and what they work with.
pub struct Shard {
    index: u16,
    listener: Option<OwnedFd>,
    accepting: Option<OpHandle>,
    connections: Connections,
    /// How many of them are in their last phase.
    closing_count: usize,
    held: Held,
    core: Core,
    orders: Receiver<Order>,
    calls: Receiver<Call>,
    /// Calls that are being carried out.
    actions: Actions,
    answers: Receiver<Answered>,
    plain_answers: Receiver<PlainAnswered>,
    plain_answer: Sender<PlainAnswered>,
    /// Requests that the control plane has not answered yet.
    plain_out: usize,
    pacer: Pacer,
    /// Slices of one send, between two uses empty.
    pieces: Vec<LogSlice>,
    /// Connections still to be closed by the drain, in random order.
    drain_order: Vec<Key>,
    next_sweep: Instant,
    next_tidy: Instant,
    is_stopping: bool,
}

impl Shard {
    /// A shard that accepts connections from the first turn on.
    pub fn new(parts: ShardParts, ring: &mut NetRing, now: Instant) -> Self {
        let accepting = Some(ring.accept(&parts.listener, LISTENER));
        let counters = Arc::clone(&parts.shared.counters[usize::from(parts.index)]);
        let links = parts.links;
        let core = Core::new(
            parts.index,
            parts.shared,
            counters,
            parts.session,
            Subscriptions::new(parts.subscriptions, now),
            parts.engine,
            TimerWheel::new(now),
        );
        Self {
            index: parts.index,
            listener: Some(parts.listener),
            accepting,
            connections: Connections::default(),
            closing_count: 0,
            held: Held::default(),
            core,
            orders: links.orders,
            calls: links.calls,
            actions: Actions::new(),
            answers: links.answers,
            plain_answers: links.plain_answers,
            plain_answer: links.plain_answer,
            plain_out: 0,
            pacer: Pacer::new(parts.pacing),
            pieces: Vec::new(),
            drain_order: Vec::new(),
            next_sweep: now + SWEEP_EVERY,
            next_tidy: now + TIDY_EVERY,
            is_stopping: false,
        }
    }

    fn run_timers(&mut self, ring: &mut NetRing, now: Instant) {
        let mut due = Vec::new();
        self.core.wheel.advance(now, &mut |key| due.push(key));
        for key in due {
            self.on_timer(ring, key, now);
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP_EVERY;
            self.core.subscriptions.sweep(SWEEP_PARTS, now);
        }
        if now >= self.next_tidy {
            self.next_tidy = now + TIDY_EVERY;
            self.core.engine.sweep();
        }
        while let Some((slot, reason)) = self.core.subscriptions.next_evicted() {
            self.evict(ring, slot, reason, now);
        }
    }

    /// Runs a round when one is due, and sends; says when to go on.
    fn run_round(&mut self, ring: &mut NetRing, now: Instant) -> Option<Instant> {
        self.pacer.adjust(ring.busy_share(), now);
        let rest = self.pacer.rest();
        let subscriptions = &mut self.core.subscriptions;
        if subscriptions.is_round_over()
            && let Some(since) = subscriptions.round_wanted(now, rest)
            && (self.pacer.due(since) <= now || subscriptions.is_urgent())
        {
            if !subscriptions.is_urgent() && self.pacer.looks_first() {
                return Some(now);
            }
            subscriptions.begin_round(now, rest);
            self.core.counters.rounds.add(1);
            self.pacer.ran(now);
        }
        while let Some(slot) = self.core.subscriptions.next_prompt() {
            self.send(ring, slot, now);
        }
        for _ in 0..ROUND_SENDS_A_TURN_MAX {
            let Some(slot) = self.core.subscriptions.next_ready() else {
                break;
            };
            self.send(ring, slot, now);
        }
        let subscriptions = &self.core.subscriptions;
        ring.gather(self.pacer.gather(subscriptions.is_anybody_resting()));
        if !subscriptions.is_round_over() {
            return Some(now);
        }
        let wanted = subscriptions.round_wanted(now, rest);
        wanted.map(|since| self.pacer.due(since))
    }

    fn publish_counters(&self, ring: &NetRing) {
        let counters = &self.core.counters;
        let stats = self.core.subscriptions.stats();
        counters.connections.set(self.connections.len() as u64);
        counters.closing.set(self.closing_count as u64);
        counters.channels.set(stats.channels);
        counters.subscriptions.set(stats.subscriptions);
        counters.deliveries.set(stats.deliveries);
        counters.rest_us.set(self.pacer.rest().as_micros() as u64);
        counters.slow_bytes.set(stats.slow_bytes);
        counters.slow_stuck.set(stats.slow_stuck);
        counters.turns.add(1);
        let ring = ring.stats();
        counters.bytes_in.set(ring.bytes_received);
        counters.bytes_out.set(ring.bytes_sent);
        counters.sends.set(ring.sends);
        counters.receive_buffer_shortages.set(ring.no_buffers);
        counters.completion_overflows.set(ring.completion_overflows);
        counters.ring_enters.set(ring.enters);
    }
}

impl Drop for Shard {
    /// However it ends, also by a panic: its connections end with it, and nobody must wait for them
    /// or look for them.
    fn drop(&mut self) {
        for connection in self.connections.iter() {
            if let Some(key) = connection.directory_key {
                self.core.shared.directory.remove(key);
            }
        }
        let counters = &self.core.counters;
        for gone in [
            &counters.connections,
            &counters.closing,
            &counters.clients,
            &counters.channels,
            &counters.subscriptions,
        ] {
            gone.set(0);
        }
    }
}

impl Service for Shard {
    fn on_completion(&mut self, ring: &mut NetRing, completion: Completion, now: Instant) {
        match completion {
            Completion::Received { key, buffer } => self.on_received(ring, key, buffer, now),
            Completion::Sent {
                key,
                payload,
                result,
            } => {
                self.on_sent(ring, key, payload, &result, now);
            }
            Completion::Accepted { socket, .. } => self.on_accepted(ring, socket, now),
            Completion::AcceptFailed { error, again, .. } => self.on_accept_failed(&error, again),
            Completion::ReceiveEnded { key, .. } => self.on_receive_ended(ring, key, now),
            // A gateway connects to nobody.
            Completion::Connected { .. } => {}
        }
    }

    fn on_turn(&mut self, ring: &mut NetRing, now: Instant) -> Turn {
        self.follow_orders(ring, now);
        self.take_calls(ring, now);
        self.take_answers(ring, now);
        self.take_plain_answers(ring, now);
        self.take_events(ring, now);
        self.take_held(ring, now);
        self.run_timers(ring, now);
        let next_round = self.run_round(ring, now);
        let is_flushed = self.core.engine.flush();
        self.publish_counters(ring);
        if self.is_stopping {
            return Turn::Stop;
        }
        if self.core.engine.has_mail() || self.has_calls() || self.held.is_anybody_ready() {
            // The round has made room for what was left.
            return Turn::WaitUntil(Some(now));
        }
        let retry = (!is_flushed).then_some(now + FLUSH_RETRY);
        let times = [
            next_round,
            retry,
            self.core.wheel.next_deadline(),
            Some(self.next_sweep),
        ];
        Turn::WaitUntil(times.into_iter().flatten().min())
    }
}
