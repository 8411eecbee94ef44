//! One thread: a ring and its part of the connections. Each opens, connects, subscribes, answers pings and
//! hears; in between it is a link and two flags.

use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use flux_runtime::ring::RingConfig;

use super::{Run, SLOTS_SPARE};
use crate::clients::link::{Link, LinkEvent};
use crate::clients::pubsub::{Heard, Protocol, Role, Session};
use crate::clients::subscriber::Deliveries;
use crate::net::{Event, Key, Net, RingNet};
use crate::record::Latencies;

struct Member {
    link: Link,
    session: Session,
    is_subscribed: bool,
    has_heard: bool,
}

struct Part<'r> {
    run: &'r Run,
    /// Number of the first connection.
    first: usize,
    role: Role,
    members: Vec<Member>,
    /// Those that are neither subscribed nor lost yet.
    in_flight: usize,
    deliveries: Deliveries,
    latencies: Latencies,
}

/// Opens the connections of these numbers and holds them until the run is over. Says how long after the
/// publish command each one heard it.
pub(super) fn hold(run: &Run, numbers: Range<usize>) -> Latencies {
    let mut part = Part {
        run,
        first: numbers.start,
        role: Role::Subscriber(vec![run.channel.clone()]),
        members: Vec::with_capacity(numbers.len()),
        in_flight: 0,
        deliveries: Deliveries::new(),
        latencies: Latencies::new(),
    };
    if let Err(error) = part.work(numbers.len()) {
        run.fail(format!("{error:#}"));
    }
    part.latencies
}

impl Part<'_> {
    fn work(&mut self, count: usize) -> anyhow::Result<()> {
        let mut net = RingNet::with(&RingConfig {
            submission_entries: 512,
            completion_entries: 4096,
            // Answers are short, and there are many rings.
            buffer_len: 1024,
            buffer_count: 128,
            buffer_count_max: 1024,
            direct_slots: (count + SLOTS_SPARE) as u32,
            ..RingConfig::default()
        })?;
        while !self.run.is_over.load(Ordering::Acquire) {
            while self.members.len() < count && self.in_flight < self.run.in_flight {
                let tag = self.members.len();
                let source = self.run.source(self.first + tag);
                net.connect(self.run.target.address, source, tag)?;
                self.members.push(Member {
                    link: Link::default(),
                    session: Protocol::Centrifuge.session(&self.role),
                    is_subscribed: false,
                    has_heard: false,
                });
                self.in_flight += 1;
            }
            net.turn(None, &mut |net, key, event| self.on_event(net, key, event))?;
        }
        Ok(())
    }

    fn on_event(&mut self, net: &mut RingNet, key: Key, event: Event<'_>) {
        match event {
            Event::Connected => {
                let number = self.first + key.tag;
                match Protocol::Centrifuge.path(&self.run.target, number, &self.role) {
                    Ok(path) => {
                        let (link, request) = Link::new(&self.run.target, &path);
                        self.members[key.tag].link = link;
                        net.send(key, &request);
                    }
                    Err(error) => self.run.fail(format!("{error:#}")),
                }
            }
            Event::Closed(error) => self.lost(key, &format!("closed: {error:?}")),
            Event::Data(bytes) => {
                let mut link = std::mem::take(&mut self.members[key.tag].link);
                let mut problem = None;
                let fed = link.feed(bytes, &mut |event| {
                    problem = self.on_link_event(net, key, event).err();
                    problem.is_none()
                });
                self.members[key.tag].link = link;
                let problem = problem.or(fed.err().map(|failure| failure.to_string()));
                if let Some(problem) = problem {
                    self.lost(key, &problem);
                    net.close(key);
                }
            }
        }
    }

    fn on_link_event(
        &mut self,
        net: &mut RingNet,
        key: Key,
        event: LinkEvent<'_>,
    ) -> Result<(), String> {
        let member = &mut self.members[key.tag];
        let mut out = Vec::new();
        let (mut ready, mut heard) = (false, 0);
        match event {
            LinkEvent::Open => {
                member.session.opened(&mut out, &self.role);
            }
            LinkEvent::Frame(frame) => {
                let received =
                    member
                        .session
                        .receive(&frame, &self.deliveries, &mut out, &mut |what| match what {
                            Heard::Ready => ready = true,
                            Heard::Delivery(_) => heard += 1,
                            Heard::Refused => {}
                        });
                received.map_err(|error| format!("{error:#}"))?;
                self.run
                    .pings
                    .fetch_add(u64::from(!out.is_empty()), Ordering::Relaxed);
            }
        }
        if !out.is_empty() {
            net.send(key, &out);
        }
        if ready {
            member.is_subscribed = true;
            self.in_flight -= 1;
            self.run.subscribed.fetch_add(1, Ordering::Relaxed);
        }
        if heard > 1 || (heard == 1 && member.has_heard) {
            return Err("the publication came twice".to_owned());
        }
        if heard == 1 {
            member.has_heard = true;
            self.latencies.record(self.run.published(), Instant::now());
            self.run.heard.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A connection that did not come about ends the run; one that was lost later counts.
    fn lost(&mut self, key: Key, what: &str) {
        let problem = || format!("connection {}: {what}", self.first + key.tag);
        if self.members[key.tag].is_subscribed {
            self.run.lost.fetch_add(1, Ordering::Relaxed);
            let first = &self.run.first_loss;
            first
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(problem);
        } else {
            self.run.fail(problem());
        }
    }
}
