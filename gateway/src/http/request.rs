//! A whole head -> what is asked for. Everything that a later stage would otherwise have to check again is decided
//! here: the upgrade has a valid key, version, host, origin and subprotocol, or it is not an [`Upgrade`].

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::{Policy, Rejection, affinity};

/// What a whole request head asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// A WebSocket handshake that keeps all rules: answer with [`Upgrade::answer_into`].
    Upgrade(Upgrade<'a>),
    /// A page.
    Plain(Plain),
    /// Neither: send [`Rejection::answer`] and end the connection.
    Rejected(Rejection),
}

/// Where a WebSocket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/connection/websocket`: the Centrifuge protocol.
    Centrifuge,
    /// `/echo`: each message comes back as it came.
    Echo,
}

/// A subprotocol that was offered and chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subprotocol {
    /// `centrifuge-json`: what is also spoken without a subprotocol.
    CentrifugeJson,
}

impl Subprotocol {
    /// The name in `Sec-WebSocket-Protocol`.
    pub const fn name(self) -> &'static str {
        match self {
            Subprotocol::CentrifugeJson => "centrifuge-json",
        }
    }

    fn from_name(name: &[u8]) -> Option<Subprotocol> {
        (name == b"centrifuge-json").then_some(Subprotocol::CentrifugeJson)
    }
}

/// A valid handshake (RFC 6455 §4.2.1).
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// Where the connection goes.
    pub endpoint: Endpoint,
    /// The first of the offered subprotocols that is spoken here. One that is not is not chosen, and the client has to
    /// decide what that means (§4.2.2): browsers fail the connection.
    pub subprotocol: Option<Subprotocol>,
    /// `Origin`, allowed by the policy.
    pub origin: Option<&'a str>,
    /// `Host`.
    pub host: &'a str,
    /// The affinity key: `sid` of the query, else the cookie `flux_sid`.
    pub sid: Option<Cow<'a, str>>,
    /// The query without its `?`, undecoded.
    pub query: &'a str,
    /// The last `X-Forwarded-For` field: only as true as whoever sent it.
    pub forwarded_for: Option<&'a str>,
    /// `Sec-WebSocket-Accept`.
    pub accept: [u8; 28],
}

impl Upgrade<'_> {
    /// Appends the answer that completes the handshake (§4.2.2). No extension is ever accepted.
    pub fn answer_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&self.accept);
        if let Some(subprotocol) = self.subprotocol {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(subprotocol.name().as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// A page of the client port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Page {
    /// `/`
    Index,
    /// `/live`
    Live,
    /// `/ready`
    Ready,
}

/// A request for a page: answer with [`answer_into`](super::answer_into).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Which one.
    pub page: Page,
    /// The method was HEAD.
    pub head_only: bool,
}

enum Place {
    Socket(Endpoint),
    Page(Page),
}

/// What is needed of the header fields.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    origin: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: bool,
    upgrade_websocket: bool,
    connection_upgrade: bool,
    subprotocol: Option<Subprotocol>,
    cookie_sid: Option<&'a str>,
    forwarded_for: Option<&'a str>,
}

pub(super) fn read<'a>(head: &httparse::Request<'_, 'a>, policy: &Policy) -> Request<'a> {
    match try_read(head, policy) {
        Ok(request) => request,
        Err(rejection) => Request::Rejected(rejection),
    }
}

fn try_read<'a>(
    head: &httparse::Request<'_, 'a>,
    policy: &Policy,
) -> Result<Request<'a>, Rejection> {
    let (authority, path, query) = split_target(head.path.unwrap_or_default())?;
    let fields = Fields::gather(head.headers)?;
    let http_1_1 = head.version == Some(1);
    let host = match fields.host {
        Some(host) => valid_host(host)?,
        None if http_1_1 => return Err(Rejection::Host),
        None => "",
    };
    // The target's authority, where it has one, is the host (RFC 9112 §3.2.2).
    let host = match authority {
        Some(authority) => valid_host(authority.as_bytes())?,
        None => host,
    };

    let place = match path {
        "/connection/websocket" => Place::Socket(Endpoint::Centrifuge),
        "/echo" if policy.echo => Place::Socket(Endpoint::Echo),
        "/" => Place::Page(Page::Index),
        "/live" => Place::Page(Page::Live),
        "/ready" => Place::Page(Page::Ready),
        _ => return Err(Rejection::NotFound),
    };
    let head_only = match (head.method.unwrap_or_default(), &place) {
        ("GET", _) => false,
        ("HEAD", Place::Page(_)) => true,
        (_, Place::Page(_)) => return Err(Rejection::PageMethod),
        (_, Place::Socket(_)) => return Err(Rejection::UpgradeMethod),
    };
    if fields.transfer_encoding
        || fields
            .content_length
            .is_some_and(|length| length.iter().any(|digit| *digit != b'0'))
    {
        return Err(Rejection::Body);
    }

    let endpoint = match place {
        Place::Page(page) => return Ok(Request::Plain(Plain { page, head_only })),
        Place::Socket(endpoint) => endpoint,
    };
    if !fields.upgrade_websocket {
        return Err(Rejection::UpgradeMissing);
    }
    if !http_1_1 {
        return Err(Rejection::HttpVersion);
    }
    if !fields.connection_upgrade {
        return Err(Rejection::ConnectionField);
    }
    if fields.version != Some(b"13") {
        return Err(Rejection::WebSocketVersion);
    }
    let accept = accept(fields.key.unwrap_or_default()).ok_or(Rejection::WebSocketKey)?;
    let origin = fields
        .origin
        .map(std::str::from_utf8)
        .transpose()
        .map_err(|_| Rejection::Field)?;
    if !policy.origins.allows(origin) {
        return Err(Rejection::Origin);
    }
    Ok(Request::Upgrade(Upgrade {
        endpoint,
        subprotocol: fields.subprotocol,
        origin,
        host,
        sid: affinity::from_query(query).or(fields.cookie_sid.map(Cow::Borrowed)),
        query,
        forwarded_for: fields.forwarded_for,
        accept,
    }))
}

impl<'a> Fields<'a> {
    fn gather(headers: &[httparse::Header<'a>]) -> Result<Fields<'a>, Rejection> {
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
            } else {
                if is("upgrade") {
                    fields.upgrade_websocket |=
                        list(value).any(|token| token.eq_ignore_ascii_case(b"websocket"));
                } else if is("connection") {
                    fields.connection_upgrade |=
                        list(value).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
                } else if is("sec-websocket-protocol") {
                    let chosen = list(value).find_map(Subprotocol::from_name);
                    fields.subprotocol = fields.subprotocol.or(chosen);
                } else if is("transfer-encoding") {
                    fields.transfer_encoding = true;
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
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1); empty ones do not count.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// A request target in origin-form or absolute-form (RFC 9112 §3.2): authority, path, query.
fn split_target(target: &str) -> Result<(Option<&str>, &str, &str), Rejection> {
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
fn valid_host(host: &[u8]) -> Result<&str, Rejection> {
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

/// `Sec-WebSocket-Accept` for a key that is 16 bytes in base64 (§4.2.2).
fn accept(key: &[u8]) -> Option<[u8; 28]> {
    // Some clients write random characters instead of encoding random bytes: the spare bits may be set.
    const KEY: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let mut decoded = [0; 18];
    if key.len() != 24 || KEY.decode_slice(key, &mut decoded) != Ok(16) {
        return None;
    }
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(hash.digest().bytes(), &mut accept);
    (written == Ok(28)).then_some(accept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_of_the_rfc() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ==").as_ref(),
            Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        let bad: [&[u8]; 8] = [
            b"",
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZQ=",
            b"dGhlIHNhbXBsZSBub25jZTE=",
            b"dGhlIHNhbXBsZSBub25jZTEy",
            b"dGhlIHNhbXBsZSBub25j=Q==",
            b"dGhlIHNhbXBs SBub25jZQ==",
            b"dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==",
        ];
        for key in bad {
            assert_eq!(accept(key), None, "{}", String::from_utf8_lossy(key));
        }
        assert!(accept(b"dGhlIHNhbXBsZSBub25jZR==").is_some());
    }
}
