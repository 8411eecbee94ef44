//! `fanout`: publications to many subscribers; open loop. Who hears whom is in `layout`, what is checked of what comes
//! in `receipts`. With slow readers a second part follows in which these are there too, so
//! that what they do to the others is found in one run.

mod layout;
mod receipts;

use std::fmt;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::Scenario;
use super::crowd::{Member, gather};
use super::driver::{Driver, Workload};
use super::open::check_descriptors;
use super::slow::SlowReader;
use super::window::Measured;
use crate::clients::pubsub::Protocol;
use crate::clients::subscriber::{self, Stamp};
use crate::net::{Event, Key, Net};
use crate::options::{CONNECTIONS_MAX, Engine, count, positive};
use crate::pace::{self, Pace};
use crate::process::CpuUse;
use crate::record::Summary;
use crate::target::Target;

use self::layout::{Layout, channel_name};
use self::receipts::Receipts;

/// Slow readers have subscribed within this: each of their answers may take 10 s.
const JOIN_MAX: Duration = Duration::from_secs(30);
/// After the run, deliveries under way may come within this.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Publications to many subscribers; checks order and completeness
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// ws://HOST:PORT/PATH
    url: String,
    /// Where the publishers connect, if not where the subscribers do: another node
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t = Protocol::Centrifuge)]
    protocol: Protocol,
    #[arg(long, default_value_t = 1000, value_parser = count(1..=CONNECTIONS_MAX))]
    subscribers: usize,
    #[arg(long, default_value_t = 1, value_parser = count(1..=10_000))]
    publishers: usize,
    /// Channels that subscribers are spread over and publishers take in turn
    #[arg(long, default_value_t = 1, value_parser = count(1..=CONNECTIONS_MAX))]
    channels: usize,
    /// Channels that each subscriber hears
    #[arg(long, default_value_t = 1, value_parser = count(1..=100_000))]
    per_subscriber: usize,
    /// Subscribers beside these who stop reading; a second part with them follows the one without
    #[arg(long, default_value_t = 0, value_parser = count(0..=1000))]
    slow_readers: usize,
    /// Publications per second, all publishers together
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// Bytes of a publication's data
    #[arg(long, default_value_t = 100, value_parser = count(1..=16 << 20))]
    size: usize,
    #[command(flatten)]
    measured: Measured,
    /// Event loop of the load generator [default: ring, or epoll where there is no io_uring]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
}

impl Options {
    fn layout(&self) -> Layout {
        // No channel without a subscriber.
        let channels = self.channels.min(self.subscribers * self.per_subscriber);
        Layout {
            subscribers: self.subscribers,
            publishers: self.publishers,
            channels,
            per_subscriber: self.per_subscriber.min(channels),
        }
    }
}

/// What `fanout` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    url: String,
    subscribers: usize,
    publishers: usize,
    channels: usize,
    per_subscriber: usize,
    rate: f64,
    size: usize,
    /// Over the whole run, warm-up included.
    published: u64,
    refused: u64,
    expected: u64,
    received: u64,
    missing: u64,
    /// Came after a later one of its publisher, or again.
    out_of_order: u64,
    /// Connections that the server closed.
    closed: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_closed: Option<String>,
    /// In the measured window.
    deliveries: u64,
    deliveries_per_s: f64,
    deliveries_per_cpu_s: Option<f64>,
    /// From the intended publish to the receipt, every delivery.
    latency: Summary,
    cpu: CpuUse,
    /// The second part: the same beside slow readers.
    #[serde(skip_serializing_if = "Option::is_none")]
    beside_slow: Option<Part>,
}

/// What one part of a run found.
#[derive(Debug, Serialize)]
struct Part {
    deliveries: u64,
    latency: Summary,
    cpu: CpuUse,
}

struct Run<'o> {
    options: &'o Options,
    layout: Layout,
    run_id: u32,
    pace: Pace,
    expected: u64,
    receipts: Receipts,
    /// Slow readers on their way; none: there are none, or they are silent.
    joining: Vec<SlowReader>,
}

impl Scenario for Options {
    type Report = Report;

    fn engine(&self) -> Option<Engine> {
        self.engine
    }

    fn run(&self, mut driver: Driver<'_, impl Net>) -> Result<Report> {
        let layout = self.layout();
        let total = layout.subscribers + layout.publishers;
        check_descriptors(total + self.slow_readers)?;
        let target = Target::parse(&self.url)?;
        let run_id = fastrand::u32(..);
        let publishing = match &self.publish_url {
            Some(url) => Target::parse(url)?,
            None => target.clone(),
        };
        let place = |number: usize| match number < layout.subscribers {
            true => &target,
            false => &publishing,
        };
        let role = |number| layout.role(run_id, number);
        let members = gather(&mut driver, self.protocol, place, total, role)?;
        driver.net.gather(pace::TICK);
        let mut run = Run::new(self, layout, run_id, members);
        let first = run.part(&mut driver)?;
        let mut slow = None;
        if self.slow_readers > 0 {
            let silent = run.join_slow_readers(&mut driver, &target)?;
            slow = Some((silent, run.part(&mut driver)?));
        }
        driver.wait_until(&mut run, DRAIN_MAX, Run::nothing_is_under_way)?;
        let beside_slow = slow.map(|(silent, part)| {
            // They were there until here.
            drop(silent);
            part
        });
        let receipts = &run.receipts;
        Ok(Report {
            scenario: "fanout",
            url: self.url.clone(),
            subscribers: layout.subscribers,
            publishers: layout.publishers,
            channels: layout.channels,
            per_subscriber: layout.per_subscriber,
            rate: self.rate,
            size: self.size,
            published: run.pace.taken(),
            refused: receipts.refused,
            expected: run.expected,
            received: receipts.received,
            missing: run.expected.saturating_sub(receipts.received),
            out_of_order: receipts.out_of_order,
            closed: receipts.closed(),
            first_closed: receipts.first_closed.clone(),
            deliveries: first.deliveries,
            deliveries_per_s: first.deliveries as f64 / first.cpu.window_s,
            deliveries_per_cpu_s: first.cpu.per_server_cpu_s(first.deliveries),
            latency: first.latency,
            cpu: first.cpu,
            beside_slow,
        })
    }
}

impl<'o> Run<'o> {
    fn new(options: &'o Options, layout: Layout, run_id: u32, members: Vec<Member>) -> Self {
        Self {
            options,
            layout,
            run_id,
            pace: Pace::new(Instant::now(), options.rate),
            expected: 0,
            receipts: Receipts::new(layout, members),
            joining: Vec::new(),
        }
    }

    /// Publishes through the warm-up and a measured window.
    fn part(&mut self, driver: &mut Driver<'_, impl Net>) -> Result<Part> {
        let window = self.options.measured.window(Instant::now());
        Ok(Part {
            cpu: driver.measure(self, window)?,
            deliveries: self.receipts.in_window,
            latency: self.receipts.latencies.summary(),
        })
    }

    /// Publishes on until all slow readers have subscribed; they are silent from then on.
    fn join_slow_readers(
        &mut self,
        driver: &mut Driver<'_, impl Net>,
        target: &Target,
    ) -> Result<Vec<TcpStream>> {
        let layout = self.layout;
        self.joining = (0..self.options.slow_readers)
            .map(|number| {
                // They take the channels in turn, from the first on.
                let role = layout.role(self.run_id, number % layout.subscribers);
                let number = layout.subscribers + layout.publishers + number;
                SlowReader::start(self.options.protocol, target.clone(), number, role)
            })
            .collect();
        let all_have = |run: &Self| run.joining.iter().all(SlowReader::is_subscribed);
        if !driver.run_until(self, JOIN_MAX, all_have)? {
            bail!("the slow readers had not subscribed when the time was over");
        }
        self.joining.drain(..).map(SlowReader::silent).collect()
    }

    /// Everything that was published has come, or can never come.
    fn nothing_is_under_way(&self) -> bool {
        self.receipts.received >= self.expected || self.receipts.closed() > 0
    }

    fn publish(&mut self, net: &mut impl Net, publisher: usize, channel: usize, intended: Instant) {
        let options = self.options;
        let (connection, sequence) = self.receipts.expect(publisher, intended);
        debug_assert_eq!(sequence as usize % self.layout.channels, channel);
        let stamp = Stamp {
            publisher: publisher as u32,
            sequence,
        };
        let mut out = Vec::with_capacity(options.size + 128);
        options.protocol.publish(
            &mut out,
            (sequence % 1_000_000_000) as u32,
            &channel_name(self.run_id, channel),
            &subscriber::data(stamp, options.size),
        );
        net.send(connection, &out);
    }
}

impl Workload for Run<'_> {
    fn send_due(&mut self, net: &mut impl Net, now: Instant) -> Option<Instant> {
        while let Some((number, intended)) = self.pace.take(now) {
            let (publisher, channel) = self.layout.publication(number as usize);
            self.publish(net, publisher, channel, intended);
            self.expected += self.layout.listeners(channel);
        }
        Some(self.pace.next_look(now))
    }

    fn on_event(&mut self, net: &mut impl Net, key: Key, event: Event<'_>) -> Result<(), String> {
        self.receipts.on_event(net, key, event);
        self.receipts.error.take().map_or(Ok(()), Err)
    }

    fn begin_window(&mut self) {
        self.receipts.begin_window();
    }

    fn progress(&self) -> String {
        format!("{} deliveries", self.receipts.received)
    }
}

impl super::Report for Report {
    fn complete(&self) -> bool {
        (self.missing, self.out_of_order, self.refused, self.closed) == (0, 0, 0, 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "fanout: {} subscribers, {} publishers, {} channels ({} each), {}/s of {} bytes: {:.0} deliveries/s",
            self.subscribers,
            self.publishers,
            self.channels,
            self.per_subscriber,
            self.rate,
            self.size,
            self.deliveries_per_s
        )?;
        writeln!(
            f,
            "{} of {} received, {} missing, {} out of order, {} publications refused",
            self.received, self.expected, self.missing, self.out_of_order, self.refused
        )?;
        if let Some(first) = &self.first_closed {
            writeln!(
                f,
                "{} connections closed by the server, first: {first}",
                self.closed
            )?;
        }
        if let Some(per_cpu) = self.deliveries_per_cpu_s {
            writeln!(f, "per server CPU-second: {per_cpu:.0} deliveries")?;
        }
        writeln!(f, "publish to receipt: {}", self.latency)?;
        if let Some(part) = &self.beside_slow {
            writeln!(f, "beside slow readers: {}", part.latency)?;
        }
        write!(f, "{}", self.cpu)
    }
}
