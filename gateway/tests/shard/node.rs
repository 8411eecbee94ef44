//! Shards in this process.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Instant;

use flux_gateway::authority::{self, Authority, AuthorityConfig, Wanted};
use flux_gateway::engine::Engine;
use flux_gateway::http::{AllowedOrigins, Policy, Transports};
use flux_gateway::pubsub::{PacingConfig, SubscriptionsConfig};
use flux_gateway::session::{ChannelOptions, ChannelRules, SessionConfig};
use flux_gateway::shard::plain::PlainRequests;
use flux_gateway::shard::{self, Counter, Counters, Directory, Order, Shard, ShardParts, Shared};
use flux_gateway::token::TokenConfig;
use flux_gateway::websocket::Limits;
use flux_runtime::control::Readiness;
use flux_runtime::mailbox::{Sender, wake_pair};
use flux_runtime::ring::RingConfig;
use flux_runtime::shard::{ShardSpec, ShardThread, spawn};
use tokio::sync::oneshot;

/// What a test may set.
pub(crate) struct Settings {
    pub(crate) shards: usize,
    pub(crate) session: SessionConfig,
    pub(crate) subscriptions: SubscriptionsConfig,
    pub(crate) pacing: PacingConfig,
    pub(crate) connections_max: u64,
    pub(crate) transports: Transports,
    pub(crate) kept_headers: Vec<Box<str>>,
    pub(crate) token: TokenConfig,
    pub(crate) origins: AllowedOrigins,
}

impl Default for Settings {
    fn default() -> Self {
        let without_namespace = ChannelOptions {
            allow_subscribe_for_client: true,
            allow_subscribe_for_anonymous: true,
            allow_publish_for_client: true,
            allow_publish_for_anonymous: true,
            ..ChannelOptions::default()
        };
        Self {
            shards: 1,
            session: SessionConfig {
                allow_anonymous: true,
                channels: ChannelRules::flat(without_namespace),
                ..SessionConfig::default()
            },
            subscriptions: SubscriptionsConfig::default(),
            pacing: PacingConfig::default(),
            connections_max: 1_000,
            transports: Transports::default(),
            kept_headers: Vec::new(),
            token: TokenConfig::default(),
            origins: AllowedOrigins::default(),
        }
    }
}

/// Listening sockets whose shards do not run yet: clients may connect, nobody accepts them.
pub(crate) struct Listening {
    settings: Settings,
    pub(crate) address: SocketAddr,
    sockets: Vec<OwnedFd>,
}

impl Settings {
    pub(crate) fn listen(self) -> Listening {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, sockets) = shard::bind(any, self.shards).expect("a free port");
        Listening {
            settings: self,
            address,
            sockets,
        }
    }

    pub(crate) fn start(self) -> Node {
        self.listen().start()
    }
}

impl Listening {
    pub(crate) fn start(self) -> Node {
        let Listening {
            settings,
            address,
            sockets,
        } = self;
        let (wakers, sources): (Vec<_>, Vec<_>) = (0..settings.shards)
            .map(|_| wake_pair().expect("an eventfd"))
            .unzip();
        let (door, questions) = authority::door(Wanted::default());
        let (control, links, end) = shard::links(&wakers, door);
        let config = AuthorityConfig {
            token: settings.token,
            ..AuthorityConfig::default()
        };
        let authority = Authority::new(&config, questions, end.answers).expect("valid");
        let (stop, stopped) = oneshot::channel::<()>();
        let authority = std::thread::spawn(move || {
            let stopped = async {
                let _ = stopped.await;
            };
            flux_runtime::control::run(authority.run(stopped)).expect("a runtime");
        });
        let counters: Vec<Arc<Counters>> = (0..settings.shards).map(|_| Arc::default()).collect();
        let shared = Arc::new(Shared {
            policy: Policy {
                origins: settings.origins,
                echo: false,
                transports: settings.transports,
                kept_headers: settings.kept_headers,
            },
            limits: Limits::default(),
            unidirectional_limits: Limits::default(),
            connections_max: settings.connections_max,
            connection_rate: None,
            user_limit: None,
            trusted_proxies: Vec::new(),
            readiness: Readiness::new(),
            is_draining: AtomicBool::new(false),
            directory: Directory::default(),
            counters: counters.clone(),
            control,
        });
        let (engines, _engine) = Engine::memory(&wakers);
        let mut shards = Vec::new();
        let parts = sources.into_iter().zip(sockets).zip(engines).zip(links);
        for (index, (((source, listener), engine), links)) in parts.enumerate() {
            let parts = ShardParts {
                shared: Arc::clone(&shared),
                session: settings.session.clone(),
                subscriptions: settings.subscriptions,
                pacing: settings.pacing,
                engine,
                links,
                listener,
                index: index as u16,
            };
            let spec = ShardSpec {
                index,
                cpu: None,
                name: format!("shard-{index}"),
                ring: RingConfig::default(),
            };
            let build = move |ring: &mut _| Ok(Shard::new(parts, ring, Instant::now()));
            shards.push(spawn(spec, source, build).expect("a shard"));
        }
        Node {
            address,
            shared,
            counters,
            orders: end.orders,
            plain: end.plain,
            authority: Some((stop, authority)),
            shards,
        }
    }
}

/// Running shards.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    counters: Vec<Arc<Counters>>,
    orders: Vec<Sender<Order>>,
    /// What the control plane is asked.
    pub(crate) plain: PlainRequests,
    authority: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    shards: Vec<ShardThread>,
}

impl Node {
    pub(crate) fn order(&self, order: Order) {
        for orders in &self.orders {
            orders.try_send(order).expect("room for an order");
        }
    }

    /// The sum of a counter over the shards.
    pub(crate) fn count(&self, read: impl Fn(&Counters) -> &Counter) -> u64 {
        self.counters
            .iter()
            .map(|counters| read(counters).get())
            .sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for orders in &self.orders {
            let _ = orders.try_send(Order::Stop);
        }
        if let Some((stop, authority)) = self.authority.take() {
            let _ = stop.send(());
            let outcome = authority.join();
            if !std::thread::panicking() {
                outcome.expect("the authority ends well");
            }
        }
        for shard in self.shards.drain(..) {
            let outcome = shard.join();
            if !std::thread::panicking() {
                outcome.expect("a shard ends well");
            }
        }
    }
}
