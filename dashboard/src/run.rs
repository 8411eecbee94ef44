//! The process: registry watch, collector, server, until told to stop.

use std::time::Instant;

use flux_runtime::control::{self, Readiness};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::collect::{Collector, Frame, Shared};
use crate::config::Config;
use crate::document::RegistryState;
use crate::server;
use crate::stream::Streams;

/// Runs the dashboard on `listener` until `shutdown` resolves; event streams
/// are ended then, other requests finished.
///
/// # Errors
/// When the configuration cannot work or the listener fails for good.
pub async fn run(
    listener: TcpListener,
    config: &Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let balancers = config.balancers().map_err(anyhow::Error::msg)?;
    let registry = config.registry().map_err(anyhow::Error::msg)?;
    let shared = Shared::new(&config.cluster);
    let (collector, frames) = Collector::new(registry.watch(), &balancers, shared.clone())?;
    let collecting = tokio::spawn(collector.run());
    let readiness = Readiness::new();
    let announcing = tokio::spawn(announce(frames.clone(), readiness.clone()));
    let router = server::router(shared, Streams::new(frames), readiness, Instant::now());
    let stop = {
        let collecting = collecting.abort_handle();
        async move {
            shutdown.await;
            // Streams end with the collector; without that they would hold the server open.
            collecting.abort();
        }
    };
    let served = control::serve(listener, router, stop).await;
    collecting.abort();
    announcing.abort();
    Ok(served?)
}

/// Says in `/ready` what the dashboard cannot see.
async fn announce(mut frames: watch::Receiver<Option<Frame>>, readiness: Readiness) {
    loop {
        let (registry, balancers) = match frames.borrow_and_update().as_ref() {
            Some(frame) => (
                frame.document.registry.state,
                frame
                    .document
                    .balancers
                    .iter()
                    .filter(|b| b.state == "unreachable")
                    .map(|b| format!("balancer {} unreachable: {}", b.id, b.reason))
                    .collect::<Vec<_>>(),
            ),
            None => (RegistryState::Unreachable, Vec::new()),
        };
        let blind = (registry != RegistryState::Ok).then(|| "registry cannot be read".to_owned());
        readiness.set_degraded("redis", blind);
        readiness.set_degraded(
            "balancer",
            (!balancers.is_empty()).then(|| balancers.join("; ")),
        );
        if frames.changed().await.is_err() {
            return;
        }
    }
}
