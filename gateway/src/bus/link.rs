//! The bus's connection to Redis: made, watched, made again; and what comes along it.
//!
//! One RESP3 connection publishes and is subscribed. A ping every second tells whether it lives: a
//! connection that has died silently is replaced within [`PING_EVERY`] and one answer's time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, PushInfo, PushKind, Value};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::document::Document;
use super::local::LocalNode;
use super::metrics::BusMetrics;
use super::operation::Operation;
use super::place::Place;
use super::waiting::{Gathered, Waiting};
use super::{
    ASKED_MAX, Ask, BusConfig, IO_PATIENCE, PATIENCE, PERFORMED_MAX, RECEIVED_MAX, Recipient,
};

/// How often the connection is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Pause between two attempts to connect: first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Answers to other nodes that wait to be sent; beyond it they are dropped and counted.
const ANSWERS_MAX: usize = PERFORMED_MAX;

/// Keeps the connection, and answers for it.
pub(super) struct Link {
    config: BusConfig,
    place: Place,
    local: Arc<LocalNode>,
    metrics: Arc<BusMetrics>,
    asked: mpsc::Receiver<Ask>,
    waiting: Waiting<oneshot::Sender<Gathered>>,
    /// Operations for others; each sends its answer here.
    answers: (mpsc::Sender<Addressed>, mpsc::Receiver<Addressed>),
    permits: Arc<Semaphore>,
    control: String,
    own: String,
}

/// A document and the node that it is for.
type Addressed = (String, Document);

/// Why a connection is given up.
type Broken = String;

impl Link {
    pub(super) fn new(
        config: BusConfig,
        local: Arc<LocalNode>,
        metrics: Arc<BusMetrics>,
        asked: mpsc::Receiver<Ask>,
    ) -> Result<Self, String> {
        Ok(Self {
            place: Place::new(&config.deployment, config.connect_timeout)?,
            control: format!("{}.control", config.prefix),
            own: node_channel(&config.prefix, &local.id),
            config,
            local,
            metrics,
            asked,
            waiting: Waiting::default(),
            answers: mpsc::channel(ANSWERS_MAX),
            permits: Arc::new(Semaphore::new(PERFORMED_MAX)),
        })
    }

    /// Runs until it is dropped.
    pub(super) async fn run(&mut self) {
        let mut attempts = 0u32;
        loop {
            match self.connected().await {
                Ok((connection, pushes)) => {
                    attempts = 0;
                    self.metrics.up.set(1);
                    tracing::info!("the bus between nodes is connected");
                    let why = self.serve(connection, pushes).await;
                    self.metrics.up.set(0);
                    self.metrics.lost.add(1);
                    // What others say now is said to nobody.
                    for unfinished in self.waiting.end_all() {
                        self.end(unfinished);
                    }
                    tracing::warn!(why, "the bus between nodes is lost");
                }
                Err(why) => {
                    self.metrics.connect_failures.add(1);
                    if attempts.is_power_of_two() {
                        tracing::warn!(why, attempts, "the bus between nodes cannot connect");
                    }
                }
            }
            let pause = RETRY
                .0
                .saturating_mul(1 << attempts.min(10))
                .min(RETRY.1)
                .mul_f64(0.5 + fastrand::f64() / 2.0);
            attempts += 1;
            self.refuse_for(pause).await;
        }
    }

    /// A connection that is subscribed. What is asked meanwhile is refused: who asks is not to wait
    /// for Redis.
    async fn connected(
        &mut self,
    ) -> Result<(MultiplexedConnection, mpsc::Receiver<PushInfo>), Broken> {
        let patience = self.config.connect_timeout * 2 + self.config.io_timeout;
        let Self {
            place,
            config,
            control,
            own,
            asked,
            metrics,
            ..
        } = self;
        let connecting = timeout(patience, connect(place, config, [control, own], metrics));
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                connected = &mut connecting => {
                    return connected.unwrap_or_else(|_| Err(format!("no connection within {patience:?}")));
                }
                Some(ask) = asked.recv() => refuse(ask, metrics),
            }
        }
    }

    async fn refuse_for(&mut self, pause: Duration) {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                Some(ask) = self.asked.recv() => refuse(ask, &self.metrics),
                // It has nowhere to go.
                Some(_) = self.answers.1.recv() => self.metrics.dropped.add(1),
            }
        }
    }

    /// Serves a connection until it is broken.
    async fn serve(
        &mut self,
        mut connection: MultiplexedConnection,
        mut pushes: mpsc::Receiver<PushInfo>,
    ) -> Broken {
        let mut ping_at = Instant::now() + PING_EVERY;
        loop {
            let wake_at = self
                .waiting
                .next_deadline()
                .map_or(ping_at, |at| at.min(ping_at));
            let sent = tokio::select! {
                Some(ask) = self.asked.recv() => self.ask(&mut connection, ask).await,
                Some((to, answer)) = self.answers.1.recv() => {
                    let channel = node_channel(&self.config.prefix, &to);
                    self.publish(&mut connection, &channel, answer).await
                }
                push = pushes.recv() => match push {
                    Some(push) => self.on_push(&push),
                    None => Err("the connection has ended".to_owned()),
                },
                () = tokio::time::sleep_until(wake_at.into()) => Ok(()),
            };
            let now = Instant::now();
            for late in self.waiting.expired(now) {
                self.end(late);
            }
            let alive = match sent {
                Ok(()) if now >= ping_at => {
                    ping_at = now + PING_EVERY;
                    answered(&mut connection, &redis::cmd("PING")).await
                }
                sent => sent,
            };
            if let Err(why) = alive {
                return why;
            }
        }
    }

    async fn ask(
        &mut self,
        connection: &mut MultiplexedConnection,
        ask: Ask,
    ) -> Result<(), Broken> {
        self.metrics.asked.add(1);
        let id = fastrand::u64(..);
        let channel = match &ask.to {
            Recipient::Everybody => self.control.clone(),
            Recipient::Node(node) => node_channel(&self.config.prefix, node),
        };
        let request = Document::Request {
            id,
            from: self.local.id.clone(),
            within: if ask.reply.is_some() {
                PATIENCE
            } else {
                Duration::ZERO
            },
            operation: ask.operation,
        };
        if let Some(reply) = ask.reply {
            // First: the answer may be here before `publish` returns.
            if self.waiting.len() >= ASKED_MAX {
                self.metrics.dropped.add(1);
                let _ = reply.send(Gathered {
                    answers: Vec::new(),
                    missing: ask.expected,
                });
                return Ok(());
            }
            let until = ask.at + PATIENCE;
            self.waiting.begin(id, ask.expected, until, reply);
        }
        let sent = self.publish(connection, &channel, request).await;
        if sent.is_err()
            && let Some(nobody) = self.waiting.give_up(id)
        {
            self.end(nobody);
        }
        sent
    }

    async fn publish(
        &self,
        connection: &mut MultiplexedConnection,
        channel: &str,
        document: Document,
    ) -> Result<(), Broken> {
        let Some(bytes) = document.encode() else {
            self.metrics.dropped.add(1);
            tracing::error!("a message to another node is too long and was dropped");
            return Ok(());
        };
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg(bytes);
        answered(connection, &command).await
    }

    fn on_push(&mut self, push: &PushInfo) -> Result<(), Broken> {
        match push.kind {
            PushKind::Message => {}
            PushKind::Disconnection => return Err("the connection has ended".to_owned()),
            _ => return Ok(()),
        }
        let [_, Value::BulkString(bytes)] = &push.data[..] else {
            return Ok(());
        };
        match Document::decode(bytes) {
            Ok(Document::Request { from, .. }) if from == self.local.id => {}
            Ok(Document::Request {
                id,
                from,
                within,
                operation,
            }) => self.perform(id, from, within, operation),
            Ok(Document::Answer { id, from, report }) => {
                match self.waiting.answered(id, &from, report) {
                    Ok(Some(done)) => self.end(done),
                    Ok(None) => {}
                    Err(_) => self.metrics.late.add(1),
                }
            }
            Err(why) => {
                self.metrics.refused.add(1);
                tracing::debug!(%why, "a message between nodes is refused");
            }
        }
        Ok(())
    }

    /// Carries out what another node asks, beside everything else.
    fn perform(&self, id: u64, to: String, within: Duration, operation: Operation) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.dropped.add(1);
            return;
        };
        self.metrics.performed.add(1);
        let local = Arc::clone(&self.local);
        let answers = self.answers.0.clone();
        let metrics = Arc::clone(&self.metrics);
        tokio::spawn(async move {
            let _permit = permit;
            // The answer has to travel too.
            let report = local.perform(&operation, within.mul_f64(0.75)).await;
            if within.is_zero() {
                return;
            }
            let answer = Document::Answer {
                id,
                from: local.id.clone(),
                report,
            };
            if answers.try_send((to, answer)).is_err() {
                metrics.dropped.add(1);
            }
        });
    }

    fn end(&self, (reply, gathered): (oneshot::Sender<Gathered>, Gathered)) {
        for _ in &gathered.missing {
            self.metrics.unanswered.add(1);
        }
        // Whoever asked may not wait any more.
        let _ = reply.send(gathered);
    }
}

async fn connect(
    place: &mut Place,
    config: &BusConfig,
    channels: [&str; 2],
    metrics: &Arc<BusMetrics>,
) -> Result<(MultiplexedConnection, mpsc::Receiver<PushInfo>), Broken> {
    let client = place.client().await?;
    let (sender, pushes) = mpsc::channel(RECEIVED_MAX);
    let counted = Arc::clone(metrics);
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(Some(config.io_timeout))
        .set_push_sender(move |push| match sender.try_send(push) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                counted.dropped.add(1);
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(redis::aio::SendError),
        });
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&settings)
        .await
        .map_err(|error| error.to_string())?;
    for channel in channels {
        connection
            .subscribe(channel)
            .await
            .map_err(|error| format!("subscribing: {error}"))?;
    }
    Ok((connection, pushes))
}

/// Whether Redis takes a command in time.
async fn answered(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<(), Broken> {
    match timeout(IO_PATIENCE, command.query_async::<Value>(connection)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {IO_PATIENCE:?}")),
    }
}

fn refuse(ask: Ask, metrics: &BusMetrics) {
    for _ in &ask.expected {
        metrics.unanswered.add(1);
    }
    if let Some(reply) = ask.reply {
        let _ = reply.send(Gathered {
            answers: Vec::new(),
            missing: ask.expected,
        });
    } else {
        metrics.dropped.add(1);
    }
}

fn node_channel(prefix: &str, node: &str) -> String {
    format!("{prefix}.node.{node}")
}
