//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::api::command::PublishArguments;
use crate::token::IssueArgs;

/// The real-time WebSocket gateway.
#[derive(Parser, Debug, Serialize)]
#[command(name = "flux-gateway", version, about)]
pub struct Flags {
    /// Name of this node, unique in the cluster (default: the host's name).
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Address for clients, ip:port.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    /// Address for /live, /ready, /metrics and the API, ip:port.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
    /// Address that the registry names to balancers, ip:port (default: found from the socket that reaches Redis).
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<String>,
    /// Redis of the cluster, redis://[user:password@]host:port[/db] or rediss://; without it the node stands alone.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<String>,
    /// Shards, one pinned thread each; 0: one for each cpu that this process may use.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<usize>,
    /// Length of the drain on SIGTERM, in seconds.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_seconds: Option<u64>,
    /// Serve /echo, which returns every message as it came.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    echo: bool,
    /// Let clients without a token connect even where others than this machine can reach the listener.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_anonymous: bool,
    /// Configuration file: .toml, .json, .yaml.
    #[arg(long, env = "FLUX_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Print the effective configuration with the origin of each value, and exit.
    #[arg(long)]
    #[serde(skip)]
    pub check_config: bool,
    /// Print what this machine offers, what is missing with its remedy, and exit.
    #[arg(long)]
    #[serde(skip)]
    pub doctor: bool,
    /// What to do instead of running a node.
    #[command(subcommand)]
    #[serde(skip)]
    pub command: Option<Command>,
}

/// What can be done besides running a node.
#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    /// Publish to a channel through the server API of a running node.
    ///
    /// The key is taken from FLUX_HTTP_API_KEY, a file named by FLUX_HTTP_API_KEY_FILE, or the
    /// configuration file.
    Publish(PublishArguments),
    /// Make a token with the secret of the configuration.
    ///
    /// The secret is client.token.hmac_secret_key (or client.subscription_token's, for a token with
    /// a channel, where that is switched on) of the configuration file or the environment.
    Token(IssueArgs),
}
