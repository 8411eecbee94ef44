//! The task that holds a lease: heartbeats for as long as the process lives, whatever Redis does.

use std::net::IpAddr;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::lease::{Lease, LeaseEvent, Reply, Request, ServerClock, Step};
use crate::record::{NodeRecord, RECORD_VERSION};
use crate::registry::{Link, Registry, now};

/// Events that may wait for their reader; more than one outage tells, so that none is lost in practice.
const EVENTS_MAX: usize = 64;

/// What the source of the record is told at each heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    /// Our own address on the way to the registry, found now.
    pub local_ip: Option<IpAddr>,
    /// Redis TIME, to express moments of the own monotonic clock in.
    pub clock: ServerClock,
    /// Now, by the own clock.
    pub now: Instant,
}

enum Command {
    BeatNow,
    Leave(String),
}

/// The lease of this process. Dropped, its heartbeats stop and the lease ends with its TTL.
#[derive(Debug)]
pub struct LeaseHandle {
    events: mpsc::Receiver<LeaseEvent>,
    commands: LeaseControl,
    task: tokio::task::JoinHandle<()>,
}

/// Tells the lease's task what to do; may be cloned and kept apart from the events.
#[derive(Clone, Debug)]
pub struct LeaseControl {
    commands: mpsc::UnboundedSender<Command>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Command::BeatNow => "BeatNow",
            Command::Leave(_) => "Leave",
        })
    }
}

impl LeaseControl {
    /// Sends a heartbeat now: the record has changed in a way that others must know (it drains).
    pub fn beat_now(&self) {
        let _ = self.commands.send(Command::BeatNow);
    }

    /// Gives the id back, with a reason for people. [`LeaseEvent::Released`] follows within two timeouts.
    pub fn leave(&self, reason: impl Into<String>) {
        let _ = self.commands.send(Command::Leave(reason.into()));
    }
}

impl LeaseHandle {
    /// The next event; `None` after the lease has ended. Cancel-safe.
    pub async fn next_event(&mut self) -> Option<LeaseEvent> {
        self.events.recv().await
    }

    /// See [`LeaseControl`].
    pub fn control(&self) -> LeaseControl {
        self.commands.clone()
    }
}

impl Drop for LeaseHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes the id of the record and keeps it. `source` gives the record of each heartbeat; the lease fills in
/// `v`, `generation`, `nonce`, `seq`, `ttl_ms` and `started_ms`. A record without a usable address counts as a
/// failed heartbeat. Must be called within a tokio runtime.
pub fn run_lease<S>(registry: &Registry, source: S) -> LeaseHandle
where
    S: FnMut(&Beat) -> Result<NodeRecord, String> + Send + 'static,
{
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    let (command_sender, commands) = mpsc::unbounded_channel();
    let config = registry.config();
    let started = now();
    let holder = Holder {
        lease: Lease::new(config.heartbeat, config.ttl, started),
        link: registry.link(),
        source,
        ttl_ms: config.ttl.as_millis() as u64,
        nonce: format!("{:016x}", fastrand::u64(..)),
        seq: 0,
        started,
        last: None,
        reason: String::new(),
    };
    LeaseHandle {
        events,
        commands: LeaseControl {
            commands: command_sender,
        },
        task: tokio::spawn(holder.run(event_sender, commands)),
    }
}

struct Holder<S> {
    lease: Lease,
    link: Link,
    source: S,
    ttl_ms: u64,
    nonce: String,
    seq: u64,
    started: Instant,
    /// The record as last written.
    last: Option<NodeRecord>,
    reason: String,
}

impl<S> Holder<S>
where
    S: FnMut(&Beat) -> Result<NodeRecord, String>,
{
    async fn run(
        mut self,
        events: mpsc::Sender<LeaseEvent>,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        loop {
            let event = match self.lease.step(now()) {
                Step::Ended => return,
                Step::Wait(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until.into()) => None,
                        command = commands.recv() => match command {
                            Some(Command::BeatNow) => {
                                self.lease.beat_now(now());
                                None
                            }
                            Some(Command::Leave(reason)) => {
                                self.reason = reason;
                                self.lease.leave(now())
                            }
                            // Nobody is left who could ask: the task is about to be aborted.
                            None => return,
                        },
                    }
                }
                Step::Send(request) => {
                    let reply = self.send(request).await;
                    self.lease.on_reply(reply, now(), fastrand::f64())
                }
            };
            if let Some(event) = event {
                // A reader that does not read must not stop the heartbeats.
                let _ = events.try_send(event);
            }
        }
    }

    async fn send(&mut self, request: Request) -> Reply {
        let sent = match request {
            Request::Register => self.write(true, 0).await,
            Request::Heartbeat { generation } => self.write(false, generation).await,
            Request::Deregister => match &self.last {
                None => Ok(Reply::Left),
                Some(record) => self
                    .link
                    .deregister(record, &self.reason)
                    .await
                    .map_err(|error| error.to_string()),
            },
        };
        sent.unwrap_or_else(Reply::Failed)
    }

    async fn write(&mut self, register: bool, generation: u64) -> Result<Reply, String> {
        let (local_ip, clock) = self
            .link
            .prepare()
            .await
            .map_err(|error| error.to_string())?;
        let beat = Beat {
            local_ip,
            clock: self.link.clock().unwrap_or(clock),
            now: now(),
        };
        let mut record = (self.source)(&beat)?;
        self.seq += 1;
        record.v = RECORD_VERSION;
        record.generation = generation;
        record.nonce.clone_from(&self.nonce);
        record.seq = self.seq;
        record.ttl_ms = self.ttl_ms;
        record.started_ms = beat.clock.ms_at(self.started).unwrap_or(0);
        record.check().map_err(|error| error.to_string())?;
        let announce = self
            .last
            .as_ref()
            .is_some_and(|last| last.routing() != record.routing());
        let reply = self
            .link
            .write(&record, register, announce)
            .await
            .map_err(|error| error.to_string())?;
        if let Reply::Held { generation } = reply {
            record.generation = generation;
            self.last = Some(record);
        }
        Ok(reply)
    }
}
