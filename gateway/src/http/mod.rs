//! HTTP/1.1 as far as the client port needs it: one request, answered with an upgrade (RFC 6455 §4), a stream, a plain
//! answer, or a rejection. Pure: bytes in, a parsed request and the bytes of the answer out.
//!
//! | stage | file |
//! |---|---|
//! | where the head ends, request line and fields | `head.rs`, `fields.rs` |
//! | fields -> upgrade, stream, plain request, body to come or rejection | `request.rs` |
//! | a WebSocket handshake | `upgrade.rs` |
//! | a body, with a length or in chunks | `body.rs` |
//! | `Origin` against the allow-list; what pages of other origins are told | `origin.rs`, `cors.rs` |
//! | values in the query; affinity key | `query.rs`, `affinity.rs` |
//! | the body of `/emulation` | `emulation.rs` |
//! | plain answers, heads of streams | `answer.rs` |
//! | rejections: reason, status, bytes | `rejection.rs` |
//!
//! There is one request on a connection, after any number of requests for pages: what is neither upgraded nor a page
//! is answered with `Connection: close`.

mod affinity;
mod answer;
mod body;
mod cors;
mod emulation;
mod fields;
mod head;
mod origin;
mod query;
mod rejection;
mod request;
mod upgrade;

pub use affinity::SID_BYTES_MAX;
pub use answer::{
    ContentType, continue_into, foreign_answer_into, page_into, stream_end_into, stream_head_into,
};
pub use body::{Body, BodyLength};
pub use cors::Cors;
pub use emulation::Emulation;
pub use head::{HeadScan, Progress};
pub use origin::{AllowedOrigins, Glob, OriginPatternError};
pub use rejection::Rejection;
pub use request::{API_FIELDS, ApiHead, Page, Plain, Post, Preflight, Purpose, Request, Stream};
pub use upgrade::{Endpoint, Subprotocol, Upgrade};

use std::time::Duration;

/// Longest request head, in bytes, from the request line to the empty line. Beyond it: 431.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Most fields in a request head. Beyond it: 431.
pub const HEAD_FIELDS_MAX: usize = 100;

/// Longest time from accept, or from the last page, to a whole request head. Beyond it the shard answers with [`Rejection::HeadTimeout`] (408).
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest time from a whole request head to a whole body. Beyond it the shard answers with [`Rejection::BodyTimeout`]
/// (408).
pub const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest request body of a transport unless configured otherwise, in bytes (Centrifugo's `max_request_body_size`).
/// Beyond it: 413.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// What the client port allows.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Origins of pages that may use the transports (`client.allowed_origins`).
    pub origins: AllowedOrigins,
    /// Whether `/echo` exists.
    pub echo: bool,
    /// Which transports exist.
    pub transports: Transports,
    /// Header fields, in lower case, that are kept of the requests of clients for the backend; others
    /// are forgotten with the request.
    pub kept_headers: Vec<Box<str>>,
}

/// Which transports exist. Where there is a number it is the longest request body in bytes; `None` is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transports {
    /// `/connection/websocket`.
    pub websocket: bool,
    /// `/connection/sse`.
    pub sse: Option<usize>,
    /// `/connection/http_stream`.
    pub http_stream: Option<usize>,
    /// `/connection/uni_websocket`.
    pub uni_websocket: bool,
    /// `/connection/uni_sse`.
    pub uni_sse: Option<usize>,
    /// `/connection/uni_http_stream`.
    pub uni_http_stream: Option<usize>,
    /// `/emulation`, which `sse` and `http_stream` need.
    pub emulation: Option<usize>,
    /// `/api`: the server API on the client port.
    pub api: Option<usize>,
}

impl Default for Transports {
    /// As Centrifugo: WebSocket alone.
    fn default() -> Self {
        Self {
            websocket: true,
            sse: None,
            http_stream: None,
            uni_websocket: false,
            uni_sse: None,
            uni_http_stream: None,
            emulation: None,
            api: None,
        }
    }
}

impl Transports {
    /// Every transport for clients, each with the default bound.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            websocket: true,
            sse: Some(BODY_BYTES_MAX),
            http_stream: Some(BODY_BYTES_MAX),
            uni_websocket: true,
            uni_sse: Some(BODY_BYTES_MAX),
            uni_http_stream: Some(BODY_BYTES_MAX),
            emulation: Some(BODY_BYTES_MAX),
            api: None,
        }
    }
}
