//! `million`: very many subscribed connections, held idle, and one publication that all of them hear.
//!
//! | file | what |
//! |---|---|
//! | here | the order of things, memory and CPU time, the publisher |
//! | `part` | one thread: a ring and its part of the connections |
//!
//! A ring holds as many connections as the limit of open files, in direct descriptors, which are no open
//! files; so there are as many rings as that takes. Connections come from several addresses of 127.0.0.0/8,
//! since each has only so many ports.

mod part;

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use flux_runtime::doctor;
use flux_runtime::ring::{self, RingConfig};
use serde::Serialize;

use super::crowd::gather;
use super::driver::Driver;
use super::open::check_descriptors;
use super::{Scenario, Stop};
use crate::clients::pubsub::{Protocol, Role};
use crate::clients::subscriber::{self, Stamp};
use crate::net::Net;
use crate::options::{DURATION_S_MAX, Engine, count, seconds};
use crate::process::{self, CpuUse, CpuWindow, Memory};
use crate::record::{Latencies, Summary};
use crate::report::Output;
use crate::target::Target;

/// 10,000 connections from each of so many addresses of 127.0.0.0/16.
const HELD_MAX: u64 = 10_000_000;
/// Connections from one source address. The kernel has 28,232 ports for each; it takes those of one parity
/// first and searches longer the fuller they are.
const PER_SOURCE: usize = 10_000;
/// Slots of a ring that are left for connections whose predecessors are still being closed.
const SLOTS_SPARE: usize = 64;
/// No connection more within this: the run is over.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Between two looks at how things go.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Very many subscribed connections, held idle; one publication that all of them hear
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// ws://HOST:PORT/PATH
    url: String,
    #[arg(long, default_value_t = 1_000_000, value_parser = count(1..=HELD_MAX))]
    connections: usize,
    /// Handshakes under way at once, over all rings
    #[arg(long, default_value_t = 1024, value_parser = count(1..=100_000))]
    in_flight: usize,
    /// Bytes of the publication's data
    #[arg(long, default_value_t = 100, value_parser = count(1..=1 << 20))]
    size: usize,
    /// Seconds for which all connections are held before the publication
    #[arg(long, default_value = "30", value_parser = seconds(0..=DURATION_S_MAX))]
    hold: Duration,
    /// Seconds in which the publication has to reach all
    #[arg(long, default_value = "120", value_parser = seconds(1..=DURATION_S_MAX))]
    hear: Duration,
    /// Process whose memory and CPU time count
    #[arg(long, value_name = "PID")]
    server_pid: u32,
}

/// What `million` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    url: String,
    connections: usize,
    rings: usize,
    connect: Connect,
    memory: MemoryUse,
    hold: Hold,
    publication: Publication,
}

/// TCP, upgrade, connect and subscribe of all.
#[derive(Debug, Serialize)]
struct Connect {
    took_s: f64,
    connections_per_s: f64,
    cpu: CpuUse,
}

/// What the connections cost, per connection, in bytes.
#[derive(Debug, Serialize)]
struct MemoryUse {
    server_resident: f64,
    own_resident: f64,
    /// What the machine has less of than before, but for the resident memory of both: both ends' sockets.
    kernel: f64,
    before: Memory,
    after: Memory,
}

/// The connections held idle: pings and their answers.
#[derive(Debug, Serialize)]
struct Hold {
    held_s: f64,
    pings: u64,
    pings_per_s_max: u64,
    server_cores: f64,
    /// Connections that had subscribed and were ended before the publication.
    lost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_loss: Option<String>,
}

#[derive(Debug, Serialize)]
struct Publication {
    heard: u64,
    missing: u64,
    /// From the publish command to the last receipt.
    took_ms: f64,
    /// From the publish command to each receipt.
    latency: Summary,
    cpu: CpuUse,
}

/// What all threads of a run share.
struct Run {
    target: Target,
    channel: String,
    in_flight: usize,
    subscribed: AtomicU64,
    pings: AtomicU64,
    heard: AtomicU64,
    lost: AtomicU64,
    first_loss: Mutex<Option<String>>,
    /// When it was published, in us since `started`.
    published_us: AtomicU64,
    started: Instant,
    is_over: AtomicBool,
    /// The first thing that went wrong.
    problem: Mutex<Option<String>>,
}

impl Run {
    fn fail(&self, problem: String) {
        let mut first = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(problem);
    }

    fn check(&self) -> Result<()> {
        let first = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match &*first {
            Some(problem) => bail!("{problem}"),
            None => Ok(()),
        }
    }

    fn published(&self) -> Instant {
        self.started + Duration::from_micros(self.published_us.load(Ordering::Acquire))
    }

    /// Where connection `number` comes from.
    fn source(&self, number: usize) -> Option<IpAddr> {
        let block = number / PER_SOURCE;
        (self.target.address.ip().is_loopback() && self.target.address.is_ipv4()).then(|| {
            let (high, low) = (1 + block / 250, 1 + block % 250);
            IpAddr::V4(Ipv4Addr::new(127, 0, high as u8, low as u8))
        })
    }
}

impl Scenario for Options {
    type Report = Report;

    /// Of the publisher: the connections that are held have rings of their own.
    fn engine(&self) -> Option<Engine> {
        Some(Engine::Epoll)
    }

    fn run(&self, mut driver: Driver<'_, impl Net>) -> Result<Report> {
        let rings = rings(self.connections)?;
        let run = Arc::new(Run {
            target: Target::parse(&self.url)?,
            channel: format!("million-{:08x}", fastrand::u32(..)),
            in_flight: (self.in_flight / rings).max(1),
            subscribed: AtomicU64::new(0),
            pings: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            first_loss: Mutex::new(None),
            published_us: AtomicU64::new(0),
            started: Instant::now(),
            is_over: AtomicBool::new(false),
            problem: Mutex::new(None),
        });
        let before = Looked::now(self.server_pid)?;
        let parts = start(&run, self.connections, rings)?;
        let measured = measure(&run, self, &before, &mut driver);
        run.is_over.store(true, Ordering::Release);
        let mut latencies = Latencies::new();
        for part in parts {
            let part = part
                .join()
                .map_err(|_| anyhow::anyhow!("a thread of the load generator has panicked"))?;
            latencies.add(&part);
        }
        let (connect, memory, hold, mut publication) = measured?;
        publication.latency = latencies.summary();
        publication.took_ms = publication.latency.max_us as f64 / 1000.0;
        Ok(Report {
            scenario: "million",
            url: self.url.clone(),
            connections: self.connections,
            rings,
            connect,
            memory,
            hold,
            publication,
        })
    }
}

/// Rings for so many connections.
fn rings(connections: usize) -> Result<usize> {
    doctor::raise_nofile().context("the limit of open files")?;
    let slots = ring::direct_slots(&RingConfig::default())? as usize;
    if slots <= SLOTS_SPARE {
        check_descriptors(connections)?;
        return Ok(1);
    }
    Ok(connections.div_ceil(slots - SLOTS_SPARE))
}

/// A thread for each ring.
fn start(run: &Arc<Run>, connections: usize, rings: usize) -> Result<Vec<JoinHandle<Latencies>>> {
    let each = connections.div_ceil(rings);
    (0..rings)
        .map(|index| {
            let run = Arc::clone(run);
            let numbers = index * each..connections.min((index + 1) * each);
            thread::Builder::new()
                .name(format!("ring-{index}"))
                .stack_size(256 << 10)
                .spawn(move || part::hold(&run, numbers))
                .context("no thread for a ring")
        })
        .collect()
}

type Measured = (Connect, MemoryUse, Hold, Publication);

fn measure(
    run: &Run,
    options: &Options,
    before: &Looked,
    driver: &mut Driver<'_, impl Net>,
) -> Result<Measured> {
    let (output, stop) = (driver.output, driver.stop);
    let servers = [options.server_pid];
    let wanted = options.connections as u64;

    let window = CpuWindow::start(&servers, Instant::now())?;
    let mut last = (0, Instant::now());
    while last.0 < wanted {
        rest(run, stop)?;
        let (subscribed, now) = (run.subscribed.load(Ordering::Relaxed), Instant::now());
        if subscribed > last.0 {
            last = (subscribed, now);
        }
        ensure!(
            now - last.1 < STALL_MAX,
            "{subscribed} of {wanted} connections are subscribed, and no more since {} s",
            STALL_MAX.as_secs()
        );
        output.progress(now, || format!("{subscribed} of {wanted} subscribed"));
    }
    let cpu = window.finish(Instant::now())?;
    let connect = Connect {
        took_s: cpu.window_s,
        connections_per_s: wanted as f64 / cpu.window_s,
        cpu,
    };

    let hold = hold(run, options, output, stop)?;
    let after = Looked::now(options.server_pid)?;
    let memory = before.growth(&after, wanted);

    let protocol = Protocol::Centrifuge;
    let role = |_| Role::Publisher(vec![run.channel.clone()]);
    let publisher = gather(driver, protocol, |_| &run.target, 1, role)?;
    let net = &mut driver.net;
    let stamp = Stamp {
        publisher: 0,
        sequence: 0,
    };
    let data = subscriber::data(stamp, options.size);
    let mut command = Vec::new();
    protocol.publish(&mut command, 1, &run.channel, &data);
    let window = CpuWindow::start(&servers, Instant::now())?;
    run.published_us
        .store(run.started.elapsed().as_micros() as u64, Ordering::Release);
    net.send(publisher[0].key, &command);
    let until = Instant::now() + options.hear;
    loop {
        let (now, heard) = (Instant::now(), run.heard.load(Ordering::Relaxed));
        if heard >= wanted || now >= until {
            break;
        }
        run.check()?;
        ensure!(!stop.requested(), "stopped");
        output.progress(now, || format!("{heard} of {wanted} have heard it"));
        net.turn(Some(now + Duration::from_millis(10)), &mut |_, _, _| {})?;
    }
    let cpu = window.finish(Instant::now())?;
    let heard = run.heard.load(Ordering::Relaxed);
    let publication = Publication {
        heard,
        missing: wanted.saturating_sub(heard),
        took_ms: 0.0,
        latency: Latencies::new().summary(),
        cpu,
    };
    Ok((connect, memory, hold, publication))
}

/// Nothing but pings.
fn hold(run: &Run, options: &Options, output: &Output, stop: &Stop) -> Result<Hold> {
    let window = CpuWindow::start(&[options.server_pid], Instant::now())?;
    let first = run.pings.load(Ordering::Relaxed);
    let (mut pings, mut most) = (first, 0);
    let (started, mut looked) = (Instant::now(), Instant::now());
    while started.elapsed() < options.hold {
        rest(run, stop)?;
        let now = Instant::now();
        if now - looked >= LOOK_EVERY {
            let all = run.pings.load(Ordering::Relaxed);
            let in_window = (all - pings) as f64 / (now - looked).as_secs_f64();
            most = most.max(in_window as u64);
            (pings, looked) = (all, now);
        }
        output.progress(now, || {
            let lost = run.lost.load(Ordering::Relaxed);
            format!("holding {}, {lost} lost", options.connections)
        });
    }
    let cpu = window.finish(Instant::now())?;
    Ok(Hold {
        held_s: cpu.window_s,
        pings: run.pings.load(Ordering::Relaxed) - first,
        pings_per_s_max: most,
        server_cores: cpu.server_cpu_s.unwrap_or(0.0) / cpu.window_s,
        lost: run.lost.load(Ordering::Relaxed),
        first_loss: run
            .first_loss
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
    })
}

/// A moment in which only the threads work.
fn rest(run: &Run, stop: &Stop) -> Result<()> {
    run.check()?;
    ensure!(!stop.requested(), "stopped");
    thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// Memory of server, load generator and machine at one time.
struct Looked {
    server: Memory,
    own: Memory,
    available: u64,
}

impl Looked {
    fn now(server_pid: u32) -> Result<Self> {
        Ok(Self {
            server: process::memory(server_pid)?,
            own: process::memory(std::process::id())?,
            available: available()?,
        })
    }

    fn growth(&self, after: &Self, connections: u64) -> MemoryUse {
        let each = |bytes: f64| (bytes / connections as f64).round();
        let grown = |before: u64, after: u64| after as f64 - before as f64;
        let server = grown(self.server.resident, after.server.resident);
        let own = grown(self.own.resident, after.own.resident);
        MemoryUse {
            server_resident: each(server),
            own_resident: each(own),
            kernel: each(grown(after.available, self.available) - server - own),
            before: self.server,
            after: after.server,
        }
    }
}

/// `MemAvailable` of the machine, in bytes.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("no /proc/meminfo")?;
    let kib: Option<u64> = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
    Ok(kib.context("/proc/meminfo has no MemAvailable")? << 10)
}

impl super::Report for Report {
    fn complete(&self) -> bool {
        self.publication.missing == 0 && self.hold.lost == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connect,
            memory,
            hold,
            publication,
            ..
        } = self;
        writeln!(
            f,
            "million: {} connections subscribed in {:.1} s, {:.0} a second",
            self.connections, connect.took_s, connect.connections_per_s
        )?;
        writeln!(
            f,
            "memory per connection: server {:.0} bytes, load generator {:.0}, kernel {:.0} (both ends)",
            memory.server_resident, memory.own_resident, memory.kernel
        )?;
        writeln!(
            f,
            "held {:.0} s: {} pings, at most {} a second, server {:.2} cores, {} lost",
            hold.held_s, hold.pings, hold.pings_per_s_max, hold.server_cores, hold.lost
        )?;
        if let Some(first) = &hold.first_loss {
            writeln!(f, "first loss: {first}")?;
        }
        writeln!(
            f,
            "one publication: {} heard it, {} did not, the last after {:.0} ms; {}",
            publication.heard, publication.missing, publication.took_ms, publication.latency
        )?;
        write!(f, "{}", publication.cpu)
    }
}
