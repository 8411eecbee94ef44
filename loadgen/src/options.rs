//! The command line: the commands, and what their options have in common. What is a command's own stands with it, in
//! `scenarios`. Every count and time has a bound, every address is the user's.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::builder::{RangedU64ValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::scenarios::{
    bulk, channels, connect, echo, fanout, hop, http, idle, million, pairs, redis_publish, watch,
};

/// Longest run of any command.
pub(crate) const DURATION_S_MAX: u64 = 24 * 3600;
pub(crate) const CONNECTIONS_MAX: u64 = 1_000_000;

/// Load generator and judge for WebSocket servers. Connects only to the address given.
///
/// Exit code: 0 as it should be, 1 something failed or was lost, 2 it could not run.
#[derive(Debug, Parser)]
#[command(name = "flux-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Report as JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Connect(connect::Options),
    ProbeConnect(connect::ProbeOptions),
    Echo(echo::Options),
    Fanout(fanout::Options),
    RedisPublish(redis_publish::Options),
    Idle(idle::Options),
    Channels(channels::Options),
    Million(million::Options),
    Http(http::Options),
    /// Round trips through a TCP balancer (ws:// or tcp://); --server-pid is the balancer's
    Relay(echo::Options),
    /// A TCP server that returns every byte, as the far side of `relay tcp://...`
    ServeEcho(Serve),
    Hop(hop::Options),
    Bulk(bulk::Options),
    /// The far side of `bulk`
    ServeBulk(Serve),
    Watch(watch::Options),
    Pairs(pairs::Options),
}

/// Options of the servers.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on; port 0: the kernel's choice, printed
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
}

/// The load generator's event loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The runtime's net ring (io_uring)
    Ring,
    /// epoll
    Epoll,
}

/// Reads a number above 0.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && value <= 1e8 => Ok(value),
        _ => Err("a number above 0 and up to 100,000,000 is needed".to_owned()),
    }
}

/// Reads a count.
pub(crate) fn count(range: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

/// Reads whole seconds.
pub(crate) fn seconds(range: RangeInclusive<u64>) -> impl TypedValueParser<Value = Duration> {
    RangedU64ValueParser::<u64>::new()
        .range(range)
        .map(Duration::from_secs)
}
