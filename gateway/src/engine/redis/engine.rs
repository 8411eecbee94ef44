//! The engine's loop: requests of the shards, events of the servers, and time.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use flux_registry::Snapshot;
use flux_runtime::control::Readiness;
use flux_runtime::mailbox::{Waker, mailbox};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::outbox::Outbox;
use super::super::request::Request;
use super::super::{Engine, EngineHandle, EngineMetrics};
use super::config::{RedisConfig, RedisConfigError};
use super::detours::{Detours, LOOK_INTERVAL, Waiting};
use super::endpoint::{Endpoint, EndpointEvent};
use super::follow::Follow;
use super::ledger::Append;
use super::server::Phase;
use super::shard::RedisShard;
use super::shards::Shards;
use crate::limits::{MAILBOX_MESSAGES, REDIS_REQUESTS_MAX};
use crate::protocol::ErrorCode;
use crate::pubsub::ShardIndex;

/// How often the engine looks at the clock.
const TICK: Duration = Duration::from_millis(250);
/// How often the log memory of quiet channels is given back.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How soon what waits for a shard that is behind is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// Requests that are looked at in one go.
const REQUESTS_AT_ONCE: usize = 1_024;
/// Changes of who is present that are passed on in one go.
const STEPS_AT_ONCE: usize = 1_024;
/// Topic of the readiness entry.
const TOPIC: &str = "redis";

/// The engine's thread: to be run on a current-thread tokio runtime.
pub struct RedisEngine {
    requests: mpsc::Receiver<Request>,
    shards: Shards,
    /// Never empty; a channel lives on one of them (see [`Self::route`]).
    endpoints: Vec<Endpoint>,
    follow: Follow,
    detours: Detours,
    readiness: Readiness,
    /// What was announced last.
    announced: Option<Option<String>>,
    last_tick: Instant,
    last_sweep: Instant,
    /// Whose turn it is to be asked first, so that a busy server does not starve the others.
    first: usize,
}

impl Engine {
    /// Doors for the shards with these wakers, in their order, and the engine behind them, which
    /// has to be run, and the control plane's way to it. It announces in `readiness` when Redis is
    /// away (`degraded`).
    ///
    /// # Errors
    /// [`RedisConfigError`] when the address is none; an unreachable Redis is no error.
    pub fn redis(
        config: RedisConfig,
        wakers: &[Waker],
        readiness: Readiness,
    ) -> Result<(Vec<Engine>, RedisEngine, EngineHandle), RedisConfigError> {
        let now = Instant::now();
        let (follow, endpoints) = Follow::new(config, fastrand::u64(..), now)?;
        let metrics = Arc::new(EngineMetrics::default());
        let (sender, requests) = mpsc::channel(REDIS_REQUESTS_MAX);
        let mut doors = Vec::new();
        let mut outboxes = Vec::new();
        for (shard, waker) in wakers.iter().enumerate() {
            let (mail, inbox) = mailbox(MAILBOX_MESSAGES, waker.clone());
            outboxes.push(Outbox::new(mail, Arc::clone(&metrics)));
            let door = RedisShard::new(
                shard as ShardIndex,
                inbox,
                sender.clone(),
                Arc::clone(&metrics),
            );
            doors.push(Engine::Redis(Box::new(door)));
        }
        let mut engine = RedisEngine {
            requests,
            shards: Shards::new(outboxes, metrics),
            endpoints,
            follow,
            detours: Detours::new(now),
            readiness,
            announced: None,
            last_tick: now,
            last_sweep: now,
            first: 0,
        };
        engine.announce();
        Ok((doors, engine, EngineHandle::to_thread(sender)))
    }
}

impl RedisEngine {
    /// Counters, shared with the shards' doors.
    pub fn metrics(&self) -> &Arc<EngineMetrics> {
        &self.shards.metrics
    }

    /// Who is present counts by what the registry says of the nodes: `nodes`, of which this one is
    /// `node`. Without it this node's clients are present for its own readers only.
    #[must_use]
    pub fn with_nodes(mut self, node: &str, nodes: watch::Receiver<Arc<Snapshot>>) -> Self {
        self.shards.present.follow(node, nodes);
        self
    }

    /// Runs until `shutdown` completes. Cancelling it closes the connections.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut requests = Vec::with_capacity(REQUESTS_AT_ONCE);
        self.last_tick = Instant::now();
        self.follow.start(&mut self.endpoints, &mut self.shards);
        loop {
            let is_clear = self.shards.flush();
            tokio::select! {
                () = &mut shutdown => return,
                count = self.requests.recv_many(&mut requests, REQUESTS_AT_ONCE) => {
                    if count == 0 {
                        // Every shard is gone.
                        return;
                    }
                    let now = Instant::now();
                    for request in requests.drain(..) {
                        let at = request.channel().map_or(0, |name| self.route(name));
                        let Some(request) = self.detour(request, at, now) else { continue };
                        if let Some(endpoint) = self.endpoints.get_mut(at) {
                            endpoint.carry_out(request, now, &mut self.shards);
                        }
                    }
                }
                (at, event) = next_event(&mut self.endpoints, self.first) => {
                    self.first = at + 1;
                    if let Some(endpoint) = self.endpoints.get_mut(at) {
                        endpoint.on_event(event, &mut self.shards);
                    }
                }
                view = self.follow.next() => {
                    self.follow.on_view(view, &mut self.endpoints, &mut self.shards);
                    self.detours.hurry(Instant::now());
                }
                _ = ticks.tick() => self.on_tick(),
                () = sleep(RETRY_INTERVAL), if !is_clear => {}
                () = sleep(LOOK_INTERVAL), if !self.detours.is_empty() => {}
            }
            self.take_back();
            self.take_steps();
            for endpoint in &mut self.endpoints {
                endpoint.send(&self.shards);
            }
            self.follow.look(&mut self.endpoints);
            self.announce();
            self.count();
        }
    }

    /// The server that `channel` lives on: the one place that decides it.
    fn route(&self, channel: &str) -> usize {
        self.follow.route(channel, self.endpoints.len())
    }

    /// Keeps a publication back that has to wait for its server; hands out any other request.
    fn detour(&mut self, request: Request, at: usize, now: Instant) -> Option<Request> {
        let endpoint = self.endpoints.get(at)?;
        let Request::Publish {
            message,
            history: Some(_),
            ..
        } = &request
        else {
            return Some(request);
        };
        let is_away = endpoint.server().phase() == Phase::Away && !endpoint.is_moving();
        let has_to_wait =
            endpoint.is_moving() || endpoint.is_held(now) || self.detours.has(message.channel());
        // While a server is simply away, its publishers are told so at once.
        if is_away || !has_to_wait {
            return Some(request);
        }
        if let Request::Publish {
            message,
            history: Some(history),
            conditions,
            reply,
        } = request
        {
            let append = Append::new(message, history, conditions);
            let asker = reply;
            if let Err(waiting) = self.detours.add(Waiting { append, asker }, now) {
                self.shards.metrics.refused.add(1);
                if let Some(asker) = waiting.asker {
                    let why = Err(ErrorCode::TooManyRequests);
                    self.shards.published(asker, why);
                }
            }
        }
        None
    }

    /// Takes back what servers would not take, and gives it to those that will.
    fn take_back(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for endpoint in &mut self.endpoints {
            let ledger = endpoint.ledger();
            if ledger.returned().is_empty() {
                continue;
            }
            for channel in ledger.returned().take_closed() {
                self.detours.close(&channel, now);
            }
            for (channel, entries) in ledger.take_returned() {
                self.shards.metrics.redis_detours.add(entries.len() as u64);
                late.extend(self.detours.put_back(&channel, entries, now));
            }
        }
        if self.detours.is_empty() {
            return;
        }
        let (follow, endpoints) = (&self.follow, &self.endpoints);
        let (due, expired) = self.detours.look(now, |channel| {
            let endpoint = endpoints.get(follow.route(channel, endpoints.len()));
            endpoint.is_some_and(|endpoint| {
                endpoint.server().phase() != Phase::Away && !endpoint.is_held(now)
            })
        });
        late.extend(expired);
        for asker in late {
            self.shards.published(asker, Err(ErrorCode::Internal));
        }
        for waiting in due {
            let at = self.route(waiting.append.message.channel());
            if let Some(endpoint) = self.endpoints.get_mut(at) {
                endpoint.publish(waiting, now, &mut self.shards);
            }
        }
    }

    /// Tells the servers who is present, as far as they have room for it.
    fn take_steps(&mut self) {
        let now = Instant::now();
        for _ in 0..STEPS_AT_ONCE {
            if !self.endpoints.iter().all(Endpoint::may_take_steps) {
                return;
            }
            let Some((channel, step)) = self.shards.present.next(now) else {
                return;
            };
            let at = self.route(&channel);
            if let Some(endpoint) = self.endpoints.get_mut(at) {
                endpoint.take_step(channel, step, &mut self.shards);
            }
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.last_tick);
        self.last_tick = now;
        if now.saturating_duration_since(self.last_sweep) >= SWEEP_INTERVAL {
            self.last_sweep = now;
            self.shards.sweep();
        }
        for endpoint in &mut self.endpoints {
            endpoint.tick(passed, TICK, &mut self.shards);
        }
        let mut present = std::mem::take(&mut self.shards.present);
        if self
            .endpoints
            .iter()
            .all(|endpoint| endpoint.away().is_none())
        {
            present.retry(now);
        }
        // Not all nodes at the same time.
        let delay = || TICK.mul_f64(4.0 * fastrand::f64());
        present.tick(now, delay, || self.shards.channels());
        self.shards.present = present;
    }

    /// Says so when a server is away, which, and when all is well again.
    fn announce(&mut self) {
        let away = self.endpoints.iter().filter_map(|endpoint| {
            let why = endpoint.away()?;
            Some((endpoint.name(), why))
        });
        let away: Vec<(&str, &str)> = away.collect();
        let why = away.first().map(|(name, why)| {
            let (count, all) = (away.len(), self.endpoints.len());
            let which = match all {
                1 => (*name).to_owned(),
                _ => {
                    let names: Vec<&str> = away.iter().map(|(name, _)| *name).collect();
                    format!("{count} of {all} servers ({})", names.join(", "))
                }
            };
            format!(
                "redis: {which}: {why}; publications of its channels reach only the subscribers on this \
                 node"
            )
        });
        if self.announced.as_ref() != Some(&why) {
            self.readiness.set_degraded(TOPIC, why.clone());
            self.announced = Some(why);
            // A server that was away may have lost who is present.
            self.shards.present.rewrite();
        }
    }

    fn count(&self) {
        let metrics = &self.shards.metrics;
        let sum = |of: fn(&Endpoint) -> usize| self.endpoints.iter().map(of).sum::<usize>() as u64;
        metrics.redis_in_flight.set(sum(|e| e.server().in_flight()));
        metrics
            .redis_subscriptions
            .set(sum(|e| e.server().subscriptions()));
        let is_up = self.endpoints.iter().all(|e| e.away().is_none());
        let recent = |e: &Endpoint| e.server().recent_bytes();
        metrics.redis_members.set(self.shards.present.len() as u64);
        metrics.redis_recent_bytes.set(sum(recent));
        metrics.redis_up.set(is_up.into());
    }
}

/// The next event of an endpoint, those from `first` on asked first. Cancel-safe.
async fn next_event(endpoints: &mut [Endpoint], first: usize) -> (usize, EndpointEvent) {
    let count = endpoints.len();
    poll_fn(|context| {
        for n in 0..count {
            let at = (first + n) % count;
            if let Poll::Ready(event) = endpoints[at].poll_event(context) {
                return Poll::Ready((at, event));
            }
        }
        Poll::Pending
    })
    .await
}
