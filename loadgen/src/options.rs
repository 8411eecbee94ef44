//! The command line: every count and time has a bound, every address is the user's.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::clients::pubsub::Protocol;
use crate::scenarios::fanout::Layout;
use crate::scenarios::open::Opening;
use crate::scenarios::window::Times;
use crate::scenarios::{
    bulk, channels, connect, echo, fanout, http, idle, million, pairs, redis_publish, watch,
};

/// Longest run of any command.
pub(crate) const DURATION_S_MAX: u64 = 24 * 3600;
const CONNECTIONS_MAX: u64 = 1_000_000;
/// Connections that `million` may hold: 10,000 from each of so many addresses of 127.0.0.0/16.
const HELD_MAX: u64 = 10_000_000;

/// Load generator and judge for WebSocket servers. Connects only to the address given.
///
/// Exit code: 0 as it should be, 1 something failed or was lost, 2 it could not run.
#[derive(Debug, Parser)]
#[command(name = "flux-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Connect(Connect),
    ProbeConnect(ProbeConnect),
    Echo(Echo),
    Fanout(Fanout),
    RedisPublish(RedisPublish),
    Idle(Idle),
    Channels(channels::Options),
    Million(Million),
    Http(http::Options),
    /// Round trips through a TCP balancer (ws:// or tcp://); --server-pid is the balancer's
    Relay(Echo),
    ServeEcho(ServeEcho),
    Bulk(bulk::Options),
    /// The far side of `bulk`
    ServeBulk(ServeEcho),
    Watch(Watch),
    Pairs(pairs::Options),
}

impl Command {
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Connect(options) => options.common.json,
            Self::ProbeConnect(options) => options.common.json,
            Self::Echo(options) | Self::Relay(options) => options.common.json,
            Self::Fanout(options) => options.common.json,
            Self::RedisPublish(options) => options.json,
            Self::Idle(options) => options.common.json,
            Self::Million(options) => options.common.json,
            Self::ServeEcho(options) | Self::ServeBulk(options) => options.json,
            Self::Bulk(options) => options.json,
            Self::Http(options) => options.json,
            Self::Channels(options) => options.json,
            Self::Watch(options) => options.common.json,
            Self::Pairs(options) => options.json,
        }
    }
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// ws://HOST:PORT/PATH
    pub(crate) url: String,
    /// Report as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Open connections at a set pace, hold them, report handshake latency and failures by kind
#[derive(Debug, Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    common: Common,
    /// Connections to open
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// New connections per second [default: as fast as handshakes complete]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Seconds to hold the connections once all were tried
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=DURATION_S_MAX))]
    hold: u64,
    /// Seconds after which a handshake has failed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

/// Open and close connections at a set pace: "0 of 1,000 new connections failed" during a fault
#[derive(Debug, Args)]
pub(crate) struct ProbeConnect {
    #[command(flatten)]
    common: Common,
    /// Connections to try
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    count: u64,
    /// New connections per second
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// Seconds after which a handshake has failed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// Process whose CPU time counts; may be given several times
    #[arg(long = "server-pid", value_name = "PID")]
    server_pids: Vec<u32>,
}

/// Messages that come back: closed loop, or open loop with --rate
#[derive(Debug, Args)]
pub(crate) struct Echo {
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    size: u64,
    #[command(flatten)]
    window: Window,
    /// Messages per second over all connections [default: closed loop]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
}

/// When to measure, and whose CPU time.
#[derive(Debug, Args)]
struct Window {
    #[command(flatten)]
    times: Times,
    /// Event loop of the load generator [default: ring, or epoll where there is no io_uring]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Process whose CPU time counts; may be given several times
    #[arg(long = "server-pid", value_name = "PID")]
    server_pids: Vec<u32>,
}

/// The load generator's event loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The runtime's net ring (io_uring)
    Ring,
    /// epoll
    Epoll,
}

/// Publications to many subscribers; checks order and completeness
#[derive(Debug, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    common: Common,
    /// Where the publishers connect, if not where the subscribers do: another node
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t = Protocol::Centrifuge)]
    protocol: Protocol,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    subscribers: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    publishers: u64,
    /// Channels that subscribers are spread over and publishers take in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    channels: u64,
    /// Channels that each subscriber hears
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    per_subscriber: u64,
    /// Subscribers beside these who stop reading; a second part with them follows the one without
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1000))]
    slow_readers: u64,
    /// Publications per second, all publishers together
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// Bytes of a publication's data
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    size: u64,
    #[command(flatten)]
    window: Window,
}

/// What Redis alone takes from publish to receipt: a recorded command again and again, no gateway
#[derive(Debug, Args)]
pub(crate) struct RedisPublish {
    /// Where Redis is; it has to answer without a password
    #[arg(long, value_name = "IP:PORT")]
    address: SocketAddr,
    /// A publishing command as it went over the wire, recorded from `fanout` with the same --size
    #[arg(long, value_name = "FILE")]
    command: PathBuf,
    /// The pub/sub channel that it publishes to
    #[arg(long)]
    channel: String,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    subscribers: u64,
    /// Publications per second
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// Bytes of a publication's data
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(40..=1 << 20))]
    size: u64,
    #[command(flatten)]
    window: Window,
    /// Report as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Resident memory of idle subscribed connections
#[derive(Debug, Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    #[arg(long, default_value = "idle")]
    channel: String,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t = Protocol::Centrifuge)]
    protocol: Protocol,
    /// Spread the connections over CHANNEL-0, CHANNEL-1, ...
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    channels: u64,
    /// Seconds of rest before the memory is looked at
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=DURATION_S_MAX))]
    hold: u64,
    /// Process whose memory counts
    #[arg(long, value_name = "PID")]
    server_pid: u32,
}

/// Very many subscribed connections, held idle; one publication that all of them hear
#[derive(Debug, Args)]
pub(crate) struct Million {
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=HELD_MAX))]
    connections: u64,
    /// Handshakes under way at once
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    in_flight: u64,
    /// Bytes of the publication's data
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    size: u64,
    /// Seconds for which all connections are held before the publication
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=DURATION_S_MAX))]
    hold: u64,
    /// Seconds in which the publication has to reach all
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=DURATION_S_MAX))]
    hear: u64,
    /// Process whose memory and CPU time count
    #[arg(long, value_name = "PID")]
    server_pid: u32,
}

/// A TCP server that returns every byte, as the far side of `relay tcp://...`
#[derive(Debug, Args)]
pub(crate) struct ServeEcho {
    /// Address to listen on; port 0: the kernel's choice, printed
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Print the address as JSON
    #[arg(long)]
    json: bool,
}

/// Live clients through the balancer; the verdict is lost, duplicated, reordered
///
/// Clients behave like a Centrifuge SDK (full-jitter reconnect, resubscribe, pings) and publish in turn.
/// With --json every event is a line; the last line is the summary.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    common: Common,
    /// Clients, each with its own sid
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    clients: u64,
    /// Channels that the clients are spread over
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    channels: u64,
    /// Publications per second, all clients together
    #[arg(long, default_value_t = 50.0, value_parser = positive)]
    rate: f64,
    /// Seconds from when all clients are live; SIGINT ends earlier
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=DURATION_S_MAX))]
    duration: u64,
    /// End when stdin closes; each of its lines becomes a `mark` event, and the line `cut` cuts all clients at once
    #[arg(long)]
    stdin: bool,
    /// New connections per second at the start
    #[arg(long, default_value_t = 500.0, value_parser = positive)]
    connect_rate: f64,
    /// Seconds after which publishing starts though not all clients are live
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=600))]
    ready: u64,
    /// Seconds that clients who are away at the end may take to come back
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(0..=600))]
    settle: u64,
    /// Prefix of the clients' sids (the affinity keys): PREFIX0, PREFIX1, ...
    #[arg(long, default_value = "watch-")]
    sid: String,
}

impl Connect {
    pub(crate) fn scenario(&self) -> connect::Options {
        connect::Options {
            url: self.common.url.clone(),
            opening: Opening {
                count: self.connections as usize,
                rate: self.rate,
                timeout: Duration::from_secs(self.timeout),
                close_when_open: false,
            },
            hold: Duration::from_secs(self.hold),
            server_pids: Vec::new(),
        }
    }
}

impl ProbeConnect {
    pub(crate) fn scenario(&self) -> connect::Options {
        connect::Options {
            url: self.common.url.clone(),
            opening: Opening {
                count: self.count as usize,
                rate: Some(self.rate),
                timeout: Duration::from_secs(self.timeout),
                close_when_open: true,
            },
            hold: Duration::ZERO,
            server_pids: self.server_pids.clone(),
        }
    }
}

impl Echo {
    pub(crate) fn engine(&self) -> Option<Engine> {
        self.window.engine
    }

    pub(crate) fn scenario(&self, scenario: &'static str) -> echo::Options {
        echo::Options {
            scenario,
            url: self.common.url.clone(),
            connections: self.connections as usize,
            size: self.size as usize,
            times: self.window.times,
            rate: self.rate,
            server_pids: self.window.server_pids.clone(),
        }
    }
}

impl Fanout {
    pub(crate) fn engine(&self) -> Option<Engine> {
        self.window.engine
    }

    pub(crate) fn scenario(&self) -> fanout::Options {
        // No channel without a subscriber.
        let channels = self.channels.min(self.subscribers * self.per_subscriber);
        fanout::Options {
            url: self.common.url.clone(),
            publish_url: self.publish_url.clone(),
            protocol: self.protocol,
            layout: Layout {
                subscribers: self.subscribers as usize,
                publishers: self.publishers as usize,
                channels: channels as usize,
                per_subscriber: self.per_subscriber.min(channels) as usize,
            },
            slow_readers: self.slow_readers as usize,
            rate: self.rate,
            size: self.size as usize,
            times: self.window.times,
            server_pids: self.window.server_pids.clone(),
        }
    }
}

impl RedisPublish {
    pub(crate) fn engine(&self) -> Option<Engine> {
        self.window.engine
    }

    pub(crate) fn scenario(&self) -> Result<redis_publish::Options> {
        let command = fs::read(&self.command)
            .with_context(|| format!("--command {}", self.command.display()))?;
        Ok(redis_publish::Options {
            address: self.address,
            command,
            channel: self.channel.clone(),
            subscribers: self.subscribers as usize,
            rate: self.rate,
            size: self.size as usize,
            times: self.window.times,
            server_pids: self.window.server_pids.clone(),
        })
    }
}

impl Idle {
    pub(crate) fn scenario(&self) -> idle::Options {
        idle::Options {
            url: self.common.url.clone(),
            protocol: self.protocol,
            connections: self.connections as usize,
            channel: self.channel.clone(),
            channels: self.channels.min(self.connections) as usize,
            hold: Duration::from_secs(self.hold),
            server_pid: self.server_pid,
        }
    }
}

impl Million {
    pub(crate) fn scenario(&self) -> million::Options {
        million::Options {
            url: self.common.url.clone(),
            connections: self.connections as usize,
            in_flight: self.in_flight as usize,
            size: self.size as usize,
            hold: Duration::from_secs(self.hold),
            hear: Duration::from_secs(self.hear),
            server_pid: self.server_pid,
        }
    }
}

impl Watch {
    pub(crate) fn scenario(&self) -> Result<watch::Options> {
        ensure!(
            self.sid
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)),
            "--sid {:?}: letters, digits and -_.~ are allowed",
            self.sid
        );
        Ok(watch::Options {
            url: self.common.url.clone(),
            clients: self.clients as usize,
            channels: self.channels.min(self.clients) as usize,
            rate: self.rate,
            duration: Duration::from_secs(self.duration),
            connect_rate: self.connect_rate,
            ready_max: Duration::from_secs(self.ready),
            settle_max: Duration::from_secs(self.settle),
            sid: self.sid.clone(),
            stdin: self.stdin,
        })
    }
}

/// Reads a number above 0 for the command line.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && value <= 1e8 => Ok(value),
        _ => Err("a number above 0 and up to 100,000,000 is needed".to_owned()),
    }
}
