//! `fanout`: publications to many subscribers; open loop. Who hears whom is in `layout`, what is checked of what comes
//! in `receipts`. With slow readers a second part follows in which these are there too, so
//! that what they do to the others is found in one run.

mod layout;
mod receipts;

use std::fmt;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::Stop;
use super::crowd::{Member, gather};
use super::open::check_descriptors;
use super::slow::SlowReader;
use super::window::Times;
use crate::clients::pubsub::Protocol;
use crate::clients::subscriber::{self, Stamp};
use crate::net::Net;
use crate::pace::{self, Pace};
use crate::process::CpuUse;
use crate::record::Summary;
use crate::report::Output;
use crate::target::Target;

pub(crate) use self::layout::Layout;
use self::layout::channel_name;
use self::receipts::Receipts;

/// After the run, deliveries under way may come within this.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Options of `fanout`.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) url: String,
    /// Where the publishers connect; none: where the subscribers do.
    pub(crate) publish_url: Option<String>,
    pub(crate) protocol: Protocol,
    pub(crate) layout: Layout,
    /// Subscribers beside these who stop reading for the second part; 0: there is none.
    pub(crate) slow_readers: usize,
    /// Publications per second, all publishers together.
    pub(crate) rate: f64,
    /// Bytes of each publication's data.
    pub(crate) size: usize,
    pub(crate) times: Times,
    pub(crate) server_pids: Vec<u32>,
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
    run_id: u32,
    pace: Pace,
    expected: u64,
    receipts: Receipts,
}

pub(crate) fn run(
    mut net: impl Net,
    options: &Options,
    output: &Output,
    stop: &Stop,
) -> Result<Report> {
    let layout = options.layout;
    let total = layout.subscribers + layout.publishers;
    check_descriptors(total + options.slow_readers)?;
    let target = Target::parse(&options.url)?;
    let run_id = fastrand::u32(..);
    let publishing = match &options.publish_url {
        Some(url) => Target::parse(url)?,
        None => target.clone(),
    };
    let place = |number: usize| match number < layout.subscribers {
        true => &target,
        false => &publishing,
    };
    let members = gather(
        &mut net,
        options.protocol,
        place,
        total,
        |number| layout.role(run_id, number),
        output,
        stop,
    )?;
    net.gather(pace::TICK);
    let mut run = Run::new(options, run_id, members);
    let first = run.part(&mut net, output, stop)?;
    let mut slow = None;
    if options.slow_readers > 0 {
        let silent = run.join_slow_readers(&mut net, &target, output, stop)?;
        let part = run.part(&mut net, output, stop)?;
        slow = Some((silent, part));
    }
    run.drain(&mut net, stop)?;
    run.without_error()?;
    let beside_slow = slow.map(|(silent, part)| {
        // They were there until here.
        drop(silent);
        part
    });
    let receipts = &run.receipts;
    Ok(Report {
        scenario: "fanout",
        url: options.url.clone(),
        subscribers: layout.subscribers,
        publishers: layout.publishers,
        channels: layout.channels,
        per_subscriber: layout.per_subscriber,
        rate: options.rate,
        size: options.size,
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

impl<'o> Run<'o> {
    fn new(options: &'o Options, run_id: u32, members: Vec<Member>) -> Self {
        Self {
            options,
            run_id,
            pace: Pace::new(Instant::now(), options.rate),
            expected: 0,
            receipts: Receipts::new(options.layout, members),
        }
    }

    /// What went wrong, if anything did.
    fn without_error(&self) -> Result<()> {
        match &self.receipts.error {
            Some(error) => bail!("{error}"),
            None => Ok(()),
        }
    }

    /// Publishes through the warm-up and a measured window.
    fn part(&mut self, net: &mut impl Net, output: &Output, stop: &Stop) -> Result<Part> {
        let options = self.options;
        let mut window = options.times.window(Instant::now(), &options.server_pids);
        loop {
            let now = Instant::now();
            if window.begins(now)? {
                self.receipts.begin_window();
            }
            if window.is_over(now) || stop.requested() || self.receipts.error.is_some() {
                break;
            }
            self.turn(net, now, window.next_at(), output)?;
        }
        self.without_error()?;
        Ok(Part {
            cpu: window.finish(Instant::now())?,
            deliveries: self.receipts.in_window,
            latency: self.receipts.latencies.summary(),
        })
    }

    /// Publishes on until all slow readers have subscribed; they are silent from then on.
    fn join_slow_readers(
        &mut self,
        net: &mut impl Net,
        target: &Target,
        output: &Output,
        stop: &Stop,
    ) -> Result<Vec<TcpStream>> {
        let options = self.options;
        let layout = options.layout;
        let joining: Vec<SlowReader> = (0..options.slow_readers)
            .map(|number| {
                // They take the channels in turn, from the first on.
                let role = layout.role(self.run_id, number % layout.subscribers);
                let number = layout.subscribers + layout.publishers + number;
                SlowReader::start(options.protocol, target.clone(), number, role)
            })
            .collect();
        while !stop.requested()
            && self.receipts.error.is_none()
            && !joining.iter().all(SlowReader::is_subscribed)
        {
            let now = Instant::now();
            self.turn(net, now, now + Duration::from_millis(10), output)?;
        }
        joining.into_iter().map(SlowReader::silent).collect()
    }

    /// Waits for the deliveries under way, unless some can never come.
    fn drain(&mut self, net: &mut impl Net, stop: &Stop) -> Result<()> {
        let until = Instant::now() + DRAIN_MAX;
        let receipts = &mut self.receipts;
        while receipts.received < self.expected
            && receipts.closed() == 0
            && Instant::now() < until
            && !stop.requested()
            && receipts.error.is_none()
        {
            net.turn(Some(until), &mut |net, key, event| {
                receipts.on_event(net, key, event);
            })?;
        }
        Ok(())
    }

    /// Publishes what is due, and takes what comes until the next is or `until`.
    fn turn(
        &mut self,
        net: &mut impl Net,
        now: Instant,
        until: Instant,
        output: &Output,
    ) -> Result<()> {
        let layout = self.options.layout;
        while let Some(intended) = self.pace.take(now) {
            let (publisher, channel) = layout.publication(self.pace.taken() as usize - 1);
            self.publish(net, publisher, channel, intended);
            self.expected += layout.listeners(channel);
        }
        let receipts = &mut self.receipts;
        output.progress(now, || format!("{} deliveries", receipts.received));
        let until = self.pace.next_look(now).min(until);
        net.turn(Some(until), &mut |net, key, event| {
            receipts.on_event(net, key, event);
        })?;
        Ok(())
    }

    fn publish(&mut self, net: &mut impl Net, publisher: usize, channel: usize, intended: Instant) {
        let options = self.options;
        let (connection, sequence) = self.receipts.expect(publisher, intended);
        debug_assert_eq!(sequence as usize % options.layout.channels, channel);
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

impl Report {
    pub(crate) fn complete(&self) -> bool {
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
