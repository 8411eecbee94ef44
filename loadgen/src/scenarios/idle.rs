//! `idle`: what an idle subscribed connection costs the server in resident memory.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::Scenario;
use super::crowd::gather;
use super::driver::Driver;
use super::open::check_descriptors;
use crate::clients::pubsub::{Protocol, Role};
use crate::clients::subscriber::Deliveries;
use crate::net::{Event, Net};
use crate::options::{CONNECTIONS_MAX, DURATION_S_MAX, Engine, count, seconds};
use crate::process::{self, Memory};
use crate::target::Target;

/// Resident memory of idle subscribed connections
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// ws://HOST:PORT/PATH
    url: String,
    #[arg(long, default_value_t = 10_000, value_parser = count(1..=CONNECTIONS_MAX))]
    connections: usize,
    #[arg(long, default_value = "idle")]
    channel: String,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t = Protocol::Centrifuge)]
    protocol: Protocol,
    /// Spread the connections over CHANNEL-0, CHANNEL-1, ...
    #[arg(long, default_value_t = 1, value_parser = count(1..=CONNECTIONS_MAX))]
    channels: usize,
    /// Seconds of rest before the memory is looked at
    #[arg(long, default_value = "3", value_parser = seconds(0..=DURATION_S_MAX))]
    hold: Duration,
    /// Process whose memory counts
    #[arg(long, value_name = "PID")]
    server_pid: u32,
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

impl Scenario for Options {
    type Report = Report;

    fn engine(&self) -> Option<Engine> {
        Some(Engine::Epoll)
    }

    fn run(&self, mut driver: Driver<'_, impl Net>) -> Result<Report> {
        check_descriptors(self.connections)?;
        let target = Target::parse(&self.url)?;
        let before = process::memory(self.server_pid)?;
        let channels = self.channels.min(self.connections);
        let role = |number: usize| {
            Role::Subscriber(vec![match channels {
                1 => self.channel.clone(),
                channels => format!("{}-{}", self.channel, number % channels),
            }])
        };
        let total = self.connections;
        let mut members = gather(&mut driver, self.protocol, |_| &target, total, role)?;
        let Driver { net, output, stop } = &mut driver;
        let started = Instant::now();
        let cpu_before = process::cpu_time(self.server_pid)?;
        let until = started + self.hold;
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
                format!("holding {} connections", total - lost)
            });
        }
        if lost > 0 {
            bail!("{lost} of {total} connections were lost while idle");
        }
        let after = process::memory(self.server_pid)?;
        let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / total as f64;
        Ok(Report {
            scenario: "idle",
            url: self.url.clone(),
            connections: total,
            channels,
            resident_per_connection: each(before.resident, after.resident),
            anonymous_per_connection: each(before.anonymous, after.anonymous),
            before,
            after,
            held_cpu_s: process::cpu_time(self.server_pid)?
                .saturating_sub(cpu_before)
                .as_secs_f64(),
            held_s: started.elapsed().as_secs_f64(),
        })
    }
}

impl super::Report for Report {
    fn complete(&self) -> bool {
        true
    }
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
