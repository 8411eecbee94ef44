//! A balancer from its configuration: listeners, shards, control thread, admin pages.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_registry::{PlacementConfig, Registry, Snapshot};
use flux_runtime::control::{self, Admin, Readiness};
use flux_runtime::mailbox::{mailbox, wake_pair};
use flux_runtime::ring::{self, RingConfig, RingError};
use flux_runtime::shard::{self, ShardError, ShardSpec};
use flux_runtime::{cpu, doctor};
use socket2::Socket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::admin::{Changing, View};
use crate::balance::Table;
use crate::caps::Caps;
use crate::config::{Config, Refused};
use crate::control::{Control, Shard};
use crate::flows::{Flows, Settings, Start};
use crate::meters::Meters;
use crate::{limits, sockets, state_file};

/// Why a balancer does not start; each is one line with what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value that cannot work.
    #[error(transparent)]
    Config(#[from] Refused),
    /// An address cannot be listened on.
    #[error("{key} = {address}: {source}; is another process listening there?")]
    Listen {
        /// `listen` or `admin`.
        key: &'static str,
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Shards can have no ring; the text carries the remedy.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A shard cannot start.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// Something that every process needs.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A running balancer. Dropping it does not stop it; [`Balancer::drain`] does.
pub struct Balancer {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the admin pages are.
    pub admin: SocketAddr,
    stop: watch::Sender<Option<Instant>>,
    control: JoinHandle<Result<(), reqwest::Error>>,
    pages: JoinHandle<io::Result<()>>,
    pages_stop: watch::Sender<bool>,
}

impl Balancer {
    /// Starts a balancer on the nodes of `registry`. Must be called within a tokio runtime, which then
    /// is its control plane.
    ///
    /// # Errors
    /// See [`StartError`]; nothing goes on running then.
    pub async fn start(config: Config, registry: &Registry) -> Result<Balancer, StartError> {
        config.check()?;
        let system = |what| move |source| StartError::System { what, source };
        let nofile = doctor::raise_nofile().map_err(system("raising the descriptor limit"))?;
        let shard_count = if config.shards == 0 {
            cpu::default_shards()
        } else {
            config.shards
        };
        let ring = ring_config();
        let direct_slots = ring::direct_slots(&ring)?;
        let flows_max = config.flows_max_within(nofile, shard_count, direct_slots)?;
        let (listeners, listen) = listeners(&config, shard_count)?;
        let refuse_admin = |source| StartError::Listen {
            key: "admin",
            address: config.admin,
            source,
        };
        let admin_listener = tokio::net::TcpListener::bind(config.admin)
            .await
            .map_err(refuse_admin)?;
        let admin = admin_listener.local_addr().map_err(refuse_admin)?;
        let config = Config {
            listen,
            admin,
            ..config
        };

        let now = Instant::now();
        let caps = Arc::new(Caps::new(flows_max, config.flows_per_source_max));
        let (reports_to, reports) = mpsc::channel(limits::REPORTS);
        let mut meters = Vec::new();
        let mut shards = Vec::new();
        let cpus = cpu::available().placement(shard_count);
        for (index, listener) in listeners.into_iter().enumerate() {
            let (waker, wake) = wake_pair().map_err(system("making a wake descriptor"))?;
            let (mail_to, mail) = mailbox(limits::SHARD_MAIL, waker);
            let own = Arc::new(Meters::default());
            meters.push(own.clone());
            let start = Start {
                listener,
                settings: Settings::new(&config, shard_count, nofile, &ring),
                caps: caps.clone(),
                meters: own,
                mail,
                reports: reports_to.clone(),
            };
            let spec = ShardSpec {
                index,
                cpu: cpus.get(index).copied().flatten(),
                name: format!("lb-shard-{index}"),
                ring: ring.clone(),
            };
            let thread = shard::spawn(spec, wake, move |ring| {
                Ok(Flows::new(ring, start, Instant::now()))
            })?;
            shards.push(Shard::new(thread, mail_to, now));
        }

        let mut table = Table::new(PlacementConfig {
            bound: config.load_bound,
            slow_start: Duration::from_secs(config.slow_start_seconds),
            ..PlacementConfig::default()
        });
        if let Some(path) = &config.state_file {
            let what = "reading state_file (remove it to start without the last known nodes)";
            for record in state_file::read(path).map_err(system(what))? {
                table.seed(record, now);
            }
        }
        let readiness = Readiness::new();
        if !table.ever_known() {
            readiness.set_reason("nodes", Some("no node was ever known".to_owned()));
        }
        let snapshot = Arc::new(Snapshot::unread(registry.config().ttl));
        let changing = Changing {
            table,
            snapshot,
            state: "starting",
            accepts_per_s: 0,
            busy: Vec::new(),
        };
        let state_file = config.state_file.clone();
        let view = View::new(config, meters, caps, changing, now);
        let (stop, stopping) = watch::channel(None);
        let (pages_stop, pages_stopping) = watch::channel(false);
        let pages = tokio::spawn(control::serve(
            admin_listener,
            pages(&view, &readiness),
            ended(pages_stopping),
        ));
        let control = Control {
            view,
            readiness,
            shards,
            snapshots: registry.watch(),
            reports,
            stop: stopping,
            state_file,
        };
        Ok(Balancer {
            listen,
            admin,
            stop,
            control: tokio::spawn(control.run()),
            pages,
            pages_stop,
        })
    }

    /// Takes no new connections, lets flows go on for `time`, cutting them evenly over it, and returns
    /// when the last is gone. Dropping the future leaves the drain going.
    pub async fn drain(self, time: Duration) {
        self.stop.send_replace(Some(Instant::now() + time));
        let _ = self.control.await;
        self.pages_stop.send_replace(true);
        // A page that somebody keeps open must not keep the process.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.pages).await;
    }
}

async fn ended(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn pages(view: &View, readiness: &Readiness) -> axum::Router {
    let mut metrics = prometheus_client::registry::Registry::default();
    metrics.register_collector(Box::new(view.clone()));
    let (status, live) = (view.clone(), readiness.clone());
    let own = view.router();
    let admin = Admin {
        readiness: readiness.clone(),
        metrics,
        refresh: Box::new(|| {}),
        status: Box::new(move || status.status()),
        live: Box::new(move || {
            !live
                .document()
                .reasons
                .iter()
                .any(|reason| reason.contains("does not answer"))
        }),
    };
    admin.router().merge(own)
}

/// One listener a shard, all on the same address.
fn listeners(config: &Config, shards: usize) -> Result<(Vec<Socket>, SocketAddr), StartError> {
    let address = config.listen;
    let refuse = |source| StartError::Listen {
        key: "listen",
        address,
        source,
    };
    let first = sockets::listener(address).map_err(refuse)?;
    let bound = first.local_addr().map_err(refuse)?;
    let bound = bound
        .as_socket()
        .ok_or_else(|| refuse(io::ErrorKind::AddrNotAvailable.into()))?;
    let mut all = vec![first];
    for _ in 1..shards {
        all.push(sockets::listener(bound).map_err(refuse)?);
    }
    Ok((all, bound))
}

/// Sizes of a shard's ring. Hundreds of flows may have something in the same turn; those that find no buffer cost
/// another receive each. A buffer holds what large data comes in (1.6 GB a CPU-second with 4 KiB, 2.0 with 32 KiB);
/// small messages touch one page of it. They are used in turn, so there are not more of them than the caches bear (four
/// flows both ways: 1.2 GB with 16 MiB of them in turn and in pieces of 16 KiB, 1.4 with 32 KiB, 1.5 with 8 MiB).
fn ring_config() -> RingConfig {
    RingConfig {
        buffer_len: 32 * 1024,
        buffer_count: 512,
        buffer_count_max: 4096,
        ..RingConfig::default()
    }
}
