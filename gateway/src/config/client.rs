//! Centrifugo's `client` and `channel`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::authority::Switched;
use crate::backend::{ChannelProxyConfig, ClientProxyConfig};
use crate::session::{ChannelOptions, Namespace};
use crate::token::TokenConfig;

/// What one client may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own in Centrifugo's configuration"
)]
pub struct ClientConfig {
    /// Origins of web pages that may connect (globs); none: only clients without an Origin header.
    pub allowed_origins: Vec<String>,
    /// How tokens are verified.
    pub token: TokenConfig,
    /// How subscription tokens are verified where that is different.
    pub subscription_token: Switched<TokenConfig>,
    /// What the backend is asked about connections, and told.
    pub proxy: ClientProxyConfig,
    /// Clients without a token may connect where tokens or the backend decide who a client is.
    pub allow_anonymous_connect_without_token: bool,
    /// A token without a user is not accepted.
    pub disallow_anonymous_connection_tokens: bool,
    /// Nobody is asked for a token and everything is allowed: for trying things out.
    pub insecure: bool,
    /// Time between two pings to a client.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping.
    #[serde(with = "humantime_serde")]
    pub pong_timeout: Duration,
    /// How long a client may stay after its credentials have expired.
    #[serde(with = "humantime_serde")]
    pub expired_close_delay: Duration,
    /// As `expired_close_delay`, of one subscription.
    #[serde(with = "humantime_serde")]
    pub expired_sub_close_delay: Duration,
    /// How long a connection may stay without a connect command.
    #[serde(with = "humantime_serde")]
    pub stale_close_delay: Duration,
    /// Channels that one client may be subscribed to.
    pub channel_limit: usize,
    /// Bytes that a client may lag behind its channels and replies.
    pub queue_max_size: usize,
    /// Publications in one answer to a history command.
    pub history_max_publication_limit: u32,
    /// Publications that a client may have missed and still recover.
    pub recovery_max_publication_limit: u32,
    /// A channel in which nothing was heard for so long has its position compared with Redis.
    #[serde(with = "humantime_serde")]
    pub channel_position_check_delay: Duration,
    /// Client connections at most on this node; 0: as `connections_max` says.
    pub connection_limit: u64,
    /// Connections that one user may have on this node; 0: any number. Further ones are closed with
    /// 3504.
    pub user_connection_limit: u64,
    /// Connections that may come to this node in a second; 0: any number. Further ones get 503.
    pub connection_rate_limit: u64,
    /// A channel of its own for each user.
    pub subscribe_to_user_personal_channel: PersonalChannel,
}

/// Every client with a user is subscribed to `NAMESPACE:#USER`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PersonalChannel {
    /// Whether they are.
    pub enabled: bool,
    /// The namespace; empty: none.
    pub personal_channel_namespace: String,
}

/// Channels and their namespaces.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelConfig {
    /// What the backend is asked about channels.
    pub proxy: ChannelProxyConfig,
    /// Longest channel name, in bytes.
    pub max_length: usize,
    /// Stands before the namespace of a channel that needs a subscription token; empty: nothing does.
    pub private_prefix: String,
    /// Ends the namespace; empty: nothing does.
    pub namespace_boundary: String,
    /// Begins the users that a user-limited channel is for; empty: nothing does.
    pub user_boundary: String,
    /// Stands between them.
    pub user_separator: String,
    /// How long after its last use a channel's epoch and top offset are kept, unless its namespace
    /// says otherwise.
    #[serde(with = "humantime_serde")]
    pub history_meta_ttl: Duration,
    /// Options of channels without a namespace.
    pub without_namespace: ChannelOptions,
    /// Options of the channels of each namespace.
    pub namespaces: Vec<Namespace>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            token: TokenConfig::default(),
            subscription_token: Switched::default(),
            proxy: ClientProxyConfig::default(),
            allow_anonymous_connect_without_token: false,
            disallow_anonymous_connection_tokens: false,
            insecure: false,
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            expired_close_delay: Duration::from_secs(25),
            expired_sub_close_delay: Duration::from_secs(25),
            stale_close_delay: Duration::from_secs(10),
            channel_limit: 128,
            queue_max_size: 1_048_576,
            history_max_publication_limit: 300,
            recovery_max_publication_limit: 300,
            channel_position_check_delay: Duration::from_secs(40),
            connection_limit: 0,
            user_connection_limit: 0,
            connection_rate_limit: 0,
            subscribe_to_user_personal_channel: PersonalChannel::default(),
        }
    }
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            proxy: ChannelProxyConfig::default(),
            max_length: 255,
            private_prefix: "$".to_owned(),
            namespace_boundary: ":".to_owned(),
            user_boundary: "#".to_owned(),
            user_separator: ",".to_owned(),
            history_meta_ttl: Duration::from_secs(720 * 3600),
            without_namespace: ChannelOptions::default(),
            namespaces: Vec::new(),
        }
    }
}
