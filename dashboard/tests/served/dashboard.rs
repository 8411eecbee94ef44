//! A dashboard over real sockets, and the nodes that it asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::routing::get;
use axum::{Json, Router};
use flux_dashboard::collect::{Collector, Shared};
use flux_dashboard::document::Document;
use flux_dashboard::server;
use flux_dashboard::stream::Streams;
use flux_registry::{NodeRecord, NodeState, NodeView, RegistryState, Snapshot};
use flux_runtime::control::{self, Readiness};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

const TTL: Duration = Duration::from_secs(15);

/// A dashboard on a kernel's port, fed by the test.
pub(crate) struct Dashboard {
    pub(crate) url: String,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) client: reqwest::Client,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Dashboard {
    pub(crate) async fn start(balancers: &[String]) -> Self {
        let (snapshots, watched) = watch::channel(Arc::new(Snapshot::unread(TTL)));
        let shared = Shared::new("flux");
        let (collector, frames) =
            Collector::new(watched, balancers, shared.clone()).expect("a client");
        let collecting = tokio::spawn(collector.run());
        let router = server::router(
            shared,
            Streams::new(frames),
            Readiness::new(),
            Instant::now(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(control::serve(listener, router, async move {
            let _ = stopped.await;
            collecting.abort();
        }));
        Self {
            url,
            snapshots,
            client: reqwest::Client::builder()
                .tls_backend_preconfigured(flux_registry::tls_without_authorities())
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()
                .expect("a client"),
            stop: Some(stop),
            served,
        }
    }

    pub(crate) fn tell(&self, records: impl IntoIterator<Item = NodeRecord>) {
        let mut snapshot = Snapshot::unread(TTL);
        snapshot.state = RegistryState::Ok;
        snapshot.read_at = Some(Instant::now());
        snapshot.server_time_ms = 1_700_000_000_000;
        for record in records {
            let view = NodeView {
                deadline_ms: snapshot.server_time_ms + 15_000,
                heartbeat_age_ms: 0,
                fresh: true,
                held: false,
                record,
            };
            snapshot.nodes.insert(view.record.id.clone(), view);
        }
        self.snapshots.send_replace(Arc::new(snapshot));
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        let url = format!("{}{path}", self.url);
        self.client.get(url).send().await.expect("an answer")
    }

    /// Asks for the topology until it is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Document) -> bool) -> Document {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.get("/api/topology").await;
            let last = answer.text().await.expect("a body");
            match serde_json::from_str::<Document>(&last) {
                Ok(document) if wanted(&document) => return document,
                _ => assert!(Instant::now() < end, "{what} did not come: {last}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Documents that arrive on a stream within `time`.
    pub(crate) async fn stream(&self, time: Duration) -> Vec<Value> {
        let mut answer = self.get("/api/events").await;
        let end = Instant::now() + time;
        let mut text = String::new();
        while let Ok(chunk) = tokio::time::timeout(
            end.saturating_duration_since(Instant::now()),
            answer.chunk(),
        )
        .await
        {
            let chunk = chunk.expect("no error").expect("no end");
            text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
        text.split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect()
    }
}

pub(crate) fn record(id: &str, admin: Option<SocketAddr>) -> NodeRecord {
    let mut record = NodeRecord::new(id, "127.0.0.1:8001".parse().expect("an address"));
    record.admin = admin;
    record.state = NodeState::Ready;
    record.generation = 7;
    record.nonce = "n".to_owned();
    record.connections = 40;
    record.shards = vec![30, 10];
    record
}

/// Serves `router` on a kernel's port for as long as the test's runtime lives.
pub(crate) async fn admin(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(control::serve(listener, router, std::future::pending()));
    address
}

pub(crate) fn good_node(id: &'static str) -> Router {
    let ready = json!({"ready": true, "reasons": [], "degraded": []});
    let status = json!({"id": id, "connections": 55, "messages_per_s": 2.5});
    Router::new()
        .route("/ready", get(move || async move { Json(ready) }))
        .route("/api/status", get(move || async move { Json(status) }))
}

pub(crate) fn test(body: impl Future<Output = ()>) {
    control::run(body).expect("a runtime");
}
