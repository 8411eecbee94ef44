//! From a configuration to running shards.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use flux_registry::{RedisDeployment, Registry, RegistryConfig};
use flux_runtime::control::Readiness;
use flux_runtime::cpu;
use flux_runtime::doctor;
use flux_runtime::mailbox::{Sender, wake_pair};
use flux_runtime::ring::{self, RingConfig, RingError};
use flux_runtime::shard::{self as runtime_shard, ShardError, ShardSpec, ShardThread};

use crate::authority::{self, Authority};
use crate::config::{Config, StreamConfig};
use crate::engine::redis::{RedisConfig, RedisConfigError, RedisEngine};
use crate::engine::{Engine, EngineHandle, EngineMetrics};
use crate::http::{AllowedOrigins, OriginPatternError, Policy, Transports};
use crate::limits::API_BODY_BYTES_MAX;
use crate::pubsub::{PacingConfig, SubscriptionsConfig};
use crate::session::{PersonalChannel, RpcRules, SessionConfig};
use crate::shard::plain::PlainRequests;
use crate::shard::{
    self, ConnectionRate, Counters, Directory, Order, Shard, ShardParts, ShardsEnd, Shared,
    UserLimit,
};
use crate::websocket::Limits;

use super::NodeStatus;

/// Descriptors that a node needs besides its clients' sockets: rings, listeners, Redis, logs.
const DESCRIPTORS_RESERVED: u64 = 256;

/// Why a node could not start. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine lacks something; the text is the finding with its remedy.
    #[error("{0}")]
    Machine(String),
    /// A listening socket could not be had.
    #[error("{0}; is another process there? choose another address with --listen or --admin")]
    Listen(#[source] std::io::Error),
    /// `connections_max` is more than there are descriptors for.
    #[error(
        "config key `connections_max`: {wanted} is not allowed; at most {possible} with {nofile} descriptors, of which \
         {DESCRIPTORS_RESERVED} are for other things, and {direct_slots} direct ones in each of {shards} shards: use less \
         (0: as many as possible), or more shards, or raise `LimitNOFILE=` (systemd), `ulimit -Hn`, or the container's \
         nofile ulimit"
    )]
    Connections {
        /// What was asked for.
        wanted: u64,
        /// What can be had.
        possible: u64,
        /// The hard limit of descriptors.
        nofile: u64,
        /// Direct descriptors of a shard.
        direct_slots: u32,
        /// How many shards.
        shards: usize,
    },
    /// The configuration does not hold together; the text names the key.
    #[error("{0}")]
    Config(String),
    /// `client.allowed_origins` has a pattern that is none.
    #[error("config key `client.allowed_origins`: {0}")]
    Origins(#[from] OriginPatternError),
    /// The address of the engine's Redis is none.
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
    /// The registry's configuration is not usable.
    #[error(transparent)]
    Registry(#[from] flux_registry::ConfigError),
    /// A shard's wake-up descriptor could not be had.
    #[error("no descriptor to wake a shard with: {0}; raise the limit of open files")]
    Wake(#[source] std::io::Error),
    /// Shards could have no ring; the text carries the remedy.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A shard could not start.
    #[error(transparent)]
    Shard(#[from] ShardError),
}

/// A running node.
pub struct Node {
    /// What it runs with.
    pub config: Config,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the admin pages are.
    pub admin_address: SocketAddr,
    /// What `/ready` says.
    pub readiness: Readiness,
    /// The cluster's registry; a node without Redis stands alone.
    pub(super) registry: Option<Registry>,
    /// The engine's side of Redis, to be run by the control plane.
    pub(super) redis: Option<RedisEngine>,
    /// The control plane's way to the engine.
    pub engine: EngineHandle,
    pub(super) engine_metrics: Vec<Arc<EngineMetrics>>,
    pub(super) admin: TcpListener,
    pub(super) shards: Vec<ShardThread>,
    pub(super) orders: Vec<Sender<Order>>,
    /// Answers what sessions ask; to be run by the control plane.
    pub(super) authority: Option<Authority>,
    /// Requests on the client port that the control plane answers.
    pub(super) plain: Option<PlainRequests>,
    pub(super) shared: Arc<Shared>,
    pub(super) status: Arc<NodeStatus>,
}

impl Node {
    /// Starts the shards. From its return on clients are accepted.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: Config) -> Result<Node, StartError> {
        let cpus = cpu::available();
        let shard_count = if config.shards == 0 {
            cpus.shards()
        } else {
            config.shards
        };
        let nofile = doctor::raise_nofile().unwrap_or(1024);
        let ring = RingConfig::default();
        let connections_max = connections_within(
            config.connections_wanted(),
            nofile,
            shard_count,
            ring::direct_slots(&ring)?,
        )?;
        let policy = Policy {
            origins: AllowedOrigins::new(&config.client.allowed_origins)?,
            echo: config.echo,
            transports: transports(&config),
            kept_headers: config
                .backend()
                .forwarded_headers()
                .into_iter()
                .map(Box::from)
                .collect(),
        };
        let deployment = config.redis_deployment().map_err(StartError::Config)?;
        let registry = registry(&config, deployment.clone())?;
        let admin = TcpListener::bind(config.admin).map_err(|error| {
            let text = format!("cannot listen on {}: {error}", config.admin);
            StartError::Listen(std::io::Error::new(error.kind(), text))
        })?;
        let admin_address = admin.local_addr().map_err(StartError::Listen)?;
        let (address, listeners) =
            shard::bind(config.listen, shard_count).map_err(StartError::Listen)?;

        let mut wakers = Vec::with_capacity(shard_count);
        let mut sources = Vec::with_capacity(shard_count);
        for _ in 0..shard_count {
            let (waker, source) = wake_pair().map_err(StartError::Wake)?;
            wakers.push(waker);
            sources.push(source);
        }
        let (door, inbox) = authority::door(config.backend().wanted());
        let (control, shard_links, shards_end) = shard::links(&wakers, door);

        let counters: Vec<Arc<Counters>> = (0..shard_count).map(|_| Arc::default()).collect();
        let readiness = Readiness::new();
        let shared = Arc::new(Shared {
            policy,
            limits: Limits::for_messages_of(config.websocket.message_size_limit),
            unidirectional_limits: Limits::for_messages_of(config.uni_websocket.message_size_limit),
            connections_max,
            connection_rate: ConnectionRate::new(
                config.client.connection_rate_limit,
                Instant::now(),
            ),
            user_limit: UserLimit::new(config.client.user_connection_limit).map(Arc::new),
            trusted_proxies: config.trusted_proxies.clone(),
            readiness: readiness.clone(),
            is_draining: AtomicBool::new(false),
            directory: Directory::default(),
            counters: counters.clone(),
            control,
        });
        let (engines, redis, engine_handle) = match deployment {
            None => {
                let (engines, handle) = Engine::memory(&wakers);
                (engines, None, handle)
            }
            Some(deployment) => {
                let redis = redis_config(&config, deployment);
                let (doors, engine, handle) = Engine::redis(redis, &wakers, readiness.clone())?;
                (doors, Some(engine), handle)
            }
        };
        let engine_metrics = match &redis {
            // The doors of all shards share the one engine's.
            Some(engine) => vec![Arc::clone(engine.metrics())],
            None => engines
                .iter()
                .map(|engine| Arc::clone(engine.metrics()))
                .collect(),
        };
        let status = Arc::new(NodeStatus::new(
            &config,
            counters,
            engine_metrics.clone(),
            connections_max,
            Instant::now(),
        ));
        let mut shards = Vec::with_capacity(shard_count);
        let ShardsEnd {
            orders,
            answers,
            plain,
        } = shards_end;
        let authority =
            Authority::new(&config.authority(), inbox, answers).map_err(StartError::Config)?;
        let places = cpus.placement(shard_count);
        let parts = sources
            .into_iter()
            .zip(listeners)
            .zip(engines)
            .zip(shard_links);
        for (index, (((source, listener), engine), links)) in parts.enumerate() {
            let parts = ShardParts {
                shared: Arc::clone(&shared),
                session: session_config(&config),
                subscriptions: SubscriptionsConfig {
                    lag_bytes_max: config.client.queue_max_size as u64,
                    stuck_max: config.fanout.lag_max,
                },
                pacing: PacingConfig {
                    budget: config.fanout.latency_budget,
                    ..PacingConfig::default()
                },
                engine,
                links,
                listener,
                index: index as u16,
            };
            let spec = ShardSpec {
                index,
                cpu: places.get(index).copied().flatten(),
                name: format!("shard-{index}"),
                ring: ring.clone(),
            };
            shards.push(runtime_shard::spawn(spec, source, move |ring| {
                Ok(Shard::new(parts, ring, Instant::now()))
            })?);
        }
        Ok(Node {
            config,
            address,
            admin_address,
            readiness,
            registry,
            redis,
            engine: engine_handle,
            engine_metrics,
            admin,
            shards,
            orders,
            authority: Some(authority),
            plain: Some(plain),
            shared,
            status,
        })
    }

    /// What is shown of the node.
    pub fn status(&self) -> &Arc<NodeStatus> {
        &self.status
    }
}

/// Client connections at most; 0 asks for as many as the descriptors allow.
fn connections_within(
    wanted: u64,
    nofile: u64,
    shards: usize,
    direct_slots: u32,
) -> Result<u64, StartError> {
    let possible = doctor::sockets_max(nofile, DESCRIPTORS_RESERVED, shards as u64, direct_slots);
    match wanted {
        0 => Ok(possible),
        wanted if wanted <= possible => Ok(wanted),
        wanted => Err(StartError::Connections {
            wanted,
            possible,
            nofile,
            direct_slots,
            shards,
        }),
    }
}

fn transports(config: &Config) -> Transports {
    let body = |stream: &StreamConfig| stream.enabled.then_some(stream.max_request_body_size);
    let has_emulation = config.sse.enabled || config.http_stream.enabled;
    let api = &config.http_api;
    Transports {
        websocket: !config.websocket.disabled,
        sse: body(&config.sse),
        http_stream: body(&config.http_stream),
        uni_websocket: config.uni_websocket.enabled,
        uni_sse: body(&config.uni_sse),
        uni_http_stream: body(&config.uni_http_stream),
        emulation: has_emulation.then_some(config.emulation.max_request_body_size),
        api: (api.external && !api.disabled).then_some(API_BODY_BYTES_MAX),
    }
}

fn redis_config(config: &Config, deployment: RedisDeployment) -> RedisConfig {
    let redis = &config.engine.redis;
    RedisConfig {
        prefix: redis.prefix.clone(),
        connect_timeout: redis.connect_timeout,
        io_timeout: redis.io_timeout,
        position_check_delay: config.client.channel_position_check_delay,
        ..RedisConfig::with(deployment)
    }
}

fn registry(
    config: &Config,
    deployment: Option<RedisDeployment>,
) -> Result<Option<Registry>, flux_registry::ConfigError> {
    let Some(deployment) = deployment else {
        return Ok(None);
    };
    Registry::connect(RegistryConfig {
        deployment,
        prefix: config.registry.prefix.clone(),
        heartbeat: config.registry.heartbeat,
        ttl: config.registry.ttl,
        ..RegistryConfig::default()
    })
    .map(Some)
}

fn session_config(config: &Config) -> SessionConfig {
    let personal = &config.client.subscribe_to_user_personal_channel;
    SessionConfig {
        node: config.id.clone(),
        version: format!("Flux Gateway {}", env!("CARGO_PKG_VERSION")),
        allow_anonymous: config.lets_anonymous_in(),
        disallow_anonymous_tokens: config.client.disallow_anonymous_connection_tokens,
        insecure: config.client.insecure,
        connect_proxy: config.client.proxy.connect.enabled,
        refresh_proxy: config.client.proxy.refresh.enabled,
        personal_channel: personal.enabled.then(|| PersonalChannel {
            namespace: personal.personal_channel_namespace.clone(),
        }),
        rpc: RpcRules {
            without_namespace: config.rpc.without_namespace.proxy_enabled,
            namespaces: config
                .rpc
                .namespaces
                .iter()
                .map(|namespace| (namespace.name.clone(), namespace.options.proxy_enabled))
                .collect(),
        },
        notices: config.backend().wanted(),
        channels: config.channel_rules(),
        limits: config.session_limits(),
    }
}
