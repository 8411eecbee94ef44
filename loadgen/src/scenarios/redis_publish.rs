//! `redis-publish`: what Redis alone takes from a publication to its receipt; open loop.
//!
//! One connection sends the same command again and again, with the next publication's data in
//! place of those that it was given with; others are subscribed, without a gateway in between. It
//! is what `fanout --publish-url` through two gateways over the same Redis is compared with.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use memchr::memmem;
use serde::Serialize;

use super::Scenario;
use super::driver::{Driver, Workload, closed};
use super::window::Measured;
use crate::clients::resp::Values;
use crate::clients::subscriber::{self, Deliveries, Stamp};
use crate::net::{Event, Key, Net};
use crate::options::{Engine, count, positive};
use crate::pace::{self, Pace};
use crate::process::CpuUse;
use crate::record::{Latencies, Summary};

/// After the run, deliveries under way may come within this.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Subscriptions must stand within this.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(10);

/// What Redis alone takes from publish to receipt: a recorded command again and again, no gateway
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where Redis is; it has to answer without a password
    #[arg(long, value_name = "IP:PORT")]
    address: SocketAddr,
    /// A publishing command as it went over the wire, recorded from `fanout` with the same --size
    #[arg(long, value_name = "FILE")]
    command: PathBuf,
    /// The pub/sub channel that it publishes to
    #[arg(long)]
    channel: String,
    #[arg(long, default_value_t = 1, value_parser = count(1..=10_000))]
    subscribers: usize,
    /// Publications per second
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// Bytes of the publication's data
    #[arg(long, default_value_t = 100, value_parser = count(40..=1 << 20))]
    size: usize,
    #[command(flatten)]
    measured: Measured,
    /// Event loop of the load generator [default: ring, or epoll where there is no io_uring]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
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
    template: Template,
    /// The command that subscribes.
    subscribe: Vec<u8>,
    keys: Vec<Key>,
    connections: Vec<Values>,
    subscribed: usize,
    pace: Pace,
    deliveries: Deliveries,
    latencies: Latencies,
    /// By subscriber: the next sequence number due.
    due: Vec<u64>,
    received: u64,
    refused: u64,
}

impl Scenario for Options {
    type Report = Report;

    fn engine(&self) -> Option<Engine> {
        self.engine
    }

    fn run(&self, mut driver: Driver<'_, impl Net>) -> Result<Report> {
        let command = fs::read(&self.command)
            .with_context(|| format!("--command {}", self.command.display()))?;
        let mut run = Run::new(self, Template::new(&command, self.size)?);
        for number in 0..=self.subscribers {
            let key = driver.net.connect(self.address, None, number)?;
            run.keys.push(key);
        }
        let subscribed = driver.wait_until(&mut run, SUBSCRIBE_MAX, |run| {
            run.subscribed == self.subscribers
        })?;
        ensure!(subscribed, "no subscription at {}", self.address);

        driver.net.gather(pace::TICK);
        let started = Instant::now();
        run.pace = Pace::new(started, self.rate);
        let cpu = driver.measure(&mut run, self.measured.window(started))?;
        let latency = run.latencies.summary();
        let published = run.pace.taken();
        let expected = published * self.subscribers as u64;
        driver.wait_until(&mut run, DRAIN_MAX, |run| run.received >= expected)?;
        Ok(Report {
            scenario: "redis-publish",
            subscribers: self.subscribers,
            rate: self.rate,
            size: self.size,
            published,
            refused: run.refused,
            expected,
            received: run.received,
            missing: expected.saturating_sub(run.received),
            latency,
            cpu,
        })
    }
}

impl Run {
    fn new(options: &Options, template: Template) -> Self {
        let (length, channel) = (options.channel.len(), &options.channel);
        Self {
            template,
            subscribe: format!("*2\r\n$9\r\nSUBSCRIBE\r\n${length}\r\n{channel}\r\n").into_bytes(),
            keys: Vec::new(),
            connections: (0..=options.subscribers)
                .map(|_| Values::default())
                .collect(),
            subscribed: 0,
            pace: Pace::new(Instant::now(), options.rate),
            deliveries: Deliveries::new(),
            latencies: Latencies::new(),
            due: vec![0; options.subscribers],
            received: 0,
            refused: 0,
        }
    }

    fn came(&mut self, connection: usize, bytes: &[u8]) -> Result<(), String> {
        let now = Instant::now();
        let mut values = std::mem::take(&mut self.connections[connection]);
        let mut result = Ok(());
        let fed = values.feed(bytes, &mut |value| {
            let taken = match connection {
                PUBLISHER => self.answered(value),
                subscriber => self.pushed(subscriber - 1, value, now),
            };
            result = std::mem::replace(&mut result, Ok(())).and(taken);
        });
        self.connections[connection] = values;
        result?;
        fed.map_err(|why| why.to_string())
    }

    fn answered(&mut self, value: &[u8]) -> Result<(), String> {
        if value.first() != Some(&b'-') {
            return Ok(());
        }
        self.refused += 1;
        let text = String::from_utf8_lossy(&value[..value.len().min(120)]);
        Err(format!("Redis: {}", text.trim()))
    }

    fn pushed(&mut self, subscriber: usize, value: &[u8], now: Instant) -> Result<(), String> {
        let Some(stamp) = self.deliveries.of(value).next() else {
            self.subscribed += 1;
            return Ok(());
        };
        if stamp.sequence >= self.pace.taken() {
            return Err(format!("received what was not sent: {stamp:?}"));
        }
        if stamp.sequence >= self.due[subscriber] {
            self.due[subscriber] = stamp.sequence + 1;
            self.received += 1;
            self.latencies.record(self.pace.at(stamp.sequence), now);
        }
        Ok(())
    }
}

impl Workload for Run {
    fn send_due(&mut self, net: &mut impl Net, now: Instant) -> Option<Instant> {
        while let Some((sequence, _)) = self.pace.take(now) {
            net.send(self.keys[PUBLISHER], self.template.with(sequence));
        }
        Some(self.pace.next_look(now))
    }

    fn on_event(&mut self, net: &mut impl Net, key: Key, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Connected if key.tag != PUBLISHER => net.send(key, &self.subscribe),
            Event::Connected => {}
            Event::Data(bytes) => self.came(key.tag, bytes)?,
            Event::Closed(error) => return Err(closed(error.as_ref())),
        }
        Ok(())
    }

    fn begin_window(&mut self) {
        self.latencies.clear();
    }

    fn progress(&self) -> String {
        format!("{} deliveries", self.received)
    }
}

impl super::Report for Report {
    fn complete(&self) -> bool {
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
