//! Where the registry is in a deployment, and the way there, which may change with each connection.
//!
//! | deployment | where | what says that it has moved |
//! |---|---|---|
//! | one server | there | |
//! | several servers | on the first | |
//! | Sentinel | the master that the sentinels name | READONLY, a lost connection, a look every few seconds |
//! | Cluster | the master of the slot of `{PREFIX}` | MOVED, ASK, READONLY, a lost connection, the same look |
//!
//! After ASK every command of that connection is preceded by ASKING, which means nothing once the slot has
//! arrived.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Client, ErrorKind, ProtocolVersion, RedisError, ServerErrorKind, Value};

use super::client::{RedisLogin, Resolver, redis_client};
use super::deployment::{RedisDeployment, SentinelDeployment};
use super::locate::{ClusterLocator, SentinelLocator, client_at};
use super::slots::{Endpoint, slot_of};
use crate::error::RegistryError;

/// How long what was found is believed while nothing speaks against it.
const BELIEVED_FOR: Duration = Duration::from_secs(3);

/// Where to look, checked once.
#[derive(Debug)]
pub(super) enum Place {
    Fixed(Client),
    Sentinel(SentinelDeployment),
    Cluster { seeds: Vec<RedisLogin>, slot: u16 },
}

impl Place {
    /// Where `key` is in `deployment`. The error is for a person.
    pub(super) fn new(
        deployment: &RedisDeployment,
        key: &[u8],
        wait_max: Duration,
    ) -> Result<Place, String> {
        let fixed = |login| redis_client(login, ProtocolVersion::RESP2).map(Place::Fixed);
        match deployment {
            RedisDeployment::Single(login) => fixed(login),
            RedisDeployment::Sharded(logins) => fixed(logins.first().ok_or("no address")?),
            RedisDeployment::Sentinel(sentinel) => {
                SentinelLocator::new(sentinel, wait_max)?;
                redis_client(&sentinel.master, ProtocolVersion::RESP2)?;
                Ok(Place::Sentinel(sentinel.clone()))
            }
            RedisDeployment::Cluster(seeds) => {
                ClusterLocator::new(seeds, wait_max)?;
                Ok(Place::Cluster {
                    seeds: seeds.clone(),
                    slot: slot_of(key),
                })
            }
        }
    }
}

enum Guide {
    Fixed(Client),
    Sentinel(SentinelLocator, RedisLogin),
    Cluster(ClusterLocator, u16),
}

/// One connection's way to the place.
pub(super) struct Way {
    guide: Result<Guide, String>,
    resolver: Resolver,
    found: Option<(Endpoint, Instant)>,
    /// The one that the log has named last: one that is found again and again while it does not answer is no news.
    said: Option<Endpoint>,
    was_redirected: bool,
    must_ask: bool,
}

impl Way {
    pub(super) fn new(place: &Place, wait_max: Duration) -> Way {
        let guide = match place {
            Place::Fixed(client) => Ok(Guide::Fixed(client.clone())),
            Place::Sentinel(sentinel) => SentinelLocator::new(sentinel, wait_max)
                .map(|locator| Guide::Sentinel(locator, sentinel.master.clone())),
            Place::Cluster { seeds, slot } => {
                ClusterLocator::new(seeds, wait_max).map(|locator| Guide::Cluster(locator, *slot))
            }
        };
        Way {
            guide,
            resolver: Resolver::new(wait_max / 2),
            found: None,
            said: None,
            was_redirected: false,
            must_ask: false,
        }
    }

    /// Whether it is time to ask whether the place has moved.
    pub(super) fn is_due(&self) -> bool {
        self.found
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() >= BELIEVED_FOR)
    }

    /// Asks where the place is. Without an answer it is where it was. Cancel-safe.
    pub(super) async fn find(&mut self) -> Result<(), String> {
        if let Some((_, since)) = &mut self.found {
            *since = Instant::now();
        }
        let endpoint = match &mut self.guide {
            Err(why) => return Err(why.clone()),
            Ok(Guide::Fixed(_)) => return Ok(()),
            Ok(Guide::Sentinel(locator, _)) => locator.master().await?,
            Ok(Guide::Cluster(locator, slot)) => {
                let slots = locator.slots().await?;
                let master = slots.master_of(*slot);
                master
                    .cloned()
                    .ok_or_else(|| format!("slot {slot} of the cluster has no master"))?
            }
        };
        if self.said.as_ref() != Some(&endpoint) {
            tracing::info!(%endpoint, "the registry is here");
            self.said = Some(endpoint.clone());
        }
        self.found = Some((endpoint, Instant::now()));
        Ok(())
    }

    /// A client of the place; asks where that is unless it is known. Cancel-safe.
    pub(super) async fn client(&mut self) -> Result<Client, String> {
        self.was_redirected = false;
        if self.found.is_none() {
            self.find().await?;
        }
        let login = match &self.guide {
            Err(why) => return Err(why.clone()),
            Ok(Guide::Fixed(client)) => return Ok(client.clone()),
            Ok(Guide::Sentinel(_, login)) => login,
            Ok(Guide::Cluster(locator, _)) => locator.login(),
        };
        let Some((endpoint, _)) = &self.found else {
            return Err("not found".into());
        };
        client_at(login, endpoint, ProtocolVersion::RESP2)
    }

    /// Where it was found.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.found.as_ref().map(|(endpoint, _)| endpoint)
    }

    /// Whether a server there has to say itself that it is the master.
    pub(super) fn must_be_master(&self) -> bool {
        matches!(self.guide, Ok(Guide::Sentinel(..)))
    }

    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The address that the last connection went to.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.resolver.peer()
    }

    /// A connection or a command has failed: the next one asks again where the place is, unless the error
    /// says it.
    pub(super) fn failed(&mut self, error: Option<&RedisError>) {
        self.resolver.failed();
        let before = self.found.take();
        self.must_ask = false;
        if matches!(self.guide, Ok(Guide::Fixed(_)) | Err(_)) {
            return;
        }
        let Some(error) = error else { return };
        let kind = error.kind();
        let has_moved = [ServerErrorKind::Moved, ServerErrorKind::Ask];
        if has_moved.map(ErrorKind::Server).contains(&kind) {
            self.was_redirected = true;
            self.must_ask = kind == ErrorKind::Server(ServerErrorKind::Ask);
            if let (Some((text, _)), Some((asked, _))) = (error.redirect_node(), before) {
                self.found = Endpoint::parse(text, &asked).map(|there| (there, Instant::now()));
            }
        } else if kind == ErrorKind::Server(ServerErrorKind::ReadOnly) {
            self.was_redirected = true;
        }
    }

    /// Whether each command has to be preceded by ASKING.
    pub(super) fn must_ask(&self) -> bool {
        self.must_ask
    }

    /// Whether the last command was refused because it belongs elsewhere.
    pub(super) fn was_redirected(&self) -> bool {
        self.was_redirected
    }
}

/// Whether the server thinks itself a master: sentinels may be behind, or speak of one that is not told yet.
pub(super) async fn check_master(
    connection: &mut MultiplexedConnection,
) -> Result<(), RegistryError> {
    let role: Value = redis::cmd("ROLE")
        .query_async(connection)
        .await
        .map_err(|error| RegistryError::from_redis(&error))?;
    let is_master = matches!(
        &role,
        Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master")
    );
    if is_master {
        Ok(())
    } else {
        let message = "the server that the sentinels name is not a master (yet)";
        Err(RegistryError::Unreachable(message.into()))
    }
}
