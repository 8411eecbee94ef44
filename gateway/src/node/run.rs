//! The control plane's life: admin pages, signals, drain, exit code.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flux_runtime::control::{self, Admin, Signal, Signals};
use prometheus_client::registry::Registry as Metrics;
use tokio::sync::oneshot;

use crate::drain::{Drain, Orders, Phase};
use crate::membership::{self, Fenced, Identity, Membership};
use crate::metrics::{
    ApiCollector, AuthorityCollector, BusCollector, EngineCollector, ShardMetrics,
};
use crate::shard::Order;

use super::Node;
use super::services::Services;
use super::status::Pulse;

/// How often the shards' pulse is taken.
const PULSE_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for the shards' threads to end. Their connections are gone by then.
const SHARDS_END_MAX: Duration = Duration::from_secs(1);

/// Serves a node until it has drained. Returns whether all was well to the end.
///
/// # Errors
/// When the control plane itself cannot start.
pub async fn run(mut node: Node, mut signals: Signals) -> io::Result<bool> {
    let (stop_admin, admin_stopped) = oneshot::channel::<()>();
    let services = Services::start(&mut node)?;
    let router = admin(&node, &services)
        .router()
        .merge(services.router.clone());
    node.admin.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(node.admin.try_clone()?)?;
    let admin = tokio::spawn(control::serve(listener, router, async {
        let _ = admin_stopped.await;
    }));
    tracing::info!(
        id = node.config.id,
        clients = %node.address,
        admin = %node.admin_address,
        shards = node.shards.len(),
        "listening"
    );

    let (stop_redis, redis_stopped) = oneshot::channel::<()>();
    let nodes = node.registry.as_ref().map(flux_registry::Registry::watch);
    let redis = node.redis.take().map(|engine| {
        let engine = match nodes {
            Some(nodes) => engine.with_nodes(&node.config.id, nodes),
            None => engine,
        };
        tokio::spawn(engine.run(async {
            let _ = redis_stopped.await;
        }))
    });

    let (stop_authority, authority_stopped) = oneshot::channel::<()>();
    let authority = node.authority.take().map(|authority| {
        tokio::spawn(authority.run(async {
            let _ = authority_stopped.await;
        }))
    });

    let times = crate::drain::DrainTimes::new(Duration::from_secs(node.config.drain_seconds))
        .map_err(io::Error::other)?;
    let mut membership = node.registry.as_ref().map(|registry| join(&node, registry));
    let mut life = Life {
        drain: Drain::new(times),
        node: &node,
        has_failed: false,
        is_fenced: false,
    };
    tokio::select! {
        biased;
        // It came while the shards were started: nobody has connected yet.
        signal = signals.next() => life.on_signal(signal),
        () = std::future::ready(()) => life.drain.ready(),
    }
    life.show();
    let mut pulse = Pulse::new(&node.shards, Instant::now());
    let mut pulse_at = Instant::now() + PULSE_EVERY;
    let mut drain_at = None;
    while life.drain.phase() != Phase::Stopped {
        let wake_at = drain_at.unwrap_or(pulse_at).min(pulse_at);
        tokio::select! {
            signal = signals.next() => life.on_signal(signal),
            fenced = fenced(&mut membership, !life.is_fenced) => life.on_fenced(fenced),
            () = tokio::time::sleep_until(wake_at.into()) => {}
        }
        let now = Instant::now();
        if now >= pulse_at {
            pulse_at = now + PULSE_EVERY;
            life.take_pulse(&mut pulse, now);
        }
        let orders = life.drain.tick(now, &node.status.loads());
        drain_at = orders.wake_at;
        life.give(&orders);
        if let Some(membership) = membership.as_ref().filter(|_| !orders.entered.is_empty()) {
            membership.announce();
        }
    }

    let is_fenced = life.is_fenced;
    if let Some(membership) = membership.take().filter(|_| !is_fenced)
        && !membership.leave("left after its drain").await
    {
        tracing::warn!(
            "the registry did not confirm that the node has left; its lease will end by itself"
        );
    }

    services.stop().await;
    let _ = stop_redis.send(());
    if let Some(Err(error)) = async { Some(redis?.await) }.await {
        tracing::error!(%error, "the Redis engine did not end well");
    }
    let _ = stop_admin.send(());
    // A client that holds an admin connection open must not hold up the exit.
    let _ = tokio::time::timeout(Duration::from_millis(500), admin).await;
    let is_well = !life.has_failed;
    let Node { shards, orders, .. } = node;
    let all_ended = super::stop::stop(shards, &orders, SHARDS_END_MAX).await;
    // After the shards: their last notices tell the backend of the clients that have gone.
    let _ = stop_authority.send(());
    if let Some(Err(error)) = async { Some(authority?.await) }.await {
        tracing::error!(%error, "the authority did not end well");
    }
    tracing::info!("stopped");
    Ok(is_well && all_ended)
}

fn join(node: &Node, registry: &flux_registry::Registry) -> Membership {
    let identity = Identity {
        id: node.config.id.clone(),
        listen: node.address,
        admin: node.admin_address,
        advertise: node.config.advertise.parse().ok(),
        weight: node.config.registry.weight,
        zone: node.config.registry.zone.clone(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let status = Arc::clone(&node.status);
    membership::join(
        registry,
        identity,
        move || status.for_registry(),
        node.readiness.clone(),
    )
}

/// Answers when this node's id was taken, never where there is no registry or it is known.
async fn fenced(membership: &mut Option<Membership>, is_news: bool) -> Fenced {
    match membership {
        Some(membership) if is_news => membership.fenced().await,
        _ => std::future::pending().await,
    }
}

fn admin(node: &Node, services: &Services) -> Admin {
    let mut metrics = Metrics::default();
    metrics.register_collector(Box::new(ShardMetrics::new(node.shared.counters.clone())));
    metrics.register_collector(Box::new(EngineCollector::new(node.engine_metrics.clone())));
    metrics.register_collector(Box::new(ApiCollector(Arc::clone(&services.api_metrics))));
    metrics.register_collector(Box::new(BusCollector(Arc::clone(services.bus.metrics()))));
    if let Some(authority) = &node.authority {
        let endpoints = authority.endpoints().to_vec();
        let collector = AuthorityCollector::new(authority.metrics(), endpoints);
        metrics.register_collector(Box::new(collector));
    }
    let status = Arc::clone(&node.status);
    Admin {
        readiness: node.readiness.clone(),
        metrics,
        refresh: Box::new(|| {}),
        status: Box::new(move || status.document(Instant::now())),
        live: Box::new(|| true),
    }
}

struct Life<'a> {
    drain: Drain,
    node: &'a Node,
    has_failed: bool,
    is_fenced: bool,
}

impl Life<'_> {
    fn on_signal(&mut self, signal: Signal) {
        tracing::info!(?signal, "asked to stop; draining");
        self.drain.terminate(Instant::now());
    }

    fn on_fenced(&mut self, fenced: Fenced) {
        self.is_fenced = true;
        tracing::error!(%fenced, "draining; give each node an id of its own");
        self.node
            .readiness
            .set_reason("fenced", Some(fenced.to_string()));
        self.drain.terminate(Instant::now());
    }

    fn take_pulse(&mut self, pulse: &mut Pulse, now: Instant) {
        let silent = pulse.silent(&self.node.shards, now);
        let why = (!silent.is_empty())
            .then(|| format!("shards {silent:?} have not answered for a second"));
        self.node.readiness.set_reason("shards", why);
        if !self.has_failed
            && self
                .node
                .shards
                .iter()
                .any(flux_runtime::shard::ShardThread::panicked)
        {
            self.has_failed = true;
            self.node.readiness.set_reason(
                "failed",
                Some("a shard has failed; the node goes away".to_owned()),
            );
            self.drain.terminate(now);
        }
    }

    fn give(&mut self, orders: &Orders) {
        for phase in &orders.entered {
            tracing::info!(phase = phase.as_str(), "drain");
            if *phase == Phase::LameDuck {
                self.node
                    .readiness
                    .set_reason("draining", Some("draining".to_owned()));
            }
        }
        if orders.stop_accepting {
            self.node.shared.is_draining.store(true, Ordering::Relaxed);
            self.tell_all(Order::StopAccepting);
        }
        for (shard, count) in orders
            .close
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            self.tell(shard, Order::Close(*count as usize));
        }
        if orders.close_rest {
            self.tell_all(Order::Close(usize::MAX));
        }
        if orders.force {
            self.tell_all(Order::CutAll);
        }
        self.show();
    }

    fn tell_all(&self, order: Order) {
        for shard in 0..self.node.orders.len() {
            self.tell(shard, order);
        }
    }

    fn tell(&self, shard: usize, order: Order) {
        if self.node.orders[shard].try_send(order).is_err() {
            tracing::warn!(
                shard,
                ?order,
                "a shard is too far behind for an order; the drain's later steps make up for it"
            );
        }
    }

    fn show(&self) {
        self.node
            .status
            .set_life(self.drain.phase(), self.drain.progress());
    }
}
