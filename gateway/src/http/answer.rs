//! Whole plain answers, and the heads of answers without end. Each but a page ends its connection.

use std::io::Write;

use crate::protocol::WireFormat;
use crate::pubsub::{Framing, Wire};

use super::cors::Cors;

/// The field with which an answer ends its connection.
const CLOSE: &str = "Connection: close\r\n";

/// The `Content-Type` of a plain answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// `text/plain; charset=utf-8`
    Text,
    /// `application/json`
    Json,
}

impl ContentType {
    /// The field's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

/// Appends a page. `head_only`: the request's method was HEAD, so the length is named and the body left out.
/// `persists`: the connection goes on.
pub fn page_into(
    out: &mut Vec<u8>,
    status: u16,
    content_type: ContentType,
    body: &[u8],
    head_only: bool,
    persists: bool,
) {
    let connection = if persists { "" } else { CLOSE };
    out.reserve(256 + body.len());
    // Writing into a Vec cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{connection}\r\n",
        phrase(status),
        content_type.as_str(),
        body.len(),
    );
    if !head_only {
        out.extend_from_slice(body);
    }
}

/// Appends a whole answer that somebody else has made. What would not be a field's value is left out of the head.
pub fn foreign_answer_into(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    cors: &Cors,
    body: &[u8],
) {
    let is_value = content_type
        .bytes()
        .all(|byte| (b' '..=b'~').contains(&byte));
    let content_type = if is_value { content_type } else { "" };
    write_answer(out, status, content_type, "", cors, body, false);
}

/// Appends the head of an answer without end, and what lets its reader begin at once.
pub fn stream_head_into(out: &mut Vec<u8>, wire: Wire, cors: &Cors) {
    let content_type = match (wire.transport, wire.format) {
        (Framing::Sse, _) => "text/event-stream; charset=utf-8",
        (_, WireFormat::Json) => "application/json",
        (_, WireFormat::Protobuf) => "application/octet-stream",
    };
    // Writing into a Vec cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\nCache-Control: no-cache\r\n\
         X-Accel-Buffering: no\r\nConnection: close\r\n",
    );
    cors.fields_into(out);
    out.extend_from_slice(b"\r\n");
    if wire.transport == Framing::Sse {
        out.extend_from_slice(b"2\r\n\r\n\r\n");
    }
}

/// Appends what ends such an answer.
pub fn stream_end_into(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// Appends that the body may come.
pub fn continue_into(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// `fields`: further header lines, each with its CRLF.
pub(super) fn write_answer(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    fields: &str,
    cors: &Cors,
    body: &[u8],
    head_only: bool,
) {
    out.reserve(256 + fields.len() + body.len());
    // Writing into a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {status} {}\r\n", phrase(status));
    // An answer with 204 has neither body nor length (RFC 9110 §8.6).
    let has_body = status != 204;
    if has_body {
        if !content_type.is_empty() {
            let _ = write!(out, "Content-Type: {content_type}\r\n");
        }
        let _ = write!(out, "Content-Length: {}\r\n", body.len());
    }
    let _ = write!(out, "Cache-Control: no-store\r\n{CLOSE}{fields}");
    cors.fields_into(out);
    out.extend_from_slice(b"\r\n");
    if has_body && !head_only {
        out.extend_from_slice(body);
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_length_and_whether_the_connection_ends() {
        let mut out = Vec::new();
        page_into(&mut out, 200, ContentType::Json, b"{}", false, false);
        let text = String::from_utf8(out).expect("ascii");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(text.contains("\r\nContent-Length: 2\r\n"));
        assert!(text.contains("\r\nConnection: close\r\n"));
        assert!(text.ends_with("\r\n\r\n{}"));

        let mut out = Vec::new();
        page_into(&mut out, 503, ContentType::Json, b"{}", true, true);
        let text = String::from_utf8(out).expect("ascii");
        assert!(!text.contains("Connection"), "{text}");
        assert!(text.contains("\r\nContent-Length: 2\r\n") && text.ends_with("\r\n\r\n"));
    }
}
