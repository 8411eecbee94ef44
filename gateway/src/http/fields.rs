//! What is needed of a head's fields and of its target.

use crate::authority::Headers;

use super::body::BodyLength;
use super::upgrade::Subprotocol;
use super::{Rejection, affinity};

/// What is needed of the header fields.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) origin: Option<&'a [u8]>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) version: Option<&'a [u8]>,
    pub(super) content_length: Option<&'a [u8]>,
    pub(super) transfer_encoding: Option<&'a [u8]>,
    pub(super) upgrade_websocket: bool,
    pub(super) connection_upgrade: bool,
    pub(super) connection_close: bool,
    pub(super) subprotocol: Option<Subprotocol>,
    pub(super) cookie_sid: Option<&'a str>,
    pub(super) forwarded_for: Option<&'a str>,
    pub(super) content_type: Option<&'a [u8]>,
    pub(super) expects_continue: bool,
    /// Those that the policy keeps.
    pub(super) kept: Headers,
    /// `Access-Control-Request-Headers` of a preflight.
    pub(super) requested_headers: Option<&'a str>,
}

impl<'a> Fields<'a> {
    pub(super) fn gather(headers: &[httparse::Header<'a>]) -> Result<Fields<'a>, Rejection> {
        let mut fields = Fields::default();
        for header in headers {
            let value = header.value.trim_ascii();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let single = if is("host") {
                &mut fields.host
            } else if is("origin") {
                &mut fields.origin
            } else if is("sec-websocket-key") {
                &mut fields.key
            } else if is("sec-websocket-version") {
                &mut fields.version
            } else if is("content-length") {
                &mut fields.content_length
            } else if is("transfer-encoding") {
                &mut fields.transfer_encoding
            } else if is("content-type") {
                &mut fields.content_type
            } else {
                if is("upgrade") {
                    fields.upgrade_websocket |=
                        list(value).any(|token| token.eq_ignore_ascii_case(b"websocket"));
                } else if is("connection") {
                    fields.connection_upgrade |=
                        list(value).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
                    fields.connection_close |=
                        list(value).any(|token| token.eq_ignore_ascii_case(b"close"));
                } else if is("sec-websocket-protocol") {
                    let chosen = list(value).find_map(Subprotocol::from_name);
                    fields.subprotocol = fields.subprotocol.or(chosen);
                } else if is("expect") {
                    fields.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
                } else if is("access-control-request-headers") {
                    fields.requested_headers = std::str::from_utf8(value).ok();
                } else if is("cookie") {
                    fields.cookie_sid = fields.cookie_sid.or_else(|| affinity::from_cookie(value));
                } else if is("x-forwarded-for") {
                    fields.forwarded_for = std::str::from_utf8(value).ok();
                }
                continue;
            };
            if single.replace(value).is_some() {
                return Err(Rejection::DuplicateField);
            }
        }
        Ok(fields)
    }

    /// How the body is delimited (RFC 9112 §6.3). A head that says it twice is refused: two readers of it may disagree
    /// about where the next request begins.
    pub(super) fn body_length(&self) -> Result<BodyLength, Rejection> {
        match (self.transfer_encoding, self.content_length) {
            (None, None) => Ok(BodyLength::None),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(BodyLength::Chunked)
            }
            (Some(_), _) => Err(Rejection::BodyFraming),
            (None, Some(length)) => {
                let is_number = !length.is_empty()
                    && length.len() <= 19
                    && length.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(length).ok().filter(|_| is_number);
                number
                    .and_then(|number| number.parse().ok())
                    .map(BodyLength::Bytes)
                    .ok_or(Rejection::BodyFraming)
            }
        }
    }

    /// Whether the body is of this media type, whatever its parameters.
    pub(super) fn is_of_type(&self, media_type: &str) -> bool {
        let stated = self.content_type.unwrap_or_default();
        let stated = stated
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default();
        stated
            .trim_ascii()
            .eq_ignore_ascii_case(media_type.as_bytes())
    }
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1); empty ones do not count.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// A request target in origin-form or absolute-form (RFC 9112 §3.2): authority, path, query.
pub(super) fn split_target(target: &str) -> Result<(Option<&str>, &str, &str), Rejection> {
    let (authority, rest) = if target.starts_with('/') {
        (None, target)
    } else {
        let (scheme, rest) = target.split_once("://").ok_or(Rejection::Target)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(Rejection::Target);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        (Some(&rest[..end]), &rest[end..])
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    Ok((authority, if path.is_empty() { "/" } else { path }, query))
}

/// `uri-host [ ":" port ]` by its characters (RFC 3986 §3.2.2); user information is refused.
pub(super) fn valid_host(host: &[u8]) -> Result<&str, Rejection> {
    let valid = !host.is_empty()
        && host
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:[]".contains(byte));
    if valid {
        std::str::from_utf8(host).map_err(|_| Rejection::Host)
    } else {
        Err(Rejection::Host)
    }
}
