//! Connections of publishers and subscribers in number: opened, and ready for what they are there for.
//! What `fanout` and `idle` stand on.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::driver::Driver;
use super::open::{Opening, open};
use crate::clients::link::{Link, LinkEvent};
use crate::clients::pubsub::{Heard, Protocol, Role, Session, Trouble};
use crate::clients::subscriber::Deliveries;
use crate::net::{Event, Key, Net};
use crate::target::Target;

/// All must be ready within this after the last connection was opened.
const READY_MAX: Duration = Duration::from_secs(60);

/// One that is ready.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) key: Key,
    pub(crate) link: Link,
    pub(crate) session: Session,
}

impl Member {
    /// Takes what came, answers what wants an answer and hands out the rest.
    pub(crate) fn feed(
        &mut self,
        net: &mut impl Net,
        bytes: &[u8],
        deliveries: &Deliveries,
        on_heard: &mut impl FnMut(Heard),
    ) -> Result<(), Trouble> {
        let mut out = Vec::new();
        let mut trouble = None;
        let session = &mut self.session;
        let fed = self.link.feed(bytes, &mut |event| {
            if let LinkEvent::Frame(frame) = event {
                trouble = session
                    .receive(&frame, deliveries, &mut out, on_heard)
                    .err();
            }
            trouble.is_none()
        });
        if !out.is_empty() {
            net.send(self.key, &out);
        }
        match trouble {
            Some(trouble) => Err(trouble),
            None => fed.map_err(|failure| Trouble::Broken(failure.to_string())),
        }
    }
}

/// Opens `count` connections, number i to `target(i)` and for `role(i)`. Each says what it is there for as
/// soon as it is open: a server closes those that say nothing.
pub(crate) fn gather<'t>(
    driver: &mut Driver<'_, impl Net>,
    protocol: Protocol,
    target: impl Fn(usize) -> &'t Target,
    count: usize,
    role: impl Fn(usize) -> Role,
) -> Result<Vec<Member>> {
    let paths = (0..count)
        .map(|number| protocol.path(target(number), number, &role(number)))
        .collect::<Result<Vec<_>>>()?;
    let mut gathering = Gathering {
        sessions: (0..count)
            .map(|number| protocol.session(&role(number)))
            .collect(),
        deliveries: Deliveries::new(),
        ready: 0,
        problem: None,
    };
    let opened = open(
        driver,
        &target,
        &Opening::at_once(count),
        |number| paths[number].clone(),
        &mut |net, key, event| gathering.on_event(net, key, &role, event),
    )?;
    if let Some(problem) = gathering.problem {
        bail!("{problem}");
    }
    let mut members = opened.all()?;
    let Driver { net, output, stop } = driver;
    let until = Instant::now() + READY_MAX;
    while gathering.ready < count {
        let (now, ready) = (Instant::now(), gathering.ready);
        if now >= until || stop.requested() {
            bail!("{ready} of {count} connections were ready when the time was over");
        }
        output.progress(now, || format!("{ready} of {count} ready"));
        net.turn(Some(until), &mut |net, key, event| match event {
            Event::Connected => {}
            Event::Closed(error) => gathering.fail(key, &format!("closed: {error:?}")),
            Event::Data(bytes) => {
                let fed = members[key.tag].link.feed(bytes, &mut |event| {
                    gathering.on_event(net, key, &role, event);
                    true
                });
                if let Err(failure) = fed {
                    gathering.fail(key, &failure.to_string());
                }
            }
        })?;
        if let Some(problem) = gathering.problem {
            bail!("{problem}");
        }
    }
    Ok(members
        .into_iter()
        .zip(gathering.sessions)
        .map(|(member, session)| Member {
            key: member.key,
            link: member.link,
            session,
        })
        .collect())
}

/// How far [`gather`] is.
struct Gathering {
    sessions: Vec<Session>,
    deliveries: Deliveries,
    /// Connections that are.
    ready: usize,
    /// The first one.
    problem: Option<String>,
}

impl Gathering {
    fn on_event(
        &mut self,
        net: &mut impl Net,
        key: Key,
        role: impl Fn(usize) -> Role,
        event: LinkEvent<'_>,
    ) {
        let mut out = Vec::new();
        let session = &mut self.sessions[key.tag];
        match event {
            LinkEvent::Open => {
                let ready = session.opened(&mut out, &role(key.tag));
                self.ready += usize::from(ready);
            }
            LinkEvent::Frame(frame) => {
                let ready = &mut self.ready;
                let received = session.receive(&frame, &self.deliveries, &mut out, &mut |heard| {
                    *ready += usize::from(heard == Heard::Ready);
                });
                if let Err(problem) = received {
                    self.fail(key, &problem.to_string());
                }
            }
        }
        if !out.is_empty() {
            net.send(key, &out);
        }
    }

    fn fail(&mut self, key: Key, what: &str) {
        let number = key.tag;
        self.problem
            .get_or_insert_with(|| format!("connection {number}: {what}"));
    }
}
