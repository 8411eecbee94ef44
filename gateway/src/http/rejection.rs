//! Why a request is refused: status, text for a person, label for the metric, bytes of the answer.

use super::answer::{ContentType, write_answer};
use super::cors::Cors;

/// A refused request. The answer always ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The request line is not one (garbage, TLS on a plain port, blanks, control characters).
    RequestLine,
    /// A header field that is not one (bad name or value, obsolete line folding, NUL, a lone CR).
    Field,
    /// A line that does not end with CRLF.
    LineEnding,
    /// A request target that is neither a path nor an http URI.
    Target,
    /// Neither HTTP/1.1 nor HTTP/1.0, or an upgrade over HTTP/1.0.
    HttpVersion,
    /// The head is longer than [`HEAD_BYTES_MAX`](super::HEAD_BYTES_MAX).
    HeadTooLarge,
    /// The head has more fields than [`HEAD_FIELDS_MAX`](super::HEAD_FIELDS_MAX).
    TooManyFields,
    /// The head was not whole within [`HEAD_TIME_MAX`](super::HEAD_TIME_MAX).
    HeadTimeout,
    /// No `Host`, or one that names no host.
    Host,
    /// A field that may stand once stands twice.
    DuplicateField,
    /// A request with a body.
    Body,
    /// No such path.
    NotFound,
    /// A method other than GET and HEAD for a page.
    PageMethod,
    /// A method other than GET for a WebSocket.
    UpgradeMethod,
    /// A WebSocket path without `Upgrade: websocket`.
    UpgradeMissing,
    /// `Upgrade: websocket` without `Connection: upgrade`.
    ConnectionField,
    /// `Sec-WebSocket-Version` is not 13.
    WebSocketVersion,
    /// `Sec-WebSocket-Key` is missing or not 16 bytes in base64.
    WebSocketKey,
    /// The origin is not in the allow-list.
    Origin,
    /// The node is draining.
    Draining,
    /// The node holds as many connections as it may.
    ConnectionLimit,
    /// More connections came within a second than may.
    ConnectionRate,
    /// A body longer than this path takes.
    BodyTooLarge,
    /// A body whose length or chunks are malformed, or that says its length twice.
    BodyFraming,
    /// The body was not whole within [`BODY_TIME_MAX`](super::BODY_TIME_MAX).
    BodyTimeout,
    /// A method other than POST where a body is needed.
    PostMethod,
    /// A method other than GET and POST for server-sent events.
    EventsMethod,
    /// Server-sent events without a connect command.
    ConnectMissing,
    /// A body that is no emulation request.
    Emulation,
    /// An emulation request for a node that is not there.
    UnknownNode,
    /// Whoever would answer has as many requests waiting as it may.
    Busy,
}

impl Rejection {
    /// Every rejection, for metrics that start at zero.
    pub const ALL: [Rejection; 31] = [
        Rejection::RequestLine,
        Rejection::Field,
        Rejection::LineEnding,
        Rejection::Target,
        Rejection::HttpVersion,
        Rejection::HeadTooLarge,
        Rejection::TooManyFields,
        Rejection::HeadTimeout,
        Rejection::Host,
        Rejection::DuplicateField,
        Rejection::Body,
        Rejection::NotFound,
        Rejection::PageMethod,
        Rejection::UpgradeMethod,
        Rejection::UpgradeMissing,
        Rejection::ConnectionField,
        Rejection::WebSocketVersion,
        Rejection::WebSocketKey,
        Rejection::Origin,
        Rejection::Draining,
        Rejection::ConnectionLimit,
        Rejection::ConnectionRate,
        Rejection::BodyTooLarge,
        Rejection::BodyFraming,
        Rejection::BodyTimeout,
        Rejection::PostMethod,
        Rejection::EventsMethod,
        Rejection::ConnectMissing,
        Rejection::Emulation,
        Rejection::UnknownNode,
        Rejection::Busy,
    ];

    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Rejection::RequestLine
            | Rejection::Field
            | Rejection::LineEnding
            | Rejection::Target
            | Rejection::Host
            | Rejection::DuplicateField
            | Rejection::ConnectionField
            | Rejection::WebSocketKey
            | Rejection::BodyFraming
            | Rejection::ConnectMissing
            | Rejection::Emulation => 400,
            Rejection::Origin => 403,
            Rejection::NotFound | Rejection::UnknownNode => 404,
            Rejection::PageMethod
            | Rejection::UpgradeMethod
            | Rejection::PostMethod
            | Rejection::EventsMethod => 405,
            Rejection::HeadTimeout | Rejection::BodyTimeout => 408,
            Rejection::Body | Rejection::BodyTooLarge => 413,
            Rejection::UpgradeMissing | Rejection::WebSocketVersion => 426,
            Rejection::HeadTooLarge | Rejection::TooManyFields => 431,
            Rejection::Draining
            | Rejection::ConnectionLimit
            | Rejection::ConnectionRate
            | Rejection::Busy => 503,
            Rejection::HttpVersion => 505,
        }
    }

    /// The label value for the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Rejection::RequestLine => "request_line",
            Rejection::Field => "field",
            Rejection::LineEnding => "line_ending",
            Rejection::Target => "target",
            Rejection::HttpVersion => "http_version",
            Rejection::HeadTooLarge => "head_too_large",
            Rejection::TooManyFields => "too_many_fields",
            Rejection::HeadTimeout => "head_timeout",
            Rejection::Host => "host",
            Rejection::DuplicateField => "duplicate_field",
            Rejection::Body => "body",
            Rejection::NotFound => "not_found",
            Rejection::PageMethod => "page_method",
            Rejection::UpgradeMethod => "upgrade_method",
            Rejection::UpgradeMissing => "upgrade_missing",
            Rejection::ConnectionField => "connection_field",
            Rejection::WebSocketVersion => "websocket_version",
            Rejection::WebSocketKey => "websocket_key",
            Rejection::Origin => "origin",
            Rejection::Draining => "draining",
            Rejection::ConnectionLimit => "connection_limit",
            Rejection::ConnectionRate => "connection_rate",
            Rejection::BodyTooLarge => "body_too_large",
            Rejection::BodyFraming => "body_framing",
            Rejection::BodyTimeout => "body_timeout",
            Rejection::PostMethod => "post_method",
            Rejection::EventsMethod => "events_method",
            Rejection::ConnectMissing => "connect_missing",
            Rejection::Emulation => "emulation",
            Rejection::UnknownNode => "unknown_node",
            Rejection::Busy => "busy",
        }
    }

    /// One sentence for whoever reads the answer.
    pub const fn text(self) -> &'static str {
        match self {
            Rejection::RequestLine => "The request line is malformed.",
            Rejection::Field => "A header field is malformed.",
            Rejection::LineEnding => "Lines must end with CR LF.",
            Rejection::Target => "The request target must be a path.",
            Rejection::HttpVersion => "HTTP/1.1 is needed.",
            Rejection::HeadTooLarge => "The request head is larger than 16 KiB.",
            Rejection::TooManyFields => "The request has more than 100 header fields.",
            Rejection::HeadTimeout => "The request head did not arrive within 10 seconds.",
            Rejection::Host => "The Host field is missing or malformed.",
            Rejection::DuplicateField => "A header field that may stand once stands twice.",
            Rejection::Body => "A request body is not accepted here.",
            Rejection::NotFound => "There is nothing here.",
            Rejection::PageMethod => "Only GET and HEAD are accepted here.",
            Rejection::UpgradeMethod => "Only GET is accepted here.",
            Rejection::UpgradeMissing => {
                "This is a WebSocket endpoint: Upgrade: websocket is needed."
            }
            Rejection::ConnectionField => "Connection: Upgrade is missing.",
            Rejection::WebSocketVersion => "Sec-WebSocket-Version must be 13.",
            Rejection::WebSocketKey => "Sec-WebSocket-Key must be 16 bytes in base64.",
            Rejection::Origin => "This origin is not allowed (client.allowed_origins).",
            Rejection::Draining => "This node is shutting down: connect again.",
            Rejection::ConnectionLimit => {
                "This node holds as many connections as it may: connect again later."
            }
            Rejection::ConnectionRate => {
                "More connections came within a second than may: connect again later."
            }
            Rejection::BodyTooLarge => "The request body is larger than allowed.",
            Rejection::BodyFraming => "The length of the body is malformed, or its chunks are.",
            Rejection::BodyTimeout => "The request body did not arrive within 10 seconds.",
            Rejection::PostMethod => "Only POST is accepted here.",
            Rejection::EventsMethod => "Only GET and POST are accepted here.",
            Rejection::ConnectMissing => {
                "A connect command is needed: cf_connect in the query, or a POST."
            }
            Rejection::Emulation => "The body must be an emulation request: node, session, data.",
            Rejection::UnknownNode => "There is no such node.",
            Rejection::Busy => "Too many requests are waiting: try again later.",
        }
    }

    /// Appends the whole answer.
    pub fn answer_into(self, out: &mut Vec<u8>) {
        self.answer_for(&Cors::default(), out);
    }

    /// Appends the whole answer to somebody whose origin is known to be allowed.
    pub fn answer_for(self, cors: &Cors, out: &mut Vec<u8>) {
        let fields = match self {
            Rejection::PageMethod => "Allow: GET, HEAD\r\n",
            Rejection::UpgradeMethod => "Allow: GET\r\n",
            Rejection::PostMethod => "Allow: POST, OPTIONS\r\n",
            Rejection::EventsMethod => "Allow: GET, POST, OPTIONS\r\n",
            // 426 has to name the protocol (RFC 9110 §15.5.22), and Upgrade has to be named in Connection.
            Rejection::UpgradeMissing | Rejection::WebSocketVersion => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            }
            Rejection::Draining
            | Rejection::ConnectionLimit
            | Rejection::ConnectionRate
            | Rejection::Busy => "Retry-After: 1\r\n",
            _ => "",
        };
        let body = format!("{}\n", self.text());
        write_answer(
            out,
            self.status(),
            ContentType::Text.as_str(),
            fields,
            cors,
            body.as_bytes(),
            false,
        );
    }

    /// The whole answer.
    pub fn answer(self) -> Vec<u8> {
        let mut out = Vec::new();
        self.answer_into(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_is_a_whole_answer_that_ends_the_connection() {
        let mut labels = std::collections::HashSet::new();
        for rejection in Rejection::ALL {
            assert!(labels.insert(rejection.label()));
            let answer = rejection.answer();
            let mut fields = [httparse::EMPTY_HEADER; 16];
            let mut parsed = httparse::Response::new(&mut fields);
            let httparse::Status::Complete(head_len) = parsed.parse(&answer).expect("valid") else {
                panic!("{rejection:?} is incomplete")
            };
            assert_eq!(parsed.code, Some(rejection.status()));
            assert!(!parsed.reason.unwrap_or_default().is_empty());
            let field = |name: &str| {
                let values = parsed
                    .headers
                    .iter()
                    .filter(|field| field.name.eq_ignore_ascii_case(name));
                values
                    .map(|field| String::from_utf8_lossy(field.value))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            assert!(field("connection").starts_with("close"));
            assert_eq!(
                field("content-length"),
                (answer.len() - head_len).to_string()
            );
            assert_eq!(field("retry-after").is_empty(), rejection.status() != 503);
            assert_eq!(
                field("sec-websocket-version") == "13",
                rejection.status() == 426
            );
            assert_eq!(field("allow").is_empty(), rejection.status() != 405);
            assert_eq!(field("upgrade") == "websocket", rejection.status() == 426);
        }
    }
}
