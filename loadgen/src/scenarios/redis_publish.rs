//! `redis-publish`: what Redis alone takes from a publication to its receipt; open loop.
//!
//! One connection sends the same command again and again, with the next publication's data in
//! place of those that it was given with; others are subscribed, without a gateway in between. It
//! is what `fanout --publish-url` through two gateways over the same Redis is compared with.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use serde::Serialize;

use super::Stop;
use super::window::Times;
use crate::clients::resp::Values;
use crate::clients::subscriber::{self, Deliveries, Stamp};
use crate::net::{Event, Key, Net};
use crate::pace::Pace;
use crate::process::CpuUse;
use crate::record::{Latencies, Summary};
use crate::report::Output;

/// After the run, deliveries under way may come within this.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Subscriptions must stand within this.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(10);

/// Options of `redis-publish`.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) address: SocketAddr,
    /// A command as it goes over the wire, with a publication's data of [`Self::size`] bytes in it.
    pub(crate) command: Vec<u8>,
    /// The pub/sub channel that the command publishes to.
    pub(crate) channel: String,
    pub(crate) subscribers: usize,
    /// Publications per second.
    pub(crate) rate: f64,
    /// Bytes of each publication's data.
    pub(crate) size: usize,
    pub(crate) times: Times,
    pub(crate) server_pids: Vec<u32>,
}

/// What `redis-publish` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    subscribers: usize,
    rate: f64,
    size: usize,
    /// Over the whole run, warm-up included.
    published: u64,
    /// Answered with an error.
    refused: u64,
    expected: u64,
    received: u64,
    missing: u64,
    /// From the intended publish to the receipt, every delivery of the measured window.
    latency: Summary,
    cpu: CpuUse,
}

/// The command, and where in it the data stand.
struct Template {
    bytes: Vec<u8>,
    data: std::ops::Range<usize>,
}

impl Template {
    fn new(bytes: &[u8], size: usize) -> Result<Self> {
        let stamp = Stamp {
            publisher: 0,
            sequence: 0,
        };
        let sample = subscriber::data(stamp, size);
        let begin = &sample.as_bytes()[..=sample.find(':').unwrap_or_default()];
        let at = memmem::find(bytes, begin)
            .context("the command holds no data of this program's publications")?;
        ensure!(
            at + size <= bytes.len() && bytes[at + size - 2..].starts_with(b"\"}\r\n"),
            "the command's data are not of {size} bytes: record it with the same --size"
        );
        Ok(Self {
            bytes: bytes.to_vec(),
            data: at..at + size,
        })
    }

    fn with(&mut self, sequence: u64) -> &[u8] {
        let stamp = Stamp {
            publisher: 0,
            sequence,
        };
        let data = subscriber::data(stamp, self.data.len());
        self.bytes[self.data.clone()].copy_from_slice(data.as_bytes());
        &self.bytes
    }
}

/// Number of the publishing connection; subscribers follow.
const PUBLISHER: usize = 0;

struct Run {
    connections: Vec<Values>,
    subscribed: usize,
    intended: Vec<Instant>,
    deliveries: Deliveries,
    latencies: Latencies,
    /// By subscriber: the next sequence number due.
    due: Vec<u64>,
    received: u64,
    refused: u64,
    error: Option<String>,
}

impl Run {
    fn on_event(&mut self, key: Key, event: Event<'_>) {
        let bytes = match event {
            Event::Connected => return,
            Event::Data(bytes) => bytes,
            Event::Closed(error) => {
                self.error
                    .get_or_insert(format!("Redis closed connection {}: {error:?}", key.tag));
                return;
            }
        };
        let now = Instant::now();
        let mut values = std::mem::take(&mut self.connections[key.tag]);
        let fed = values.feed(bytes, &mut |value| match key.tag {
            PUBLISHER => {
                if value.first() == Some(&b'-') {
                    self.refused += 1;
                    let text = String::from_utf8_lossy(&value[..value.len().min(120)]);
                    self.error.get_or_insert(format!("Redis: {}", text.trim()));
                }
            }
            subscriber => self.pushed(subscriber - 1, value, now),
        });
        self.connections[key.tag] = values;
        if let Err(why) = fed {
            self.error.get_or_insert(why.to_string());
        }
    }

    fn pushed(&mut self, subscriber: usize, value: &[u8], now: Instant) {
        let Some(stamp) = self.deliveries.of(value).next() else {
            self.subscribed += 1;
            return;
        };
        let Some(intended) = self.intended.get(stamp.sequence as usize) else {
            self.error
                .get_or_insert(format!("received what was not sent: {stamp:?}"));
            return;
        };
        if stamp.sequence >= self.due[subscriber] {
            self.due[subscriber] = stamp.sequence + 1;
            self.received += 1;
            self.latencies.record(*intended, now);
        }
    }
}

pub(crate) fn run(
    mut net: impl Net,
    options: &Options,
    output: &Output,
    stop: &Stop,
) -> Result<Report> {
    let mut template = Template::new(&options.command, options.size)?;
    let mut run = Run {
        connections: Vec::new(),
        subscribed: 0,
        intended: Vec::new(),
        deliveries: Deliveries::new(),
        latencies: Latencies::new(),
        due: vec![0; options.subscribers],
        received: 0,
        refused: 0,
        error: None,
    };
    let mut keys = Vec::new();
    for number in 0..=options.subscribers {
        keys.push(net.connect(options.address, None, number)?);
        run.connections.push(Values::default());
    }
    let (length, channel) = (options.channel.len(), &options.channel);
    let subscribe = format!("*2\r\n$9\r\nSUBSCRIBE\r\n${length}\r\n{channel}\r\n");
    let until = Instant::now() + SUBSCRIBE_MAX;
    while run.subscribed < options.subscribers {
        if Instant::now() >= until || stop.requested() || run.error.is_some() {
            bail!("no subscription at {}: {:?}", options.address, run.error);
        }
        net.turn(Some(until), &mut |net, key, event| {
            if matches!(event, Event::Connected) && key.tag != PUBLISHER {
                net.send(key, subscribe.as_bytes());
            }
            run.on_event(key, event);
        })?;
    }

    let started = Instant::now();
    let mut window = options.times.window(started, &options.server_pids);
    let mut pace = Pace::new(started, options.rate);
    loop {
        let now = Instant::now();
        if window.begins(now)? {
            run.latencies.clear();
        }
        if window.is_over(now) || stop.requested() || run.error.is_some() {
            break;
        }
        while let Some(intended) = pace.take(now) {
            let sequence = run.intended.len() as u64;
            run.intended.push(intended);
            net.send(keys[PUBLISHER], template.with(sequence));
        }
        output.progress(now, || format!("{} deliveries", run.received));
        net.turn(
            Some(pace.next_at().min(window.next_at())),
            &mut |_, key, event| {
                run.on_event(key, event);
            },
        )?;
    }
    if let Some(error) = &run.error {
        bail!("{error}");
    }
    let cpu = window.finish(Instant::now())?;
    let latency = run.latencies.summary();
    let published = run.intended.len() as u64;
    let expected = published * options.subscribers as u64;
    let drain_until = Instant::now() + DRAIN_MAX;
    while run.received < expected && Instant::now() < drain_until && run.error.is_none() {
        net.turn(Some(drain_until), &mut |_, key, event| {
            run.on_event(key, event);
        })?;
    }
    if let Some(error) = run.error {
        bail!("{error}");
    }
    Ok(Report {
        scenario: "redis-publish",
        subscribers: options.subscribers,
        rate: options.rate,
        size: options.size,
        published,
        refused: run.refused,
        expected,
        received: run.received,
        missing: expected.saturating_sub(run.received),
        latency,
        cpu,
    })
}

impl Report {
    pub(crate) fn complete(&self) -> bool {
        self.missing == 0 && self.refused == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "redis-publish: {} subscribers, {}/s of {} bytes: {} of {} received, {} refused",
            self.subscribers, self.rate, self.size, self.received, self.expected, self.refused
        )?;
        writeln!(f, "publish to receipt: {}", self.latency)?;
        write!(f, "{}", self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(sequence: u64, size: usize) -> Vec<u8> {
        let stamp = Stamp {
            publisher: 0,
            sequence,
        };
        let record = format!("FLX1..header..{}", subscriber::data(stamp, size));
        let len = record.len();
        format!("*3\r\n$7\r\nEVALSHA\r\n${len}\r\n{record}\r\n$1\r\n7\r\n").into_bytes()
    }

    #[test]
    fn only_the_data_of_the_recorded_command_change() {
        let mut template = Template::new(&command(123_456, 60), 60).expect("a command");
        for sequence in [0, 7, 99_999_999] {
            assert_eq!(template.with(sequence), command(sequence, 60));
        }
    }

    #[test]
    fn a_command_without_such_data_is_refused_with_the_reason() {
        for (bytes, size) in [
            (&b"*1\r\n$4\r\nPING\r\n"[..], 60),
            (&command(1, 60), 61),
            (&command(1, 60), 59),
            (&command(1, 60), 6_000),
        ] {
            assert!(Template::new(bytes, size).is_err());
        }
    }
}
