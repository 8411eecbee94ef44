//! `echo` and `relay`: messages that come back. Closed loop (each connection sends when
//! its last message has returned) or open loop (`--rate`: messages are sent when they are
//! due, and latency counts from then). `relay` is the same through a balancer, over
//! WebSocket or plain TCP; the CPU time is then the balancer's.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::Scenario;
use super::driver::{Driver, Workload, closed};
use super::open::{Member, check_descriptors, open_all};
use super::window::Measured;
use crate::clients::link::{Link, LinkEvent};
use crate::clients::websocket::{self, BINARY, CLOSE, PING, PONG, TEXT};
use crate::net::{Event, Key, Net};
use crate::options::{CONNECTIONS_MAX, Engine, count, positive};
use crate::pace::{self, Turns};
use crate::process::CpuUse;
use crate::record::{Latencies, Summary};
use crate::target::Target;

/// After the run, messages still under way may return within this.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Messages that come back: closed loop, or open loop with --rate
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// ws://HOST:PORT/PATH or tcp://HOST:PORT
    url: String,
    #[arg(long, default_value_t = 100, value_parser = count(1..=CONNECTIONS_MAX))]
    connections: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 20, value_parser = count(1..=16 << 20))]
    size: usize,
    #[command(flatten)]
    measured: Measured,
    /// Event loop of the load generator [default: ring, or epoll where there is no io_uring]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Messages per second over all connections [default: closed loop]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
}

/// Under which of the two names it runs.
pub(crate) struct Named<'o>(pub(crate) &'static str, pub(crate) &'o Options);

/// What `echo` and `relay` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    url: String,
    connections: usize,
    size: usize,
    /// `closed` or `open`.
    r#loop: &'static str,
    messages: u64,
    messages_per_s: f64,
    /// Messages per second of the server's CPU time.
    messages_per_cpu_s: Option<f64>,
    /// Sent but not returned within 5 s of the end.
    missing: u64,
    latency: Summary,
    cpu: CpuUse,
}

struct Echoer {
    key: Key,
    link: Link,
    /// Intended send times of what has not come back.
    waiting: VecDeque<Instant>,
    /// Bytes of the current message that came so far.
    partial: usize,
}

struct Run {
    raw: bool,
    payload: Vec<u8>,
    /// The payload as it is sent: one masked frame, or plain bytes.
    message: Vec<u8>,
    echoers: Vec<Echoer>,
    turns: Turns,
    sending: bool,
    latencies: Latencies,
    messages: u64,
}

impl Scenario for Named<'_> {
    type Report = Report;

    fn engine(&self) -> Option<Engine> {
        self.1.engine
    }

    fn run(&self, mut driver: Driver<'_, impl Net>) -> Result<Report> {
        let Named(scenario, options) = *self;
        check_descriptors(options.connections)?;
        let target = Target::parse(&options.url)?;
        let path = |number: usize| target.path_with("sid", &format!("echo-{number}"));
        let members = open_all(&mut driver, &target, options.connections, path)?;
        let started = Instant::now();
        let mut run = Run::new(target.raw_tcp, options, members, started);
        if options.rate.is_some() {
            driver.net.gather(pace::TICK);
        }
        let cpu = driver.measure(&mut run, options.measured.window(started))?;
        let (messages, latency) = (run.messages, run.latencies.summary());
        run.sending = false;
        driver.wait_until(&mut run, DRAIN_MAX, |run| run.waiting() == 0)?;
        Ok(Report {
            scenario,
            url: options.url.clone(),
            connections: options.connections,
            size: options.size,
            r#loop: match options.rate {
                None => "closed",
                Some(_) => "open",
            },
            messages,
            messages_per_s: messages as f64 / cpu.window_s,
            messages_per_cpu_s: cpu.per_server_cpu_s(messages),
            missing: run.waiting(),
            latency,
            cpu,
        })
    }
}

impl Run {
    fn new(raw: bool, options: &Options, members: Vec<Member>, started: Instant) -> Self {
        let payload: Vec<u8> = (0..options.size).map(|n| b'a' + (n % 26) as u8).collect();
        let mut message = Vec::with_capacity(payload.len() + 14);
        if raw {
            message.extend_from_slice(&payload);
        } else {
            websocket::frame(
                &mut message,
                TEXT,
                fastrand::u32(..).to_be_bytes(),
                &payload,
            );
        }
        let echoers = members
            .into_iter()
            .map(|Member { key, link }| Echoer {
                key,
                link,
                waiting: VecDeque::new(),
                partial: 0,
            })
            .collect();
        Self {
            raw,
            payload,
            message,
            echoers,
            turns: Turns::new(started, options.rate, options.connections),
            sending: true,
            latencies: Latencies::new(),
            messages: 0,
        }
    }

    fn send(&mut self, net: &mut impl Net, index: usize, intended: Instant) {
        let echoer = &mut self.echoers[index];
        echoer.waiting.push_back(intended);
        net.send(echoer.key, &self.message);
    }

    /// How many whole messages these bytes complete; every byte is compared.
    fn returned(
        &mut self,
        net: &mut impl Net,
        key: Key,
        bytes: &[u8],
    ) -> Result<usize, &'static str> {
        let echoer = &mut self.echoers[key.tag];
        let payload = &self.payload;
        let (partial, mut complete) = (&mut echoer.partial, 0);
        if self.raw {
            let mut rest = bytes;
            while !rest.is_empty() {
                let wanted = &payload[*partial..];
                let part = rest.len().min(wanted.len());
                if rest[..part] != wanted[..part] {
                    return Err("other bytes came back than were sent");
                }
                rest = &rest[part..];
                *partial = (*partial + part) % payload.len();
                complete += usize::from(*partial == 0);
            }
            return Ok(complete);
        }
        let mut wrong = None;
        let fed = echoer.link.feed(bytes, &mut |event| {
            let LinkEvent::Frame(frame) = event else {
                return true;
            };
            match frame.opcode {
                TEXT | BINARY | 0 => {
                    if payload.get(*partial..*partial + frame.payload.len()) != Some(frame.payload)
                    {
                        wrong = Some("another message came back than was sent");
                    }
                    *partial += frame.payload.len();
                    if frame.fin {
                        if *partial != payload.len() {
                            wrong = Some("another message came back than was sent");
                        }
                        *partial = 0;
                        complete += 1;
                    }
                }
                PING => {
                    let mut pong = Vec::new();
                    websocket::frame(&mut pong, PONG, [3, 1, 4, 1], frame.payload);
                    net.send(key, &pong);
                }
                CLOSE => wrong = Some("close frame"),
                _ => {}
            }
            wrong.is_none()
        });
        match (fed, wrong) {
            (Ok(()), None) => Ok(complete),
            (_, Some(what)) => Err(what),
            (Err(_), None) => Err("the server broke the WebSocket protocol"),
        }
    }

    fn waiting(&self) -> u64 {
        self.echoers
            .iter()
            .map(|echoer| echoer.waiting.len() as u64)
            .sum()
    }
}

impl Workload for Run {
    fn send_due(&mut self, net: &mut impl Net, now: Instant) -> Option<Instant> {
        while let Some((index, intended)) = self.turns.take(now) {
            self.send(net, index, intended);
        }
        self.turns.next_look(now)
    }

    fn on_event(&mut self, net: &mut impl Net, key: Key, event: Event<'_>) -> Result<(), String> {
        let bytes = match event {
            Event::Connected => return Ok(()),
            Event::Closed(error) => return Err(closed(error.as_ref())),
            Event::Data(bytes) => bytes,
        };
        let now = Instant::now();
        for _ in 0..self.returned(net, key, bytes)? {
            let intended = self.echoers[key.tag].waiting.pop_front();
            let intended = intended.ok_or("more came back than was sent")?;
            self.latencies.record(intended, now);
            self.messages += 1;
            if self.turns.is_closed_loop() && self.sending {
                self.send(net, key.tag, now);
            }
        }
        Ok(())
    }

    fn begin_window(&mut self) {
        self.latencies.clear();
        self.messages = 0;
    }

    fn progress(&self) -> String {
        format!("{} messages", self.messages)
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
            "{}: {} connections, {} bytes, {} loop: {:.0} messages/s, {} missing",
            self.scenario,
            self.connections,
            self.size,
            self.r#loop,
            self.messages_per_s,
            self.missing
        )?;
        if let Some(per_cpu) = self.messages_per_cpu_s {
            writeln!(f, "per server CPU-second: {per_cpu:.0} messages")?;
        }
        writeln!(f, "latency: {}", self.latency)?;
        write!(f, "{}", self.cpu)
    }
}
