//! `watch`: live clients through the balancer, and the verdict over what they saw.
//!
//! | file | what |
//! |---|---|
//! | `client` | one client as an SDK behaves (pure) |
//! | `backoff` | its reconnect delay (pure) |
//! | `verdict` | lost, duplicated, reordered, missed while away (pure) |
//! | `closes` | closes by node, code and 5 s slice (pure) |
//! | `summary` | the report |
//! | here | sockets, clock, randomness, pacing of the publications |

mod backoff;
mod client;
mod closes;
mod summary;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use self::client::{Client, Effect};
use self::closes::Closes;
use self::verdict::{At, Beginning, NodeIndex, Receipt, Verdict};
use super::Stop;
use super::open::check_descriptors;
use crate::net::{EpollNet, Event, Key, Net};
use crate::options::{CONNECTIONS_MAX, DURATION_S_MAX, count, positive, seconds};
use crate::pace::Pace;
use crate::process::CpuWindow;
use crate::record::Latencies;
use crate::report::Output;
use crate::target::Target;

pub(crate) use self::summary::Summary;

/// After the last publication: what must have arrived has arrived by then.
const SETTLE: Duration = Duration::from_secs(2);
/// The line of stdin at which every client loses its connection.
const CUT: &str = "cut";
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Live clients through the balancer; the verdict is lost, duplicated, reordered
///
/// Clients behave like a Centrifuge SDK (full-jitter reconnect, resubscribe, pings) and publish in turn.
/// With --json every event is a line; the last line is the summary.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// ws://HOST:PORT/PATH
    url: String,
    /// Clients, each with its own sid
    #[arg(long, default_value_t = 100, value_parser = count(1..=CONNECTIONS_MAX))]
    clients: usize,
    /// Channels that the clients are spread over, each with one client at least
    #[arg(long, default_value_t = 10, value_parser = count(1..=100_000))]
    channels: usize,
    /// Publications per second, all clients together
    #[arg(long, default_value_t = 50.0, value_parser = positive)]
    rate: f64,
    /// Seconds from when all clients are live; SIGINT ends earlier
    #[arg(long, default_value = "3600", value_parser = seconds(1..=DURATION_S_MAX))]
    duration: Duration,
    /// End when stdin closes; each of its lines becomes a `mark` event, and the line `cut` cuts all clients at once
    #[arg(long)]
    stdin: bool,
    /// New connections per second at the start
    #[arg(long, default_value_t = 500.0, value_parser = positive)]
    connect_rate: f64,
    /// Seconds after which publishing starts though not all clients are live
    #[arg(long, default_value = "30", value_parser = seconds(0..=600))]
    ready: Duration,
    /// Seconds that clients who are away at the end may take to come back
    #[arg(long, default_value = "25", value_parser = seconds(0..=600))]
    settle: Duration,
    /// Prefix of the clients' sids (the affinity keys): PREFIX0, PREFIX1, ...
    #[arg(long, default_value = "watch-", value_parser = sid)]
    sid: String,
}

impl Options {
    /// Channels that have a client.
    fn channels(&self) -> usize {
        self.channels.min(self.clients)
    }
}

/// Reads what may stand in a URL as it is.
fn sid(text: &str) -> Result<String, &'static str> {
    match text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
    {
        true => Ok(text.to_owned()),
        false => Err("letters, digits and -_.~ are allowed"),
    }
}

/// What a publication carries.
#[derive(Debug, Deserialize)]
struct Body {
    run: u32,
    n: usize,
}

/// What is known of one client beside its protocol state.
#[derive(Debug, Default, Clone)]
struct Story {
    key: Option<Key>,
    deadline: Option<Instant>,
    first_node: Option<NodeIndex>,
    node: Option<NodeIndex>,
    /// Times that an established subscription was lost.
    losses: u64,
    /// Last byte heard before the loss that is not made good yet.
    away_since: Option<At>,
    longest_gap: Option<Duration>,
    recovered: u64,
}

struct Watch<'a> {
    options: &'a Options,
    target: Target,
    output: &'a Output,
    run: u32,
    started: Instant,
    now: Instant,
    clients: Vec<Client>,
    stories: Vec<Story>,
    deadlines: BTreeSet<(Instant, usize)>,
    nodes: Vec<String>,
    verdict: Verdict,
    closes: Closes,
    latencies: Latencies,
    failed_attempts: BTreeMap<String, u64>,
    ended: u64,
    told: u64,
    foreign: u64,
    skipped: u64,
    live: usize,
    random: fastrand::Rng,
    effects: Vec<Effect>,
}

pub(crate) fn run(options: &Options, output: &Output, stop: &Stop) -> Result<Summary> {
    check_descriptors(options.clients)?;
    let target = Target::parse(&options.url)?;
    let mut net = EpollNet::new()?;
    let input = options.stdin.then(|| read_stdin(&net));
    let cpu = CpuWindow::start(&[], Instant::now())?;
    let mut watch = Watch::new(options, target, output);
    output.event(&json!({
        "event": "start", "at_ms": 0, "unix_ms": unix_ms(), "run": format!("{:08x}", watch.run),
        "clients": options.clients, "channels": options.channels(), "rate": options.rate,
    }));

    let mut input_open = true;
    let mut publishing: Option<Pace> = None;
    let mut next_publisher = 0;
    let mut ready_at = None;
    let mut next_progress = watch.started;
    let mut ending: Option<Instant> = None;
    loop {
        let now = Instant::now();
        watch.now = now;
        if let Some(input) = &input {
            input_open = input_open && watch.marks(&mut net, input);
        }
        if ready_at.is_none()
            && (watch.live == options.clients || now - watch.started >= options.ready)
        {
            ready_at = Some(now);
            publishing = Some(Pace::new(now, options.rate));
            output.event(&json!({"event": "ready", "at_ms": watch.at_ms(), "live": watch.live}));
        }
        let over = stop.requested()
            || !input_open
            || ready_at.is_some_and(|ready| now - ready >= options.duration);
        if over && ending.is_none() {
            ending = Some(now);
            publishing = None;
            output.event(&json!({"event": "ending", "at_ms": watch.at_ms(), "live": watch.live}));
        }
        if let Some(since) = ending {
            let all_back = watch
                .clients
                .iter()
                .all(|client| client.is_live() || client.has_ended());
            let waited = now - since;
            if (waited >= SETTLE && (all_back || ready_at.is_none()))
                || waited >= options.settle.max(SETTLE)
            {
                break;
            }
        }
        if let Some(pace) = &mut publishing {
            while pace.take(now).is_some() {
                watch.publish(&mut net, &mut next_publisher);
            }
        }
        while let Some(&(deadline, index)) = watch
            .deadlines
            .first()
            .filter(|(deadline, _)| *deadline <= now)
        {
            debug_assert_eq!(watch.stories[index].deadline, Some(deadline));
            let random = watch.random.f64();
            watch.clients[index].on_deadline(now, random, &mut watch.effects);
            watch.apply(&mut net, index);
        }
        if now >= next_progress {
            next_progress = now + PROGRESS_EVERY;
            watch.progress();
        }
        let until = [
            watch.deadlines.first().map(|(deadline, _)| *deadline),
            publishing.as_ref().map(Pace::next_at),
            Some(next_progress),
        ];
        net.turn(until.into_iter().flatten().min(), &mut |net, key, event| {
            watch.on_event(net, key, event);
        })?;
    }
    watch.now = Instant::now();
    let cpu = cpu.finish(watch.now)?;
    let lasted = ready_at.map_or(Duration::ZERO, |ready| ending.unwrap_or(watch.now) - ready);
    Ok(watch.summary(lasted, &cpu))
}

impl<'a> Watch<'a> {
    fn new(options: &'a Options, target: Target, output: &'a Output) -> Self {
        let mut random = fastrand::Rng::new();
        let run = random.u32(..);
        let started = Instant::now();
        let pace = Pace::new(started, options.connect_rate);
        let clients: Vec<Client> = (0..options.clients)
            .map(|index| {
                let channel = format!("watch-{run:08x}-{}", index % options.channels());
                Client::new(
                    &target,
                    &format!("{}{index}", options.sid),
                    channel,
                    pace.at(index as u64),
                )
            })
            .collect();
        let mut watch = Self {
            options,
            target,
            output,
            run,
            started,
            now: started,
            stories: vec![Story::default(); clients.len()],
            clients,
            deadlines: BTreeSet::new(),
            nodes: Vec::new(),
            verdict: Verdict::new(options.clients, options.channels()),
            closes: Closes::default(),
            latencies: Latencies::new(),
            failed_attempts: BTreeMap::new(),
            ended: 0,
            told: 0,
            foreign: 0,
            skipped: 0,
            live: 0,
            random,
            effects: Vec::new(),
        };
        for index in 0..watch.clients.len() {
            watch.reschedule(index);
        }
        watch
    }

    fn at(&self) -> At {
        self.now - self.started
    }

    fn at_ms(&self) -> u64 {
        self.at().as_millis() as u64
    }

    fn on_event(&mut self, net: &mut EpollNet, key: Key, event: Event<'_>) {
        let index = key.tag;
        if self.stories[index].key != Some(key) {
            return;
        }
        self.now = Instant::now();
        let random = self.random.f64();
        let client = &mut self.clients[index];
        match event {
            Event::Connected => client.on_connected(&self.target, &mut self.effects),
            Event::Data(bytes) => {
                self.verdict.heard(index, self.now - self.started);
                client.on_data(bytes, self.now, random, &mut self.effects);
            }
            Event::Closed(error) => {
                self.stories[index].key = None;
                client.on_closed(error.as_ref(), self.now, random, &mut self.effects);
            }
        }
        self.apply(net, index);
    }

    /// The next live client in turn publishes to its channel.
    fn publish(&mut self, net: &mut EpollNet, next: &mut usize) {
        let count = self.clients.len();
        let Some(index) = (0..count)
            .map(|step| (*next + step) % count)
            .find(|index| self.clients[*index].is_live())
        else {
            self.skipped += 1;
            return;
        };
        *next = index + 1;
        let Some(node) = self.stories[index].node else {
            return;
        };
        let now = self.at();
        let (number, sequence) =
            self.verdict
                .published(index % self.options.channels(), index as u32, node, now);
        let data = format!(
            r#"{{"run":{},"n":{number},"p":{index},"s":{sequence}}}"#,
            self.run
        );
        self.clients[index].publish(number, &data, &mut self.effects);
        self.apply(net, index);
    }

    /// Does what client `index` wants.
    fn apply(&mut self, net: &mut EpollNet, index: usize) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Connect => {
                    match net.connect(self.target.address, self.target.source(index), index) {
                        Ok(key) => self.stories[index].key = Some(key),
                        Err(error) => {
                            let random = self.random.f64();
                            let mut more = Vec::new();
                            self.clients[index].on_closed(
                                Some(&error),
                                self.now,
                                random,
                                &mut more,
                            );
                            for effect in more {
                                if let Effect::AttemptFailed(kind) = effect {
                                    self.attempt_failed(index, &kind);
                                }
                            }
                        }
                    }
                }
                Effect::Send(bytes) => {
                    if let Some(key) = self.stories[index].key {
                        net.send(key, &bytes);
                    }
                }
                Effect::Close => {
                    if let Some(key) = self.stories[index].key.take() {
                        net.close(key);
                    }
                }
                Effect::Live { node, beginning } => self.live(index, node, beginning),
                Effect::Received(data) => self.received(index, &data),
                Effect::Answered { number, error } => {
                    let channel = index % self.options.channels();
                    match error {
                        None => self
                            .verdict
                            .acknowledged(channel, number, self.now - self.started),
                        Some(_) => self.verdict.refused(channel, number),
                    }
                }
                Effect::Lost { code, reason } => self.lost(index, code, &reason),
                Effect::AttemptFailed(kind) => self.attempt_failed(index, &kind),
                Effect::Ended { code, reason } => {
                    self.ended += 1;
                    self.output.event(&json!({
                        "event": "ended", "at_ms": self.at_ms(), "client": index, "code": code, "reason": reason,
                    }));
                }
            }
        }
        self.reschedule(index);
    }

    fn live(&mut self, index: usize, node: String, beginning: Beginning) {
        let node = self.node_index(node);
        let now = self.at();
        self.live += 1;
        self.verdict.joined(index, node, beginning, now);
        let recovered = beginning == Beginning::Recovered;
        self.told += u64::from(beginning == Beginning::Told);
        let story = &mut self.stories[index];
        story.first_node.get_or_insert(node);
        let before = story.node.replace(node);
        let gap = story
            .away_since
            .take()
            .map(|since| now.saturating_sub(since));
        story.longest_gap = story.longest_gap.max(gap);
        story.recovered += u64::from(recovered);
        self.output.event(&json!({
            "event": "live", "at_ms": self.at_ms(), "client": index, "sid": format!("{}{index}", self.options.sid),
            "node": self.nodes[usize::from(node)], "before": before.map(|before| &self.nodes[usize::from(before)]),
            "gap_ms": gap.map(|gap| gap.as_millis() as u64), "recovered": recovered, "told": beginning == Beginning::Told,
        }));
    }

    fn lost(&mut self, index: usize, code: u16, reason: &str) {
        self.live -= 1;
        let story = &mut self.stories[index];
        story.losses += 1;
        story.away_since = self.verdict.last_heard(index);
        let node = self.clients[index].node().to_owned();
        self.verdict.left(index);
        self.closes.add(&node, code, self.at());
        self.output.event(&json!({
            "event": "lost", "at_ms": self.at_ms(), "client": index, "node": node, "code": code, "reason": reason,
        }));
    }

    fn attempt_failed(&mut self, index: usize, kind: &str) {
        *self.failed_attempts.entry(kind.to_owned()).or_default() += 1;
        self.output.event(&json!({"event": "attempt_failed", "at_ms": self.at_ms(), "client": index, "kind": kind}));
    }

    fn received(&mut self, index: usize, data: &str) {
        match serde_json::from_str::<Body>(data) {
            Ok(body) if body.run == self.run => {
                if let Receipt::InOrder(sent) = self.verdict.received(index, body.n)
                    && self.stories[index].recovered == 0
                {
                    self.latencies
                        .record_duration(self.at().saturating_sub(sent));
                }
            }
            _ => self.foreign += 1,
        }
    }

    fn node_index(&mut self, name: String) -> NodeIndex {
        let position = self
            .nodes
            .iter()
            .position(|known| *known == name)
            .unwrap_or_else(|| {
                self.nodes.push(name);
                self.nodes.len() - 1
            });
        position as NodeIndex
    }

    fn reschedule(&mut self, index: usize) {
        let deadline = self.clients[index].deadline();
        let story = &mut self.stories[index];
        if story.deadline != deadline {
            if let Some(old) = story.deadline {
                self.deadlines.remove(&(old, index));
            }
            if let Some(new) = deadline {
                self.deadlines.insert((new, index));
            }
            story.deadline = deadline;
        }
    }

    fn progress(&self) {
        let counts = self.node_counts(|story| story.node);
        let failed: u64 = self.failed_attempts.values().sum();
        self.output.event(&json!({
            "event": "progress", "at_ms": self.at_ms(), "live": self.live, "nodes": &counts,
            "losses": self.closes.count(), "failed_attempts": failed,
        }));
        self.output.progress(self.now, || {
            format!(
                "{:>5.1} s  {} of {} live {:?}, {} lost connections, {failed} failed attempts",
                self.at().as_secs_f64(),
                self.live,
                self.clients.len(),
                counts,
                self.closes.count()
            )
        });
    }

    /// Live clients by the node that `of` names.
    fn node_counts(&self, of: impl Fn(&Story) -> Option<NodeIndex>) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for (client, story) in self.clients.iter().zip(&self.stories) {
            if let Some(node) = of(story).filter(|_| client.is_live()) {
                *counts
                    .entry(self.nodes[usize::from(node)].as_str())
                    .or_default() += 1;
            }
        }
        counts
    }

    /// Lines from stdin become marks; false once stdin is closed.
    fn marks(&mut self, net: &mut EpollNet, input: &Receiver<Option<String>>) -> bool {
        for line in input.try_iter() {
            let Some(text) = line else { return false };
            self.output.event(
                &json!({"event": "mark", "at_ms": self.at_ms(), "text": text, "live": self.live}),
            );
            if text == CUT {
                self.cut(net);
            }
        }
        true
    }

    /// Every client loses its connection in this moment.
    fn cut(&mut self, net: &mut EpollNet) {
        for index in 0..self.clients.len() {
            if let Some(key) = self.stories[index].key.take() {
                net.close(key);
                let random = self.random.f64();
                self.clients[index].on_closed(None, self.now, random, &mut self.effects);
                self.apply(net, index);
            }
        }
    }
}

/// Lines of stdin, then `None`. The thread ends with stdin or with the process.
fn read_stdin(net: &EpollNet) -> Receiver<Option<String>> {
    let (sender, receiver) = channel();
    let waker = net.waker();
    std::thread::spawn(move || {
        let lines = std::io::stdin()
            .lock()
            .lines()
            .map_while(Result::ok)
            .map(Some);
        for line in lines.chain(std::iter::once(None)) {
            if sender.send(line).is_err() {
                return;
            }
            // A failed wake only delays the mark to the next turn, at most 100 ms later.
            let _ = waker.wake();
        }
    });
    receiver
}

fn unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
