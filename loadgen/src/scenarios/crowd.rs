//! Subscribed connections in number: opened, connected and subscribed by the Centrifuge
//! protocol, pings answered. What `fanout` and `idle` stand on.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Stop;
use super::open::{Member, Opening, open};
use crate::clients::centrifuge;
use crate::clients::link::LinkEvent;
use crate::clients::websocket::{self, Frame, PING, PONG, TEXT};
use crate::net::{Event, Key, Net};
use crate::report::Output;
use crate::target::Target;

/// All subscriptions must stand within this after the last connection was opened.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(60);

/// Sends one masked text frame.
pub(crate) fn send_text(net: &mut impl Net, key: Key, text: &str) {
    let mut bytes = Vec::with_capacity(text.len() + 14);
    websocket::frame(&mut bytes, TEXT, [0x5a, 0x17, 0xc3, 0x2d], text.as_bytes());
    net.send(key, &bytes);
}

/// Answers pings, of WebSocket and of Centrifuge; true when the frame was one.
pub(crate) fn answer_ping(net: &mut impl Net, key: Key, frame: &Frame<'_>) -> bool {
    match frame.opcode {
        PING => {
            let mut pong = Vec::new();
            websocket::frame(&mut pong, PONG, [3, 1, 4, 1], frame.payload);
            net.send(key, &pong);
            true
        }
        TEXT if frame.payload == centrifuge::EMPTY.as_bytes() => {
            send_text(net, key, centrifuge::EMPTY);
            true
        }
        _ => false,
    }
}

/// Opens `count` connections, number i to `target(i)`, and subscribes it to `channel(i)`; with `None`
/// it only connects. Each does so as soon as it is open: a server closes those that say nothing.
pub(crate) fn gather<'t>(
    net: &mut impl Net,
    target: impl Fn(usize) -> &'t Target,
    count: usize,
    channel: impl Fn(usize) -> Option<String>,
    output: &Output,
    stop: &Stop,
) -> Result<Vec<Member>> {
    let opening = Opening {
        count,
        rate: None,
        timeout: Duration::from_secs(10),
        close_when_open: false,
    };
    let path = |number: usize| target(number).path_with("sid", &format!("crowd-{number}"));
    let mut crowd = Gathering::default();
    let opened = open(
        net,
        &target,
        &opening,
        path,
        output,
        stop,
        &mut |net, key, event| {
            crowd.on_event(net, key, channel(key.tag), event);
        },
    )?;
    if let Some(problem) = crowd.problem {
        bail!("{problem}");
    }
    let mut members = opened.all()?;
    let until = Instant::now() + SUBSCRIBE_MAX;
    while crowd.answered < count {
        let (now, answered) = (Instant::now(), crowd.answered);
        if now >= until || stop.requested() {
            bail!("{answered} of {count} subscriptions stood when the time was over");
        }
        output.progress(now, || format!("{answered} of {count} subscribed"));
        net.turn(Some(until), &mut |net, key, event| match event {
            Event::Connected => {}
            Event::Closed(error) => crowd.fail(key, &format!("closed: {error:?}")),
            Event::Data(bytes) => {
                let fed = members[key.tag].link.feed(bytes, &mut |event| {
                    crowd.on_event(net, key, channel(key.tag), event);
                    true
                });
                if let Err(failure) = fed {
                    crowd.fail(key, &failure.to_string());
                }
            }
        })?;
        if let Some(problem) = crowd.problem {
            bail!("{problem}");
        }
    }
    Ok(members)
}

/// How far [`gather`] is.
#[derive(Default)]
struct Gathering {
    /// Connections that have the last answer they wait for.
    answered: usize,
    /// The first one.
    problem: Option<String>,
}

impl Gathering {
    fn on_event(
        &mut self,
        net: &mut impl Net,
        key: Key,
        channel: Option<String>,
        event: LinkEvent<'_>,
    ) {
        match event {
            LinkEvent::Open => {
                let mut commands = centrifuge::connect(1);
                if let Some(channel) = channel {
                    commands.push('\n');
                    commands.push_str(&centrifuge::subscribe(2, &channel, None));
                }
                send_text(net, key, &commands);
            }
            LinkEvent::Frame(frame) if answer_ping(net, key, &frame) => {}
            LinkEvent::Frame(frame) => match done(&frame, channel.is_some()) {
                Ok(done) => self.answered += usize::from(done),
                Err(what) => self.fail(key, &what),
            },
        }
    }

    fn fail(&mut self, key: Key, what: &str) {
        let number = key.tag;
        self.problem
            .get_or_insert_with(|| format!("connection {number}: {what}"));
    }
}

/// The frame holds the last answer that is waited for.
fn done(frame: &Frame<'_>, wants_subscription: bool) -> Result<bool, String> {
    if frame.opcode == websocket::CLOSE {
        return Err(format!(
            "closed with {}",
            websocket::close_code(frame.payload)
        ));
    }
    let mut done = false;
    for line in centrifuge::lines(frame.payload) {
        let line = line.map_err(|error| format!("not a reply: {error}"))?;
        if let Some(error) = line.error {
            return Err(format!("error {} {}", error.code, error.message));
        }
        done |= if wants_subscription {
            line.subscribe.is_some()
        } else {
            line.connect.is_some()
        };
    }
    Ok(done)
}
