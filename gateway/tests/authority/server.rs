//! A backend that answers as it is told to, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use futures_util::StreamExt;
use serde_json::Value;

/// What is done with a request.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// Status and body.
    Answer(u16, String),
    /// The same, after a while.
    Late(Duration, String),
    /// Begins an answer and never ends it.
    Hangs,
    /// Sends a byte of an answer now and then, and never ends it.
    Drips(Duration),
    /// 200 with a body of this type.
    Typed(&'static str, String),
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Shared {
    /// By the path's beginning; the first that fits.
    plan: Mutex<Vec<(String, Does)>>,
    asked: Mutex<Vec<Asked>>,
}

/// The server; ends with its runtime, or when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        Self::on(listener)
    }

    fn on(listener: tokio::net::TcpListener) -> Self {
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .fallback(serve)
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serves");
        });
        Self {
            address,
            shared,
            task,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on.
    pub(crate) fn does(&self, path: &str, does: Does) {
        let mut plan = self.shared.plan.lock().expect("not poisoned");
        plan.retain(|(known, _)| known != path);
        plan.push((path.to_owned(), does));
    }

    pub(crate) fn answers(&self, path: &str, body: &dyn std::fmt::Display) {
        self.does(path, Does::Answer(200, body.to_string()));
    }

    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = self.shared.asked.lock().expect("not poisoned");
        asked
            .iter()
            .filter(|one| one.path == path)
            .cloned()
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let does = {
        let plan = shared.plan.lock().expect("not poisoned");
        let found = plan.iter().find(|(known, _)| *known == path);
        found.map(|(_, does)| does.clone())
    };
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    shared.asked.lock().expect("not poisoned").push(Asked {
        path,
        headers,
        body,
    });
    let mut content_type = None;
    let (status, body) = match does {
        None => (404, Body::empty()),
        Some(Does::Answer(status, text)) => (status, Body::from(text)),
        Some(Does::Late(wait, text)) => {
            tokio::time::sleep(wait).await;
            (200, Body::from(text))
        }
        Some(Does::Typed(name, text)) => {
            content_type = Some(HeaderValue::from_static(name));
            (200, Body::from(text))
        }
        Some(Does::Drips(wait)) => {
            let drops = futures_util::stream::repeat(()).then(move |()| async move {
                tokio::time::sleep(wait).await;
                Ok::<_, std::io::Error>(" ")
            });
            (200, Body::from_stream(drops))
        }
        Some(Does::Hangs) => {
            let begun = futures_util::stream::once(async { Ok::<_, std::io::Error>("{") });
            let never = futures_util::stream::pending();
            let stream = begun.chain(never);
            (200, Body::from_stream(stream))
        }
    };
    let mut response = Response::new(body);
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}
