//! Where in a Redis deployment the documents travel: one server, the same for all nodes.

use std::time::Duration;

use flux_registry::{
    ClusterLocator, RedisDeployment, RedisLogin, SentinelLocator, client_at, redis_client,
};
use redis::{Client, ProtocolVersion};

/// Pushes come between answers on one connection.
const PROTOCOL: ProtocolVersion = ProtocolVersion::RESP3;

/// Finds the server.
pub(super) enum Place {
    /// Always this one; of several that share the channels, the first.
    Server(Box<Client>),
    /// The one that the sentinels name.
    Sentinel {
        locator: SentinelLocator,
        login: Box<RedisLogin>,
    },
    /// Any of a cluster: what is published at one is heard at all.
    Cluster {
        locator: Box<ClusterLocator>,
        turn: usize,
    },
}

impl Place {
    /// The place in `deployment`.
    ///
    /// # Errors
    /// What is wrong with an address, for a person.
    pub(super) fn new(deployment: &RedisDeployment, wait_max: Duration) -> Result<Self, String> {
        Ok(match deployment {
            RedisDeployment::Single(login) => Self::server(login)?,
            RedisDeployment::Sharded(logins) => {
                Self::server(logins.first().ok_or("no address of Redis")?)?
            }
            RedisDeployment::Sentinel(sentinel) => Self::Sentinel {
                locator: SentinelLocator::new(sentinel, wait_max)?,
                login: Box::new(sentinel.master.clone()),
            },
            RedisDeployment::Cluster(seeds) => Self::Cluster {
                locator: Box::new(ClusterLocator::new(seeds, wait_max)?),
                turn: 0,
            },
        })
    }

    fn server(login: &RedisLogin) -> Result<Self, String> {
        Ok(Self::Server(Box::new(redis_client(login, PROTOCOL)?)))
    }

    /// A client for the server. Cancel-safe.
    ///
    /// # Errors
    /// Why it is not known where that is.
    pub(super) async fn client(&mut self) -> Result<Client, String> {
        match self {
            Self::Server(client) => Ok((**client).clone()),
            Self::Sentinel { locator, login } => {
                let master = locator.master().await?;
                client_at(login, &master, PROTOCOL)
            }
            Self::Cluster { locator, turn } => {
                let slots = locator.slots().await?;
                let masters = slots.masters();
                // Another one each time: the last one may be the one that has failed.
                *turn = turn.wrapping_add(1);
                let server = masters
                    .get(*turn % masters.len().max(1))
                    .ok_or("the cluster has no master")?;
                client_at(locator.login(), server, PROTOCOL)
            }
        }
    }
}
