//! `pairs`: one message through every pair of nodes. A client on each node subscribes to one
//! channel, each publishes once, each must hear them all, its own included.

use std::fmt;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tungstenite::{Error, Message, WebSocket};

use crate::clients::centrifuge::{self, Line};
use crate::options::seconds;
use crate::target::Target;

/// One message through every pair of nodes: subscribe on the one, publish on the other
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// ws://HOST:PORT/PATH of each node
    #[arg(required = true, num_args = 1..=64)]
    urls: Vec<String>,
    /// Seconds that connecting, and then all the messages, may take
    #[arg(long, default_value = "5", value_parser = seconds(1..=600))]
    timeout: Duration,
}

/// What has arrived by the deadline is still read for this long.
const READ_MIN: Duration = Duration::from_millis(200);

/// What `pairs` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    ok: bool,
    nodes: Vec<String>,
    pairs: usize,
    /// Pairs whose message did not arrive.
    missing: Vec<Pair>,
    /// From the publish command to the last receipt.
    slowest_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Pair {
    publisher: String,
    subscriber: String,
}

#[derive(Deserialize)]
struct Body {
    from: usize,
}

type Socket = WebSocket<TcpStream>;

pub(crate) fn run(options: &Options) -> Result<Report> {
    let channel = format!("pairs-{:08x}", fastrand::u32(..));
    let until = Instant::now() + options.timeout;
    let mut members = Vec::new();
    for url in &options.urls {
        let member = Target::parse(url).and_then(|target| subscribe(&target, url, &channel, until));
        members.push(member.with_context(|| format!("{url} does not take a subscriber"))?);
    }

    let started = Instant::now();
    for (from, (socket, _)) in members.iter_mut().enumerate() {
        let command = centrifuge::publish(3, &channel, &format!(r#"{{"from":{from}}}"#));
        socket.send(Message::text(command))?;
    }
    let until = started + options.timeout;
    let count = members.len();
    let mut missing = Vec::new();
    let mut slowest = None::<Duration>;
    let nodes: Vec<String> = members.iter().map(|(_, node)| node.clone()).collect();
    for (to, (socket, _)) in members.iter_mut().enumerate() {
        let mut heard = vec![false; count];
        let until = until.max(Instant::now() + READ_MIN);
        while heard.contains(&false) {
            let more = each_line(socket, until, &mut |line| {
                let publication = line
                    .push
                    .as_ref()
                    .and_then(|push| push.publication.as_ref());
                if let Some(publication) = publication {
                    let body: Body = serde_json::from_str(publication.data.get())?;
                    if let Some(heard) = heard.get_mut(body.from) {
                        *heard = true;
                    }
                }
                Ok(())
            });
            if more.is_err() {
                break;
            }
            slowest = slowest.max(Some(started.elapsed()));
        }
        missing.extend(
            heard
                .iter()
                .enumerate()
                .filter(|(_, heard)| !**heard)
                .map(|(from, _)| Pair {
                    publisher: nodes[from].clone(),
                    subscriber: nodes[to].clone(),
                }),
        );
    }
    Ok(Report {
        scenario: "pairs",
        ok: missing.is_empty(),
        pairs: count * count,
        nodes,
        missing,
        slowest_ms: slowest.map(|slowest| slowest.as_secs_f64() * 1e3),
    })
}

/// A client that is connected and subscribed, and the name of the node that it is on.
fn subscribe(
    target: &Target,
    url: &str,
    channel: &str,
    until: Instant,
) -> Result<(Socket, String)> {
    let stream = TcpStream::connect_timeout(&target.address, remaining(until)?)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(remaining(until)?))?;
    let (mut socket, _) =
        tungstenite::client(url, stream).map_err(|error| anyhow::anyhow!("{error}"))?;
    let commands = format!(
        "{}\n{}",
        centrifuge::connect(1),
        centrifuge::subscribe(2, channel, None)
    );
    socket.send(Message::text(commands))?;
    let (mut node, mut subscribed) = (None, false);
    while node.is_none() || !subscribed {
        each_line(&mut socket, until, &mut |line| {
            if let Some(error) = &line.error {
                bail!("error {}: {}", error.code, error.message);
            }
            if let Some(connect) = &line.connect {
                node = Some(connect.node.clone());
            }
            subscribed |= line.subscribe.is_some();
            Ok(())
        })?;
    }
    let node = node.filter(|node| !node.is_empty());
    Ok((socket, node.unwrap_or_else(|| url.to_owned())))
}

/// Reads one message and hands out its lines.
fn each_line(
    socket: &mut Socket,
    until: Instant,
    on_line: &mut impl FnMut(&Line<'_>) -> Result<()>,
) -> Result<()> {
    socket.get_ref().set_read_timeout(Some(remaining(until)?))?;
    match socket.read() {
        Ok(Message::Text(text)) => {
            for line in centrifuge::lines(text.as_bytes()) {
                on_line(&line?)?;
            }
            Ok(())
        }
        Ok(Message::Close(close)) => bail!("closed: {close:?}"),
        Ok(_) => Ok(()),
        Err(Error::Io(error)) => Err(error).context("no answer in time"),
        Err(error) => Err(error.into()),
    }
}

fn remaining(until: Instant) -> Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        bail!("no answer in time");
    }
    Ok(left)
}

impl super::Report for Report {
    fn complete(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} messages between {} arrived",
            self.pairs - self.missing.len(),
            self.pairs,
            self.nodes.join(", ")
        )?;
        if let Some(slowest) = self.slowest_ms.filter(|_| self.ok) {
            write!(f, ", the last after {slowest:.0} ms")?;
        }
        for pair in &self.missing {
            write!(
                f,
                "\n  missing: from {} to {}",
                pair.publisher, pair.subscriber
            )?;
        }
        Ok(())
    }
}
