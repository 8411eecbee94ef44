//! `echo` and `relay`: messages that come back. Closed loop (each connection sends when
//! its last message has returned) or open loop (`--rate`: messages are sent when they are
//! due, and latency counts from then). `relay` is the same through a balancer, over
//! WebSocket or plain TCP; the CPU time is then the balancer's.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::Stop;
use super::open::{Member, Opening, check_descriptors, open};
use super::window::Times;
use crate::clients::link::{Link, LinkEvent};
use crate::clients::websocket::{self, BINARY, CLOSE, PING, PONG, TEXT};
use crate::net::{Event, Key, Net};
use crate::pace::{self, Pace};
use crate::process::CpuUse;
use crate::record::{Latencies, Summary};
use crate::report::Output;
use crate::target::Target;

/// After the run, messages still under way may return within this.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Options of `echo` and `relay`.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) scenario: &'static str,
    pub(crate) url: String,
    pub(crate) connections: usize,
    pub(crate) size: usize,
    pub(crate) times: Times,
    /// Messages per second over all connections; `None`: closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) server_pids: Vec<u32>,
}

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
    closed_loop: bool,
    sending: bool,
    latencies: Latencies,
    messages: u64,
    error: Option<String>,
}

pub(crate) fn run(
    mut net: impl Net,
    options: &Options,
    output: &Output,
    stop: &Stop,
) -> Result<Report> {
    check_descriptors(options.connections)?;
    let target = Target::parse(&options.url)?;
    let opening = Opening {
        count: options.connections,
        rate: None,
        timeout: Duration::from_secs(10),
        close_when_open: false,
    };
    let path = |number: usize| target.path_with("sid", &format!("echo-{number}"));
    let members = open(
        &mut net,
        |_| &target,
        &opening,
        path,
        output,
        stop,
        &mut |_, _, _| {},
    )?
    .all()?;
    let mut run = Run::new(target.raw_tcp, options, members);

    let started = Instant::now();
    let mut window = options.times.window(started, &options.server_pids);
    let mut pace = options.rate.map(|rate| Pace::new(started, rate));
    let mut next = 0;
    if pace.is_some() {
        net.gather(pace::TICK);
    }
    if run.closed_loop {
        for index in 0..run.echoers.len() {
            run.send(&mut net, index, Instant::now());
        }
    }
    loop {
        let now = Instant::now();
        if window.begins(now)? {
            run.latencies.clear();
            run.messages = 0;
        }
        if window.is_over(now) || stop.requested() || run.error.is_some() {
            break;
        }
        if let Some(pace) = &mut pace {
            while let Some(intended) = pace.take(now) {
                run.send(&mut net, next, intended);
                next = (next + 1) % run.echoers.len();
            }
        }
        output.progress(now, || {
            format!(
                "{:.1} s, {} messages",
                (now - started).as_secs_f64(),
                run.messages
            )
        });
        let wake = window.next_at();
        let wake = pace
            .as_ref()
            .map_or(wake, |pace| pace.next_look(now).min(wake));
        net.turn(Some(wake), &mut |net, key, event| {
            run.on_event(net, key, event);
        })?;
    }
    if let Some(error) = &run.error {
        bail!("{error}");
    }
    let messages = run.messages;
    let cpu = window.finish(Instant::now())?;
    let missing = run.drain(&mut net)?;
    if let Some(error) = run.error {
        bail!("{error}");
    }
    Ok(Report {
        scenario: options.scenario,
        url: options.url.clone(),
        connections: options.connections,
        size: options.size,
        r#loop: if run.closed_loop { "closed" } else { "open" },
        messages,
        messages_per_s: messages as f64 / cpu.window_s,
        messages_per_cpu_s: cpu.per_server_cpu_s(messages),
        missing,
        latency: run.latencies.summary(),
        cpu,
    })
}

impl Run {
    fn new(raw: bool, options: &Options, members: Vec<Member>) -> Self {
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
            closed_loop: options.rate.is_none(),
            sending: true,
            latencies: Latencies::new(),
            messages: 0,
            error: None,
        }
    }

    fn send(&mut self, net: &mut impl Net, index: usize, intended: Instant) {
        let echoer = &mut self.echoers[index];
        echoer.waiting.push_back(intended);
        net.send(echoer.key, &self.message);
    }

    fn on_event(&mut self, net: &mut impl Net, key: Key, event: Event<'_>) {
        match event {
            Event::Connected => {}
            Event::Closed(error) => {
                self.error.get_or_insert(format!(
                    "the server closed connection {}: {error:?}",
                    key.tag
                ));
            }
            Event::Data(bytes) => {
                let now = Instant::now();
                let returned = match self.returned(net, key, bytes) {
                    Ok(returned) => returned,
                    Err(what) => {
                        self.error
                            .get_or_insert(format!("connection {}: {what}", key.tag));
                        return;
                    }
                };
                for _ in 0..returned {
                    let Some(intended) = self.echoers[key.tag].waiting.pop_front() else {
                        self.error.get_or_insert(format!(
                            "connection {}: more came back than was sent",
                            key.tag
                        ));
                        return;
                    };
                    self.latencies.record(intended, now);
                    self.messages += 1;
                    if self.closed_loop && self.sending {
                        self.send(net, key.tag, now);
                    }
                }
            }
        }
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

    /// Waits for what is under way; returns how much of it did not come.
    fn drain(&mut self, net: &mut impl Net) -> Result<u64> {
        self.sending = false;
        let until = Instant::now() + DRAIN_MAX;
        // What comes from here on is outside of the window: counted nowhere.
        let latencies = self.latencies.clone();
        while self.error.is_none() && Instant::now() < until && self.waiting() > 0 {
            net.turn(Some(until), &mut |net, key, event| {
                self.on_event(net, key, event);
            })?;
        }
        self.latencies = latencies;
        Ok(self.waiting())
    }

    fn waiting(&self) -> u64 {
        self.echoers
            .iter()
            .map(|echoer| echoer.waiting.len() as u64)
            .sum()
    }
}

impl Report {
    pub(crate) fn complete(&self) -> bool {
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
