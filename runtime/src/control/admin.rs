//! The admin pages of every process: `/live`, `/ready`, `/metrics`, `/api/status`.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;

use super::Readiness;

/// What the admin pages show. `status` and `live` are asked at each request and must not block.
pub struct Admin {
    /// Behind `/ready`.
    pub readiness: Readiness,
    /// Behind `/metrics`; every name in it starts with `flux_`.
    pub metrics: Registry,
    /// Runs before each scrape: copies counters of the data plane into the registry's metrics.
    pub refresh: Box<dyn Fn() + Send + Sync>,
    /// Behind `/api/status`.
    pub status: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Behind `/live`: whether the process can make progress.
    pub live: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Admin {
    /// The routes; a process merges its own into them.
    pub fn router(self) -> Router {
        let pages = Arc::new(Pages {
            readiness: self.readiness,
            metrics: Mutex::new(self.metrics),
            refresh: self.refresh,
            status: self.status,
            live: self.live,
        });
        Router::new()
            .route("/live", get(live))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/api/status", get(status))
            .with_state(pages)
    }
}

struct Pages {
    readiness: Readiness,
    metrics: Mutex<Registry>,
    refresh: Box<dyn Fn() + Send + Sync>,
    status: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    live: Box<dyn Fn() -> bool + Send + Sync>,
}

async fn live(State(pages): State<Arc<Pages>>) -> Response {
    if (pages.live)() {
        (StatusCode::OK, "live\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no progress\n").into_response()
    }
}

async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    let document = pages.readiness.document();
    let code = if document.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(document)).into_response()
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    (pages.refresh)();
    let registry = pages.metrics.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics could not be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn status(State(pages): State<Arc<Pages>>) -> Json<serde_json::Value> {
    Json((pages.status)())
}

/// Serves `router` on `listener` until `shutdown` resolves; open requests are finished first.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[test]
    fn ready_turns_503_with_a_reason_and_stays_200_when_only_degraded() {
        crate::control::run(async {
            let readiness = Readiness::new();
            let admin = Admin {
                readiness: readiness.clone(),
                metrics: Registry::default(),
                refresh: Box::new(|| {}),
                status: Box::new(|| serde_json::json!({"id": "gateway-1"})),
                live: Box::new(|| true),
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let server = tokio::spawn(serve(listener, admin.router(), async {
                let _ = stopped.await;
            }));
            readiness.set_degraded("redis", Some("redis unreachable".into()));
            let answer = get(address, "/ready").await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("redis unreachable"));
            readiness.set_reason("draining", Some("draining".into()));
            assert!(get(address, "/ready").await.starts_with("HTTP/1.1 503"));
            assert!(get(address, "/live").await.starts_with("HTTP/1.1 200"));
            assert!(get(address, "/api/status").await.contains("gateway-1"));
            assert!(get(address, "/metrics").await.contains("# EOF"));
            stop.send(()).expect("the server runs");
            server.await.expect("no panic").expect("served");
        })
        .expect("a runtime can be built");
    }
}
