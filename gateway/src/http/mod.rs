//! HTTP/1.1 as far as the client port needs it: one request head, answered with an upgrade (RFC 6455 §4), a plain
//! answer, or a rejection. Pure: bytes in, a parsed request and the bytes of the answer out.
//!
//! | stage | file |
//! |---|---|
//! | where the head ends, request line and fields | `head.rs` |
//! | fields -> upgrade, plain request or rejection | `request.rs` |
//! | `Origin` against the allow-list | `origin.rs` |
//! | affinity key | `affinity.rs` |
//! | plain answers | `answer.rs` |
//! | rejections: reason, status, bytes | `rejection.rs` |
//!
//! There is one request on a connection: whatever is not upgraded is answered with `Connection: close`.

mod affinity;
mod answer;
mod head;
mod origin;
mod rejection;
mod request;

pub use affinity::SID_BYTES_MAX;
pub use answer::{ContentType, answer_into};
pub use head::{HeadScan, Progress};
pub use origin::{AllowedOrigins, OriginPatternError};
pub use rejection::Rejection;
pub use request::{Endpoint, Page, Plain, Request, Subprotocol, Upgrade};

use std::time::Duration;

/// Longest request head, in bytes, from the request line to the empty line. Beyond it: 431.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Most fields in a request head. Beyond it: 431.
pub const HEAD_FIELDS_MAX: usize = 100;

/// Longest time from accept to a whole request head. Beyond it the shard answers with [`Rejection::HeadTimeout`] (408).
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// What the client port allows.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Origins that may open a WebSocket (`client.allowed_origins`).
    pub origins: AllowedOrigins,
    /// Whether `/echo` exists.
    pub echo: bool,
}
