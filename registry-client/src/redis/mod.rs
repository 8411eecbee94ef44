//! Redis as the registry's store: four keys, four scripts, one connection per task.
//!
//! | key | what |
//! |---|---|
//! | `PREFIX:nodes` | hash: id -> [`crate::NodeRecord`] as JSON |
//! | `PREFIX:deadlines` | sorted set: id -> end of its lease, Redis TIME in milliseconds |
//! | `PREFIX:version` | counter of the changes that routers act on |
//! | `PREFIX:departed` | hash: id -> [`crate::Departure`] as JSON |
//! | `PREFIX:events` | pub/sub channel that says that something changed |

mod client;
mod deployment;
mod locate;
mod place;
mod settings;
mod slots;

pub use client::{
    ClientCertificate, RedisLogin, local_ip_towards, redis_client, tls_without_authorities,
};
pub use deployment::{RedisDeployment, SentinelDeployment};
pub use locate::{ClusterLocator, SentinelLocator, client_at};
pub use settings::{RedisSettings, RedisTls};
pub use slots::{ClusterSlots, Endpoint, SLOTS, slot_of};

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Value};
use tokio::sync::Notify;
use tokio::time::timeout;

use self::place::{Place, Way};
use crate::error::{ConfigError, RegistryError};
use crate::lease::{Reply, ServerClock};
use crate::limits;
use crate::membership::{Entry, Reading};
use crate::record::NodeRecord;

const WRITE: &str = concat!(include_str!("common.lua"), include_str!("write.lua"));
const DEREGISTER: &str = concat!(include_str!("common.lua"), include_str!("deregister.lua"));
const READ: &str = concat!(include_str!("common.lua"), include_str!("read.lua"));

/// How often the events connection is asked whether it is still there.
const EVENTS_PING_INTERVAL: Duration = Duration::from_secs(5);
/// Pause before the events connection is made again: first and longest.
const EVENTS_RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What all links of one process share.
#[derive(Debug)]
pub(crate) struct RedisShared {
    place: Place,
    timeout: Duration,
    keys: [String; 4],
    channel: String,
}

impl RedisShared {
    /// What the registry in `deployment` with these names needs. On a cluster a prefix without braces
    /// gets some, so that all keys are in one slot; every process does the same.
    ///
    /// # Errors
    /// When the deployment cannot work, or the keys would not be in one slot of a cluster.
    pub(crate) fn new(
        deployment: &RedisDeployment,
        prefix: &str,
        timeout: Duration,
    ) -> Result<RedisShared, ConfigError> {
        let tagged = match deployment.is_cluster() && !prefix.contains(['{', '}']) {
            true => format!("{{{prefix}}}"),
            false => prefix.to_owned(),
        };
        let key = |name: &str| format!("{tagged}:{name}");
        if deployment.is_cluster()
            && slot_of(key("nodes").as_bytes()) != slot_of(key("events").as_bytes())
        {
            return Err(ConfigError {
                key: "registry.prefix",
                message: format!(
                    "`{prefix}` would spread the registry's keys over a Redis Cluster: its braces are no \
                     hash tag; leave them away, or put a part of it in them, `{{gateway}}`"
                ),
            });
        }
        let place =
            Place::new(deployment, key("nodes").as_bytes(), timeout).map_err(|message| {
                ConfigError {
                    key: "redis",
                    message,
                }
            })?;
        Ok(RedisShared {
            place,
            timeout,
            keys: [
                key("nodes"),
                key("deadlines"),
                key("version"),
                key("departed"),
            ],
            channel: key("events"),
        })
    }
}

/// One connection, made when needed and thrown away at the first error.
pub(crate) struct RedisLink {
    shared: Arc<RedisShared>,
    way: Way,
    connection: Option<MultiplexedConnection>,
    clock: ServerClock,
}

impl RedisLink {
    pub(crate) fn new(shared: Arc<RedisShared>) -> RedisLink {
        let way = Way::new(&shared.place, shared.timeout);
        RedisLink {
            shared,
            way,
            connection: None,
            clock: ServerClock::default(),
        }
    }

    /// Connects if there is no connection; says Redis TIME and our own address on the way to it.
    ///
    /// Cancel-safe: what was not finished is made again.
    pub(crate) async fn prepare(&mut self) -> Result<(Option<IpAddr>, ServerClock), RegistryError> {
        if self.way.is_due() {
            // A master that was replaced while it was cut off goes on answering.
            let before = self.way.endpoint().cloned();
            if self.way.find().await.is_ok() && self.way.endpoint() != before.as_ref() {
                self.connection = None;
            }
        }
        if self.connection.is_none() {
            let made = match timeout(self.shared.timeout * 2, self.connect()).await {
                Ok(Ok(made)) => made,
                Ok(Err(error)) => {
                    self.way.failed(None);
                    return Err(error);
                }
                Err(_) => {
                    self.way.failed(None);
                    return Err(RegistryError::Unreachable("connecting timed out".into()));
                }
            };
            self.connection = Some(made);
            let time = self.query(&redis::cmd("TIME")).await?;
            let now = Instant::now();
            let parts = texts(&time).unwrap_or_default();
            if let [Ok(seconds), Ok(micros)] = parts
                .iter()
                .map(|part| part.parse::<u64>())
                .collect::<Vec<_>>()[..]
            {
                self.clock.set(seconds * 1000 + micros / 1000, now);
            }
        }
        let local = self.way.peer().and_then(|peer| local_ip_towards(peer).ok());
        Ok((local, self.clock))
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, RegistryError> {
        let client = self
            .way
            .client()
            .await
            .map_err(RegistryError::Unreachable)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.shared.timeout))
            .set_response_timeout(Some(self.shared.timeout))
            .set_dns_resolver(self.way.resolver().clone());
        let mut made = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| RegistryError::from_redis(&error))?;
        if self.way.must_be_master() {
            place::check_master(&mut made).await?;
        }
        Ok(made)
    }

    pub(crate) async fn write(
        &mut self,
        record: &NodeRecord,
        register: bool,
        announce: bool,
    ) -> Result<Reply, RegistryError> {
        let (head, tail) = record.to_json_around_generation();
        let mut command = self.script(WRITE);
        command
            .arg(&self.shared.channel)
            .arg(if register { "register" } else { "heartbeat" })
            .arg(&record.id)
            .arg(&record.nonce)
            .arg(record.generation)
            .arg(record.ttl_ms)
            .arg(head)
            .arg(tail)
            .arg(u8::from(announce))
            .arg(limits::RECORD_BYTES_MAX)
            .arg(limits::LISTED_AFTER_END.as_millis() as u64);
        let answer = self.ask(&command).await?;
        let answer = texts(&answer).unwrap_or_default();
        match &answer[..] {
            [status, generation, now] => {
                let generation: u64 = generation.parse().map_err(|_| garbled("generation"))?;
                self.told(now)?;
                match status.as_str() {
                    "ok" => Ok(Reply::Held { generation }),
                    "fenced" => Ok(Reply::Fenced { by: generation }),
                    _ => Err(garbled("status")),
                }
            }
            _ => Err(garbled("answer")),
        }
    }

    pub(crate) async fn deregister(
        &mut self,
        record: &NodeRecord,
        reason: &str,
    ) -> Result<Reply, RegistryError> {
        let mut command = self.script(DEREGISTER);
        command
            .arg(&self.shared.channel)
            .arg(&record.id)
            .arg(&record.nonce)
            .arg(serde_json::to_string(reason).unwrap_or_else(|_| "\"\"".into()))
            .arg(record.addr.to_string())
            .arg(limits::RECORD_BYTES_MAX)
            .arg(limits::LISTED_AFTER_END.as_millis() as u64)
            .arg(limits::DEPARTED_MAX);
        self.ask(&command).await?;
        Ok(Reply::Left)
    }

    pub(crate) async fn read(&mut self) -> Result<Reading, RegistryError> {
        let mut command = self.script(READ);
        command
            .arg(limits::READ_ENTRIES_MAX)
            .arg(limits::RECORD_BYTES_MAX)
            .arg(limits::ID_BYTES_MAX)
            .arg(limits::READ_BYTES_MAX)
            .arg(limits::DEPARTED_MAX);
        let answer = self.ask(&command).await?;
        reading(answer).ok_or_else(|| garbled("answer"))
    }

    fn script(&self, source: &'static str) -> redis::Cmd {
        // EVAL and not EVALSHA: one round trip that cannot miss after a restart or a failover.
        let mut command = redis::cmd("EVAL");
        command.arg(source).arg(self.shared.keys.len());
        for key in &self.shared.keys {
            command.arg(key);
        }
        command
    }

    async fn ask(&mut self, command: &redis::Cmd) -> Result<Value, RegistryError> {
        self.prepare().await?;
        let answer = self.query(command).await;
        if !self.way.was_redirected() {
            return answer;
        }
        // Not carried out there: once more where it belongs.
        self.prepare().await?;
        self.query(command).await
    }

    async fn query(&mut self, command: &redis::Cmd) -> Result<Value, RegistryError> {
        // Taken out and only put back after success: an error, a timeout and a cancellation all end the
        // connection, since what comes on it next cannot be known.
        let Some(mut connection) = self.connection.take() else {
            return Err(RegistryError::Unreachable("not connected".into()));
        };
        let must_ask = self.way.must_ask();
        let asking = async {
            if !must_ask {
                return command.query_async::<Value>(&mut connection).await;
            }
            let mut commands = redis::pipe();
            commands.cmd("ASKING").ignore().add_command(command.clone());
            let (answer,) = commands.query_async(&mut connection).await?;
            Ok(answer)
        };
        match timeout(self.shared.timeout, asking).await {
            Ok(Ok(value)) => {
                self.connection = Some(connection);
                Ok(value)
            }
            Ok(Err(error)) => {
                self.way.failed(Some(&error));
                Err(RegistryError::from_redis(&error))
            }
            Err(_) => {
                self.way.failed(None);
                Err(RegistryError::Unreachable(format!(
                    "no answer within {:?}",
                    self.shared.timeout
                )))
            }
        }
    }

    fn told(&mut self, now_ms: &str) -> Result<(), RegistryError> {
        let now_ms = now_ms.parse().map_err(|_| garbled("time"))?;
        self.clock.set(now_ms, Instant::now());
        Ok(())
    }

    pub(crate) fn clock(&self) -> ServerClock {
        self.clock
    }
}

/// Wakes `changed` whenever the registry announces a change. Runs until it is dropped.
pub(crate) async fn listen(shared: Arc<RedisShared>, changed: Arc<Notify>) {
    let mut pause = EVENTS_RETRY.0;
    let mut way = Way::new(&shared.place, shared.timeout);
    loop {
        let connecting = async {
            let client = way.client().await.ok()?;
            let client = way.resolver().resolved(&client).await.ok()?;
            let mut events = client.get_async_pubsub().await.ok()?;
            events.subscribe(&shared.channel).await.ok()?;
            Some(events)
        };
        if let Ok(Some(events)) = timeout(shared.timeout * 2, connecting).await {
            pause = EVENTS_RETRY.0;
            // What happened while nobody listened.
            changed.notify_one();
            let (mut asking, mut messages) = events.split();
            let mut ping = tokio::time::interval(EVENTS_PING_INTERVAL);
            loop {
                tokio::select! {
                    message = messages.next() => match message {
                        Some(_) => changed.notify_one(),
                        None => break,
                    },
                    _ = ping.tick() => {
                        let before = way.endpoint().cloned();
                        if way.is_due() && way.find().await.is_ok() && way.endpoint() != before.as_ref() {
                            break;
                        }
                        if !matches!(timeout(shared.timeout, asking.ping::<Value>()).await, Ok(Ok(_))) {
                            break;
                        }
                    }
                }
            }
        }
        way.failed(None);
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        pause = (pause * 2).min(EVENTS_RETRY.1);
    }
}

fn garbled(what: &str) -> RegistryError {
    RegistryError::Refused(format!(
        "the registry's {what} is not what the script returns"
    ))
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => values
            .iter()
            .map(|value| String::from_utf8(bytes(value.clone())?).ok())
            .collect(),
        _ => None,
    }
}

fn reading(answer: Value) -> Option<Reading> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [
        now,
        version,
        refused,
        Value::Array(entries),
        Value::Array(left),
    ] = <[Value; 5]>::try_from(parts).ok()?
    else {
        return None;
    };
    let number = |value: Value| -> Option<u64> {
        let text = String::from_utf8(bytes(value)?).ok()?;
        // The counter is anybody's to overwrite; a score may be fractional or infinite.
        Some(
            text.parse()
                .unwrap_or_else(|_| text.parse::<f64>().map_or(0, |n| n as u64)),
        )
    };
    let mut reading = Reading {
        server_time_ms: number(now)?,
        version: number(version)?,
        refused: number(refused)?,
        ..Reading::default()
    };
    let mut entries = entries.into_iter();
    while let (Some(id), Some(deadline), Some(json)) =
        (entries.next(), entries.next(), entries.next())
    {
        match (
            bytes(id).map(String::from_utf8),
            number(deadline),
            bytes(json),
        ) {
            (Some(Ok(id)), Some(deadline_ms), Some(json)) => reading.entries.push(Entry {
                id,
                deadline_ms,
                json,
            }),
            _ => reading.refused += 1,
        }
    }
    let mut left = left.into_iter();
    while let (Some(id), Some(json)) = (left.next(), left.next()) {
        if let (Some(Ok(id)), Some(json)) = (bytes(id).map(String::from_utf8), bytes(json)) {
            reading.departed.push((id, json));
        }
    }
    Some(reading)
}
