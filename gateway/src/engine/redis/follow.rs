//! What follows for the endpoints here from where Redis is: which there are, where each goes, and which
//! channels are whose.
//!
//! | deployment | endpoints | a channel is at |
//! |---|---|---|
//! | one server, several servers | one each, never others | the one that `route` names |
//! | Sentinel | one, which goes where the sentinels say | that |
//! | Cluster | one a master; they come, go to a replica, and retire | the one whose slot it is |

use std::sync::Arc;
use std::time::Instant;

use flux_registry::{
    ClusterLocator, ClusterSlots, Endpoint as Address, RedisDeployment, RedisLogin,
    SentinelLocator, client_at, redis_client,
};
use redis::ProtocolVersion;

use super::config::{RedisConfig, RedisConfigError};
use super::endpoint::Endpoint;
use super::guide::{Guide, View};
use super::keys::{KeyLayout, Keys};
use super::route::server_of;
use super::shards::Shards;
use super::topology::Topology;
use crate::limits::REDIS_DETOUR_MAX;

/// See the module.
pub(super) struct Follow {
    config: Arc<RedisConfig>,
    keys: Arc<Keys>,
    origin: u64,
    kind: Kind,
}

enum Kind {
    /// Their clients and names, until they have been handed to the endpoints.
    Fixed(Vec<(redis::Client, String)>),
    Sentinel(Guide, RedisLogin),
    Cluster(Guide, RedisLogin, Topology),
}

impl Follow {
    /// For the deployment in `config`, and its first endpoints, which are not connected.
    ///
    /// # Errors
    /// [`RedisConfigError`] when the deployment cannot work.
    pub(super) fn new(
        config: RedisConfig,
        origin: u64,
        now: Instant,
    ) -> Result<(Follow, Vec<Endpoint>), RedisConfigError> {
        let wait_max = config.connect_timeout;
        let fixed = |login: &RedisLogin| {
            let client = redis_client(login, ProtocolVersion::RESP3)?;
            let name = client.get_connection_info().addr().to_string();
            Ok((client, name))
        };
        let kind = match &config.deployment {
            RedisDeployment::Single(login) => fixed(login).map(|one| Kind::Fixed(vec![one])),
            RedisDeployment::Sharded(logins) if logins.is_empty() => Err("no address".to_owned()),
            RedisDeployment::Sharded(logins) => {
                let all: Result<Vec<_>, String> = logins.iter().map(fixed).collect();
                all.map(Kind::Fixed)
            }
            RedisDeployment::Sentinel(sentinel) => SentinelLocator::new(sentinel, wait_max)
                .and_then(|locator| {
                    redis_client(&sentinel.master, ProtocolVersion::RESP3)?;
                    Ok(Kind::Sentinel(
                        Guide::sentinel(locator),
                        sentinel.master.clone(),
                    ))
                }),
            RedisDeployment::Cluster(_) if config.prefix.contains(['{', '}']) => Err(
                "in a cluster `engine.redis.prefix` has no braces: channels have their own".into(),
            ),
            RedisDeployment::Cluster(seeds) => {
                ClusterLocator::new(seeds, wait_max).map(|locator| {
                    let login = locator.login().clone();
                    Kind::Cluster(Guide::cluster(locator), login, Topology::new())
                })
            }
        }
        .map_err(RedisConfigError)?;
        let layout = match kind {
            Kind::Cluster(..) => KeyLayout::Cluster,
            _ => KeyLayout::Plain,
        };
        let follow = Follow {
            keys: Arc::new(Keys::new(&config.prefix, layout)),
            config: Arc::new(config),
            origin,
            kind,
        };
        let count = match &follow.kind {
            Kind::Fixed(all) => all.len(),
            _ => 1,
        };
        let endpoints = (0..count).map(|_| follow.endpoint(now)).collect();
        Ok((follow, endpoints))
    }

    fn endpoint(&self, now: Instant) -> Endpoint {
        let must_be_master = matches!(self.kind, Kind::Sentinel(..));
        let (config, keys) = (Arc::clone(&self.config), Arc::clone(&self.keys));
        Endpoint::new(must_be_master, config, keys, self.origin, now)
    }

    /// Sends those endpoints on their way whose place is known.
    pub(super) fn start(&mut self, endpoints: &mut [Endpoint], shards: &mut Shards) {
        if let Kind::Fixed(all) = &mut self.kind {
            for (endpoint, (client, name)) in endpoints.iter_mut().zip(all.drain(..)) {
                endpoint.go_to(client, name, shards);
            }
        }
    }

    /// The endpoint of a channel: the one place that decides it.
    pub(super) fn route(&self, channel: &str, endpoints: usize) -> usize {
        match &self.kind {
            Kind::Fixed(_) | Kind::Sentinel(..) => server_of(channel, endpoints),
            Kind::Cluster(_, _, topology) => topology.endpoint_of(self.keys.slot(channel)),
        }
    }

    /// What is told next of where Redis is; never anything where it does not move. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<View, String> {
        match &mut self.kind {
            Kind::Fixed(_) => std::future::pending().await,
            Kind::Sentinel(guide, _) | Kind::Cluster(guide, ..) => guide.next().await,
        }
    }

    /// Asks again where Redis is, if an endpoint has reason to doubt it.
    pub(super) fn look(&mut self, endpoints: &mut [Endpoint]) {
        let mut doubts = false;
        let now = Instant::now();
        for endpoint in endpoints {
            doubts |= endpoint.take_doubts() || endpoint.is_held(now);
        }
        if let (true, Kind::Sentinel(guide, _) | Kind::Cluster(guide, ..)) =
            (doubts, &mut self.kind)
        {
            guide.hurry();
        }
    }

    /// Sends the endpoints where Redis is now.
    pub(super) fn on_view(
        &mut self,
        view: Result<View, String>,
        endpoints: &mut Vec<Endpoint>,
        shards: &mut Shards,
    ) {
        match (view, &mut self.kind) {
            (Ok(View::Master(address)), Kind::Sentinel(_, login)) => {
                if let Some(endpoint) = endpoints.first_mut() {
                    send(endpoint, login, &address, shards);
                }
            }
            (Ok(View::Slots(map)), Kind::Cluster(..)) => self.on_map(&map, endpoints, shards),
            (Ok(View::FailoverBegins), _) => {
                tracing::info!("a failover begins; publications wait for the new master");
                let until = Instant::now() + REDIS_DETOUR_MAX;
                endpoints
                    .iter_mut()
                    .for_each(|endpoint| endpoint.hold(until));
            }
            (Ok(View::FailoverAborted), _) => {
                endpoints.iter_mut().for_each(Endpoint::release_hold);
            }
            (Err(why), _) => {
                for endpoint in endpoints
                    .iter_mut()
                    .filter(|endpoint| endpoint.is_nowhere())
                {
                    endpoint.is_not_found(&why);
                }
            }
            (Ok(_), _) => {}
        }
    }
}

impl Follow {
    fn on_map(&mut self, map: &ClusterSlots, endpoints: &mut Vec<Endpoint>, shards: &mut Shards) {
        let changes = match &mut self.kind {
            Kind::Cluster(_, _, topology) => topology.apply(map),
            _ => return,
        };
        for (at, _) in &changes.moved {
            if *at >= endpoints.len() {
                endpoints.push(self.endpoint(Instant::now()));
            }
        }
        let Kind::Cluster(_, login, topology) = &self.kind else {
            return;
        };
        for (at, address) in &changes.moved {
            if let Some(endpoint) = endpoints.get_mut(*at) {
                let is_its = |slot| topology.endpoint_of(slot) == *at;
                endpoint.probe_with(self.keys.probe_in(self.origin, is_its));
                send(endpoint, login, address, shards);
            }
        }
        if changes.slots_changed {
            for at in 0..endpoints.len() {
                // Where its probe's slot went away, the server says so, and the next connection has this.
                let is_its = |slot| topology.endpoint_of(slot) == at;
                if !changes.retired.contains(&at) {
                    endpoints[at].probe_with(self.keys.probe_in(self.origin, is_its));
                }
                // What is under way there may be refused, and must not be overtaken elsewhere.
                endpoints[at].hold_back(|channel| !is_its(self.keys.slot(channel)));
                let leaving: Vec<Arc<str>> = endpoints[at]
                    .server()
                    .channels()
                    .filter(|channel| !is_its(self.keys.slot(channel)))
                    .cloned()
                    .collect();
                for channel in leaving {
                    let to = topology.endpoint_of(self.keys.slot(&channel));
                    if let Some(leaving) = endpoints[at].release(&channel, shards) {
                        endpoints[to].adopt(&channel, leaving, shards);
                    }
                }
            }
        }
        for at in changes.retired {
            endpoints[at].retire(shards);
        }
        for endpoint in endpoints {
            endpoint.settle();
        }
    }
}

fn send(endpoint: &mut Endpoint, login: &RedisLogin, address: &Address, shards: &mut Shards) {
    match client_at(login, address, ProtocolVersion::RESP3) {
        Ok(client) => endpoint.go_to(client, address.to_string(), shards),
        Err(why) => endpoint.is_not_found(&why),
    }
}
