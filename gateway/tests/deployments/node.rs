//! A node's engine with one shard, whose events are kept as they come.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flux_gateway::engine::history::{HistoryOptions, RecoveryMode, RecoveryRequest};
use flux_gateway::engine::redis::RedisConfig;
use flux_gateway::engine::{Asker, Engine, EngineMetrics, Event, PublishOptions};
use flux_gateway::protocol::ErrorCode;
use flux_gateway::pubsub::{ChannelKey, KnownEpoch, MessageRef, StreamPosition, Variant};
use flux_registry::{RedisDeployment, RedisSettings};
use flux_runtime::control::Readiness;
use flux_runtime::mailbox::wake_pair;

/// How long a test waits for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A channel of the tests has room for all that they publish.
pub(crate) const HISTORY: HistoryOptions = HistoryOptions {
    size: 100_000,
    ttl: Duration::from_secs(600),
    meta_ttl: Duration::from_secs(3_600),
};

/// What a shard was told. A key is the subscription's number.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Subscribed(u32, Result<Option<StreamPosition>, ErrorCode>),
    Data {
        key: u32,
        number: u64,
        offset: u64,
        at: Instant,
    },
    Lost(u32),
    Published(u32, Result<Option<StreamPosition>, ErrorCode>),
    Recovered(u32, Result<bool, ErrorCode>),
}

type Ask = Box<dyn FnOnce(&mut Engine) + Send>;

pub(crate) struct Node {
    asks: Option<mpsc::Sender<Ask>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    names: AtomicU32,
    /// Numbers begin anew with each.
    pub(crate) run: AtomicU32,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) readiness: Readiness,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

pub(crate) fn deployment(settings: &RedisSettings) -> RedisDeployment {
    let found = settings.deployment().expect("valid settings");
    found.expect("a deployment")
}

impl Node {
    /// Starts one and waits until everything travels through Redis.
    pub(crate) fn joined(deployment: &RedisDeployment) -> Node {
        let (waker, source) = wake_pair().expect("an eventfd");
        let readiness = Readiness::new();
        let config = RedisConfig::with(deployment.clone());
        let (doors, engine, _handle) =
            Engine::redis(config, &[waker], readiness.clone()).expect("a valid deployment");
        let metrics = Arc::clone(engine.metrics());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let control = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(engine.run(async {
                    let _ = stopped.await;
                }));
        });
        let (asks, inbox) = mpsc::channel::<Ask>();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let shard = std::thread::spawn(move || {
            let _source = source;
            for mut engine in doors {
                run(&mut engine, &inbox, &log);
            }
        });
        let node = Node {
            asks: Some(asks),
            seen,
            names: AtomicU32::new(0),
            run: AtomicU32::new(0),
            metrics,
            readiness,
            stop: Some(stop),
            threads: vec![shard, control],
        };
        node.wait_until_up();
        node
    }

    pub(crate) fn wait_until_up(&self) {
        wait_for("everything to travel through Redis", || {
            self.metrics.redis_up.get() == 1 && self.readiness.document().degraded.is_empty()
        });
    }

    fn ask(&self, ask: impl FnOnce(&mut Engine) + Send + 'static) {
        let asks = self.asks.as_ref().expect("it runs");
        asks.send(Box::new(ask)).expect("the shard runs");
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    fn find<T>(&self, what: &str, is_it: impl Fn(&Seen) -> Option<T>) -> T {
        let mut found = None;
        wait_for(what, || {
            let seen = self.seen.lock().expect("nobody panics with it");
            found = seen.iter().rev().find_map(&is_it);
            found.is_some()
        });
        found.expect("waited for")
    }

    /// Subscribes, and again for as long as the answer is an error. Returns the key and the position.
    pub(crate) fn subscribe(
        &self,
        channel: &str,
        history: Option<HistoryOptions>,
    ) -> (u32, Option<StreamPosition>) {
        let until = Instant::now() + PATIENCE;
        loop {
            let index = self.names.fetch_add(1, Ordering::Relaxed);
            let name: Arc<str> = Arc::from(channel);
            let key = ChannelKey {
                index,
                generation: 0,
            };
            self.ask(move |engine| engine.subscribe(&name, Variant::JSON, key, history));
            let answer = self.find("the answer to a subscribe", |seen| match seen {
                Seen::Subscribed(key, result) if *key == index => Some(*result),
                _ => None,
            });
            match answer {
                Ok(position) => return (index, position),
                Err(error) => assert!(Instant::now() < until, "{channel}: {error:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether a subscriber can be given everything behind `from`.
    pub(crate) fn recovers(&self, channel: &str, index: u32, from: StreamPosition) -> bool {
        let command = self.names.fetch_add(1, Ordering::Relaxed);
        let name: Arc<str> = Arc::from(channel);
        self.ask(move |engine| {
            let asker = Asker {
                connection: 0,
                command,
            };
            let key = ChannelKey {
                index,
                generation: 0,
            };
            let request = RecoveryRequest {
                mode: RecoveryMode::Stream,
                offset: from.offset,
                epoch: KnownEpoch::Is(from.epoch),
                publications_max: 300,
            };
            engine.recover(&name, key, request, HISTORY, asker);
        });
        let answer = self.find("the answer to a recovery", |seen| match seen {
            Seen::Recovered(of, result) if *of == command => Some(*result),
            _ => None,
        });
        answer.expect("an answer")
    }

    /// Publishes a number once; the same number again in this run has the same result.
    pub(crate) fn publish(
        &self,
        channel: &str,
        number: u64,
        history: Option<HistoryOptions>,
    ) -> Result<Option<StreamPosition>, ErrorCode> {
        let command = self.names.fetch_add(1, Ordering::Relaxed);
        let name = channel.to_owned();
        let run = self.run.load(Ordering::Relaxed);
        self.ask(move |engine| {
            let (data, idempotency_key) = (number.to_string(), format!("{run}.{number}"));
            let options = PublishOptions {
                history,
                idempotency_key: if history.is_some() {
                    &idempotency_key
                } else {
                    ""
                },
                ..PublishOptions::default()
            };
            let asker = Asker {
                connection: 0,
                command,
            };
            let message = MessageRef::data(data.as_bytes());
            engine.publish(&name, message, &options, Some(asker));
        });
        self.find("the answer to a publish", |seen| match seen {
            Seen::Published(of, result) if *of == command => Some(*result),
            _ => None,
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.asks = None;
        self.stop = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("an engine has panicked");
            }
        }
    }
}

fn run(engine: &mut Engine, inbox: &mpsc::Receiver<Ask>, log: &Mutex<Vec<Seen>>) {
    loop {
        let mut is_idle = true;
        loop {
            match inbox.try_recv() {
                Ok(ask) => ask(engine),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
            is_idle = false;
        }
        while let Some(event) = engine.poll() {
            is_idle = false;
            if let Some(seen) = seen(event) {
                log.lock().expect("nobody panics with it").push(seen);
            }
        }
        engine.flush();
        if is_idle {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

fn seen(event: Event) -> Option<Seen> {
    Some(match event {
        Event::Subscribed { key, result } => Seen::Subscribed(key.index, result),
        Event::Published { asker, result } => Seen::Published(asker.command, result),
        Event::Lost { key } => Seen::Lost(key.index),
        Event::Recovered { asker, result, .. } => {
            Seen::Recovered(asker.command, result.map(|recovery| recovery.recovered))
        }
        Event::Delivery {
            key, slice, offset, ..
        } => Seen::Data {
            key: key.index,
            number: number(slice.as_bytes()),
            offset,
            at: Instant::now(),
        },
        _ => return None,
    })
}

/// The number in a frame with a publication.
fn number(frame: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(frame);
    let data = text.split_once("\"data\":").expect("a publication").1;
    let digits = data
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(data.len());
    data[..digits].parse().expect("a number")
}

/// Polls until it is so.
///
/// # Panics
/// When it does not come true in time.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends threads that look at it, also when the test fails.
pub(crate) struct Ending<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
