//! The engine's loop: requests of the shards, events of the connections, and time.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_registry::{RedisLogin, redis_client};
use flux_runtime::control::Readiness;
use flux_runtime::mailbox::{Waker, mailbox};
use redis::{ProtocolVersion, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::super::outbox::Outbox;
use super::super::{Engine, EngineMetrics, Request};
use super::interest::Command;
use super::link::{Link, LinkEvent};
use super::server::{Phase, Server};
use super::shard::RedisShard;
use super::shards::Shards;
use crate::limits::{
    MAILBOX_MESSAGES, REDIS_PROBE_DEADLINE, REDIS_PROBE_INTERVAL, REDIS_PUBLISH_BATCH,
    REDIS_RECONNECT_DELAY_MAX, REDIS_REQUESTS_MAX,
};
use crate::pubsub::ShardIndex;

/// How often the engine looks at the clock.
const TICK: Duration = Duration::from_millis(250);
/// A tick that comes late says that this thread was kept from running, not that Redis was silent.
const TICK_COUNTED_MAX: Duration = Duration::from_millis(500);
/// How often the log memory of quiet channels is given back.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How soon what waits for a shard that is behind is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// Requests that are looked at in one go.
const REQUESTS_AT_ONCE: usize = 1_024;
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(50);
/// Topic of the readiness entry.
const TOPIC: &str = "redis";

/// Where Redis is and how to speak to it.
#[derive(Clone)]
pub struct RedisConfig {
    /// Where Redis is and who we are to it.
    pub login: RedisLogin,
    /// Before every name in Redis (`engine.redis.prefix`).
    pub prefix: String,
    /// Longest time for a connection to be made (`engine.redis.connect_timeout`).
    pub connect_timeout: Duration,
    /// Longest time for an answer (`engine.redis.io_timeout`).
    pub io_timeout: Duration,
}

impl RedisConfig {
    /// Centrifugo's defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            login: RedisLogin::from_url(url),
            prefix: "centrifugo".to_owned(),
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(4),
        }
    }
}

/// The address is none.
#[derive(Debug, thiserror::Error)]
#[error("config key `redis`: {0}")]
pub struct RedisConfigError(String);

/// The engine's thread: to be run on a current-thread tokio runtime.
pub struct RedisEngine {
    client: redis::Client,
    config: RedisConfig,
    /// `PREFIX.client.`
    channel_prefix: String,
    probe_channel: Arc<[u8]>,
    requests: mpsc::Receiver<Request>,
    shards: Shards,
    server: Server,
    readiness: Readiness,
    link: Option<Link>,
    connecting: Option<Connecting>,
    attempts: u32,
    is_up_announced: bool,
    /// Time without an own message coming back.
    silence: Duration,
    last_tick: Instant,
    last_probe: Instant,
    last_sweep: Instant,
}

type Connecting = Pin<Box<dyn Future<Output = RedisResult<Link>> + Send>>;

impl Engine {
    /// Doors for the shards with these wakers, in their order, and the engine behind them, which
    /// has to be run. It announces in `readiness` when Redis is away (`degraded`).
    ///
    /// # Errors
    /// [`RedisConfigError`] when the address is none; an unreachable Redis is no error.
    pub fn redis(
        config: RedisConfig,
        wakers: &[Waker],
        readiness: Readiness,
    ) -> Result<(Vec<Engine>, RedisEngine), RedisConfigError> {
        let client =
            redis_client(&config.login, ProtocolVersion::RESP3).map_err(RedisConfigError)?;
        let origin = fastrand::u64(..);
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
        let now = Instant::now();
        let mut engine = RedisEngine {
            client,
            channel_prefix: format!("{}.client.", config.prefix),
            probe_channel: format!("{}.node.{origin:016x}", config.prefix)
                .into_bytes()
                .into(),
            config,
            requests,
            shards: Shards::new(outboxes, metrics),
            server: Server::new(origin),
            readiness,
            link: None,
            connecting: None,
            attempts: 0,
            is_up_announced: false,
            silence: Duration::ZERO,
            last_tick: now,
            last_probe: now,
            last_sweep: now,
        };
        engine.announce_away("not connected yet");
        Ok((doors, engine))
    }
}

impl RedisEngine {
    /// Counters, shared with the shards' doors.
    pub fn metrics(&self) -> &Arc<EngineMetrics> {
        &self.shards.metrics
    }

    /// Runs until `shutdown` completes. Cancelling it closes the connections.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut requests = Vec::with_capacity(REQUESTS_AT_ONCE);
        self.last_tick = Instant::now();
        self.reconnect();
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
                        self.server.carry_out(request, now, &mut self.shards);
                    }
                }
                event = next_event(&mut self.link) => self.on_event(event),
                result = connected(&mut self.connecting) => self.on_connected(result),
                _ = ticks.tick() => self.on_tick(),
                () = sleep(RETRY_INTERVAL), if !is_clear => {}
            }
            self.send();
            self.announce_up();
            self.server.count(&self.shards);
        }
    }

    /// Gives the connections what they have room for.
    fn send(&mut self) {
        let Some(link) = &mut self.link else { return };
        while self.server.has_unsent() && link.may_publish() {
            let mut pipeline = redis::Pipeline::new();
            let (prefix, probe_channel) = (&self.channel_prefix, &self.probe_channel);
            let handed = self
                .server
                .next_publications(REDIS_PUBLISH_BATCH, |channel, record| {
                    let publish = pipeline.cmd("PUBLISH");
                    match channel {
                        Some(channel) => publish.arg(format!("{prefix}{channel}")),
                        None => publish.arg(&probe_channel[..]),
                    }
                    .arg(record);
                });
            let Some((first, _)) = handed else { break };
            link.publish(first, pipeline);
        }
        if link.may_command()
            && let Some((command, channels)) = self.server.next_command()
        {
            let keys = channels
                .iter()
                .map(|channel| format!("{}{channel}", self.channel_prefix).into_bytes())
                .collect();
            link.command(command, channels, keys);
        }
    }

    fn on_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Pushed(pushes) => {
                for push in pushes {
                    self.on_push(push);
                }
            }
            LinkEvent::Published { first, outcomes } => {
                for (sequence, outcome) in (first..).zip(outcomes) {
                    self.server.published(sequence, outcome, &mut self.shards);
                }
            }
            LinkEvent::Commanded {
                command: Command::Subscribe,
                channels,
                is_refused: true,
            } => self.server.refused(&channels, &mut self.shards),
            LinkEvent::Commanded { .. } => {}
            LinkEvent::Broken(why) => self.lose(&why),
        }
    }

    /// Says so when everything travels through Redis again.
    fn announce_up(&mut self) {
        let is_up = self.server.phase() == Phase::Up;
        if is_up && !std::mem::replace(&mut self.is_up_announced, true) {
            self.attempts = 0;
            self.readiness.set_degraded(TOPIC, None);
            tracing::info!("everything travels through Redis");
        }
    }

    fn on_push(&mut self, push: PushInfo) {
        let mut data = push.data.into_iter();
        let Some(Value::BulkString(key)) = data.next() else {
            return;
        };
        let channel = match key.strip_prefix(self.channel_prefix.as_bytes()) {
            Some(channel) => match std::str::from_utf8(channel) {
                Ok(channel) => Some(channel),
                Err(_) => return,
            },
            None if *key == *self.probe_channel => None,
            None => return,
        };
        match (push.kind, channel, data.next()) {
            (PushKind::Message, channel, Some(Value::BulkString(record))) => {
                let echoed = self.shards.metrics.redis_echoed.get();
                let now = Instant::now();
                self.server
                    .received(channel, &record, now, &mut self.shards);
                if self.shards.metrics.redis_echoed.get() != echoed {
                    self.silence = Duration::ZERO;
                }
            }
            (PushKind::Subscribe, Some(channel), _) => {
                self.server.subscribed(channel, &mut self.shards);
            }
            (PushKind::Unsubscribe, Some(channel), _) => self.server.unsubscribed(channel),
            _ => {}
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
        let Some(link) = &self.link else { return };
        self.silence += passed.min(TICK_COUNTED_MAX);
        // What has arrived is looked at before anybody is declared silent.
        for push in link.take_pushed() {
            self.on_push(push);
        }
        // Found at the deadline, not up to a tick after it.
        if self.silence + TICK > REDIS_PROBE_DEADLINE {
            let why = format!("nothing came back for {:.1?}", self.silence);
            self.lose(&why);
        } else if now.saturating_duration_since(self.last_probe) + TICK / 2 >= REDIS_PROBE_INTERVAL
        {
            self.last_probe = now;
            self.server.probe(now);
        }
    }

    fn on_connected(&mut self, result: RedisResult<Link>) {
        match result {
            Ok(link) => {
                let now = Instant::now();
                self.link = Some(link);
                self.silence = Duration::ZERO;
                self.last_probe = now;
                self.server.connected(now);
                tracing::info!("connected to Redis, restoring subscriptions");
            }
            Err(error) => {
                self.shards.metrics.redis_connect_failures.add(1);
                if self.attempts.is_power_of_two() {
                    tracing::warn!(%error, attempts = self.attempts, "Redis is not reachable");
                }
                self.announce_away(&error.to_string());
                self.reconnect();
            }
        }
    }

    /// Gives both connections up: what has arrived counts, what is under way is delivered here.
    fn lose(&mut self, why: &str) {
        let Some(link) = self.link.take() else { return };
        for push in link.take_pushed() {
            self.on_push(push);
        }
        drop(link);
        self.server.lost(&mut self.shards);
        self.shards.metrics.redis_lost.add(1);
        tracing::warn!(why, "Redis is lost; publications stay on this node");
        self.announce_away(why);
        self.reconnect();
    }

    fn announce_away(&mut self, why: &str) {
        self.is_up_announced = false;
        let why = format!("redis: {why}; publications reach only the subscribers on this node");
        self.readiness.set_degraded(TOPIC, Some(why));
    }

    /// Begins an attempt to connect, after a pause that doubles with each and is different on each
    /// node: many of them lose a Redis at the same time.
    fn reconnect(&mut self) {
        let delay = match self.attempts {
            0 => Duration::ZERO,
            attempts => RECONNECT_DELAY_MIN
                .saturating_mul(1 << attempts.min(10))
                .min(REDIS_RECONNECT_DELAY_MAX)
                .mul_f64(0.5 + fastrand::f64() / 2.0),
        };
        self.attempts += 1;
        let client = self.client.clone();
        let RedisConfig {
            connect_timeout,
            io_timeout,
            ..
        } = self.config;
        let probe_channel = Arc::clone(&self.probe_channel);
        self.connecting = Some(Box::pin(async move {
            sleep(delay).await;
            let link = Link::connect(client, connect_timeout, io_timeout, probe_channel);
            // Two connections and a command, each with a bound of its own that is longer.
            match timeout(connect_timeout * 2, link).await {
                Ok(result) => result,
                Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            }
        }));
    }
}

/// The next event of the link; never without one. Cancel-safe.
async fn next_event(link: &mut Option<Link>) -> LinkEvent {
    match link {
        Some(link) => link.event().await,
        None => std::future::pending().await,
    }
}

/// The end of the attempt to connect; never without one. Cancel-safe.
async fn connected(connecting: &mut Option<Connecting>) -> RedisResult<Link> {
    match connecting {
        Some(attempt) => {
            let result = attempt.await;
            *connecting = None;
            result
        }
        None => std::future::pending().await,
    }
}
