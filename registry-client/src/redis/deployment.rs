//! What Redis there is: one of four forms, complete. Nothing here connects.

use super::client::RedisLogin;

/// How Redis is deployed. Every login is complete: address, credentials, TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisDeployment {
    /// One server.
    Single(RedisLogin),
    /// Several servers that know nothing of each other: channels are divided among them, the registry is
    /// on the first.
    Sharded(Vec<RedisLogin>),
    /// A master that changes, and sentinels that know which server it is.
    Sentinel(SentinelDeployment),
    /// A Redis Cluster, known by some of its servers.
    Cluster(Vec<RedisLogin>),
}

/// See [`RedisDeployment::Sentinel`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelDeployment {
    /// The sentinels, asked one after the other.
    pub sentinels: Vec<RedisLogin>,
    /// What the sentinels call the master.
    pub master_name: String,
    /// How to speak to the master; the address in it means nothing.
    pub master: RedisLogin,
}

impl RedisDeployment {
    /// One server, by URL or `host:port`.
    pub fn single(url: impl Into<String>) -> RedisDeployment {
        RedisDeployment::Single(RedisLogin::from_url(url))
    }

    /// Whether names that belong together have to be in one slot.
    pub fn is_cluster(&self) -> bool {
        matches!(self, RedisDeployment::Cluster(_))
    }
}
