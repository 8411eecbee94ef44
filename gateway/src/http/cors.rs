//! What a page of another origin must be told before its browser shows it an answer.

use std::io::Write;

/// The origin that an answer is for, allowed by the policy; none for clients that are no pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors(Option<Box<str>>);

impl Cors {
    pub(super) fn new(origin: Option<&str>) -> Cors {
        Cors(origin.filter(|origin| !origin.is_empty()).map(Box::from))
    }

    /// Appends the header lines.
    pub(super) fn fields_into(&self, out: &mut Vec<u8>) {
        if let Some(origin) = &self.0 {
            // Writing into a Vec cannot fail.
            let _ = write!(
                out,
                "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n"
            );
        }
    }

    /// Appends the whole answer to a preflight that asked for `requested_headers`.
    pub(super) fn preflight_into(&self, requested_headers: &str, allow: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n");
        self.fields_into(out);
        if self.0.is_some() {
            let _ = write!(out, "Access-Control-Allow-Methods: {allow}\r\n");
            if !requested_headers.is_empty() {
                let _ = write!(out, "Access-Control-Allow-Headers: {requested_headers}\r\n");
            }
            out.extend_from_slice(b"Access-Control-Max-Age: 300\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}
