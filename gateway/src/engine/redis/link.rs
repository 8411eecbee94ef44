//! The three connections to one Redis server: one publishes, one is subscribed, one asks (so that
//! nothing that is published waits behind a large answer).
//!
//! All are multiplexed connections of the `redis` crate, speaking RESP3. What that crate does with
//! pushes shapes this file: its driver calls a function for each push and cannot be told to wait.
//! So the function puts them into a queue of our own that is bounded in bytes; the engine empties
//! it each time it runs, on the same thread, and only a record flood faster than this thread could
//! fill it, upon which the connection is given up. Subscriptions are confirmed by pushes too, and
//! are taken from the same queue, because only there they stand in order with the messages.
//!
//! The crate's own reconnecting connection (`ConnectionManager`) is of no use here: what is under
//! way at a loss has to be known exactly, and it hides the moment.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, PushInfo, PushKind, RedisError, RedisResult, ToRedisArgs, Value,
};

use super::interest::Command;
use super::scripts::{Outcome, Scripts, outcome};
use crate::limits::{REDIS_COMMAND_BATCHES_MAX, REDIS_PIPELINES_MAX, REDIS_RECEIVED_BYTES_MAX};

type Pending<T> = Pin<Box<dyn Future<Output = RedisResult<T>> + Send>>;

/// What happened on a link.
pub(super) enum LinkEvent {
    /// Redis has pushed something.
    Pushed(VecDeque<PushInfo>),
    /// Redis has answered a pipeline of publications.
    Published { first: u64, outcomes: Vec<Outcome> },
    /// Redis has answered the batch of questions that was asked first: one answer for each.
    Answered(Vec<Value>),
    /// Redis has answered a command about subscriptions; its confirmations have been pushed.
    Commanded {
        command: Command,
        channels: Vec<Arc<str>>,
        answer: Answer,
    },
    /// A connection is gone, or must go.
    Broken(String),
}

/// Redis's answer to a command about subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// It will not do this, and would do others.
    Refused,
    /// Some of them belong to another server.
    Elsewhere,
}

/// The connections; dropping it closes them.
pub(super) struct Link {
    publisher: MultiplexedConnection,
    subscriber: MultiplexedConnection,
    asking: MultiplexedConnection,
    questions: VecDeque<Pending<Vec<Value>>>,
    pushes: Arc<Pushes>,
    pipelines: VecDeque<(u64, Pending<Vec<Value>>)>,
    command: Option<(Command, Vec<Arc<str>>, Pending<()>)>,
    /// Why the server is of no use, to be said behind the answers that have shown it.
    unavailable: Option<String>,
    /// Whether subscriptions are those of a cluster: SSUBSCRIBE.
    is_sharded: bool,
}

impl Link {
    /// Connects all and subscribes to `probe_channel`. Redis learns `scripts`, if it lets us teach it.
    pub(super) async fn connect(
        client: redis::Client,
        connect_timeout: Duration,
        io_timeout: Duration,
        probe_channel: Arc<[u8]>,
        is_sharded: bool,
        must_be_master: bool,
        scripts: &Scripts,
    ) -> RedisResult<Link> {
        let pushes = Arc::new(Pushes::default());
        let config = |name: &'static str| {
            let pushes = Arc::clone(&pushes);
            AsyncConnectionConfig::new()
                .set_connection_timeout(Some(connect_timeout))
                .set_response_timeout(Some(io_timeout))
                .set_push_sender(move |push| pushes.put(name, push))
        };
        let mut publisher = client
            .get_multiplexed_async_connection_with_config(&config("publishing"))
            .await?;
        if must_be_master {
            check_master(&mut publisher).await?;
        }
        let subscriber = client
            .get_multiplexed_async_connection_with_config(&config("subscriber"))
            .await?;
        let mut asking = client
            .get_multiplexed_async_connection_with_config(&config("asking"))
            .await?;
        let mut load = redis::Pipeline::new();
        for script in scripts.all() {
            load.cmd("SCRIPT").arg("LOAD").arg(script.code);
        }
        // Where that is not permitted, the first call of each brings its text.
        asking.send_packed_commands(&load, 0, load.len()).await?;
        let probe = vec![probe_channel.to_vec()];
        change(subscriber.clone(), Command::Subscribe, probe, is_sharded).await?;
        Ok(Link {
            publisher,
            subscriber,
            asking,
            questions: VecDeque::new(),
            pushes,
            pipelines: VecDeque::new(),
            command: None,
            unavailable: None,
            is_sharded,
        })
    }

    /// Whether another pipeline may be sent.
    pub(super) fn may_publish(&self) -> bool {
        self.pipelines.len() < REDIS_PIPELINES_MAX
    }

    /// Sends publications, the first of them with this sequence number.
    pub(super) fn publish(&mut self, first: u64, pipeline: redis::Pipeline) {
        let pending = send(&self.publisher, pipeline);
        self.pipelines.push_back((first, pending));
    }

    /// Whether another batch of questions may be asked.
    pub(super) fn may_ask(&self) -> bool {
        self.questions.len() < REDIS_COMMAND_BATCHES_MAX
    }

    /// Asks a batch of questions. Batches are answered in the order in which they were asked.
    pub(super) fn ask(&mut self, batch: redis::Pipeline) {
        let pending = send(&self.asking, batch);
        self.questions.push_back(pending);
    }

    /// Whether another command about subscriptions may be sent.
    pub(super) fn may_command(&self) -> bool {
        self.command.is_none()
    }

    /// Subscribes to or unsubscribes from `keys`, which are Redis's names for `channels`.
    pub(super) fn command(&mut self, command: Command, channels: Vec<Arc<str>>, keys: Vec<String>) {
        let connection = self.subscriber.clone();
        let pending = change(connection, command, keys, self.is_sharded);
        self.command = Some((command, channels, Box::pin(pending)));
    }

    /// What was pushed and not looked at.
    pub(super) fn take_pushed(&self) -> VecDeque<PushInfo> {
        let mut queue = self.pushes.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.received)
    }

    /// The next event. Nothing is lost when it is not polled to the end.
    pub(super) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<LinkEvent> {
        // Pushes first: a confirmation is pushed before its command is answered.
        self.pushes.waker.register(context.waker());
        let pushed = self.take_pushed();
        if !pushed.is_empty() {
            return Poll::Ready(LinkEvent::Pushed(pushed));
        }
        if let Some(why) = self.pushes.lock().broken.take() {
            return Poll::Ready(LinkEvent::Broken(why));
        }
        if let Some(why) = self.unavailable.take() {
            return Poll::Ready(LinkEvent::Broken(why));
        }
        if let Some((first, pending)) = self.pipelines.front_mut()
            && let Poll::Ready(result) = pending.as_mut().poll(context)
        {
            let first = *first;
            self.pipelines.pop_front();
            return Poll::Ready(match result {
                Err(error) => broken("publishing", &error),
                Ok(values) => match outcomes(&values) {
                    Ok(outcomes) => {
                        let why = values.iter().find_map(unavailable);
                        self.unavailable = why.map(|why| format!("publishing connection: {why}"));
                        LinkEvent::Published { first, outcomes }
                    }
                    Err(why) => LinkEvent::Broken(why),
                },
            });
        }
        if let Some(pending) = self.questions.front_mut()
            && let Poll::Ready(result) = pending.as_mut().poll(context)
        {
            self.questions.pop_front();
            return Poll::Ready(match result {
                Err(error) => broken("asking", &error),
                Ok(answers) => match answers.iter().find_map(unavailable) {
                    Some(why) => LinkEvent::Broken(format!("asking connection: {why}")),
                    None => LinkEvent::Answered(answers),
                },
            });
        }
        if let Some((_, _, pending)) = &mut self.command
            && let Poll::Ready(result) = pending.as_mut().poll(context)
            && let Some((command, channels, _)) = self.command.take()
        {
            let answer = match result {
                Ok(()) => Answer::Done,
                Err(error) if is_elsewhere(error.code()) => Answer::Elsewhere,
                Err(error) if is_refusal(&error) => {
                    tracing::warn!(%error, "Redis has refused a subscription");
                    Answer::Refused
                }
                Err(error) => return Poll::Ready(broken("subscriber", &error)),
            };
            return Poll::Ready(LinkEvent::Commanded {
                command,
                channels,
                answer,
            });
        }
        Poll::Pending
    }
}

/// Sentinels may be behind, or name one that has not been told yet: it has to say so itself.
async fn check_master(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let role: Value = redis::cmd("ROLE").query_async(connection).await?;
    match &role {
        Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master") => {
            Ok(())
        }
        _ => {
            let what = "the server that the sentinels name is not a master (yet)";
            Err((redis::ErrorKind::Client, what).into())
        }
    }
}

/// Subscribes to or unsubscribes from `names`; done when all are confirmed.
async fn change<T: ToRedisArgs>(
    mut connection: MultiplexedConnection,
    command: Command,
    names: Vec<T>,
    is_sharded: bool,
) -> RedisResult<()> {
    match (command, is_sharded) {
        (Command::Subscribe, false) => connection.subscribe(names).await,
        (Command::Unsubscribe, false) => connection.unsubscribe(names).await,
        (_, true) => {
            // One a command: those of one command would have to be in one slot.
            let name = match command {
                Command::Subscribe => "SSUBSCRIBE",
                Command::Unsubscribe => "SUNSUBSCRIBE",
            };
            let mut pipeline = redis::Pipeline::new();
            for channel in &names {
                pipeline.cmd(name).arg(channel);
            }
            let count = names.len();
            let answers = connection.send_packed_commands(&pipeline, 0, count).await?;
            answers.into_iter().try_for_each(|answer| match answer {
                Value::ServerError(error) => Err(error.into()),
                _ => Ok(()),
            })
        }
    }
}

fn broken(name: &str, error: &RedisError) -> LinkEvent {
    LinkEvent::Broken(format!("{name} connection: {error}"))
}

/// Whether Redis has answered that it will not do this, and would do others.
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOPERM" | "ERR"))
}

/// Whether a server of a cluster has answered that this is for another one, or for nobody yet.
pub(super) fn is_elsewhere(code: Option<&str>) -> bool {
    matches!(code, Some("MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN"))
}

/// Sends a pipeline.
fn send(connection: &MultiplexedConnection, pipeline: redis::Pipeline) -> Pending<Vec<Value>> {
    let mut connection = connection.clone();
    let count = pipeline.len();
    let mut pending: Pending<Vec<Value>> =
        Box::pin(async move { connection.send_packed_commands(&pipeline, 0, count).await });
    // Polled once here, so that it stands in the connection's queue before any later one: the order
    // of sequence numbers is the order in which Redis carries them out.
    match (&mut pending).now_or_never() {
        Some(result) => Box::pin(std::future::ready(result)),
        None => pending,
    }
}

/// Why this server is of no use now, if the answer says so: one that is loading, fenced off, a
/// replica or without our credentials refuses everything, which is the same as being away. Any other
/// error is about what was asked.
fn unavailable(answer: &Value) -> Option<String> {
    const CODES: [&str; 7] = [
        "LOADING",
        "READONLY",
        "MASTERDOWN",
        "NOAUTH",
        "WRONGPASS",
        "UNBLOCKED",
        "NOREPLICAS",
    ];
    match answer {
        Value::ServerError(error) if CODES.contains(&error.code()) => Some(format!("{error:?}")),
        _ => None,
    }
}

/// What became of each publication of a pipeline.
fn outcomes(answers: &[Value]) -> Result<Vec<Outcome>, String> {
    answers
        .iter()
        .map(|answer| match answer {
            Value::ServerError(error) => match unavailable(answer) {
                Some(_) => Ok(Outcome::Unavailable),
                None if error.code() == "NOSCRIPT" => Ok(Outcome::Unknown),
                None if is_elsewhere(Some(error.code())) => Ok(Outcome::Elsewhere),
                None => Ok(Outcome::Refused),
            },
            other => outcome(other).ok_or_else(|| format!("unexpected answer: {other:?}")),
        })
        .collect()
}

/// Pushes of both connections that nobody has looked at yet.
#[derive(Default)]
struct Pushes {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Queue {
    received: VecDeque<PushInfo>,
    bytes: usize,
    broken: Option<String>,
}

impl Pushes {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called by the connection's driver for each push.
    fn put(&self, name: &'static str, push: PushInfo) -> Result<(), redis::aio::SendError> {
        let mut queue = self.lock();
        let result = if push.kind == PushKind::Disconnection {
            queue
                .broken
                .get_or_insert_with(|| format!("{name} connection: closed"));
            Ok(())
        } else {
            let bytes = push.data.iter().map(size_of_value).sum::<usize>();
            if queue.bytes + bytes > REDIS_RECEIVED_BYTES_MAX {
                queue.broken.get_or_insert_with(|| {
                    format!("{name} connection: more than {REDIS_RECEIVED_BYTES_MAX} bytes unread")
                });
                Err(redis::aio::SendError)
            } else {
                queue.bytes += bytes;
                queue.received.push_back(push);
                Ok(())
            }
        };
        drop(queue);
        self.waker.wake();
        result
    }
}

fn size_of_value(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::BulkString(bytes) => bytes.len(),
            Value::SimpleString(text) => text.len(),
            _ => 0,
        }
}
