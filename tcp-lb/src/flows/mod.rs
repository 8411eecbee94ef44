//! The flows of one shard: the only place that knows client and upstream sockets.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the service: completions, mail, timers |
//! | `accept` | new connections, their bounds, the request head |
//! | `upstream` | finding a node: connect, replay, the next one |
//! | `relay` | bytes both ways, backpressure, half-close, the end |
//! | `sweep` | what takes too long, and the drain |
//! | `young` | what a flow is spared until it has lasted |
//! | `flow` | one flow's state |

mod accept;
mod flow;
mod relay;
mod sweep;
mod upstream;
mod young;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_runtime::mailbox::Receiver;
use flux_runtime::ring::{Completion, NetRing, RingConfig};
use flux_runtime::shard::{Service, Turn};
use flux_runtime::wheel::TimerWheel;
use slab::Slab;
use socket2::Socket;
use tokio::sync::mpsc;

use crate::balance::Routes;
use crate::caps::Caps;
use crate::config::{Affinity, Config};
use crate::limits;
use crate::mail::{Mail, Report};
use crate::meters::Meters;
use accept::Accepting;
use flow::{Flow, GENERATION_MASK, Name};

/// What of the configuration a shard needs.
#[derive(Debug, Clone)]
pub struct Settings {
    affinity: Affinity,
    proxy_protocol: bool,
    source_addresses: Vec<IpAddr>,
    accepts_per_s: u32,
    head_timeout: Duration,
    connect_timeout: Duration,
    answer_timeout: Duration,
    half_closed_s: u16,
    stalled_s: u16,
    queue_bytes_max: usize,
    /// Above this many lent receive buffers, bytes are copied instead of keeping their buffer.
    copy_above: usize,
    /// Sockets that keep their descriptors at most; see `young`.
    young_max: usize,
    /// The listener's address where it names one; else each connection is asked for its own.
    local: Option<SocketAddr>,
}

impl Settings {
    /// From the configuration, for one of `shards` with rings like `ring` in a process that may have `nofile` open
    /// files.
    pub fn new(config: &Config, shards: usize, nofile: u64, ring: &RingConfig) -> Settings {
        let seconds = |ms: u64| u16::try_from(ms.div_ceil(1000)).unwrap_or(u16::MAX);
        Settings {
            affinity: config.affinity,
            proxy_protocol: config.proxy_protocol,
            source_addresses: config.source_addresses.clone(),
            accepts_per_s: match config.accepts_per_s {
                0 => 0,
                all => all.div_ceil(u32::try_from(shards).unwrap_or(u32::MAX)),
            },
            head_timeout: Duration::from_millis(config.head_timeout_ms),
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            answer_timeout: Duration::from_millis(config.answer_timeout_ms),
            half_closed_s: seconds(config.half_closed_timeout_ms),
            stalled_s: seconds(config.stalled_timeout_ms),
            queue_bytes_max: config.queue_bytes_max,
            copy_above: usize::from(ring.buffer_count_max) / 2,
            young_max: usize::try_from(nofile / limits::YOUNG_SHARE).unwrap_or(usize::MAX)
                / shards.max(1),
            local: (!config.listen.ip().is_unspecified() && config.listen.port() != 0)
                .then_some(config.listen),
        }
    }
}

/// See the [module](self).
pub struct Flows {
    slots: Slab<Flow>,
    generation: u32,
    /// Bytes of clients that were read without the ring.
    read_at_once: u64,
    /// Sides that are young.
    young: usize,
    /// Others that keep their descriptors: the ring's table was full.
    overflow: usize,
    routes: Routes,
    timers: TimerWheel<u32>,
    fired: Vec<u32>,
    accepting: Accepting,
    settings: Settings,
    next_source: usize,
    no_socket_said: Option<Instant>,
    caps: Arc<Caps>,
    meters: Arc<Meters>,
    mail: Receiver<Mail>,
    reports: mpsc::Sender<Report>,
    sweep: sweep::Sweep,
    drain_until: Option<Instant>,
}

/// What a shard is given when it starts.
pub struct Start {
    /// Its listener.
    pub listener: Socket,
    /// See [`Settings`].
    pub settings: Settings,
    /// Shared by all shards.
    pub caps: Arc<Caps>,
    /// Its own counters.
    pub meters: Arc<Meters>,
    /// From the control thread.
    pub mail: Receiver<Mail>,
    /// To the control thread.
    pub reports: mpsc::Sender<Report>,
}

impl Flows {
    /// Begins to accept.
    pub fn new(ring: &mut NetRing, start: Start, now: Instant) -> Flows {
        let mut flows = Flows {
            slots: Slab::new(),
            generation: 0,
            read_at_once: 0,
            young: 0,
            overflow: 0,
            routes: Routes::none(),
            timers: TimerWheel::new(now),
            fired: Vec::new(),
            accepting: Accepting::new(start.listener, start.settings.accepts_per_s, now),
            settings: start.settings,
            next_source: 0,
            no_socket_said: None,
            caps: start.caps,
            meters: start.meters,
            mail: start.mail,
            reports: start.reports,
            sweep: sweep::Sweep::default(),
            drain_until: None,
        };
        flows.accepting.resume(ring);
        flows
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = (self.generation + 1) & GENERATION_MASK;
        self.generation
    }

    /// The flow that a completion is for, unless its socket is gone.
    fn flow_mut(&mut self, name: Name) -> Option<&mut Flow> {
        self.slots
            .get_mut(name.slot)
            .filter(|flow| flow.sides[name.side].generation == name.generation)
    }

    fn name(&self, slot: usize, side: usize) -> Name {
        let generation = self
            .slots
            .get(slot)
            .map_or(0, |flow| flow.sides[side].generation);
        Name {
            slot,
            side,
            generation,
        }
    }

    fn report(&self, report: Report) {
        // Full: the control thread is behind, and what is lost repeats itself.
        let _ = self.reports.try_send(report);
    }

    fn take_mail(&mut self, ring: &mut NetRing, now: Instant) {
        for _ in 0..limits::SHARD_MAIL {
            match self.mail.pop() {
                None => return,
                Some(Mail::Routes(routes)) => self.routes = *routes,
                Some(Mail::Cut(node)) => self.cut(ring, &node, now),
                Some(Mail::Drain { until }) => self.drain(ring, until, now),
            }
        }
    }

    fn run_timers(&mut self, ring: &mut NetRing, now: Instant) {
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.advance(now, &mut |slot| fired.push(slot));
        for slot in fired.drain(..) {
            self.on_timer(ring, slot as usize, now);
        }
        self.fired = fired;
    }
}

impl Service for Flows {
    fn on_completion(&mut self, ring: &mut NetRing, completion: Completion, now: Instant) {
        match completion {
            Completion::Received { key, buffer } => self.on_received(ring, key.into(), buffer, now),
            Completion::Sent {
                key,
                payload,
                result,
            } => self.on_sent(ring, key.into(), payload, result.ok()),
            Completion::Accepted { socket, .. } => self.on_accepted(ring, socket, now),
            Completion::Connected { key, result } => {
                self.on_connected(ring, key.into(), result, now);
            }
            Completion::ReceiveEnded { key, error } => {
                self.on_ended(ring, key.into(), error.is_some(), now);
            }
            Completion::AcceptFailed { error, again, .. } => {
                self.on_accept_failed(&error, again, now);
            }
        }
    }

    fn on_turn(&mut self, ring: &mut NetRing, now: Instant) -> Turn {
        self.take_mail(ring, now);
        self.run_timers(ring, now);
        self.run_sweep(ring, now);
        self.run_accepting(ring, now);
        if self.drain_until.is_some() && self.slots.is_empty() {
            return Turn::Stop;
        }
        let wake = [
            self.timers.next_deadline(),
            self.sweep.due(),
            self.accepting.due(),
        ];
        Turn::WaitUntil(wake.into_iter().flatten().min())
    }
}
