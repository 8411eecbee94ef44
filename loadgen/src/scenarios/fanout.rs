//! `fanout`: publications to many subscribers by the Centrifuge protocol; open loop.
//! Every subscriber checks order and completeness, per publisher.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::Stop;
use super::crowd::{answer_ping, gather, send_text};
use super::open::{Member, check_descriptors};
use super::window::Window;
use crate::clients::centrifuge;
use crate::clients::link::LinkEvent;
use crate::clients::subscriber::{self, Deliveries, Stamp};
use crate::clients::websocket::{CLOSE, close_code};
use crate::net::{Event, Key, Net};
use crate::pace::Pace;
use crate::process::CpuUse;
use crate::record::{Latencies, Summary};
use crate::report::Output;
use crate::target::Target;

/// After the run, deliveries under way may come within this.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Options of `fanout`.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) url: String,
    /// Where the publishers connect; none: where the subscribers do.
    pub(crate) publish_url: Option<String>,
    pub(crate) subscribers: usize,
    pub(crate) publishers: usize,
    pub(crate) channels: usize,
    /// Publications per second, all publishers together.
    pub(crate) rate: f64,
    /// Bytes of each publication's data.
    pub(crate) size: usize,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
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
    /// In the measured window.
    deliveries: u64,
    deliveries_per_s: f64,
    deliveries_per_cpu_s: Option<f64>,
    /// From the intended publish to the receipt, every delivery.
    latency: Summary,
    cpu: CpuUse,
}

struct Run {
    members: Vec<Member>,
    subscribers: usize,
    /// By subscriber and publisher: the next sequence number due.
    due: Vec<u64>,
    publishers: usize,
    /// Channels: the distance between two numbers of a publisher in one channel.
    step: u64,
    /// Intended times by publisher and sequence number.
    intended: Vec<Vec<Instant>>,
    deliveries: Deliveries,
    latencies: Latencies,
    in_window: u64,
    received: u64,
    out_of_order: u64,
    refused: u64,
    error: Option<String>,
}

pub(crate) fn run(
    mut net: impl Net,
    options: &Options,
    output: &Output,
    stop: &Stop,
) -> Result<Report> {
    check_descriptors(options.subscribers + options.publishers)?;
    let target = Target::parse(&options.url)?;
    let run_id = fastrand::u32(..);
    let channel = |number: usize| format!("fanout-{run_id:08x}-{}", number % options.channels);
    let total = options.subscribers + options.publishers;
    let wanted = |number: usize| (number < options.subscribers).then(|| channel(number));
    let publishing = match &options.publish_url {
        Some(url) => Target::parse(url)?,
        None => target.clone(),
    };
    let place = |number: usize| match number < options.subscribers {
        true => &target,
        false => &publishing,
    };
    let members = gather(&mut net, place, total, wanted, output, stop)?;
    let mut run = Run::new(options, members);

    let started = Instant::now();
    let mut window = Window::new(
        started,
        options.warmup,
        options.duration,
        &options.server_pids,
    );
    let mut pace = Pace::new(started, options.rate);
    let mut expected = 0;
    loop {
        let now = Instant::now();
        if window.begins(now)? {
            run.latencies.clear();
            run.in_window = 0;
        }
        if window.is_over(now) || stop.requested() || run.error.is_some() {
            break;
        }
        while let Some(intended) = pace.take(now) {
            // Publisher p publishes to each channel in turn, so its sequence in a channel counts every one of them.
            let number = (pace.taken() - 1) as usize;
            let publisher = number % options.publishers;
            let round = number / options.publishers;
            let channel_number = round % options.channels;
            run.publish(
                &mut net,
                publisher,
                intended,
                &channel(channel_number),
                channel_number,
                options,
            );
            expected += listeners(options, channel_number);
        }
        output.progress(now, || {
            format!(
                "{:.1} s, {} deliveries",
                (now - started).as_secs_f64(),
                run.received
            )
        });
        net.turn(
            Some(pace.next_at().min(window.next_at())),
            &mut |net, key, event| {
                run.on_event(net, key, event);
            },
        )?;
    }
    let deliveries = run.in_window;
    if let Some(error) = &run.error {
        bail!("{error}");
    }
    let cpu = window.finish(Instant::now())?;
    let latency = run.latencies.summary();
    let drain_until = Instant::now() + DRAIN_MAX;
    while run.received < expected && Instant::now() < drain_until && run.error.is_none() {
        net.turn(Some(drain_until), &mut |net, key, event| {
            run.on_event(net, key, event);
        })?;
    }
    if let Some(error) = run.error {
        bail!("{error}");
    }
    Ok(Report {
        scenario: "fanout",
        url: options.url.clone(),
        subscribers: options.subscribers,
        publishers: options.publishers,
        channels: options.channels,
        rate: options.rate,
        size: options.size,
        published: pace.taken(),
        refused: run.refused,
        expected,
        received: run.received,
        missing: expected.saturating_sub(run.received),
        out_of_order: run.out_of_order,
        deliveries,
        deliveries_per_s: deliveries as f64 / cpu.window_s,
        deliveries_per_cpu_s: cpu.per_server_cpu_s(deliveries),
        latency,
        cpu,
    })
}

/// Subscribers of a channel: number i listens to channel `i % channels`.
fn listeners(options: &Options, channel: usize) -> u64 {
    ((options.subscribers + options.channels - 1 - channel) / options.channels) as u64
}

impl Run {
    fn new(options: &Options, members: Vec<Member>) -> Self {
        // Publishers number their publications over all channels: in channel c a subscriber sees every
        // `channels`-th, starting with c.
        let due = (0..options.subscribers)
            .flat_map(|number| vec![(number % options.channels) as u64; options.publishers])
            .collect();
        Self {
            members,
            subscribers: options.subscribers,
            due,
            publishers: options.publishers,
            step: options.channels as u64,
            intended: vec![Vec::new(); options.publishers],
            deliveries: Deliveries::new(),
            latencies: Latencies::new(),
            in_window: 0,
            received: 0,
            out_of_order: 0,
            refused: 0,
            error: None,
        }
    }

    fn publish(
        &mut self,
        net: &mut impl Net,
        publisher: usize,
        intended: Instant,
        channel: &str,
        number: usize,
        options: &Options,
    ) {
        let sequence = self.intended[publisher].len() as u64;
        debug_assert_eq!(sequence as usize % options.channels, number);
        self.intended[publisher].push(intended);
        let data = subscriber::data(
            Stamp {
                publisher: publisher as u32,
                sequence,
            },
            options.size,
        );
        let id = 3 + (sequence % 1_000_000_000) as u32;
        send_text(
            net,
            self.members[self.subscribers + publisher].key,
            &centrifuge::publish(id, channel, &data),
        );
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
                let mut link = std::mem::take(&mut self.members[key.tag].link);
                let fed = link.feed(bytes, &mut |event| {
                    if let LinkEvent::Frame(frame) = event {
                        if frame.opcode == CLOSE {
                            self.error.get_or_insert(format!(
                                "connection {}: closed with {}",
                                key.tag,
                                close_code(frame.payload)
                            ));
                        } else if !answer_ping(net, key, &frame) {
                            if key.tag < self.subscribers {
                                self.delivered(key.tag, frame.payload, now);
                            } else {
                                self.answered(frame.payload);
                            }
                        }
                    }
                    true
                });
                self.members[key.tag].link = link;
                if let Err(failure) = fed {
                    self.error
                        .get_or_insert(format!("connection {}: {failure}", key.tag));
                }
            }
        }
    }

    fn delivered(&mut self, subscriber: usize, frame: &[u8], now: Instant) {
        for stamp in self.deliveries.of(frame) {
            let publisher = stamp.publisher as usize;
            let Some(intended) = self
                .intended
                .get(publisher)
                .and_then(|times| times.get(stamp.sequence as usize))
            else {
                self.error.get_or_insert(format!(
                    "subscriber {subscriber} received what nobody sent: {stamp:?}"
                ));
                return;
            };
            let due = &mut self.due[subscriber * self.publishers + publisher];
            if stamp.sequence < *due {
                self.out_of_order += 1;
            } else {
                *due = stamp.sequence + self.step;
                self.received += 1;
                self.in_window += 1;
                self.latencies.record(*intended, now);
            }
        }
    }

    fn answered(&mut self, frame: &[u8]) {
        for line in centrifuge::lines(frame) {
            match line {
                Ok(line) => self.refused += u64::from(line.error.is_some()),
                Err(error) => {
                    self.error.get_or_insert(format!("not a reply: {error}"));
                }
            }
        }
    }
}

impl Report {
    pub(crate) fn complete(&self) -> bool {
        self.missing == 0 && self.out_of_order == 0 && self.refused == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "fanout: {} subscribers, {} publishers, {} channels, {}/s of {} bytes: {:.0} deliveries/s",
            self.subscribers,
            self.publishers,
            self.channels,
            self.rate,
            self.size,
            self.deliveries_per_s
        )?;
        writeln!(
            f,
            "{} of {} received, {} missing, {} out of order, {} publications refused",
            self.received, self.expected, self.missing, self.out_of_order, self.refused
        )?;
        if let Some(per_cpu) = self.deliveries_per_cpu_s {
            writeln!(f, "per server CPU-second: {per_cpu:.0} deliveries")?;
        }
        writeln!(f, "publish to receipt: {}", self.latency)?;
        write!(f, "{}", self.cpu)
    }
}
