//! `connect`: opens N connections at a set pace and holds them. `probe-connect`: opens
//! and closes, so that "0 of 1,000 new connections failed" can be shown during a fault.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::Scenario;
use super::driver::Driver;
use super::open::{Opening, check_descriptors, open};
use crate::clients::link::LinkEvent;
use crate::clients::websocket::{self, PING, PONG};
use crate::net::{Event, Net};
use crate::options::{CONNECTIONS_MAX, DURATION_S_MAX, Engine, count, positive, seconds};
use crate::process::{CpuUse, CpuWindow};
use crate::record::Summary;
use crate::target::Target;

/// What `connect` and `probe-connect` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    url: String,
    attempted: u64,
    opened: u64,
    failed: u64,
    /// Failed attempts by kind.
    failures: BTreeMap<String, u64>,
    /// Open connections that the server ended.
    dropped: u64,
    took_s: f64,
    opened_per_s: f64,
    /// From the intended start of the connection to the complete handshake.
    handshake: Summary,
    handshakes_per_cpu_s: Option<f64>,
    /// While they were opened.
    cpu: CpuUse,
}

/// Open connections at a set pace, hold them, report handshake latency and failures by kind
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// ws://HOST:PORT/PATH
    url: String,
    /// Connections to open
    #[arg(long, default_value_t = 1000, value_parser = count(1..=CONNECTIONS_MAX))]
    connections: usize,
    /// New connections per second [default: as fast as handshakes complete]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Seconds to hold the connections once all were tried
    #[arg(long, default_value = "0", value_parser = seconds(0..=DURATION_S_MAX))]
    hold: Duration,
    /// Seconds after which a handshake has failed
    #[arg(long, default_value = "10", value_parser = seconds(1..=600))]
    timeout: Duration,
}

/// Open and close connections at a set pace: "0 of 1,000 new connections failed" during a fault
#[derive(Debug, Args)]
pub(crate) struct ProbeOptions {
    /// ws://HOST:PORT/PATH
    url: String,
    /// Connections to try
    #[arg(long, default_value_t = 1000, value_parser = count(1..=CONNECTIONS_MAX))]
    count: usize,
    /// New connections per second
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// Seconds after which a handshake has failed
    #[arg(long, default_value = "10", value_parser = seconds(1..=600))]
    timeout: Duration,
    /// Process whose CPU time counts; may be given several times
    #[arg(long = "server-pid", value_name = "PID")]
    server_pids: Vec<u32>,
}

impl Scenario for Options {
    type Report = Report;

    fn engine(&self) -> Option<Engine> {
        Some(Engine::Epoll)
    }

    fn run(&self, driver: Driver<'_, impl Net>) -> Result<Report> {
        check_descriptors(self.connections)?;
        let opening = Opening {
            count: self.connections,
            rate: self.rate,
            timeout: self.timeout,
            close_when_open: false,
        };
        run(driver, "connect", &self.url, &opening, self.hold, &[])
    }
}

impl Scenario for ProbeOptions {
    type Report = Report;

    fn engine(&self) -> Option<Engine> {
        Some(Engine::Epoll)
    }

    fn run(&self, driver: Driver<'_, impl Net>) -> Result<Report> {
        let opening = Opening {
            count: self.count,
            rate: Some(self.rate),
            timeout: self.timeout,
            close_when_open: true,
        };
        let (url, pids) = (&self.url, &self.server_pids);
        run(driver, "probe-connect", url, &opening, Duration::ZERO, pids)
    }
}

fn run<N: Net>(
    mut driver: Driver<'_, N>,
    scenario: &'static str,
    url: &str,
    opening: &Opening,
    hold: Duration,
    server_pids: &[u32],
) -> Result<Report> {
    let target = Target::parse(url)?;
    let run_id = fastrand::u32(..);
    let path = |number: usize| target.path_with("sid", &format!("c{run_id:08x}-{number}"));
    let window = CpuWindow::start(server_pids, Instant::now())?;
    let mut opened = open(
        &mut driver,
        |_| &target,
        opening,
        path,
        &mut |net: &mut N, key, event| {
            if let LinkEvent::Frame(frame) = event
                && frame.opcode == PING
            {
                let mut pong = Vec::new();
                websocket::frame(&mut pong, PONG, [7, 7, 7, 7], frame.payload);
                net.send(key, &pong);
            }
        },
    )?;
    let cpu = window.finish(Instant::now())?;
    let Driver { net, output, stop } = &mut driver;
    let until = Instant::now() + hold;
    while Instant::now() < until && !stop.requested() {
        let standing = opened.opened - opened.dropped;
        output.progress(Instant::now(), || format!("holding {standing} connections"));
        net.turn(Some(until), &mut |_, key, event| {
            if matches!(event, Event::Closed(_)) && opened.members[key.tag].take().is_some() {
                opened.dropped += 1;
            }
        })?;
    }
    Ok(Report {
        scenario,
        url: url.to_owned(),
        attempted: opened.members.len() as u64,
        opened: opened.opened,
        failed: opened.failed(),
        dropped: opened.dropped,
        took_s: opened.took.as_secs_f64(),
        opened_per_s: opened.opened as f64 / opened.took.as_secs_f64().max(1e-9),
        handshake: opened.handshake.summary(),
        handshakes_per_cpu_s: cpu.per_server_cpu_s(opened.opened),
        cpu,
        failures: opened.failures,
    })
}

impl super::Report for Report {
    /// Every attempt came to an open connection that stayed.
    fn complete(&self) -> bool {
        self.failed == 0 && self.dropped == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} of {} connections opened in {:.2} s ({:.0}/s), {} failed, {} dropped",
            self.scenario,
            self.opened,
            self.attempted,
            self.took_s,
            self.opened_per_s,
            self.failed,
            self.dropped
        )?;
        for (kind, count) in &self.failures {
            writeln!(f, "  {count:>6} {kind}")?;
        }
        if let Some(per_cpu) = self.handshakes_per_cpu_s {
            writeln!(f, "per server CPU-second: {per_cpu:.0} handshakes")?;
        }
        writeln!(f, "handshake: {}", self.handshake)?;
        write!(f, "{}", self.cpu)
    }
}
