//! The registry as a process uses it: watch the nodes, hold a lease.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::error::{ConfigError, RegistryError};
use crate::lease::{Reply, ServerClock};
use crate::limits;
use crate::membership::{Membership, Reading, Snapshot};
use crate::memory::MemoryStore;
use crate::record::NodeRecord;
use crate::redis::{RedisDeployment, RedisLink, RedisShared, listen};

/// How a process uses the registry.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// What Redis there is. Of several independent servers the registry is on the first.
    pub deployment: RedisDeployment,
    /// Prefix of the keys. On a Redis Cluster it stands in braces (`{gateway}`), which keeps them in one slot.
    pub prefix: String,
    /// Time between two heartbeats (+-10 %).
    pub heartbeat: Duration,
    /// Length of a lease.
    pub ttl: Duration,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Time between two reads when no event wakes the reader.
    pub poll: Duration,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        RegistryConfig {
            deployment: RedisDeployment::single("redis://127.0.0.1:6379"),
            prefix: "gateway".into(),
            heartbeat: Duration::from_secs(5),
            ttl: Duration::from_secs(15),
            timeout: Duration::from_secs(1),
            poll: Duration::from_secs(1),
        }
    }
}

impl RegistryConfig {
    /// The default configuration with another URL.
    pub fn from_url(url: impl Into<String>) -> RegistryConfig {
        RegistryConfig {
            deployment: RedisDeployment::single(url),
            ..RegistryConfig::default()
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, message: String| Err(ConfigError { key, message });
        if self.prefix.is_empty() || self.prefix.len() > limits::ID_BYTES_MAX {
            return refuse(
                "prefix",
                format!("1 to {} bytes are allowed", limits::ID_BYTES_MAX),
            );
        }
        if self.ttl < limits::TTL_MIN || self.ttl > limits::TTL_MAX {
            return refuse(
                "ttl",
                format!(
                    "{:?} is not within {:?} and {:?}",
                    self.ttl,
                    limits::TTL_MIN,
                    limits::TTL_MAX
                ),
            );
        }
        if self.heartbeat.is_zero() || self.heartbeat * 2 > self.ttl {
            return refuse(
                "heartbeat",
                format!(
                    "{:?} is more than half of the ttl of {:?}: one lost heartbeat would end the lease",
                    self.heartbeat, self.ttl
                ),
            );
        }
        if self.timeout.is_zero() || self.poll.is_zero() {
            return refuse("timeout", "timeout and poll must not be zero".into());
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Transport {
    Redis(Arc<RedisShared>),
    Memory(MemoryStore),
}

/// One task's own way to the registry.
pub(crate) enum Link {
    Redis(Box<RedisLink>),
    Memory(MemoryStore),
}

impl Link {
    pub(crate) async fn prepare(&mut self) -> Result<(Option<IpAddr>, ServerClock), RegistryError> {
        match self {
            Link::Redis(link) => link.prepare().await,
            Link::Memory(store) => store.prepare(),
        }
    }

    pub(crate) async fn write(
        &mut self,
        record: &NodeRecord,
        register: bool,
        announce: bool,
    ) -> Result<Reply, RegistryError> {
        match self {
            Link::Redis(link) => link.write(record, register, announce).await,
            Link::Memory(store) => store.write(record, register, announce),
        }
    }

    pub(crate) async fn deregister(
        &mut self,
        record: &NodeRecord,
        reason: &str,
    ) -> Result<Reply, RegistryError> {
        match self {
            Link::Redis(link) => link.deregister(record, reason).await,
            Link::Memory(store) => store.deregister(record, reason),
        }
    }

    pub(crate) async fn read(&mut self) -> Result<Reading, RegistryError> {
        match self {
            Link::Redis(link) => link.read().await,
            Link::Memory(store) => store.read(),
        }
    }

    pub(crate) fn clock(&self) -> Option<ServerClock> {
        match self {
            Link::Redis(link) => Some(link.clock()),
            Link::Memory(store) => store.prepare().ok().map(|(_, clock)| clock),
        }
    }
}

/// A registry. Clones share one watch; each lease and the watch have a connection of their own.
#[derive(Clone, Debug)]
pub struct Registry {
    config: Arc<RegistryConfig>,
    transport: Transport,
    watch: Arc<Mutex<Option<watch::Sender<Arc<Snapshot>>>>>,
}

impl Registry {
    /// A registry in Redis. Nothing is connected yet, and Redis may be away: whoever watches or holds a
    /// lease connects, and again for as long as it lives.
    ///
    /// # Errors
    /// When the configuration cannot work.
    pub fn connect(config: RegistryConfig) -> Result<Registry, ConfigError> {
        config.check()?;
        let shared = RedisShared::new(&config.deployment, &config.prefix, config.timeout)?;
        Ok(Registry::with(config, Transport::Redis(Arc::new(shared))))
    }

    /// A registry in memory: the same decisions without a server. Only the times of `config` matter.
    ///
    /// # Errors
    /// When the configuration cannot work.
    pub fn memory(store: MemoryStore, config: RegistryConfig) -> Result<Registry, ConfigError> {
        config.check()?;
        Ok(Registry::with(config, Transport::Memory(store)))
    }

    fn with(config: RegistryConfig, transport: Transport) -> Registry {
        Registry {
            config: Arc::new(config),
            transport,
            watch: Arc::default(),
        }
    }

    /// What it was made from.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    pub(crate) fn link(&self) -> Link {
        match &self.transport {
            Transport::Redis(shared) => Link::Redis(Box::new(RedisLink::new(shared.clone()))),
            Transport::Memory(store) => Link::Memory(store.clone()),
        }
    }

    /// Snapshots of the registry: at every change that is announced, and at least once per
    /// [`RegistryConfig::poll`], also while nothing can be read. Before the first answer it holds
    /// [`Snapshot::unread`].
    ///
    /// The reading task starts with the first receiver and ends with the last. Must be called within a
    /// tokio runtime.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        let mut current = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*current
            && sender.receiver_count() > 0
        {
            return sender.subscribe();
        }
        let unread = Arc::new(Snapshot::unread(self.config.ttl));
        let (sender, receiver) = watch::channel(unread);
        *current = Some(sender.clone());
        tokio::spawn(read_for_ever(
            self.link(),
            self.transport.clone(),
            self.config.clone(),
            sender,
        ));
        receiver
    }
}

async fn read_for_ever(
    mut link: Link,
    transport: Transport,
    config: Arc<RegistryConfig>,
    sender: watch::Sender<Arc<Snapshot>>,
) {
    let changed = Arc::new(Notify::new());
    let listening = {
        let changed = changed.clone();
        async move {
            match transport {
                Transport::Redis(shared) => listen(shared, changed).await,
                Transport::Memory(store) => store.listen(changed).await,
            }
        }
    };
    let reading = async {
        let mut membership = Membership::new(config.ttl);
        loop {
            let mut pause = config.poll;
            let snapshot = match link.read().await {
                Ok(reading) => {
                    let snapshot = membership.on_read(reading, now());
                    // A death is seen when it happens. One more millisecond: a lease is alive up to its end.
                    if let Some(ends) = membership.next_deadline() {
                        pause = pause.min(ends + Duration::from_millis(1));
                    }
                    snapshot
                }
                Err(error) => {
                    tracing::debug!(%error, "reading the registry failed");
                    // Apart from each other, so that a returning registry is not asked by all at once.
                    pause = pause.mul_f64(0.5 + fastrand::f64());
                    membership.on_failure(&error.to_string(), now())
                }
            };
            sender.send_replace(snapshot);
            // However many changes there are, reads stay apart.
            let apart = limits::READ_PAUSE_MIN.min(config.poll);
            tokio::time::sleep(apart).await;
            let rest = pause.saturating_sub(apart);
            let _ = tokio::time::timeout(rest, changed.notified()).await;
        }
    };
    tokio::select! {
        () = listening => {}
        () = reading => {}
        () = sender.closed() => {}
    }
}

/// Follows tokio's clock, which tests may pause.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What a node bound to `bound` tells others to connect to: what is `configured`, else the address it is
/// bound to, else (bound to all) its own address on the way to the registry. `None` if there is none of these.
pub fn advertised(
    configured: Option<SocketAddr>,
    bound: SocketAddr,
    towards_registry: Option<IpAddr>,
) -> Option<SocketAddr> {
    if configured.is_some() {
        return configured;
    }
    if !bound.ip().is_unspecified() {
        return Some(bound);
    }
    towards_registry.map(|ip| SocketAddr::new(ip, bound.port()))
}
