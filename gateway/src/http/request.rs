//! A whole head -> what is asked for. Everything that a later stage would otherwise have to check again is decided
//! here: an upgrade has a valid key, version, host, origin and subprotocol, or it is not an [`Upgrade`]; a body has one
//! length and a bound.

use std::borrow::Cow;

use crate::authority::Headers;
use crate::protocol::WireFormat;
use crate::pubsub::{Framing, Wire};

use super::body::BodyLength;
use super::cors::Cors;
use super::fields::{Fields, split_target, valid_host};
use super::upgrade::{Endpoint, Subprotocol, Upgrade, accept};
use super::{Policy, Rejection, affinity, query};

/// What a whole request head asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// A WebSocket handshake that keeps all rules: answer with [`Upgrade::answer_into`].
    Upgrade(Upgrade<'a>),
    /// A page.
    Plain(Plain),
    /// A stream whose first commands stand in the query.
    Stream(Stream<'a>),
    /// A request whose body has to be read first.
    Post(Post),
    /// A browser asks whether a page of another origin may send such a request.
    Preflight(Preflight<'a>),
    /// None of these: send [`Rejection::answer`] and end the connection.
    Rejected(Rejection),
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

/// A request for a page: answer with [`page_into`](super::page_into).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Which one.
    pub page: Page,
    /// The method was HEAD.
    pub head_only: bool,
    /// The client may ask again on the same connection (RFC 9112 §9.3).
    pub persists: bool,
}

/// A stream that begins with what stands in the query.
#[derive(Debug, PartialEq, Eq)]
pub struct Stream<'a> {
    /// How it looks.
    pub wire: Wire,
    /// `cf_connect`: a connect command, or in the unidirectional form a connect request; there it may be missing.
    pub connect: Option<Cow<'a, str>>,
    /// Whom the answer is for.
    pub cors: Cors,
    /// Those of its fields that the policy keeps.
    pub headers: Headers,
}

/// A request with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Post {
    /// What it is for.
    pub purpose: Purpose,
    /// How it is delimited.
    pub length: BodyLength,
    /// How long it may be.
    pub body_bytes_max: usize,
    /// Whom the answer is for.
    pub cors: Cors,
    /// Those of its fields that the policy keeps; for streams.
    pub headers: Headers,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// What a request with a body is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A stream whose first commands are the body.
    Stream(Wire),
    /// Commands of a session whose transport takes none.
    Emulation {
        /// The body is an `EmulationRequest` in Protobuf, not in JSON.
        is_protobuf: bool,
    },
    /// The server API, where it is external.
    Api(ApiHead),
}

/// The head of a request to the server API.
#[derive(Debug, PartialEq, Eq)]
pub struct ApiHead {
    /// As sent.
    pub method: String,
    /// As sent.
    pub path_and_query: String,
    /// Those of [`API_FIELDS`] that were sent, in that order.
    pub headers: Vec<(&'static str, String)>,
}

/// The header fields that the server API reads.
pub const API_FIELDS: [&str; 4] = [
    "authorization",
    "content-type",
    "x-api-key",
    "x-centrifugo-error-mode",
];

/// A preflight: answer with [`Preflight::answer_into`].
#[derive(Debug, PartialEq, Eq)]
pub struct Preflight<'a> {
    cors: Cors,
    requested_headers: &'a str,
    allow: &'static str,
}

impl Preflight<'_> {
    /// Appends the whole answer.
    pub fn answer_into(&self, out: &mut Vec<u8>) {
        self.cors
            .preflight_into(self.requested_headers, self.allow, out);
    }
}

/// A transport that is an answer without end.
#[derive(Clone, Copy)]
struct StreamPlace {
    framing: Framing,
    is_unidirectional: bool,
    body_bytes_max: usize,
}

#[derive(Clone, Copy)]
enum Place {
    Socket(Endpoint),
    Page(Page),
    Stream(StreamPlace),
    Emulation { body_bytes_max: usize },
    Api { body_bytes_max: usize },
}

/// The place behind a path, where it is switched on.
fn place(path: &str, policy: &Policy) -> Option<Place> {
    let transports = &policy.transports;
    let stream = |framing, is_unidirectional, switch: Option<usize>| {
        let place = |body_bytes_max| {
            Place::Stream(StreamPlace {
                framing,
                is_unidirectional,
                body_bytes_max,
            })
        };
        switch.map(place)
    };
    match path {
        "/connection/websocket" => transports
            .websocket
            .then_some(Place::Socket(Endpoint::Centrifuge)),
        "/connection/uni_websocket" => transports
            .uni_websocket
            .then_some(Place::Socket(Endpoint::Unidirectional)),
        "/connection/sse" => stream(Framing::Sse, false, transports.sse),
        "/connection/http_stream" => stream(Framing::HttpStream, false, transports.http_stream),
        "/connection/uni_sse" => stream(Framing::Sse, true, transports.uni_sse),
        "/connection/uni_http_stream" => {
            stream(Framing::HttpStream, true, transports.uni_http_stream)
        }
        "/emulation" => transports
            .emulation
            .map(|body_bytes_max| Place::Emulation { body_bytes_max }),
        "/echo" => policy.echo.then_some(Place::Socket(Endpoint::Echo)),
        "/" => Some(Place::Page(Page::Index)),
        "/live" => Some(Place::Page(Page::Live)),
        "/ready" => Some(Place::Page(Page::Ready)),
        path if path == "/api" || path.starts_with("/api/") => transports
            .api
            .map(|body_bytes_max| Place::Api { body_bytes_max }),
        _ => None,
    }
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
    let target = head.path.unwrap_or_default();
    let (authority, path, query) = split_target(target)?;
    let fields = Fields::gather(head.headers)?;
    let is_http_1_1 = head.version == Some(1);
    let host = match fields.host {
        Some(host) => valid_host(host)?,
        None if is_http_1_1 => return Err(Rejection::Host),
        None => "",
    };
    // The target's authority, where it has one, is the host (RFC 9112 §3.2.2).
    let host = match authority {
        Some(authority) => valid_host(authority.as_bytes())?,
        None => host,
    };
    let method = head.method.unwrap_or_default();
    let kept = |fields: Fields<'a>| Fields {
        kept: kept_headers(head.headers, policy),
        ..fields
    };
    match place(path, policy).ok_or(Rejection::NotFound)? {
        Place::Page(page) => {
            let head_only = match method {
                "GET" => false,
                "HEAD" => true,
                _ => return Err(Rejection::PageMethod),
            };
            without_body(&fields)?;
            let persists = is_http_1_1 && !fields.connection_close;
            Ok(Request::Plain(Plain {
                page,
                head_only,
                persists,
            }))
        }
        Place::Socket(endpoint) => {
            if method != "GET" {
                return Err(Rejection::UpgradeMethod);
            }
            without_body(&fields)?;
            upgrade(endpoint, &kept(fields), query, host, is_http_1_1, policy).map(Request::Upgrade)
        }
        Place::Stream(place) => stream(place, method, &kept(fields), query, is_http_1_1, policy),
        Place::Emulation { body_bytes_max } => {
            let cors = Cors::new(allowed_origin(&fields, policy)?);
            match method {
                "OPTIONS" => Ok(preflight(cors, &fields, "POST, OPTIONS")),
                "POST" => {
                    let is_protobuf = fields.is_of_type("application/octet-stream");
                    let purpose = Purpose::Emulation { is_protobuf };
                    post(purpose, &fields, body_bytes_max, cors)
                }
                _ => Err(Rejection::PostMethod),
            }
        }
        Place::Api { body_bytes_max } => {
            let purpose = Purpose::Api(ApiHead {
                method: method.to_owned(),
                path_and_query: match query {
                    "" => path.to_owned(),
                    query => format!("{path}?{query}"),
                },
                headers: api_fields(head.headers)?,
            });
            post(purpose, &fields, body_bytes_max, Cors::default())
        }
    }
}

/// The head of a request that has no body, or an empty one.
fn without_body(fields: &Fields<'_>) -> Result<(), Rejection> {
    let has_length = fields
        .content_length
        .is_some_and(|length| length.iter().any(|digit| *digit != b'0'));
    if fields.transfer_encoding.is_some() || has_length {
        return Err(Rejection::Body);
    }
    Ok(())
}

fn allowed_origin<'a>(fields: &Fields<'a>, policy: &Policy) -> Result<Option<&'a str>, Rejection> {
    let origin = fields
        .origin
        .map(std::str::from_utf8)
        .transpose()
        .map_err(|_| Rejection::Field)?;
    match policy.origins.allows(origin) {
        true => Ok(origin),
        false => Err(Rejection::Origin),
    }
}

fn upgrade<'a>(
    endpoint: Endpoint,
    fields: &Fields<'a>,
    query: &'a str,
    host: &'a str,
    is_http_1_1: bool,
    policy: &Policy,
) -> Result<Upgrade<'a>, Rejection> {
    if !fields.upgrade_websocket {
        return Err(Rejection::UpgradeMissing);
    }
    if !is_http_1_1 {
        return Err(Rejection::HttpVersion);
    }
    if !fields.connection_upgrade {
        return Err(Rejection::ConnectionField);
    }
    if fields.version != Some(b"13") {
        return Err(Rejection::WebSocketVersion);
    }
    let accept = accept(fields.key.unwrap_or_default()).ok_or(Rejection::WebSocketKey)?;
    let is_protobuf = match fields.subprotocol {
        Some(subprotocol) => subprotocol == Subprotocol::CentrifugeProtobuf,
        None => query::raw(query, "cf_protocol") == Some("protobuf"),
    };
    Ok(Upgrade {
        endpoint,
        subprotocol: fields.subprotocol,
        is_protobuf: is_protobuf && endpoint != Endpoint::Echo,
        connect: query::value(query, "cf_connect"),
        origin: allowed_origin(fields, policy)?,
        host,
        sid: affinity::from_query(query).or(fields.cookie_sid.map(Cow::Borrowed)),
        query,
        forwarded_for: fields.forwarded_for,
        headers: Headers::clone(&fields.kept),
        accept,
    })
}

fn stream<'a>(
    place: StreamPlace,
    method: &str,
    fields: &Fields<'a>,
    query: &'a str,
    is_http_1_1: bool,
    policy: &Policy,
) -> Result<Request<'a>, Rejection> {
    let is_sse = place.framing == Framing::Sse;
    let allow = match is_sse {
        true => "GET, POST, OPTIONS",
        false => "POST, OPTIONS",
    };
    let is_get = is_sse && method == "GET";
    if !is_get && method != "POST" && method != "OPTIONS" {
        return Err(match is_sse {
            true => Rejection::EventsMethod,
            false => Rejection::PostMethod,
        });
    }
    let cors = Cors::new(allowed_origin(fields, policy)?);
    if method == "OPTIONS" {
        return Ok(preflight(cors, fields, allow));
    }
    // Without chunks the client could not tell a stream's end from its loss.
    if !is_http_1_1 {
        return Err(Rejection::HttpVersion);
    }
    let is_protobuf =
        place.framing == Framing::HttpStream && fields.is_of_type("application/octet-stream");
    let wire = Wire {
        format: match is_protobuf {
            true => WireFormat::Protobuf,
            false => WireFormat::Json,
        },
        transport: place.framing,
        unidirectional: place.is_unidirectional,
    };
    if !is_get {
        return post(Purpose::Stream(wire), fields, place.body_bytes_max, cors);
    }
    without_body(fields)?;
    let connect = query::value(query, "cf_connect").filter(|connect| !connect.is_empty());
    if connect.is_none() && !place.is_unidirectional {
        return Err(Rejection::ConnectMissing);
    }
    Ok(Request::Stream(Stream {
        wire,
        connect,
        cors,
        headers: Headers::clone(&fields.kept),
    }))
}

fn preflight<'a>(cors: Cors, fields: &Fields<'a>, allow: &'static str) -> Request<'a> {
    Request::Preflight(Preflight {
        cors,
        requested_headers: fields.requested_headers.unwrap_or_default(),
        allow,
    })
}

fn post<'a>(
    purpose: Purpose,
    fields: &Fields<'a>,
    body_bytes_max: usize,
    cors: Cors,
) -> Result<Request<'a>, Rejection> {
    Ok(Request::Post(Post {
        purpose,
        length: fields.body_length()?,
        body_bytes_max,
        cors,
        headers: Headers::clone(&fields.kept),
        expects_continue: fields.expects_continue,
    }))
}

/// Fields that the policy keeps, those that are text.
fn kept_headers(headers: &[httparse::Header<'_>], policy: &Policy) -> Headers {
    if policy.kept_headers.is_empty() {
        return Headers::default();
    }
    let is_kept = |header: &&httparse::Header<'_>| {
        let names = &mut policy.kept_headers.iter();
        names.any(|name| header.name.eq_ignore_ascii_case(name))
    };
    headers
        .iter()
        .filter(is_kept)
        .filter_map(|header| {
            let value = std::str::from_utf8(header.value.trim_ascii()).ok()?;
            Some((header.name.to_ascii_lowercase().into(), value.into()))
        })
        .collect()
}

fn api_fields(headers: &[httparse::Header<'_>]) -> Result<Vec<(&'static str, String)>, Rejection> {
    let mut found = Vec::new();
    for name in API_FIELDS {
        let mut values = headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        let Some(header) = values.next() else {
            continue;
        };
        if values.next().is_some() {
            return Err(Rejection::DuplicateField);
        }
        let value = std::str::from_utf8(header.value.trim_ascii()).map_err(|_| Rejection::Field)?;
        found.push((name, value.to_owned()));
    }
    Ok(found)
}
