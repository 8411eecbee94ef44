//! Whole plain answers. Each ends its connection.

use std::io::Write;

/// The `Content-Type` of a plain answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// `text/plain; charset=utf-8`
    Text,
    /// `application/json`
    Json,
}

/// Appends a whole answer. `head_only`: the request's method was HEAD, so the length is named and the body left out.
pub fn answer_into(
    out: &mut Vec<u8>,
    status: u16,
    content_type: ContentType,
    body: &[u8],
    head_only: bool,
) {
    write_answer(out, status, content_type, "", body, head_only);
}

/// `fields`: further header lines, each with its CRLF.
pub(super) fn write_answer(
    out: &mut Vec<u8>,
    status: u16,
    content_type: ContentType,
    fields: &str,
    body: &[u8],
    head_only: bool,
) {
    let content_type = match content_type {
        ContentType::Text => "text/plain; charset=utf-8",
        ContentType::Json => "application/json",
    };
    out.reserve(256 + fields.len() + body.len());
    // Writing into a Vec cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n{fields}\r\n",
        phrase(status),
        body.len(),
    );
    if !head_only {
        out.extend_from_slice(body);
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_length_and_ends_the_connection() {
        let mut out = Vec::new();
        answer_into(&mut out, 200, ContentType::Json, b"{}", false);
        let text = String::from_utf8(out).expect("ascii");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(text.contains("\r\nContent-Length: 2\r\n"));
        assert!(text.contains("\r\nConnection: close\r\n"));
        assert!(text.ends_with("\r\n\r\n{}"));

        let mut out = Vec::new();
        answer_into(&mut out, 503, ContentType::Json, b"{}", true);
        let text = String::from_utf8(out).expect("ascii");
        assert!(text.contains("\r\nContent-Length: 2\r\n") && text.ends_with("\r\n\r\n"));
    }
}
