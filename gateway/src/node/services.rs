//! What the control plane runs beside the admin pages: the bus, the server API, requests of the
//! client port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::api::access::Access;
use crate::api::metrics::ApiMetrics;
use crate::api::routes::{self, Served};
use crate::api::service::Service;
use crate::api::{self, plain};
use crate::bus::{Bus, BusConfig, LocalNode};
use crate::config::Config;
use crate::limits::REDIS_RECORD_BYTES_MAX;

use super::Node;

/// What runs until the node has drained.
pub(super) struct Services {
    /// The pages and methods of the admin address, but those that every process has.
    pub(super) router: Router,
    pub(super) api_metrics: Arc<ApiMetrics>,
    pub(super) bus: Bus,
    stop_bus: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Services {
    /// Starts them. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When other nodes cannot be reached the way that is configured.
    pub(super) fn start(node: &mut Node) -> io::Result<Services> {
        let (bus, stop_bus) = bus(node)?;
        let config = &node.config;
        let api_metrics = Arc::new(ApiMetrics::default());
        let service = Service {
            engine: node.engine.clone(),
            bus: bus.clone(),
            rules: Arc::new(config.channel_rules()),
            channel_length_max: config.channel.max_length,
            // A client that could not hold it would be closed as a slow consumer.
            payload_bytes_max: (config.client.queue_max_size / 2).min(REDIS_RECORD_BYTES_MAX / 2),
            metrics: Arc::clone(&api_metrics),
        };
        let methods = access(config, node.admin_address).map(|access| {
            routes::router(Served {
                service,
                access,
                error_mode: config.http_api.error_mode,
            })
        });
        let mut router = api::router(Arc::clone(&node.shared));
        if let Some(methods) = &methods {
            router = router.merge(methods.clone());
        }
        if let Some(requests) = node.plain.take() {
            let external = methods.filter(|_| node.config.http_api.external);
            // Ends with the shards: nothing it holds outlives them.
            tokio::spawn(plain::serve(requests, external, bus.clone()));
        }
        Ok(Services {
            router,
            api_metrics,
            bus,
            stop_bus,
        })
    }

    /// Ends the bus.
    pub(super) async fn stop(self) {
        if let Some((stop, task)) = self.stop_bus {
            let _ = stop.send(());
            let _ = task.await;
        }
    }
}

type BusTask = (oneshot::Sender<()>, JoinHandle<()>);

fn bus(node: &Node) -> io::Result<(Bus, Option<BusTask>)> {
    let config = &node.config;
    let calls = node.shared.control.calls.clone();
    let engines = node.engine_metrics.clone();
    let local = LocalNode::new(config.id.clone(), calls, engines, Instant::now());
    let deployment = config.redis_deployment().map_err(io::Error::other)?;
    let (Some(deployment), Some(registry)) = (deployment, &node.registry) else {
        return Ok((Bus::alone(local), None));
    };
    let redis = &config.engine.redis;
    let settings = BusConfig {
        deployment,
        prefix: redis.prefix.clone(),
        connect_timeout: redis.connect_timeout,
        io_timeout: redis.io_timeout,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = async {
        let _ = stopped.await;
    };
    let (bus, task) =
        Bus::over_redis(settings, local, registry.watch(), ended).map_err(io::Error::other)?;
    Ok((bus, Some((stop, tokio::spawn(task)))))
}

/// Who may call the server API; none: it is not there.
fn access(config: &Config, admin: SocketAddr) -> Option<Access> {
    let api = &config.http_api;
    if api.disabled {
        return None;
    }
    let access = Access::new(&api.key, api.insecure);
    if matches!(access, Access::Nobody) && !admin.ip().is_loopback() {
        tracing::info!("there is no server API: http_api.key is not set");
        return None;
    }
    Some(access)
}
