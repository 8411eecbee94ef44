//! Where the server to speak to is: asked of sentinels, or of a cluster, before each connection.
//!
//! Sentinels: all are asked at once, and what more than half of them say holds; where fewer answer in
//! time, what most of those say. One that is cut off from the others and still names a master of old is
//! thereby outvoted.
//!
//! Cluster: several servers are asked at once, and of those that answer in time the map of the highest
//! epoch counts: one that missed a failover has a lower one.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ProtocolVersion, RedisResult, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::client::{RedisLogin, Resolver, redis_client};
use super::deployment::SentinelDeployment;
use super::slots::{ClusterSlots, Endpoint};
use crate::limits::CLUSTER_ASKED_MAX;

/// A server that is asked where others are.
#[derive(Clone)]
struct Asked {
    client: Client,
    resolver: Resolver,
    endpoint: Endpoint,
}

impl Asked {
    fn new(login: &RedisLogin, wait_max: Duration) -> Result<Asked, String> {
        let client = redis_client(login, ProtocolVersion::RESP2)?;
        let endpoint = match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Endpoint {
                    host: host.clone(),
                    port: *port,
                }
            }
            _ => return Err("a server of this kind has host and port".into()),
        };
        Ok(Asked {
            client,
            resolver: Resolver::new(wait_max / 2),
            endpoint,
        })
    }

    async fn connect(&self, wait_max: Duration) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(wait_max))
            .set_response_timeout(Some(wait_max))
            .set_dns_resolver(self.resolver.clone());
        let made = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await;
        if made.is_err() {
            self.resolver.failed();
        }
        made
    }
}

/// The client of another server with the login of one: same credentials, same TLS.
///
/// # Errors
/// As [`redis_client`].
pub fn client_at(
    login: &RedisLogin,
    endpoint: &Endpoint,
    protocol: ProtocolVersion,
) -> Result<Client, String> {
    let scheme = match login.url.split_once("://") {
        Some(("rediss" | "valkeys", _)) => "rediss",
        _ => "redis",
    };
    let there = RedisLogin {
        url: format!("{scheme}://{endpoint}"),
        ..login.clone()
    };
    redis_client(&there, protocol)
}

/// Finds a master by its sentinels.
pub struct SentinelLocator {
    sentinels: Vec<Asked>,
    master_name: String,
    wait_max: Duration,
}

impl SentinelLocator {
    /// One that waits no longer than `wait_max` for an answer.
    ///
    /// # Errors
    /// What is wrong with a sentinel's address, for a person.
    pub fn new(deployment: &SentinelDeployment, wait_max: Duration) -> Result<Self, String> {
        Ok(Self {
            sentinels: deployment
                .sentinels
                .iter()
                .map(|login| Asked::new(login, wait_max))
                .collect::<Result<_, _>>()?,
            master_name: deployment.master_name.clone(),
            wait_max,
        })
    }

    /// Clients of the sentinels, for whoever listens to what they say.
    pub fn clients(&self) -> Vec<Client> {
        let clients = self.sentinels.iter().map(|sentinel| &sentinel.client);
        clients.cloned().collect()
    }

    /// What the sentinels call the master.
    pub fn master_name(&self) -> &str {
        &self.master_name
    }

    /// Longest time for an answer.
    pub fn wait_max(&self) -> Duration {
        self.wait_max
    }

    /// Where the master is now, as far as the sentinels know. That a server there still thinks itself the
    /// master has to be asked of it. Cancel-safe.
    ///
    /// # Errors
    /// Why no sentinel has told, for a person.
    pub async fn master(&self) -> Result<Endpoint, String> {
        let deadline = Instant::now() + self.wait_max;
        let mut asking: FuturesUnordered<_> = self
            .sentinels
            .iter()
            .map(|sentinel| self.ask(sentinel))
            .collect();
        let mut votes: Vec<(Endpoint, usize)> = Vec::new();
        let mut refused = None;
        while let Ok(Some(answer)) = timeout_at(deadline, asking.next()).await {
            match answer {
                Ok(endpoint) => {
                    let at = votes.iter().position(|(named, _)| *named == endpoint);
                    let at = at.unwrap_or_else(|| {
                        votes.push((endpoint, 0));
                        votes.len() - 1
                    });
                    votes[at].1 += 1;
                    if votes[at].1 * 2 > self.sentinels.len() {
                        return Ok(votes.swap_remove(at).0);
                    }
                }
                Err(why) => refused = Some(why),
            }
        }
        let most = votes.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(endpoint, _)| endpoint).ok_or_else(|| {
            let why = refused.unwrap_or_else(|| format!("no answer within {:?}", self.wait_max));
            format!("no sentinel names the master `{}`: {why}", self.master_name)
        })
    }

    async fn ask(&self, sentinel: &Asked) -> Result<Endpoint, String> {
        let mut command = redis::cmd("SENTINEL");
        command
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&self.master_name);
        let named: RedisResult<Option<(String, u16)>> = async {
            let mut connection = sentinel.connect(self.wait_max).await?;
            command.query_async(&mut connection).await
        }
        .await;
        match named {
            Ok(Some((host, port))) => Ok(Endpoint { host, port }),
            Ok(None) => Err(format!("{} does not know it", sentinel.endpoint)),
            Err(error) => Err(format!("{}: {error}", sentinel.endpoint)),
        }
    }
}

/// Finds the masters of a cluster.
pub struct ClusterLocator {
    login: RedisLogin,
    seeds: Vec<Asked>,
    /// Those that the last map named, besides the seeds.
    known: Vec<Asked>,
    turn: usize,
    wait_max: Duration,
}

impl ClusterLocator {
    /// One that waits no longer than `wait_max` for an answer.
    ///
    /// # Errors
    /// What is wrong with a seed's address, for a person.
    pub fn new(seeds: &[RedisLogin], wait_max: Duration) -> Result<Self, String> {
        Ok(Self {
            login: seeds
                .first()
                .cloned()
                .ok_or("a cluster without any address")?,
            seeds: seeds
                .iter()
                .map(|login| Asked::new(login, wait_max))
                .collect::<Result<_, _>>()?,
            known: Vec::new(),
            turn: 0,
            wait_max,
        })
    }

    /// How to speak to all servers of the cluster.
    pub fn login(&self) -> &RedisLogin {
        &self.login
    }

    /// Who is master of which slots now. Cancel-safe.
    ///
    /// # Errors
    /// Why no server has told, for a person.
    pub async fn slots(&mut self) -> Result<ClusterSlots, String> {
        let all: Vec<&Asked> = self.known.iter().chain(&self.seeds).collect();
        // The next ones each time, so that among many not the same dead ones are asked again.
        self.turn = (self.turn + 1) % all.len();
        let mut asking: FuturesUnordered<_> = (0..all.len().min(CLUSTER_ASKED_MAX))
            .map(|at| ask_slots(all[(self.turn + at) % all.len()], self.wait_max))
            .collect();
        let deadline = Instant::now() + self.wait_max;
        let mut best: Option<(u64, ClusterSlots)> = None;
        let mut refused = None;
        while let Ok(Some(answer)) = timeout_at(deadline, asking.next()).await {
            match answer {
                Ok((epoch, slots)) => {
                    if best.as_ref().is_none_or(|(highest, _)| epoch > *highest) {
                        best = Some((epoch, slots));
                    }
                }
                Err(why) => refused = Some(why),
            }
        }
        drop(asking);
        let Some((_, slots)) = best else {
            let why = refused.unwrap_or_else(|| format!("no answer within {:?}", self.wait_max));
            return Err(format!("no server of the cluster names its slots: {why}"));
        };
        self.learn(&slots);
        Ok(slots)
    }

    fn learn(&mut self, slots: &ClusterSlots) {
        let (login, wait_max) = (&self.login, self.wait_max);
        let mut known = std::mem::take(&mut self.known);
        known.retain(|asked| slots.nodes().contains(&asked.endpoint));
        for endpoint in slots.nodes() {
            let mut listed = known.iter().chain(&self.seeds);
            if listed.any(|asked| asked.endpoint == *endpoint) {
                continue;
            }
            if let Ok(client) = client_at(login, endpoint, ProtocolVersion::RESP2) {
                known.push(Asked {
                    client,
                    resolver: Resolver::new(wait_max / 2),
                    endpoint: endpoint.clone(),
                });
            }
        }
        self.known = known;
    }
}

/// The epoch of a server's view, and that.
async fn ask_slots(asked: &Asked, wait_max: Duration) -> Result<(u64, ClusterSlots), String> {
    let mut commands = redis::pipe();
    commands
        .cmd("CLUSTER")
        .arg("INFO")
        .cmd("CLUSTER")
        .arg("SLOTS");
    // Shorter than the whole, so that one that does not answer does not make the others wait in vain.
    let answer = timeout(wait_max / 2, async {
        let mut connection = asked.connect(wait_max).await?;
        commands
            .query_async::<(String, Value)>(&mut connection)
            .await
    });
    let (info, slots) = match answer.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("{}: {error}", asked.endpoint)),
        Err(_) => {
            return Err(format!(
                "{}: no answer within {:?}",
                asked.endpoint,
                wait_max / 2
            ));
        }
    };
    let epoch = info
        .lines()
        .find_map(|line| line.strip_prefix("cluster_current_epoch:"))
        .and_then(|epoch| epoch.trim().parse().ok());
    let slots = ClusterSlots::parse(&slots, &asked.endpoint);
    epoch
        .zip(slots)
        .ok_or_else(|| format!("{}: its map of the cluster makes no sense", asked.endpoint))
}
