//! What the admin address answers beside the pages that every process has.
//!
//! | what | file |
//! |---|---|
//! | methods and bodies | `request` (pure) |
//! | results and errors | `answer` (pure) |
//! | who may call | `access` (pure) |
//! | what the methods do: engine and bus | `service` |
//! | whom a request means, and what is done to their sessions | `target` (pure) |
//! | over HTTP | `routes` |
//! | the same on the client port, and emulation for other nodes | `plain` |
//! | the document that describes it | `openapi` |
//! | `flux-gateway publish` | `command` |
//! | counters | `metrics` |
//!
//! `GET /api/clients/{id}`: where on this node a client is, by the id that its connect reply and
//! its publications carry. Not part of Centrifugo's API, and on the admin address alone.

pub mod access;
pub mod answer;
pub mod command;
pub mod metrics;
pub mod openapi;
pub mod plain;
pub mod request;
pub mod routes;
pub mod service;
mod target;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::protocol::ClientId;
use crate::shard::Shared;

/// The routes that are there whether or not the server API is.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/clients/{id}", get(client))
        .route(openapi::PATH, get(openapi::document))
        // Where Centrifugo's probes look; `/ready` says more.
        .route("/health", get(|| async { Json(json!({})) }))
        .with_state(shared)
}

async fn client(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let Some(id) = ClientId::parse(&id) else {
        let error = json!({"error": "a client id looks like 01234567-89ab-4def-8123-456789abcdef"});
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    };
    match shared.directory.find(id) {
        Some(client) => {
            let document = json!({"client": id.to_string(), "shard": client.shard, "peer": client.peer.to_string()});
            Json(document).into_response()
        }
        None => (
            StatusCode::NOT_FOUND,
            Json(json!({"error": "no such client on this node"})),
        )
            .into_response(),
    }
}
