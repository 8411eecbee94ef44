//! The server API over HTTP: `POST /api/METHOD`, and `POST /api` in its old form.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request as HttpRequest, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::Access;
use super::answer::{Outcome, batch_reply, legacy_reply, respond};
use super::metrics::Refused;
use super::request::{BATCH_COMMANDS_MAX, Method, Request};
use super::service::Service;
use crate::config::ErrorMode;
use crate::limits::API_BODY_BYTES_MAX;
use crate::protocol::ErrorCode;

/// Says for one request where errors stand.
pub const ERROR_MODE_HEADER: &str = "x-centrifugo-error-mode";

/// Longest explanation of why a body cannot be read.
const REASON_BYTES_MAX: usize = 300;

/// What the routes work with.
#[derive(Clone, Debug)]
pub struct Served {
    /// What the methods do.
    pub service: Service,
    /// Who may call them.
    pub access: Access,
    /// Where errors stand unless a request says so.
    pub error_mode: ErrorMode,
}

/// The routes of the methods.
pub fn router(served: Served) -> Router {
    let guard = middleware::from_fn_with_state(served.clone(), let_in);
    Router::new()
        .route("/api", post(legacy))
        .route("/api/{method}", post(method))
        .method_not_allowed_fallback(not_post)
        .layer(DefaultBodyLimit::max(API_BODY_BYTES_MAX))
        .layer(guard)
        .with_state(served)
}

/// The key comes first: whoever does not have it learns nothing.
async fn let_in(State(served): State<Served>, request: HttpRequest, next: Next) -> Response {
    if !served.access.allows(request.headers(), request.uri()) {
        served.service.metrics.unauthorized.add(1);
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|bytes| bytes > API_BODY_BYTES_MAX) {
        // Said at once, not when so much has come.
        return refuse(&served, Refused::TooLarge);
    }
    next.run(request).await
}

async fn method(
    State(served): State<Served>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Some(method) = Method::parse(&name) else {
        return refuse(&served, Refused::UnknownMethod);
    };
    let body = match body {
        Ok(body) => body,
        Err(why) => return refuse(&served, why_no_body(&why)),
    };
    let request = match Request::parse(method, &body) {
        Ok(request) => request,
        Err(why) => return unreadable(&served, &why),
    };
    let outcome = match request {
        Request::Batch(batch) => match served.service.batch(batch).await {
            Ok(replies) => return json(StatusCode::OK, batch_reply(&replies)),
            Err(error) => Outcome::alone(Err(error)),
        },
        request => served.service.run(request).await,
    };
    let (status, body) = respond(&outcome, errors_in_status(&served, &headers));
    json(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), body)
}

/// Commands of the old form, one or several behind one another; a reply a line.
async fn legacy(State(served): State<Served>, body: Result<Bytes, BytesRejection>) -> Response {
    #[derive(Deserialize)]
    struct Command<'a> {
        #[serde(default)]
        id: u32,
        #[serde(borrow, default)]
        method: Option<&'a RawValue>,
        #[serde(borrow, default)]
        params: Option<&'a RawValue>,
    }
    let body = match body {
        Ok(body) => body,
        Err(why) => return refuse(&served, why_no_body(&why)),
    };
    let mut commands = Vec::new();
    for command in serde_json::Deserializer::from_slice(&body).into_iter::<Command<'_>>() {
        match command {
            Ok(_) if commands.len() == BATCH_COMMANDS_MAX => {
                return unreadable(&served, &"too many commands");
            }
            Ok(command) => commands.push(command),
            Err(why) => return unreadable(&served, &why),
        }
    }
    if commands.is_empty() {
        return unreadable(&served, &"there is no command");
    }
    let mut replies = Vec::new();
    for command in commands {
        let method = command.method.and_then(legacy_method);
        let params = command.params.map_or("{}", RawValue::get).as_bytes();
        let outcome = match method.map(|method| Request::parse(method, params)) {
            Some(Ok(request)) => served.service.run(request).await,
            Some(Err(_)) => Outcome::alone(Err(ErrorCode::BadRequest)),
            None => Outcome::alone(Err(ErrorCode::MethodNotFound)),
        };
        if !replies.is_empty() {
            replies.push(b'\n');
        }
        replies.extend(legacy_reply(&outcome, command.id));
    }
    json(StatusCode::OK, replies)
}

/// The method by name, in whatever case, or by its number in the old schema.
fn legacy_method(written: &RawValue) -> Option<Method> {
    const NUMBERED: [Method; 13] = [
        Method::Publish,
        Method::Broadcast,
        Method::Unsubscribe,
        Method::Disconnect,
        Method::Presence,
        Method::PresenceStats,
        Method::History,
        Method::HistoryRemove,
        Method::Channels,
        Method::Info,
        Method::Rpc,
        Method::Subscribe,
        Method::Refresh,
    ];
    match serde_json::from_str(written.get()).ok()? {
        serde_json::Value::String(name) => {
            let name = name.to_ascii_lowercase();
            NUMBERED.into_iter().find(|method| method.name() == name)
        }
        serde_json::Value::Number(number) => {
            let number = usize::try_from(number.as_u64()?).ok()?;
            NUMBERED.get(number).copied()
        }
        _ => None,
    }
}

fn errors_in_status(served: &Served, headers: &HeaderMap) -> bool {
    served.error_mode == ErrorMode::Transport
        || headers
            .get(ERROR_MODE_HEADER)
            .is_some_and(|mode| mode.as_bytes() == b"transport")
}

async fn not_post(State(served): State<Served>) -> Response {
    refuse(&served, Refused::NotPost)
}

fn why_no_body(why: &BytesRejection) -> Refused {
    match why.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refused::TooLarge,
        _ => Refused::CutOff,
    }
}

fn refuse(served: &Served, why: Refused) -> Response {
    served.service.metrics.refuse(why);
    match why {
        Refused::UnknownMethod => {
            let said =
                "there is no such method; /api/openapi.json of the admin address has them all";
            (StatusCode::NOT_FOUND, said).into_response()
        }
        Refused::NotPost => {
            let allow = [(header::ALLOW, "POST")];
            (StatusCode::METHOD_NOT_ALLOWED, allow, "use POST").into_response()
        }
        Refused::TooLarge => {
            let said = format!("the body may have at most {API_BODY_BYTES_MAX} bytes");
            (StatusCode::PAYLOAD_TOO_LARGE, said).into_response()
        }
        Refused::CutOff => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// The sender is told why, but for what it sent itself beyond a line.
fn unreadable(served: &Served, why: &dyn std::fmt::Display) -> Response {
    served.service.metrics.unreadable.add(1);
    let mut said = why.to_string();
    said.truncate(said.floor_char_boundary(REASON_BYTES_MAX));
    // It quotes the body, which may be anything: not for the log.
    tracing::debug!("a request to the server API cannot be read");
    (StatusCode::BAD_REQUEST, said).into_response()
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
