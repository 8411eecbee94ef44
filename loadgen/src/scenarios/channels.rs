//! `channels`: what very many channels cost, each with one subscriber: a few connections subscribe to all of them,
//! one more publishes to one after the other at an even rate. Every publication has to arrive, once.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::Stop;
use super::crowd::{Member, gather};
use super::window::Times;
use crate::clients::centrifuge;
use crate::clients::link::LinkEvent;
use crate::clients::pubsub::{Protocol, Role};
use crate::clients::websocket::{self, Frame, PING, PONG, TEXT};
use crate::net::{Event, Key, Net};
use crate::pace::{self, Pace};
use crate::process::{self, CpuUse, Memory};
use crate::record::{Latencies, Summary};
use crate::report::Output;
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
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    connections: u64,
    /// Publications per second
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    #[command(flatten)]
    times: Times,
    /// Process whose memory and CPU time count
    #[arg(long, value_name = "PID")]
    server_pid: u32,
    /// Report as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `channels` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    url: String,
    channels: u64,
    connections: u64,
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

impl Report {
    pub(crate) fn complete(&self) -> bool {
        self.missing == 0
    }
}

#[derive(Deserialize)]
struct Data {
    n: u64,
}

struct Run {
    members: Vec<Member>,
    /// Subscriptions asked for and answered, by connection.
    asked: Vec<u64>,
    answered: Vec<u64>,
    /// By connection: how many it has to subscribe to.
    share: Vec<u64>,
    pace: Pace,
    received: u64,
    refused: u64,
    in_window: u64,
    latencies: Latencies,
    problem: Option<String>,
}

pub(crate) fn run(
    mut net: impl Net,
    options: &Options,
    output: &Output,
    stop: &Stop,
) -> Result<Report> {
    let target = Target::parse(&options.url)?;
    let subscribers = options.connections.min(options.channels);
    let members = gather(
        &mut net,
        Protocol::Centrifuge,
        |_| &target,
        subscribers as usize + 1,
        // What it subscribes to comes later.
        |_| Role::Publisher(Vec::new()),
        output,
        stop,
    )?;
    let before = process::memory(options.server_pid)?;
    let cpu_before = process::cpu_time(options.server_pid)?;
    let mut run = Run {
        members,
        asked: vec![0; subscribers as usize],
        answered: vec![0; subscribers as usize],
        share: (0..subscribers)
            .map(|number| {
                options.channels / subscribers + u64::from(number < options.channels % subscribers)
            })
            .collect(),
        pace: Pace::new(Instant::now(), options.rate as f64),
        received: 0,
        refused: 0,
        in_window: 0,
        latencies: Latencies::new(),
        problem: None,
    };
    for number in 0..subscribers as usize {
        run.subscribe_more(&mut net, number, subscribers);
    }
    let until = Instant::now() + SUBSCRIBE_MAX;
    loop {
        let stand: u64 = run.answered.iter().sum();
        if stand == options.channels {
            break;
        }
        let now = Instant::now();
        if now >= until || stop.requested() {
            bail!(
                "{stand} of {} subscriptions stood when the time was over",
                options.channels
            );
        }
        output.progress(now, || {
            format!("{stand} of {} subscribed", options.channels)
        });
        run.turn(&mut net, until, subscribers)?;
    }
    let subscribe_cpu_s = (process::cpu_time(options.server_pid)? - cpu_before).as_secs_f64();
    let after = process::memory(options.server_pid)?;

    net.gather(pace::TICK);
    let started = Instant::now();
    run.pace = Pace::new(started, options.rate as f64);
    let mut window = options.times.window(started, &[options.server_pid]);
    let publisher = run
        .members
        .last()
        .map(|member| member.key)
        .context("a publisher")?;
    let mut published = 0;
    loop {
        let now = Instant::now();
        if window.begins(now)? {
            run.in_window = 0;
            run.latencies.clear();
        }
        if window.is_over(now) || stop.requested() {
            break;
        }
        let mut commands = String::new();
        while run.pace.take(now).is_some() {
            let channel = published * STRIDE % options.channels;
            if !commands.is_empty() {
                commands.push('\n');
            }
            commands.push_str(&centrifuge::publish(
                published as u32 % 1_000_000_000 + 2,
                &name(channel),
                &format!(r#"{{"n":{published}}}"#),
            ));
            published += 1;
        }
        if !commands.is_empty() {
            send_text(&mut net, publisher, &commands);
        }
        output.progress(now, || format!("{published} published"));
        run.turn(
            &mut net,
            window.next_at().min(run.pace.next_look(now)),
            subscribers,
        )?;
    }
    let publications = run.in_window;
    let cpu = window.finish(Instant::now())?;
    let latency = run.latencies.summary();
    let until = Instant::now() + DRAIN_MAX;
    while run.received + run.refused < published && Instant::now() < until {
        run.turn(&mut net, until, subscribers)?;
    }
    Ok(Report {
        scenario: "channels",
        url: options.url.clone(),
        channels: options.channels,
        connections: subscribers,
        rate: options.rate,
        subscribe_cpu_s,
        resident_per_channel: after.resident.saturating_sub(before.resident) as f64
            / options.channels as f64,
        before,
        after,
        publications,
        publications_per_cpu_s: cpu.per_server_cpu_s(publications),
        refused: run.refused,
        missing: published.saturating_sub(run.received + run.refused),
        latency,
        cpu,
    })
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
    /// The next commands of a connection that has the answers to all before.
    fn subscribe_more(&mut self, net: &mut impl Net, number: usize, subscribers: u64) {
        let more = BATCH.min(self.share[number] - self.asked[number]);
        let commands: Vec<String> = (0..more)
            .map(|offset| {
                let nth = self.asked[number] + offset;
                let channel = nth * subscribers + number as u64;
                centrifuge::subscribe(nth as u32 + 2, &name(channel), None)
            })
            .collect();
        self.asked[number] += more;
        if !commands.is_empty() {
            send_text(net, self.members[number].key, &commands.join("\n"));
        }
    }

    fn turn(&mut self, net: &mut impl Net, until: Instant, subscribers: u64) -> Result<()> {
        net.turn(Some(until), &mut |net, key, event| {
            let result = match event {
                Event::Connected => Ok(()),
                Event::Closed(error) => Err(format!("closed by the server: {error:?}")),
                Event::Data(bytes) => self.on_bytes(net, key, bytes, subscribers),
            };
            if let Err(what) = result {
                self.problem
                    .get_or_insert_with(|| format!("connection {}: {what}", key.tag));
            }
        })?;
        match &self.problem {
            None => Ok(()),
            Some(problem) => bail!("{problem}"),
        }
    }

    fn on_bytes(
        &mut self,
        net: &mut impl Net,
        key: Key,
        bytes: &[u8],
        subscribers: u64,
    ) -> Result<(), String> {
        let now = Instant::now();
        let is_publisher = key.tag as u64 == subscribers;
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
                    match serde_json::from_str::<Data>(publication.data.get()) {
                        Ok(Data { n }) => latencies.record(pace.at(n), now),
                        Err(error) => problem = Some(format!("other data came: {error}")),
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
                self.subscribe_more(net, key.tag, subscribers);
            }
        }
        Ok(())
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
