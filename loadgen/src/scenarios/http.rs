//! `http`: requests for one page on connections that stay, one at a time on each. Closed loop, or open loop (`--rate`:
//! a request that is due while the one before is not answered waits, and its latency counts from when it was due).
//! Every answer has to be 200 with the same body as the first.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use super::Scenario;
use super::driver::{Driver, Workload, closed};
use super::open::{Member, check_descriptors, open_all};
use super::window::Measured;
use crate::net::{Event, Key, Net};
use crate::options::{CONNECTIONS_MAX, Engine, count, positive};
use crate::pace::{self, Turns};
use crate::process::CpuUse;
use crate::record::{Latencies, Summary};
use crate::target::Target;

/// An answer longer than this is an error.
const ANSWER_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;

/// Requests for one page on connections that stay: one at a time on each
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// http://HOST:PORT/PATH
    url: String,
    #[arg(long, default_value_t = 100, value_parser = count(1..=CONNECTIONS_MAX))]
    connections: usize,
    #[command(flatten)]
    measured: Measured,
    /// Event loop of the load generator [default: ring, or epoll where there is no io_uring]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Requests per second over all connections [default: closed loop]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
}

/// What `http` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    url: String,
    connections: usize,
    requests: u64,
    requests_per_s: f64,
    /// Requests per second of the server's CPU time.
    requests_per_cpu_s: Option<f64>,
    latency: Summary,
    cpu: CpuUse,
}

struct Asker {
    key: Key,
    /// What came so far of an answer that did not come whole.
    partial: Vec<u8>,
    /// When the request under way was due, and those that wait behind it.
    due: VecDeque<Instant>,
}

struct Run {
    request: Vec<u8>,
    askers: Vec<Asker>,
    turns: Turns,
    /// The body of the first answer.
    body: Option<Vec<u8>>,
    /// The latest answer that was parsed: those that are the same, which is most of them within a second, are only
    /// compared with it.
    twin: Vec<u8>,
    latencies: Latencies,
    requests: u64,
}

impl Scenario for Options {
    type Report = Report;

    fn engine(&self) -> Option<Engine> {
        self.engine
    }

    fn run(&self, mut driver: Driver<'_, impl Net>) -> Result<Report> {
        check_descriptors(self.connections)?;
        let rest = self
            .url
            .strip_prefix("http://")
            .with_context(|| format!("`{}`: the scheme must be http://", self.url))?;
        let target = Target::parse(&format!("tcp://{rest}"))?;
        let path = |_| target.path.clone();
        let members = open_all(&mut driver, &target, self.connections, path)?;
        let started = Instant::now();
        let mut run = Run::new(
            &target,
            Turns::new(started, self.rate, self.connections),
            members,
        );
        if self.rate.is_some() {
            driver.net.gather(pace::TICK);
        }
        let cpu = driver.measure(&mut run, self.measured.window(started))?;
        ensure!(run.requests > 0, "no answer came");
        Ok(Report {
            scenario: "http",
            url: self.url.clone(),
            connections: self.connections,
            requests: run.requests,
            requests_per_s: run.requests as f64 / cpu.window_s,
            requests_per_cpu_s: cpu.per_server_cpu_s(run.requests),
            latency: run.latencies.summary(),
            cpu,
        })
    }
}

impl Run {
    fn new(target: &Target, turns: Turns, members: Vec<Member>) -> Self {
        let (path, host) = (&target.path, &target.authority);
        Self {
            request: format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes(),
            askers: members
                .into_iter()
                .map(|member| Asker {
                    key: member.key,
                    partial: Vec::new(),
                    due: VecDeque::new(),
                })
                .collect(),
            turns,
            body: None,
            twin: Vec::new(),
            latencies: Latencies::new(),
            requests: 0,
        }
    }

    /// A request is due on a connection.
    fn ask(&mut self, net: &mut impl Net, index: usize, due: Instant) {
        let asker = &mut self.askers[index];
        asker.due.push_back(due);
        if asker.due.len() == 1 {
            net.send(asker.key, &self.request);
        }
    }

    fn on_bytes(&mut self, net: &mut impl Net, key: Key, bytes: &[u8]) -> Result<(), String> {
        let asker = &mut self.askers[key.tag];
        let is_whole = if asker.partial.is_empty() && bytes == self.twin {
            true
        } else if asker.partial.is_empty() {
            let is_whole = check(bytes, &mut self.body)?;
            match is_whole {
                true => self.twin = bytes.to_vec(),
                false => asker.partial.extend_from_slice(bytes),
            }
            is_whole
        } else {
            asker.partial.extend_from_slice(bytes);
            check(&asker.partial, &mut self.body)?
        };
        if is_whole {
            let now = Instant::now();
            asker.partial.clear();
            let due = asker.due.pop_front().ok_or("an answer to nothing")?;
            self.latencies.record(due, now);
            self.requests += 1;
            if self.turns.is_closed_loop() {
                self.ask(net, key.tag, now);
            } else if !asker.due.is_empty() {
                net.send(key, &self.request);
            }
        }
        Ok(())
    }
}

impl Workload for Run {
    fn send_due(&mut self, net: &mut impl Net, now: Instant) -> Option<Instant> {
        while let Some((index, due)) = self.turns.take(now) {
            self.ask(net, index, due);
        }
        self.turns.next_look(now)
    }

    fn on_event(&mut self, net: &mut impl Net, key: Key, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Connected => Ok(()),
            Event::Closed(error) => Err(closed(error.as_ref())),
            Event::Data(bytes) => self.on_bytes(net, key, bytes),
        }
    }

    fn begin_window(&mut self) {
        self.latencies.clear();
        self.requests = 0;
    }

    fn progress(&self) -> String {
        format!("{} requests", self.requests)
    }
}

impl super::Report for Report {
    fn complete(&self) -> bool {
        true
    }
}

/// Whether the answer is whole; it then is 200 with `body`, which the first one sets.
fn check(bytes: &[u8], body: &mut Option<Vec<u8>>) -> Result<bool, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() < ANSWER_MAX => return Ok(false),
        _ => return Err("not an answer of HTTP".to_owned()),
    };
    if response.code != Some(200) {
        return Err(format!("status {:?}", response.code));
    }
    let length: usize = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .filter(|length| *length <= ANSWER_MAX)
        .ok_or("an answer without a length, or too long")?;
    let came = &bytes[head..];
    match came.len().cmp(&length) {
        std::cmp::Ordering::Less => return Ok(false),
        std::cmp::Ordering::Greater => return Err("more came than was asked for".to_owned()),
        std::cmp::Ordering::Equal => {}
    }
    if body.get_or_insert_with(|| came.to_vec()) != came {
        return Err("another body came than at first".to_owned());
    }
    Ok(true)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "http: {} connections: {:.0} requests/s",
            self.connections, self.requests_per_s
        )?;
        if let Some(per_cpu) = self.requests_per_cpu_s {
            writeln!(f, "per server CPU-second: {per_cpu:.0} requests")?;
        }
        writeln!(f, "latency: {}", self.latency)?;
        write!(f, "{}", self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_checked_to_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let mut body = None;
        for end in 0..answer.len() {
            assert_eq!(check(&answer[..end], &mut body), Ok(false));
        }
        assert_eq!(check(answer, &mut body), Ok(true));
        assert_eq!(body.as_deref(), Some(b"abc".as_slice()));
        let other = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabd";
        assert!(check(other, &mut body).is_err());
        let refused = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
        assert!(check(refused, &mut body).is_err());
    }
}
