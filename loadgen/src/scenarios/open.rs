//! Opens many connections at a set pace and counts what became of each.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use flux_runtime::doctor;

use super::driver::Driver;
use crate::clients::link::{Failure, Link, LinkEvent};
use crate::net::{Event, Key, Net};
use crate::pace::Pace;
use crate::record::Latencies;
use crate::target::Target;

/// Handshakes under way at once when no rate is given.
const IN_FLIGHT_MAX: usize = 128;
/// Descriptors that this program needs beside its connections.
const DESCRIPTORS_SPARE: u64 = 64;

/// How to open.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) count: usize,
    /// Connections per second; `None`: as fast as handshakes complete.
    pub(crate) rate: Option<f64>,
    /// A handshake that takes longer has failed.
    pub(crate) timeout: Duration,
    /// Close each connection when its handshake is complete.
    pub(crate) close_when_open: bool,
}

impl Opening {
    /// As fast as handshakes complete, to be kept.
    pub(crate) fn at_once(count: usize) -> Self {
        Self {
            count,
            rate: None,
            timeout: Duration::from_secs(10),
            close_when_open: false,
        }
    }
}

/// One connection that stands.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) key: Key,
    pub(crate) link: Link,
}

/// What became of the attempts.
#[derive(Debug)]
pub(crate) struct Opened {
    /// By number of the attempt; `None`: failed, or closed since.
    pub(crate) members: Vec<Option<Member>>,
    pub(crate) opened: u64,
    /// From the intended start to the complete handshake.
    pub(crate) handshake: Latencies,
    pub(crate) failures: BTreeMap<String, u64>,
    /// Connections that were open and then ended by the peer while others were opened.
    pub(crate) dropped: u64,
    pub(crate) took: Duration,
}

impl Opened {
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// All or nothing, for scenarios that measure a fixed number of connections.
    pub(crate) fn all(self) -> Result<Vec<Member>> {
        if self.failed() + self.dropped > 0 || self.members.iter().any(Option::is_none) {
            anyhow::bail!(
                "{} of {} connections did not stand: {} closed by the server once open, {:?}",
                self.failed() + self.dropped,
                self.members.len(),
                self.dropped,
                self.failures
            );
        }
        Ok(self.members.into_iter().flatten().collect())
    }
}

/// An error, with the remedy, when this machine cannot hold `count` connections in one process.
pub(crate) fn check_descriptors(count: usize) -> Result<()> {
    let limit = doctor::raise_nofile().context("the limit of open files")?;
    anyhow::ensure!(
        count as u64 + DESCRIPTORS_SPARE <= limit,
        "{count} connections need {} open files, the limit is {limit}: raise it (ulimit -Hn) or run several processes",
        count as u64 + DESCRIPTORS_SPARE
    );
    Ok(())
}

/// Opens `count` connections to one place, as fast as handshakes complete, and all of them.
pub(crate) fn open_all(
    driver: &mut Driver<'_, impl Net>,
    target: &Target,
    count: usize,
    path: impl Fn(usize) -> String,
) -> Result<Vec<Member>> {
    let opening = Opening::at_once(count);
    open(driver, |_| target, &opening, path, &mut |_, _, _| {})?.all()
}

/// Opens `opening.count` connections, number i to `target(i)`. That one is open, and frames that come
/// meanwhile, go to `on_event`, which may send through the net.
pub(crate) fn open<'t, N: Net>(
    driver: &mut Driver<'_, N>,
    target: impl Fn(usize) -> &'t Target,
    opening: &Opening,
    path: impl Fn(usize) -> String,
    on_event: &mut impl FnMut(&mut N, Key, LinkEvent<'_>),
) -> Result<Opened> {
    let Driver { net, output, stop } = driver;
    let started = Instant::now();
    let mut run = Opened {
        members: Vec::with_capacity(opening.count),
        opened: 0,
        handshake: Latencies::new(),
        failures: BTreeMap::new(),
        dropped: 0,
        took: Duration::ZERO,
    };
    let mut pace = opening.rate.map(|rate| Pace::new(started, rate));
    // Intended start by connection; requests to send once TCP stands; deadlines in order.
    let mut intended: Vec<Instant> = Vec::with_capacity(opening.count);
    let mut requests: Vec<Vec<u8>> = Vec::with_capacity(opening.count);
    let mut deadlines: VecDeque<(Instant, usize)> = VecDeque::new();
    let mut settled = 0usize;
    while settled < opening.count && !stop.requested() {
        let now = Instant::now();
        while intended.len() < opening.count {
            let due = match &mut pace {
                Some(pace) => pace.take(now).map(|(_, due)| due),
                None => (intended.len() - settled < IN_FLIGHT_MAX).then_some(now),
            };
            let Some(due) = due else { break };
            let number = intended.len();
            intended.push(due);
            let target = target(number);
            let (link, request) = Link::new(target, &path(number));
            match net.connect(target.address, target.source(number), number) {
                Ok(key) => {
                    requests.push(request);
                    run.members.push(Some(Member { key, link }));
                    deadlines.push_back((now + opening.timeout, number));
                }
                Err(error) => {
                    requests.push(Vec::new());
                    run.members.push(None);
                    run.count_failure(&Failure::from_end(Some(&error)));
                    settled += 1;
                }
            }
        }
        while let Some(&(deadline, number)) = deadlines.front() {
            let waiting = run.members[number]
                .as_ref()
                .is_some_and(|member| !member.link.is_open());
            if waiting && deadline > now {
                break;
            }
            deadlines.pop_front();
            if waiting && let Some(member) = run.members[number].take() {
                net.close(member.key);
                run.count_failure(&Failure::Timeout);
                settled += 1;
            }
        }
        output.progress(now, || {
            format!(
                "{} of {} connections open, {} failed",
                run.opened,
                opening.count,
                run.failed()
            )
        });
        let until = [
            deadlines.front().map(|(deadline, _)| *deadline),
            pace.as_ref()
                .filter(|_| intended.len() < opening.count)
                .map(Pace::next_at),
        ];
        net.turn(until.into_iter().flatten().min(), &mut |net, key, event| {
            let number = key.tag;
            match event {
                Event::Connected if target(number).raw_tcp => {
                    if let Some(member) = &mut run.members[number] {
                        member.link = Link::default();
                    }
                    run.count_open(intended[number]);
                    settled += 1;
                }
                Event::Connected => net.send(key, &std::mem::take(&mut requests[number])),
                Event::Closed(error) => {
                    if let Some(member) = run.members[number].take() {
                        if member.link.is_open() {
                            run.dropped += 1;
                        } else {
                            run.count_failure(&Failure::from_end(error.as_ref()));
                            settled += 1;
                        }
                    }
                }
                Event::Data(bytes) => {
                    let Some(member) = run.members[number].as_mut() else {
                        return;
                    };
                    let mut opened = false;
                    let result = member.link.feed(bytes, &mut |event| {
                        opened |= matches!(event, LinkEvent::Open);
                        on_event(net, key, event);
                        true
                    });
                    if opened {
                        run.count_open(intended[number]);
                        settled += 1;
                    }
                    if let Err(failure) = result {
                        if !opened {
                            settled += 1;
                        }
                        run.count_failure(&failure);
                        run.members[number] = None;
                        net.close(key);
                    } else if opened && opening.close_when_open {
                        run.members[number] = None;
                        net.close(key);
                    }
                }
            }
        })?;
    }
    run.took = started.elapsed();
    Ok(run)
}

impl Opened {
    fn count_failure(&mut self, failure: &Failure) {
        *self.failures.entry(failure.to_string()).or_default() += 1;
    }

    fn count_open(&mut self, intended: Instant) {
        self.opened += 1;
        self.handshake.record(intended, Instant::now());
    }
}
