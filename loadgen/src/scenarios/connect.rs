//! `connect`: opens N connections at a set pace and holds them. `probe-connect`: opens
//! and closes, so that "0 of 1,000 new connections failed" can be shown during a fault.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::Stop;
use super::open::{Opening, check_descriptors, open};
use crate::clients::link::LinkEvent;
use crate::clients::websocket::{self, PING, PONG};
use crate::net::{EpollNet, Event, Net};
use crate::process::{CpuUse, CpuWindow};
use crate::record::Summary;
use crate::report::Output;
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

/// Options of both commands.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) opening: Opening,
    pub(crate) hold: Duration,
    pub(crate) server_pids: Vec<u32>,
}

pub(crate) fn run(options: &Options, output: &Output, stop: &Stop) -> Result<Report> {
    let target = Target::parse(&options.url)?;
    let probe = options.opening.close_when_open;
    if !probe {
        check_descriptors(options.opening.count)?;
    }
    let mut net = EpollNet::new()?;
    let run_id = fastrand::u32(..);
    let path = |number: usize| target.path_with("sid", &format!("c{run_id:08x}-{number}"));
    let window = CpuWindow::start(&options.server_pids, Instant::now())?;
    let mut opened = open(
        &mut net,
        |_| &target,
        &options.opening,
        path,
        output,
        stop,
        &mut |net, key, event| {
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
    let until = Instant::now() + options.hold;
    while !probe && Instant::now() < until && !stop.requested() {
        let standing = opened.opened - opened.dropped;
        output.progress(Instant::now(), || format!("holding {standing} connections"));
        net.turn(Some(until), &mut |_, key, event| {
            if matches!(event, Event::Closed(_)) && opened.members[key.tag].take().is_some() {
                opened.dropped += 1;
            }
        })?;
    }
    Ok(Report {
        scenario: if probe { "probe-connect" } else { "connect" },
        url: options.url.clone(),
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

impl Report {
    /// Every attempt came to an open connection that stayed.
    pub(crate) fn all_stood(&self) -> bool {
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
