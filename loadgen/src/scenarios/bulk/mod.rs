//! `bulk`: large data through a balancer, one way or both, as fast as it goes. The far side is `serve-bulk`, which
//! says at the end what it received and sent; a flow is complete when both sides agree.

pub(crate) mod serve;
mod stream;

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as StdStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;

use super::Stop;
use super::window::Measured;
use crate::options::count;
use crate::process::CpuUse;
use crate::report::Output;
use crate::target::Target;
use stream::{Memory, Moved, Stream, TRAILER, trailer};

/// What is under way at the end must have come within this.
const DRAIN_MAX: Duration = Duration::from_secs(20);
const POLL_MAX: Duration = Duration::from_millis(100);

/// Large data through a balancer (tcp://) to `serve-bulk`: bytes per second of the balancer's CPU time
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// tcp://HOST:PORT
    url: String,
    #[arg(long, default_value_t = 1, value_parser = count(1..=1000))]
    flows: usize,
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    direction: Direction,
    #[command(flatten)]
    measured: Measured,
}

/// Where the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// To the server
    Up,
    /// From the server
    Down,
    /// Both at once, on each flow
    Both,
}

impl Direction {
    /// The line that a flow begins with. Its first byte is none that an HTTP request begins with, so
    /// that a balancer passes it on at once.
    pub(crate) const fn line(self) -> &'static str {
        match self {
            Self::Up => "bulk up\n",
            Self::Down => "bulk down\n",
            Self::Both => "bulk both\n",
        }
    }

    pub(crate) const fn up(self) -> bool {
        !matches!(self, Self::Down)
    }

    pub(crate) const fn down(self) -> bool {
        !matches!(self, Self::Up)
    }
}

/// What `bulk` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    url: String,
    flows: usize,
    direction: Direction,
    /// Bytes that went through, both ways together.
    bytes: u64,
    bytes_per_s: f64,
    /// Bytes per second of the balancer's CPU time.
    bytes_per_cpu_s: Option<f64>,
    /// Flows of which the two ends counted different bytes, or whose end did not come.
    incomplete: u64,
    cpu: CpuUse,
}

impl super::Report for Report {
    fn complete(&self) -> bool {
        self.incomplete == 0
    }
}

struct Flow {
    stream: Stream,
    readable: bool,
    writable: bool,
}

pub(crate) fn run(options: &Options, output: &Output, stop: &Stop) -> Result<Report> {
    let target = Target::parse(&options.url)?;
    ensure!(target.raw_tcp, "`{}`: give tcp://HOST:PORT", options.url);
    let direction = options.direction;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut memory = Memory::new();
    let mut flows = Vec::new();
    for number in 0..options.flows {
        let mut socket = StdStream::connect(target.address)
            .with_context(|| format!("cannot connect to {}", target.address))?;
        socket.write_all(direction.line().as_bytes())?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        poll.registry().register(
            &mut socket,
            Token(number),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        flows.push(Flow {
            stream: Stream::new(socket),
            readable: true,
            writable: direction.up(),
        });
    }

    let started = Instant::now();
    let mut window = options.measured.window(started);
    let moved = |flows: &[Flow]| -> u64 {
        flows
            .iter()
            .map(|flow| flow.stream.sent + flow.stream.received)
            .sum()
    };
    let mut before = 0;
    loop {
        let now = Instant::now();
        if window.begins(now)? {
            before = moved(&flows);
        }
        if window.is_over(now) || stop.requested() {
            break;
        }
        output.progress(now, || {
            format!(
                "{:.1} s, {} MiB",
                (now - started).as_secs_f64(),
                moved(&flows) >> 20
            )
        });
        let busy = flows.iter().any(|flow| flow.readable || flow.writable);
        let wait = if busy {
            Duration::ZERO
        } else {
            POLL_MAX.min(window.next_at().saturating_duration_since(now))
        };
        match poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let flow = &mut flows[event.token().0];
            flow.readable |= event.is_readable();
            flow.writable |= event.is_writable() && direction.up();
        }
        for flow in &mut flows {
            if flow.readable {
                match flow.stream.receive(&mut memory)? {
                    Moved::Ended => bail!("a flow was ended from the other side"),
                    moved => flow.readable = moved == Moved::More,
                }
            }
            if flow.writable {
                flow.writable = flow.stream.send(&memory)? == Moved::More;
            }
        }
    }
    let bytes = moved(&flows) - before;
    let cpu = window.finish(Instant::now())?;
    let mut incomplete = 0;
    let until = Instant::now() + DRAIN_MAX;
    for flow in &flows {
        flow.stream.end()?;
    }
    for flow in flows {
        let left = until.saturating_duration_since(Instant::now());
        incomplete += u64::from(!agrees(flow.stream, left));
    }
    Ok(Report {
        scenario: "bulk",
        url: options.url.clone(),
        flows: options.flows,
        direction,
        bytes,
        bytes_per_s: bytes as f64 / cpu.window_s,
        bytes_per_cpu_s: cpu.per_server_cpu_s(bytes),
        incomplete,
        cpu,
    })
}

/// Reads an ended flow to its end, and whether the server counted what we counted.
fn agrees(stream: Stream, left: Duration) -> bool {
    let (sent, mut received) = (stream.sent, stream.received);
    let mut socket = StdStream::from(stream.socket);
    if socket.set_nonblocking(false).is_err()
        || socket
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .is_err()
    {
        return false;
    }
    let mut buffer = vec![0; 256 << 10];
    let mut last: Vec<u8> = Vec::new();
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                received += read as u64;
                last.extend_from_slice(&buffer[..read]);
                let surplus = last.len().saturating_sub(TRAILER);
                last.drain(..surplus);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    received
        .checked_sub(TRAILER as u64)
        .is_some_and(|received| last == trailer(sent, received))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "bulk: {} flows, {:?}: {:.0} MB/s, {} incomplete",
            self.flows,
            self.direction,
            self.bytes_per_s / 1e6,
            self.incomplete
        )?;
        if let Some(per_cpu) = self.bytes_per_cpu_s {
            writeln!(f, "per server CPU-second: {:.0} MB", per_cpu / 1e6)?;
        }
        write!(f, "{}", self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn run_against_ours(direction: Direction, flows: usize) -> Report {
        let (told, address) = mpsc::channel();
        let stop = Stop::never();
        let server = std::thread::spawn({
            let stop = stop.clone();
            move || {
                serve::serve(
                    "127.0.0.1:0".parse().expect("an address"),
                    &stop,
                    |address| {
                        told.send(address).expect("somebody waits");
                    },
                )
            }
        });
        let address = address.recv().expect("it listens");
        let options = Options {
            url: format!("tcp://{address}"),
            flows,
            direction,
            measured: Measured::new(Duration::from_millis(100), Duration::from_secs(1)),
        };
        let report = run(&options, &Output::new(true), &Stop::never()).expect("it runs");
        stop.request();
        server.join().expect("no panic").expect("served");
        report
    }

    #[test]
    fn what_is_moved_is_counted_alike_at_both_ends() {
        for (direction, flows) in [
            (Direction::Up, 1),
            (Direction::Down, 2),
            (Direction::Both, 3),
        ] {
            let report = run_against_ours(direction, flows);
            assert_eq!(report.incomplete, 0, "{direction:?}");
            assert!(report.bytes > 1 << 20, "{direction:?}: {}", report.bytes);
        }
    }
}
