//! `idle`: what an idle subscribed connection costs the server in resident memory.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::Stop;
use super::crowd::gather;
use super::open::check_descriptors;
use crate::clients::pubsub::{Protocol, Role};
use crate::clients::subscriber::Deliveries;
use crate::net::{EpollNet, Event, Net};
use crate::process::{self, Memory};
use crate::report::Output;
use crate::target::Target;

/// Options of `idle`.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    pub(crate) channel: String,
    /// Channels that the connections are spread over: `CHANNEL`, or `CHANNEL-0`, `CHANNEL-1`, ...
    pub(crate) channels: usize,
    /// Rest between the last subscription and the second look at the memory.
    pub(crate) hold: Duration,
    pub(crate) server_pid: u32,
}

/// What `idle` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    url: String,
    connections: usize,
    channels: usize,
    before: Memory,
    after: Memory,
    /// Resident bytes per connection, files and shared memory included.
    resident_per_connection: f64,
    /// Resident anonymous bytes per connection.
    anonymous_per_connection: f64,
    /// Server CPU seconds while the connections were held.
    held_cpu_s: f64,
    held_s: f64,
}

pub(crate) fn run(options: &Options, output: &Output, stop: &Stop) -> Result<Report> {
    check_descriptors(options.connections)?;
    let target = Target::parse(&options.url)?;
    let before = process::memory(options.server_pid)?;
    let mut net = EpollNet::new()?;
    let channel = |number: usize| match options.channels {
        1 => options.channel.clone(),
        channels => format!("{}-{}", options.channel, number % channels),
    };
    let mut members = gather(
        &mut net,
        options.protocol,
        |_| &target,
        options.connections,
        |number| Role::Subscriber(vec![channel(number)]),
        output,
        stop,
    )?;
    let started = Instant::now();
    let cpu_before = process::cpu_time(options.server_pid)?;
    let until = started + options.hold;
    let deliveries = Deliveries::new();
    let mut lost = 0;
    while Instant::now() < until && !stop.requested() {
        net.turn(Some(until), &mut |net, key, event| match event {
            Event::Connected => {}
            Event::Closed(_) => lost += 1,
            Event::Data(bytes) => {
                let fed = members[key.tag].feed(net, bytes, &deliveries, &mut |_| {});
                lost += usize::from(fed.is_err());
            }
        })?;
        output.progress(Instant::now(), || {
            format!("holding {} connections", options.connections - lost)
        });
    }
    if lost > 0 {
        bail!(
            "{lost} of {} connections were lost while idle",
            options.connections
        );
    }
    let after = process::memory(options.server_pid)?;
    let each =
        |before: u64, after: u64| after.saturating_sub(before) as f64 / options.connections as f64;
    Ok(Report {
        scenario: "idle",
        url: options.url.clone(),
        connections: options.connections,
        channels: options.channels,
        resident_per_connection: each(before.resident, after.resident),
        anonymous_per_connection: each(before.anonymous, after.anonymous),
        before,
        after,
        held_cpu_s: process::cpu_time(options.server_pid)?
            .saturating_sub(cpu_before)
            .as_secs_f64(),
        held_s: started.elapsed().as_secs_f64(),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "idle: {} connections subscribed over {} channels: {:.0} bytes of resident memory each",
            self.connections, self.channels, self.resident_per_connection
        )?;
        write!(
            f,
            "server: {} KiB before, {} KiB after; {:.2} CPU-seconds in {:.0} s of holding them",
            self.before.resident / 1024,
            self.after.resident / 1024,
            self.held_cpu_s,
            self.held_s
        )
    }
}
