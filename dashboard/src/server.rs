//! Routes and security headers.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use flux_runtime::control::{Admin, Readiness};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::collect::Shared;
use crate::limits;
use crate::metrics::Metrics;
use crate::page;
use crate::stream::Streams;
use crate::timeline::Event;

/// What is not the page's own is not loaded, run, framed or sent to.
const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Clone)]
struct Pages {
    shared: Shared,
    streams: Streams,
}

/// Everything that the dashboard answers.
pub fn router(shared: Shared, streams: Streams, readiness: Readiness, started: Instant) -> Router {
    let (metrics, registry) = Metrics::new();
    let metrics = Arc::new(metrics);
    let (of_metrics, of_status) = (streams.clone(), streams.clone());
    let admin = Admin {
        readiness,
        metrics: registry,
        refresh: Box::new(move || metrics.refresh(&of_metrics)),
        status: Box::new(move || status(&of_status, started)),
        live: Box::new(|| true),
    };
    let pages = Router::new()
        .route("/", get(|| async { Redirect::temporary("/dashboard") }))
        .route("/dashboard", get(page::index))
        .route(
            "/dashboard/",
            get(|| async { Redirect::permanent("/dashboard") }),
        )
        .route("/dashboard/{name}", get(page::asset))
        .route(
            "/favicon.ico",
            get(|| async { Redirect::permanent("/dashboard/icon.svg") }),
        )
        .route("/api/topology", get(topology))
        .route("/api/timeline", get(timeline))
        .route("/api/history", get(history))
        .route("/api/events", get(events))
        .with_state(Pages { shared, streams });
    admin.router().merge(pages).layer(map_response(secure))
}

async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn topology(State(pages): State<Pages>) -> Response {
    match pages.streams.newest() {
        Some(frame) => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (kind, frame.json.to_string()).into_response()
        }
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1")],
            "nothing collected yet\n",
        )
            .into_response(),
    }
}

async fn events(State(pages): State<Pages>) -> Response {
    pages.streams.respond()
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

#[derive(Serialize)]
struct Events {
    events: Vec<Event>,
}

async fn timeline(State(pages): State<Pages>, Query(query): Query<After>) -> Json<Events> {
    let view = pages.shared.lock();
    Json(Events {
        events: view
            .topology
            .timeline()
            .after(query.after)
            .cloned()
            .collect(),
    })
}

async fn history(State(pages): State<Pages>) -> Response {
    Json(&pages.shared.lock().history).into_response()
}

fn status(streams: &Streams, started: Instant) -> serde_json::Value {
    let newest = streams.newest();
    json!({
        "id": "dashboard",
        "version": env!("CARGO_PKG_VERSION"),
        "state": if newest.is_some() { "READY" } else { "STARTING" },
        "uptime_s": started.elapsed().as_secs(),
        "shards": [],
        "connections": streams.open(),
        "nodes": newest.map_or(0, |frame| frame.document.nodes.len()),
        "limits": {
            "streams_max": limits::STREAMS_MAX,
            "nodes_max": limits::NODES_MAX,
            "timeline_max": limits::TIMELINE_MAX,
            "departed_listed_s": limits::DEPARTED_LISTED.as_secs(),
        },
    })
}
