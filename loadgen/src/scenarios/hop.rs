//! `hop`: how long a message takes through a balancer and back. Both ends are in this program, on one thread that never
//! sleeps: nothing is measured but the way, and neither end waits for the other to be run. Latency counts from when a
//! message was due (open loop), or was sent (closed loop: one under way on each flow).
//!
//! A flow begins with a line that names it, so that the end which is accepted finds the one that was connected.

use std::collections::VecDeque;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream as StdStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;

use super::Stop;
use super::head::{self, HEAD_MAX};
use super::open::check_descriptors;
use super::window::Times;
use crate::options::{count, positive};
use crate::pace::Turns;
use crate::record::{Latencies, Summary};
use crate::report::Output;
use crate::target::Target;

/// All flows stand within this.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// After the run, messages under way may return within this.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// The line of flow 17 is `hop 17`.
const GREETING: &str = "hop ";
/// Bytes of a message that tell it from others.
const NUMBER_BYTES: usize = 8;

/// How long messages take through a TCP balancer and back, both ends being here
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// tcp://HOST:PORT of the balancer
    url: String,
    /// Where it connects to: the other end of each flow
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    #[arg(long, default_value_t = 100, value_parser = count(1..=1000))]
    flows: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 20, value_parser = count(8..=64 << 10))]
    size: usize,
    #[command(flatten)]
    times: Times,
    /// Messages per second over all flows [default: closed loop]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
}

/// What `hop` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    url: String,
    flows: usize,
    size: usize,
    messages: u64,
    messages_per_s: f64,
    /// Sent but not returned within 5 s of the end.
    missing: u64,
    /// To the far end.
    there: Summary,
    /// To the far end and back.
    and_back: Summary,
}

/// One end of a flow.
struct End {
    socket: TcpStream,
    /// What came so far of a message.
    partial: Vec<u8>,
    /// Number of the next message to come.
    next: u64,
}

struct Flow {
    near: End,
    far: End,
    /// When the messages under way were due, and how many of them have been at the far end.
    due: VecDeque<Instant>,
    turned: usize,
    sent: u64,
}

struct Run {
    flows: Vec<Flow>,
    size: usize,
    turns: Turns,
    sending: bool,
    there: Latencies,
    and_back: Latencies,
    messages: u64,
}

pub(crate) fn run(options: &Options, output: &Output, stop: &Stop) -> Result<Report> {
    check_descriptors(2 * options.flows)?;
    let target = Target::parse(&options.url)?;
    ensure!(target.raw_tcp, "`{}`: give tcp://HOST:PORT", options.url);
    let mut poll = Poll::new()?;
    let flows = open(options, target.address, &poll)?;
    let started = Instant::now();
    let mut run = Run {
        flows,
        size: options.size,
        turns: Turns::new(started, options.rate, options.flows),
        sending: true,
        there: Latencies::new(),
        and_back: Latencies::new(),
        messages: 0,
    };
    let mut events = Events::with_capacity(1024);
    let mut window = options.times.window(started, &[]);
    loop {
        let now = Instant::now();
        if window.begins(now)? {
            run.there.clear();
            run.and_back.clear();
            run.messages = 0;
        }
        if window.is_over(now) || stop.requested() {
            break;
        }
        while let Some((index, due)) = run.turns.take(now) {
            run.send(index, due)?;
        }
        output.progress(now, || format!("{} messages", run.messages));
        run.turn(&mut poll, &mut events)?;
    }
    let (messages, window_s) = (run.messages, window.finish(Instant::now())?.window_s);
    let (there, and_back) = (run.there.summary(), run.and_back.summary());
    run.sending = false;
    let until = Instant::now() + DRAIN_MAX;
    while run.under_way() > 0 && Instant::now() < until && !stop.requested() {
        run.turn(&mut poll, &mut events)?;
    }
    Ok(Report {
        scenario: "hop",
        url: options.url.clone(),
        flows: options.flows,
        size: options.size,
        messages,
        messages_per_s: messages as f64 / window_s,
        missing: run.under_way() as u64,
        there,
        and_back,
    })
}

/// Connects the flows one after the other: what is accepted next is the other end, as its line confirms.
fn open(options: &Options, balancer: SocketAddr, poll: &Poll) -> Result<Vec<Flow>> {
    let listener = TcpListener::bind(options.listen)
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    listener.set_nonblocking(true)?;
    let until = Instant::now() + OPEN_MAX;
    let mut flows = Vec::with_capacity(options.flows);
    for index in 0..options.flows {
        let mut near = StdStream::connect(balancer)
            .with_context(|| format!("cannot connect to {balancer}"))?;
        let line = format!("{GREETING}{index}\n");
        near.write_all(line.as_bytes())?;
        let far = accept(&listener, &line, until)
            .with_context(|| format!("flow {index} did not come through {balancer}"))?;
        flows.push(Flow {
            near: End::new(near, poll, Token(2 * index))?,
            far: End::new(far, poll, Token(2 * index + 1))?,
            due: VecDeque::new(),
            turned: 0,
            sent: 0,
        });
    }
    Ok(flows)
}

/// The connection that begins with `line`; others, as of a balancer that looks whether somebody listens, are let go.
fn accept(listener: &TcpListener, line: &str, until: Instant) -> Result<StdStream> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "not in time");
        match listener.accept() {
            Ok((mut socket, _)) => {
                socket.set_nonblocking(false)?;
                socket.set_read_timeout(Some(left))?;
                if begins_with(&mut socket, line)? {
                    return Ok(socket);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads the head of a flow and not a byte further.
fn begins_with(socket: &mut StdStream, line: &str) -> Result<bool> {
    let mut head = Vec::new();
    let mut byte = [0];
    while head.len() < HEAD_MAX {
        if let Some(came) = head::line(&head) {
            return Ok(came == line.as_bytes());
        }
        if socket.read(&mut byte)? == 0 {
            return Ok(false);
        }
        head.push(byte[0]);
    }
    Ok(false)
}

impl Run {
    fn send(&mut self, index: usize, due: Instant) -> Result<()> {
        let flow = &mut self.flows[index];
        let mut message = vec![b'h'; self.size];
        message[..NUMBER_BYTES].copy_from_slice(&flow.sent.to_be_bytes());
        flow.sent += 1;
        flow.due.push_back(due);
        flow.near.write(&message)
    }

    /// Takes what has come, without waiting for more.
    fn turn(&mut self, poll: &mut Poll, events: &mut Events) -> Result<()> {
        match poll.poll(events, Some(Duration::ZERO)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &*events {
            let (index, is_far) = (event.token().0 / 2, event.token().0 % 2 == 1);
            let flow = &mut self.flows[index];
            if is_far {
                let came = flow.far.read(self.size)?;
                let now = Instant::now();
                for message in came.chunks_exact(self.size) {
                    let due = flow.due.get(flow.turned).context("a message from nobody")?;
                    self.there.record(*due, now);
                    flow.turned += 1;
                    flow.far.write(message)?;
                }
                continue;
            }
            let came = flow.near.read(self.size)?;
            let now = Instant::now();
            for _ in came.chunks_exact(self.size) {
                let flow = &mut self.flows[index];
                let due = flow.due.pop_front().context("a message from nobody")?;
                flow.turned -= 1;
                self.and_back.record(due, now);
                self.messages += 1;
                if self.sending && self.turns.is_closed_loop() {
                    self.send(index, now)?;
                }
            }
        }
        Ok(())
    }

    fn under_way(&self) -> usize {
        self.flows.iter().map(|flow| flow.due.len()).sum()
    }
}

impl End {
    fn new(socket: StdStream, poll: &Poll, token: Token) -> Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let mut socket = TcpStream::from_std(socket);
        poll.registry()
            .register(&mut socket, token, Interest::READABLE)?;
        Ok(Self {
            socket,
            partial: Vec::new(),
            next: 0,
        })
    }

    /// A message is far smaller than the kernel's buffer: one that is not taken whole has nowhere to go.
    fn write(&mut self, message: &[u8]) -> Result<()> {
        let written = self.socket.write(message).context("cannot send")?;
        ensure!(
            written == message.len(),
            "only {written} bytes of a message were taken"
        );
        Ok(())
    }

    /// Everything that has come, in whole messages, each with the number that is due.
    fn read(&mut self, size: usize) -> Result<Vec<u8>> {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => bail!("a flow was ended from the other side"),
                Ok(read) => self.partial.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
        let rest = self.partial.split_off(self.partial.len() / size * size);
        let whole = std::mem::replace(&mut self.partial, rest);
        for message in whole.chunks_exact(size) {
            ensure!(
                message[..NUMBER_BYTES] == self.next.to_be_bytes(),
                "another message came than was sent"
            );
            self.next += 1;
        }
        Ok(whole)
    }
}

impl super::Report for Report {
    fn complete(&self) -> bool {
        self.missing == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "hop: {} flows, {} bytes: {:.0} messages/s, {} missing",
            self.flows, self.size, self.messages_per_s, self.missing
        )?;
        writeln!(f, "there: {}", self.there)?;
        write!(f, "and back: {}", self.and_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_runtime::proxy_protocol;

    #[test]
    fn every_message_is_seen_at_both_ends() {
        // Without a balancer it is its own other side.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let listen = listener.local_addr().expect("an address");
        drop(listener);
        for rate in [None, Some(1000.0)] {
            let options = Options {
                url: format!("tcp://{listen}"),
                listen,
                flows: 3,
                size: 20,
                times: Times::new(Duration::from_millis(100), Duration::from_millis(400)),
                rate,
            };
            let report = run(&options, &Output::new(true), &Stop::never()).expect("it runs");
            assert_eq!(report.missing, 0);
            assert!(report.messages >= 300, "{}", report.messages);
            assert_eq!(report.messages, report.and_back.count);
            assert!(report.there.p50_us <= report.and_back.p50_us);
        }
    }

    #[test]
    fn the_other_end_is_found_behind_a_proxy_header_and_strangers_are_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("an address");
        let until = Instant::now() + OPEN_MAX;
        drop(StdStream::connect(address).expect("a stranger"));
        let mut other = StdStream::connect(address).expect("another flow");
        other.write_all(b"hop 2\n").expect("room");
        let mut near = StdStream::connect(address).expect("the flow");
        near.write_all(&proxy_protocol::encode_v2(address, address))
            .and_then(|()| near.write_all(b"hop 1\nx"))
            .expect("room");
        let mut far = accept(&listener, "hop 1\n", until).expect("found");
        let mut rest = [0; 1];
        far.read_exact(&mut rest).expect("what follows is left");
        assert_eq!(&rest, b"x");
    }
}
