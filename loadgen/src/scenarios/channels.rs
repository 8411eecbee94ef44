//! `channels`: what very many channels cost, each with one subscriber: a few connections subscribe to all of them,
//! one more publishes to one after the other at an even rate. Every publication has to arrive, once.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::Scenario;
use super::crowd::{Member, gather};
use super::driver::{Driver, Workload, closed};
use super::window::Times;
use crate::clients::centrifuge;
use crate::clients::link::LinkEvent;
use crate::clients::pubsub::{Protocol, Role};
use crate::clients::websocket::{self, Frame, PING, PONG, TEXT};
use crate::net::{Event, Key, Net};
use crate::options::{Engine, count};
use crate::pace::{self, Pace};
use crate::process::{self, CpuUse, Memory};
use crate::record::{Latencies, Summary};
use crate::target::Target;

/// Commands of one frame.
const BATCH: u64 = 200;
/// All subscriptions must stand within this.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(120);
/// What is under way at the end must have come within this.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Apart from each other in the list of channels, so that neighbours in memory do not follow each other: coprime to
/// every number of channels that a power of ten is.
const STRIDE: u64 = 7_919;

/// What very many channels cost, each with one subscriber: memory, and CPU time of a publication
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// ws://HOST:PORT/PATH
    url: String,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    channels: u64,
    /// Connections that the subscriptions are spread over
    #[arg(long, default_value_t = 8, value_parser = count(1..=1000))]
    connections: usize,
    /// Publications per second
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    #[command(flatten)]
    times: Times,
    /// Process whose memory and CPU time count
    #[arg(long, value_name = "PID")]
    server_pid: u32,
    /// Event loop of the load generator [default: ring, or epoll where there is no io_uring]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
}

/// What `channels` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    url: String,
    channels: u64,
    connections: usize,
    rate: u64,
    /// CPU seconds of the server until all subscriptions stood.
    subscribe_cpu_s: f64,
    resident_per_channel: f64,
    before: Memory,
    after: Memory,
    publications: u64,
    publications_per_cpu_s: Option<f64>,
    /// Publications that the server would not take.
    refused: u64,
    missing: u64,
    latency: Summary,
    cpu: CpuUse,
}

#[derive(Debug, Deserialize)]
struct Data {
    n: u64,
}

struct Run {
    members: Vec<Member>,
    channels: u64,
    /// Connections that subscribe; the one behind them publishes.
    subscribers: usize,
    /// Subscriptions asked for and answered, by connection.
    asked: Vec<u64>,
    answered: Vec<u64>,
    /// By connection: how many it has to subscribe to.
    share: Vec<u64>,
    /// Of the publications; `None`: all are still subscribing.
    pace: Option<Pace>,
    received: u64,
    refused: u64,
    in_window: u64,
    latencies: Latencies,
}

impl Scenario for Options {
    type Report = Report;

    fn engine(&self) -> Option<Engine> {
        self.engine
    }

    fn run(&self, mut driver: Driver<'_, impl Net>) -> Result<Report> {
        let target = Target::parse(&self.url)?;
        let subscribers = self.connections.min(self.channels as usize);
        // What each subscribes to comes later.
        let role = |_| Role::Publisher(Vec::new());
        let protocol = Protocol::Centrifuge;
        let members = gather(&mut driver, protocol, |_| &target, subscribers + 1, role)?;
        let before = process::memory(self.server_pid)?;
        let cpu_before = process::cpu_time(self.server_pid)?;
        let mut run = Run::new(members, self.channels);
        for number in 0..subscribers {
            run.subscribe_more(&mut driver.net, number);
        }
        let all_stand = |run: &Run| run.stand() == self.channels;
        ensure!(
            driver.wait_until(&mut run, SUBSCRIBE_MAX, all_stand)?,
            "{} of {} subscriptions stood when the time was over",
            run.stand(),
            self.channels
        );
        let subscribe_cpu_s = (process::cpu_time(self.server_pid)? - cpu_before).as_secs_f64();
        let after = process::memory(self.server_pid)?;

        driver.net.gather(pace::TICK);
        let started = Instant::now();
        run.pace = Some(Pace::new(started, self.rate as f64));
        let cpu = driver.measure(&mut run, self.times.window(started, &[self.server_pid]))?;
        let (publications, latency) = (run.in_window, run.latencies.summary());
        driver.wait_until(&mut run, DRAIN_MAX, |run| run.under_way() == 0)?;
        Ok(Report {
            scenario: "channels",
            url: self.url.clone(),
            channels: self.channels,
            connections: subscribers,
            rate: self.rate,
            subscribe_cpu_s,
            resident_per_channel: after.resident.saturating_sub(before.resident) as f64
                / self.channels as f64,
            before,
            after,
            publications,
            publications_per_cpu_s: cpu.per_server_cpu_s(publications),
            refused: run.refused,
            missing: run.under_way(),
            latency,
            cpu,
        })
    }
}

/// Sends one masked text frame.
fn send_text(net: &mut impl Net, key: Key, text: &str) {
    let mut bytes = Vec::with_capacity(text.len() + 14);
    websocket::frame(&mut bytes, TEXT, [0x5a, 0x17, 0xc3, 0x2d], text.as_bytes());
    net.send(key, &bytes);
}

/// Answers pings, of WebSocket and of Centrifuge; true when the frame was one.
fn answer_ping(net: &mut impl Net, key: Key, frame: &Frame<'_>) -> bool {
    match frame.opcode {
        PING => {
            let mut pong = Vec::new();
            websocket::frame(&mut pong, PONG, [3, 1, 4, 1], frame.payload);
            net.send(key, &pong);
            true
        }
        TEXT if frame.payload == centrifuge::EMPTY.as_bytes() => {
            send_text(net, key, centrifuge::EMPTY);
            true
        }
        _ => false,
    }
}

fn name(channel: u64) -> String {
    format!("size-{channel}")
}

impl Run {
    fn new(members: Vec<Member>, channels: u64) -> Self {
        let subscribers = members.len() - 1;
        let (each, more) = (channels / subscribers as u64, channels % subscribers as u64);
        Self {
            members,
            channels,
            subscribers,
            asked: vec![0; subscribers],
            answered: vec![0; subscribers],
            share: (0..subscribers as u64)
                .map(|number| each + u64::from(number < more))
                .collect(),
            pace: None,
            received: 0,
            refused: 0,
            in_window: 0,
            latencies: Latencies::new(),
        }
    }

    /// Subscriptions that stand.
    fn stand(&self) -> u64 {
        self.answered.iter().sum()
    }

    /// Publications of which nothing has come yet.
    fn under_way(&self) -> u64 {
        let published = self.pace.as_ref().map_or(0, Pace::taken);
        published.saturating_sub(self.received + self.refused)
    }

    /// The next commands of a connection that has the answers to all before.
    fn subscribe_more(&mut self, net: &mut impl Net, number: usize) {
        let more = BATCH.min(self.share[number] - self.asked[number]);
        let commands: Vec<String> = (0..more)
            .map(|offset| {
                let nth = self.asked[number] + offset;
                let channel = nth * self.subscribers as u64 + number as u64;
                centrifuge::subscribe(nth as u32 + 2, &name(channel), None)
            })
            .collect();
        self.asked[number] += more;
        if !commands.is_empty() {
            send_text(net, self.members[number].key, &commands.join("\n"));
        }
    }

    fn on_bytes(&mut self, net: &mut impl Net, key: Key, bytes: &[u8]) -> Result<(), String> {
        let now = Instant::now();
        let is_publisher = key.tag == self.subscribers;
        let (pace, mut answered, mut pushed, mut refused) = (&self.pace, 0, 0, 0);
        let mut problem = None;
        let latencies = &mut self.latencies;
        let fed = self.members[key.tag].link.feed(bytes, &mut |event| {
            let LinkEvent::Frame(frame) = event else {
                return true;
            };
            if answer_ping(net, key, &frame) {
                return true;
            }
            for line in centrifuge::lines(frame.payload) {
                let line = match line {
                    Ok(line) => line,
                    Err(error) => {
                        problem = Some(format!("not a reply: {error}"));
                        return false;
                    }
                };
                if line.error.is_some() && is_publisher {
                    refused += 1;
                } else if let Some(error) = line.error {
                    problem = Some(format!("error {} {}", error.code, error.message));
                }
                answered += u64::from(line.subscribe.is_some());
                if let Some(publication) = line.push.and_then(|push| push.publication) {
                    match (serde_json::from_str::<Data>(publication.data.get()), pace) {
                        (Ok(Data { n }), Some(pace)) => latencies.record(pace.at(n), now),
                        other => problem = Some(format!("other data came: {:?}", other.0)),
                    }
                    pushed += 1;
                }
            }
            problem.is_none()
        });
        fed.map_err(|failure| failure.to_string())?;
        if let Some(problem) = problem {
            return Err(problem);
        }
        self.received += pushed;
        self.in_window += pushed;
        self.refused += refused;
        if answered > 0 {
            self.answered[key.tag] += answered;
            if self.answered[key.tag] == self.asked[key.tag] {
                self.subscribe_more(net, key.tag);
            }
        }
        Ok(())
    }
}

impl Workload for Run {
    fn send_due(&mut self, net: &mut impl Net, now: Instant) -> Option<Instant> {
        let pace = self.pace.as_mut()?;
        let mut commands = String::new();
        while let Some((number, _)) = pace.take(now) {
            if !commands.is_empty() {
                commands.push('\n');
            }
            commands.push_str(&centrifuge::publish(
                number as u32 % 1_000_000_000 + 2,
                &name(number * STRIDE % self.channels),
                &format!(r#"{{"n":{number}}}"#),
            ));
        }
        if !commands.is_empty() {
            send_text(net, self.members[self.subscribers].key, &commands);
        }
        Some(pace.next_look(now))
    }

    fn on_event(&mut self, net: &mut impl Net, key: Key, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Connected => Ok(()),
            Event::Closed(error) => Err(closed(error.as_ref())),
            Event::Data(bytes) => self.on_bytes(net, key, bytes),
        }
    }

    fn begin_window(&mut self) {
        self.in_window = 0;
        self.latencies.clear();
    }

    fn progress(&self) -> String {
        match &self.pace {
            None => format!("{} of {} subscribed", self.stand(), self.channels),
            Some(pace) => format!("{} published", pace.taken()),
        }
    }
}

impl super::Report for Report {
    fn complete(&self) -> bool {
        self.missing == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "channels: {} over {} connections: {:.0} bytes of resident memory each, subscribed in {:.2} CPU-seconds",
            self.channels, self.connections, self.resident_per_channel, self.subscribe_cpu_s
        )?;
        writeln!(
            f,
            "{} publications a second, {} refused, {} missing",
            self.rate, self.refused, self.missing
        )?;
        if let Some(per_cpu) = self.publications_per_cpu_s {
            writeln!(f, "per server CPU-second: {per_cpu:.0} publications")?;
        }
        writeln!(f, "latency: {}", self.latency)?;
        write!(f, "{}", self.cpu)
    }
}
