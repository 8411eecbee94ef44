//! A node without sockets: engines and subscriptions on real shard threads, clients as lists of
//! what they have received. What a shard's loop does with an engine is done here the same way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flux_gateway::engine::{Asker, Engine, EngineMetrics, Event, PublishOptions};
use flux_gateway::protocol::{ClientId, ClientInfo, ErrorCode};
use flux_gateway::pubsub::{
    Appended, ChannelKey, Gathered, MessageRef, Subscribed, Subscriptions, SubscriptionsConfig,
    Unsubscribed, Variant,
};
use flux_runtime::log::LogSlice;
use flux_runtime::mailbox::{WakeSource, Waker, wake_pair};

/// How long a test waits for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Subscribed(String, Result<(), ErrorCode>),
    Published(u32, Result<(), ErrorCode>),
    /// Channel, and the data, or `join`, `leave`.
    Push(String, String),
    /// Unsubscribe push 2500.
    Lost(String),
    Slow,
}

enum Ask {
    Subscribe(u32, String, Variant),
    Unsubscribe(u32, String),
    Publish(u32, u32, String, String),
    Join(String),
}

/// What every client of a shard was told, by slot.
type Log = Arc<Mutex<HashMap<u32, Vec<Told>>>>;

/// One shard's thread.
pub(crate) struct Shard {
    asks: mpsc::Sender<Ask>,
    told: Log,
    paused: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    publishes: AtomicU32,
}

impl Shard {
    /// Runs `engine` on a thread of its own.
    pub(crate) fn spawn(engine: Engine, wake: WakeSource) -> Self {
        let (asks, inbox) = mpsc::channel();
        let told = Log::default();
        let paused = Arc::new(AtomicBool::new(false));
        let (log, is_paused) = (Arc::clone(&told), Arc::clone(&paused));
        let thread = std::thread::spawn(move || {
            let _wake = wake;
            Loop::new(engine, log).run(&inbox, &is_paused);
        });
        Self {
            asks,
            told,
            paused,
            thread: Some(thread),
            publishes: AtomicU32::new(0),
        }
    }

    fn ask(&self, ask: Ask) {
        self.asks.send(ask).expect("the shard runs");
    }

    pub(crate) fn subscribe(&self, slot: u32, channel: &str) {
        self.ask(Ask::Subscribe(slot, channel.to_owned(), Variant::JSON));
    }

    pub(crate) fn subscribe_with_joins(&self, slot: u32, channel: &str) {
        let variant = Variant::JSON_JOIN_LEAVE;
        self.ask(Ask::Subscribe(slot, channel.to_owned(), variant));
    }

    /// Subscribes and waits for the reply.
    pub(crate) fn subscribed(&self, slot: u32, channel: &str) {
        let seen = self.told(slot).len();
        self.subscribe(slot, channel);
        let reply = Told::Subscribed(channel.to_owned(), Ok(()));
        wait_for(&format!("the reply to subscribe {channel}"), || {
            self.told(slot)[seen..].contains(&reply)
        });
    }

    pub(crate) fn unsubscribe(&self, slot: u32, channel: &str) {
        self.ask(Ask::Unsubscribe(slot, channel.to_owned()));
    }

    /// Publishes a number; returns the command's id.
    pub(crate) fn publish(&self, slot: u32, channel: &str, data: u64) -> u32 {
        let id = self.publishes.fetch_add(1, Ordering::Relaxed) + 1;
        let (channel, data) = (channel.to_owned(), data.to_string());
        self.ask(Ask::Publish(slot, id, channel, data));
        id
    }

    /// Publishes and waits for the reply.
    pub(crate) fn published(&self, slot: u32, channel: &str, data: u64) -> Result<(), ErrorCode> {
        let id = self.publish(slot, channel, data);
        let mut answer = None;
        wait_for("the reply to a publish", || {
            answer = self.told(slot).into_iter().find_map(|told| match told {
                Told::Published(of, result) if of == id => Some(result),
                _ => None,
            });
            answer.is_some()
        });
        answer.expect("waited for")
    }

    pub(crate) fn join(&self, channel: &str) {
        self.ask(Ask::Join(channel.to_owned()));
    }

    /// Everything the client was told so far.
    pub(crate) fn told(&self, slot: u32) -> Vec<Told> {
        let log = self.told.lock().expect("nobody panics with it");
        log.get(&slot).cloned().unwrap_or_default()
    }

    /// How many of the things that the client was told are such.
    pub(crate) fn count(&self, slot: u32, is_such: impl Fn(&Told) -> bool) -> usize {
        let log = self.told.lock().expect("nobody panics with it");
        log.get(&slot)
            .map_or(0, |told| told.iter().filter(|told| is_such(told)).count())
    }

    /// How much was pushed to the client from `channel`.
    pub(crate) fn pushes(&self, slot: u32, channel: &str) -> usize {
        self.count(
            slot,
            |told| matches!(told, Told::Push(of, _) if of == channel),
        )
    }

    /// What was pushed to the client from `channel`.
    pub(crate) fn pushed(&self, slot: u32, channel: &str) -> Vec<String> {
        self.told(slot)
            .into_iter()
            .filter_map(|told| match told {
                Told::Push(of, data) if of == channel => Some(data),
                _ => None,
            })
            .collect()
    }

    /// Keeps the shard from taking mail.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.pause(false);
        // Ends the loop.
        self.asks = mpsc::channel().0;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("a shard has panicked");
        }
    }
}

/// What a shard's thread does.
struct Loop {
    engine: Engine,
    subscriptions: Subscriptions,
    log: Log,
}

impl Loop {
    fn new(engine: Engine, log: Log) -> Self {
        Self {
            engine,
            subscriptions: Subscriptions::new(SubscriptionsConfig::default(), Instant::now()),
            log,
        }
    }

    fn run(mut self, inbox: &mpsc::Receiver<Ask>, paused: &AtomicBool) {
        loop {
            let mut is_idle = true;
            loop {
                match inbox.try_recv() {
                    Ok(ask) => self.ask(ask),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
                is_idle = false;
            }
            if !paused.load(Ordering::SeqCst) {
                while !self.subscriptions.is_urgent() {
                    let Some(event) = self.engine.poll() else {
                        break;
                    };
                    self.event(event);
                    is_idle = false;
                }
                self.round();
            }
            self.engine.flush();
            if is_idle && (paused.load(Ordering::SeqCst) || !self.engine.has_mail()) {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Subscribe(slot, channel, variant) => {
                match self
                    .subscriptions
                    .subscribe(slot, &channel, variant, 1, false)
                {
                    Subscribed::Active { .. } => self.tell(slot, Told::Subscribed(channel, Ok(()))),
                    Subscribed::First { key, name } => {
                        self.engine.subscribe(&name, variant, key, None);
                    }
                    Subscribed::Waiting | Subscribed::Recovering { .. } => {}
                    Subscribed::Duplicate => panic!("the test subscribes twice"),
                }
            }
            Ask::Unsubscribe(slot, channel) => {
                if let Unsubscribed::Left(Some(gone)) =
                    self.subscriptions.unsubscribe(slot, &channel)
                {
                    self.engine.unsubscribe(&gone.name, gone.variant, gone.key);
                }
            }
            Ask::Publish(slot, command, channel, data) => {
                let message = MessageRef::data(data.as_bytes());
                let connection = slot.into();
                let asker = Asker {
                    connection,
                    command,
                };
                let options = PublishOptions::default();
                self.engine
                    .publish(&channel, message, &options, Some(asker));
            }
            Ask::Join(channel) => {
                let info = ClientInfo {
                    user: "",
                    client: ClientId::from_random(1),
                    conn_info: b"",
                    chan_info: b"",
                };
                let options = PublishOptions::default();
                self.engine
                    .publish(&channel, MessageRef::Join(info), &options, None);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Subscribed { key, result } => {
                let Some(name) = self.subscriptions.name(key).map(ToString::to_string) else {
                    return;
                };
                let mut waited = Vec::new();
                let mut tell = |slot, _| waited.push(slot);
                match result {
                    Ok(position) => self.subscriptions.confirm(key, position, &mut tell),
                    Err(_) => self.subscriptions.refuse(key, &mut tell),
                }
                for slot in waited {
                    self.tell(slot, Told::Subscribed(name.clone(), result.map(|_| ())));
                }
            }
            Event::Published { asker, result } => {
                let told = Told::Published(asker.command, result.map(|_| ()));
                self.tell(asker.connection as u32, told);
            }
            Event::Delivery {
                key,
                slice,
                whole,
                offset,
            } => {
                let appended = self
                    .subscriptions
                    .append(key, &slice, whole.as_ref(), offset);
                assert_eq!(appended, Appended::Taken, "the engine left something out");
            }
            Event::Lost { key } | Event::Inappropriate { key } => self.lose(key),
            // Nobody asks for these here.
            Event::Recovered { .. }
            | Event::History { .. }
            | Event::Presence { .. }
            | Event::PresenceStats { .. } => {}
        }
    }

    fn lose(&mut self, key: ChannelKey) {
        let mut ended = Vec::new();
        if let Some(name) = self.subscriptions.lose(key, &mut |slot| ended.push(slot)) {
            for slot in ended {
                self.tell(slot, Told::Lost(name.to_string()));
            }
        }
    }

    fn next_to_send(&mut self) -> Option<u32> {
        let prompt = self.subscriptions.next_prompt();
        prompt.or_else(|| self.subscriptions.next_ready())
    }

    fn round(&mut self) {
        let rest = Duration::ZERO;
        self.subscriptions.begin_round(Instant::now(), rest);
        while let Some(slot) = self.next_to_send() {
            let (mut bytes, mut pieces) = (Vec::new(), Vec::<LogSlice>::new());
            let now = Instant::now();
            let gathered = self
                .subscriptions
                .gather(slot, now, rest, &mut bytes, &mut pieces);
            if gathered == Gathered::Nothing {
                continue;
            }
            for piece in pieces {
                bytes.extend_from_slice(piece.as_bytes());
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (payload, after) = frame(rest);
                self.tell(slot, push(payload));
                rest = after;
            }
            self.subscriptions.sent(slot);
        }
        while let Some((slot, _)) = self.subscriptions.next_evicted() {
            self.tell(slot, Told::Slow);
            let engine = &mut self.engine;
            self.subscriptions.close(slot, &mut |gone| {
                engine.unsubscribe(&gone.name, gone.variant, gone.key);
            });
        }
    }

    fn tell(&self, slot: u32, told: Told) {
        let mut log = self.log.lock().expect("nobody panics with it");
        log.entry(slot).or_default().push(told);
    }
}

fn push(payload: &[u8]) -> Told {
    let value: serde_json::Value = serde_json::from_slice(payload).expect("a frame is JSON");
    let push = &value["push"];
    let channel = push["channel"].as_str().expect("a channel").to_owned();
    let kind = ["join", "leave"]
        .into_iter()
        .find(|kind| push.get(kind).is_some());
    let data = kind.map_or_else(|| push["pub"]["data"].to_string(), ToOwned::to_owned);
    Told::Push(channel, data)
}

/// The payload of the first frame, and what follows it.
fn frame(bytes: &[u8]) -> (&[u8], &[u8]) {
    assert_eq!(bytes[0], 0x81, "a whole text frame");
    let (header, len) = match bytes[1] {
        126 => (4, u16::from_be_bytes([bytes[2], bytes[3]]).into()),
        127 => (
            10,
            u64::from_be_bytes(bytes[2..10].try_into().expect("8 bytes")) as usize,
        ),
        len => (2, len.into()),
    };
    (&bytes[header..header + len], &bytes[header + len..])
}

/// Wakers for so many shards.
pub(crate) fn wakes(shards: usize) -> (Vec<Waker>, Vec<WakeSource>) {
    (0..shards)
        .map(|_| wake_pair().expect("an eventfd"))
        .unzip()
}

/// Shards joined by the memory engine, and its counters.
pub(crate) fn memory_node(shards: usize) -> (Vec<Shard>, Vec<Arc<EngineMetrics>>) {
    let (wakers, sources) = wakes(shards);
    Engine::memory(&wakers)
        .0
        .into_iter()
        .zip(sources)
        .map(|(engine, source)| {
            let metrics = Arc::clone(engine.metrics());
            (Shard::spawn(engine, source), metrics)
        })
        .unzip()
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
