//! `fanout`: publications to many subscribers; open loop. Every subscriber checks order and completeness,
//! per publisher and channel. With slow readers a second part follows in which these are there too, so
//! that what they do to the others is found in one run.

use std::fmt;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::Stop;
use super::crowd::{Member, gather};
use super::open::check_descriptors;
use super::slow::SlowReader;
use super::window::Window;
use crate::clients::pubsub::{Heard, Protocol, Role};
use crate::clients::subscriber::{self, Deliveries, Stamp};
use crate::clients::twins::Twins;
use crate::clients::websocket;
use crate::net::{Event, Key, Net};
use crate::pace::{self, Pace};
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
    pub(crate) protocol: Protocol,
    pub(crate) subscribers: usize,
    pub(crate) publishers: usize,
    pub(crate) channels: usize,
    /// Channels that each subscriber hears, at most `channels`.
    pub(crate) per_subscriber: usize,
    /// Subscribers beside these who stop reading for the second part; 0: there is none.
    pub(crate) slow_readers: usize,
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
    members: Vec<Member>,
    /// By subscriber, channel of the subscriber, and publisher: the next sequence number due.
    due: Vec<u64>,
    /// Intended times by publisher and sequence number.
    intended: Vec<Vec<Instant>>,
    pace: Pace,
    expected: u64,
    deliveries: Deliveries,
    twins: Twins,
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
    let total = options.subscribers + options.publishers;
    check_descriptors(total + options.slow_readers)?;
    let target = Target::parse(&options.url)?;
    let run_id = fastrand::u32(..);
    let publishing = match &options.publish_url {
        Some(url) => Target::parse(url)?,
        None => target.clone(),
    };
    let place = |number: usize| match number < options.subscribers {
        true => &target,
        false => &publishing,
    };
    let members = gather(
        &mut net,
        options.protocol,
        place,
        total,
        |number| role(options, run_id, number),
        output,
        stop,
    )?;
    net.gather(pace::TICK);
    let mut run = Run::new(options, run_id, members);
    let first = run.part(&mut net, options.warmup, output, stop)?;
    let mut slow = None;
    if options.slow_readers > 0 {
        let silent = run.join_slow_readers(&mut net, &target, output, stop)?;
        let part = run.part(&mut net, options.warmup, output, stop)?;
        slow = Some((silent, part));
    }
    run.drain(&mut net, stop)?;
    if let Some(error) = run.error {
        bail!("{error}");
    }
    let beside_slow = slow.map(|(silent, part)| {
        // They were there until here.
        drop(silent);
        part
    });
    Ok(Report {
        scenario: "fanout",
        url: options.url.clone(),
        subscribers: options.subscribers,
        publishers: options.publishers,
        channels: options.channels,
        per_subscriber: options.per_subscriber,
        rate: options.rate,
        size: options.size,
        published: run.pace.taken(),
        refused: run.refused,
        expected: run.expected,
        received: run.received,
        missing: run.expected.saturating_sub(run.received),
        out_of_order: run.out_of_order,
        deliveries: first.deliveries,
        deliveries_per_s: first.deliveries as f64 / first.cpu.window_s,
        deliveries_per_cpu_s: first.cpu.per_server_cpu_s(first.deliveries),
        latency: first.latency,
        cpu: first.cpu,
        beside_slow,
    })
}

fn channel_name(run_id: u32, channel: usize) -> String {
    format!("fanout-{run_id:08x}-{channel}")
}

/// Subscriber i hears the channels from `i * per_subscriber` on; publishers come behind the subscribers.
fn role(options: &Options, run_id: u32, number: usize) -> Role {
    let name = |channel: usize| channel_name(run_id, channel % options.channels);
    match number < options.subscribers {
        true => {
            let first = number * options.per_subscriber;
            Role::Subscriber((first..first + options.per_subscriber).map(name).collect())
        }
        false => Role::Publisher((0..options.channels).map(name).collect()),
    }
}

/// Which of a subscriber's channels a channel is, if it is one.
fn place_of(options: &Options, subscriber: usize, channel: usize) -> Option<usize> {
    if options.per_subscriber == options.channels {
        // Everybody hears everything: told without a division, for each of millions of deliveries a second.
        return Some(channel);
    }
    let first = subscriber * options.per_subscriber % options.channels;
    let place = (channel + options.channels - first) % options.channels;
    (place < options.per_subscriber).then_some(place)
}

/// Subscribers of a channel.
fn listeners(options: &Options, channel: usize) -> u64 {
    let subscriptions = options.subscribers * options.per_subscriber;
    ((subscriptions + options.channels - 1 - channel) / options.channels) as u64
}

impl<'o> Run<'o> {
    fn new(options: &'o Options, run_id: u32, members: Vec<Member>) -> Self {
        // Publishers number their publications over all channels: in channel c a subscriber sees every
        // `channels`-th, starting with c.
        let due = (0..options.subscribers * options.per_subscriber)
            .flat_map(|number| vec![(number % options.channels) as u64; options.publishers])
            .collect();
        Self {
            options,
            run_id,
            members,
            due,
            intended: vec![Vec::new(); options.publishers],
            pace: Pace::new(Instant::now(), options.rate),
            expected: 0,
            deliveries: Deliveries::new(),
            twins: Twins::new(),
            latencies: Latencies::new(),
            in_window: 0,
            received: 0,
            out_of_order: 0,
            refused: 0,
            error: None,
        }
    }

    /// Publishes through the warm-up and a measured window.
    fn part(
        &mut self,
        net: &mut impl Net,
        warmup: Duration,
        output: &Output,
        stop: &Stop,
    ) -> Result<Part> {
        let options = self.options;
        let started = Instant::now();
        let mut window = Window::new(started, warmup, options.duration, &options.server_pids);
        loop {
            let now = Instant::now();
            if window.begins(now)? {
                self.latencies.clear();
                self.in_window = 0;
            }
            if window.is_over(now) || stop.requested() || self.error.is_some() {
                break;
            }
            self.turn(net, now, window.next_at(), output)?;
        }
        if let Some(error) = &self.error {
            bail!("{error}");
        }
        Ok(Part {
            cpu: window.finish(Instant::now())?,
            deliveries: self.in_window,
            latency: self.latencies.summary(),
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
        let joining: Vec<SlowReader> = (0..options.slow_readers)
            .map(|number| {
                // They take the channels in turn, from the first on.
                let role = role(options, self.run_id, number % options.subscribers);
                let number = options.subscribers + options.publishers + number;
                SlowReader::start(options.protocol, target.clone(), number, role)
            })
            .collect();
        while !stop.requested()
            && self.error.is_none()
            && !joining.iter().all(SlowReader::is_subscribed)
        {
            let now = Instant::now();
            self.turn(net, now, now + Duration::from_millis(10), output)?;
        }
        joining.into_iter().map(SlowReader::silent).collect()
    }

    /// Waits for the deliveries under way.
    fn drain(&mut self, net: &mut impl Net, stop: &Stop) -> Result<()> {
        let until = Instant::now() + DRAIN_MAX;
        while self.received < self.expected
            && Instant::now() < until
            && !stop.requested()
            && self.error.is_none()
        {
            net.turn(Some(until), &mut |net, key, event| {
                self.on_event(net, key, event);
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
        let options = self.options;
        while let Some(intended) = self.pace.take(now) {
            // Publisher p publishes to each channel in turn, so its sequence in a channel counts every one of them.
            let number = (self.pace.taken() - 1) as usize;
            let publisher = number % options.publishers;
            let channel = number / options.publishers % options.channels;
            self.publish(net, publisher, channel, intended);
            self.expected += listeners(options, channel);
        }
        output.progress(now, || format!("{} deliveries", self.received));
        let until = self.pace.next_look(now).min(until);
        net.turn(Some(until), &mut |net, key, event| {
            self.on_event(net, key, event);
        })?;
        Ok(())
    }

    fn publish(&mut self, net: &mut impl Net, publisher: usize, channel: usize, intended: Instant) {
        let options = self.options;
        let sequence = self.intended[publisher].len() as u64;
        debug_assert_eq!(sequence as usize % options.channels, channel);
        self.intended[publisher].push(intended);
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
        net.send(self.members[options.subscribers + publisher].key, &out);
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
            Event::Data(mut bytes) => {
                let now = Instant::now();
                while !bytes.is_empty() && self.error.is_none() {
                    let taken = self
                        .take_twin(key.tag, bytes, now)
                        .unwrap_or_else(|| self.take(net, key, bytes, now));
                    bytes = &bytes[taken..];
                }
            }
        }
    }

    /// Takes the frame that comes next for a subscriber where another one had it before; `None`: nobody had.
    fn take_twin(&mut self, subscriber: usize, bytes: &[u8], now: Instant) -> Option<usize> {
        if !self.has_twins(subscriber) || self.members[subscriber].link.missing() > 0 {
            return None;
        }
        let sequence = self.due[subscriber];
        let len = self.twins.find(sequence, bytes)?;
        let intended = *self.intended[0].get(sequence as usize)?;
        self.due[subscriber] += 1;
        self.delivered(intended, now);
        Some(len)
    }

    /// Whether what comes for a connection is what others have, frame by frame.
    fn has_twins(&self, connection: usize) -> bool {
        let options = self.options;
        (options.publishers, options.channels, options.per_subscriber) == (1, 1, 1)
            && connection < options.subscribers
    }

    /// Parses and checks what came: one frame or the rest of one where it may have twins, else all of it. Returns how
    /// much that was.
    fn take(&mut self, net: &mut impl Net, key: Key, bytes: &[u8], now: Instant) -> usize {
        let (mut part, mut before) = (bytes, None);
        if self.has_twins(key.tag) {
            let missing = self.members[key.tag].link.missing();
            if missing > 0 {
                part = &bytes[..missing.min(bytes.len())];
            } else if let Some(len) = websocket::frame_len(bytes) {
                part = &bytes[..len];
                before = Some(self.due[key.tag]);
            }
        }
        let mut heard = Vec::new();
        let fed = self.members[key.tag].feed(net, part, &self.deliveries, &mut |what| {
            heard.push(what);
        });
        for what in heard {
            self.on_heard(key.tag, &what, now);
        }
        if let Err(problem) = fed {
            self.error
                .get_or_insert(format!("connection {}: {problem}", key.tag));
        }
        if let Some(before) = before
            && self.due[key.tag] == before + 1
        {
            self.twins.keep(before, part);
        }
        part.len()
    }

    fn on_heard(&mut self, connection: usize, heard: &Heard, now: Instant) {
        match heard {
            Heard::Delivery(stamp) => {
                let checked = check(
                    self.options,
                    &mut self.due,
                    &self.intended,
                    connection,
                    *stamp,
                );
                match checked {
                    Ok(Some(intended)) => self.delivered(intended, now),
                    Ok(None) => self.out_of_order += 1,
                    Err(what) => {
                        self.error.get_or_insert(what);
                    }
                }
            }
            Heard::Refused => self.refused += 1,
            Heard::Ready => {}
        }
    }

    fn delivered(&mut self, intended: Instant, now: Instant) {
        self.received += 1;
        self.in_window += 1;
        self.latencies.record(intended, now);
    }
}

/// When a delivery was meant to be published; `None`: it came out of order or again.
fn check(
    options: &Options,
    due: &mut [u64],
    intended: &[Vec<Instant>],
    subscriber: usize,
    stamp: Stamp,
) -> Result<Option<Instant>, String> {
    let publisher = stamp.publisher as usize;
    let channel = match options.channels {
        1 => 0,
        channels => stamp.sequence as usize % channels,
    };
    let sent = intended
        .get(publisher)
        .and_then(|times| times.get(stamp.sequence as usize));
    let place = (subscriber < options.subscribers)
        .then(|| place_of(options, subscriber, channel))
        .flatten();
    let (Some(sent), Some(place)) = (sent, place) else {
        return Err(format!(
            "connection {subscriber} received what nobody sent to it: {stamp:?}"
        ));
    };
    let slot = (subscriber * options.per_subscriber + place) * options.publishers + publisher;
    if stamp.sequence < due[slot] {
        return Ok(None);
    }
    due[slot] = stamp.sequence + options.channels as u64;
    Ok(Some(*sent))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn options(subscribers: usize, channels: usize, per_subscriber: usize) -> Options {
        Options {
            url: String::new(),
            publish_url: None,
            protocol: Protocol::Centrifuge,
            subscribers,
            publishers: 2,
            channels,
            per_subscriber,
            slow_readers: 0,
            rate: 1.0,
            size: 1,
            warmup: Duration::ZERO,
            duration: Duration::ZERO,
            server_pids: Vec::new(),
        }
    }

    #[test]
    fn what_a_subscriber_hears_is_what_is_counted_for_it() {
        for (subscribers, channels, per_subscriber) in
            [(1, 1, 1), (7, 3, 1), (10, 10, 10), (5, 7, 3), (20, 4, 2)]
        {
            let options = options(subscribers, channels, per_subscriber);
            for channel in 0..channels {
                let name = channel_name(1, channel);
                let mut count = 0;
                for subscriber in 0..subscribers {
                    let Role::Subscriber(names) = role(&options, 1, subscriber) else {
                        panic!("a subscriber");
                    };
                    let place = names.iter().position(|heard| *heard == name);
                    assert_eq!(place, place_of(&options, subscriber, channel));
                    count += u64::from(place.is_some());
                }
                assert_eq!(count, listeners(&options, channel), "{options:?} {channel}");
            }
        }
    }

    #[test]
    fn order_is_checked_for_each_publisher_and_channel_of_a_subscriber() {
        // Subscriber 1 hears channels 2 and 0 of 3.
        let options = options(2, 3, 2);
        let now = Instant::now();
        let intended = vec![vec![now; 9]; 2];
        let members = Vec::new();
        let mut due = Run::new(&options, 1, members).due;
        let mut heard = |publisher, sequence| {
            let stamp = Stamp {
                publisher,
                sequence,
            };
            check(&options, &mut due, &intended, 1, stamp).map(|sent| sent.is_some())
        };
        // Of two channels in any order, of one in its order, none twice.
        assert_eq!(heard(0, 5), Ok(true));
        assert_eq!(heard(0, 3), Ok(true));
        assert_eq!(heard(0, 2), Ok(false));
        assert_eq!(heard(0, 5), Ok(false));
        assert_eq!(heard(1, 2), Ok(true));
        assert_eq!(heard(0, 6), Ok(true));
        // Of a channel that it does not hear, and what was never sent.
        assert!(heard(0, 4).is_err());
        assert!(heard(0, 9).is_err());
    }
}
