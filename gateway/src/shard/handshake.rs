//! The first bytes of a connection: PROXY header, request head, and what is answered.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::Instant;

use flux_runtime::proxy_protocol::{Parse, parse_v2};
use flux_runtime::ring::{Key, NetRing};

use crate::authority::Headers;
use crate::http::{
    ContentType, Cors, Endpoint, HEAD_TIME_MAX, HeadScan, Page, Plain, Post, Progress, Purpose,
    Rejection, Request, page_into,
};
use crate::protocol::WireFormat;
use crate::pubsub::{Framing, Wire};

use super::accept::rejection_index;
use super::connection::{Connection, Phase, slot};
use super::counters::Ended;
use super::open::{Guest, Opening};
use super::{Shard, Shared};

/// Pages may wait for a client up to about this; then its connection ends behind them.
const PAGES_BYTES_MAX: usize = 16 * 1024;

/// What the bytes so far amount to.
enum Outcome {
    Incomplete,
    BadProxyHeader,
    /// The answer to the handshake stands in `out`.
    Upgrade(Opening, Headers),
    /// A stream, with its first commands.
    Stream {
        wire: Wire,
        connect: Vec<u8>,
        cors: Cors,
        headers: Headers,
    },
    /// A body is to come.
    Post(Post),
    /// The whole answer stands in `out`.
    Answered,
    /// A page stands in `out`, and the client may ask again.
    Page,
    Refuse(Rejection, Cors),
}

impl Shard {
    /// Takes bytes of a connection whose request head is not complete.
    pub(super) fn on_head_bytes(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        mut bytes: &mut [u8],
        now: Instant,
    ) {
        while let Some(taken) = self.take_head(ring, key, bytes, now) {
            bytes = &mut bytes[taken..];
        }
    }

    /// Takes bytes up to the end of one request head. How many that were, where another head follows.
    fn take_head(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        bytes: &mut [u8],
        now: Instant,
    ) -> Option<usize> {
        let spares = &mut self.core.spares;
        let connection = self.connections.get_mut(key)?;
        let Connection {
            phase: Phase::Head(head),
            out,
            ..
        } = connection
        else {
            return None;
        };
        spares.lend(out);
        // A head that comes at once, as most do, is read where it lies.
        let mut kept = std::mem::take(&mut head.bytes);
        let kept_len = kept.len();
        let is_kept = kept_len > 0;
        let bytes = if is_kept {
            kept.extend_from_slice(bytes);
            &mut kept[..]
        } else {
            bytes
        };
        let mut begin = 0;
        let mut outcome = Outcome::Incomplete;
        if head.may_have_proxy_header {
            match parse_v2(bytes) {
                Parse::NotProxy => head.may_have_proxy_header = false,
                Parse::Incomplete => {}
                Parse::Invalid(_) => outcome = Outcome::BadProxyHeader,
                Parse::Proxy { len, source } => {
                    head.may_have_proxy_header = false;
                    head.peer = source.map_or(head.peer, |source| source.ip().to_canonical());
                    begin = len;
                }
            }
        }
        let mut end = begin;
        if !head.may_have_proxy_header && matches!(outcome, Outcome::Incomplete) {
            let policy = &self.core.shared.policy;
            if let Progress::Complete { request, head_len } =
                head.scan.advance(&bytes[begin..], policy)
            {
                outcome = decide(request, &self.core.shared, now, out);
                end = begin + head_len;
            }
        }
        let peer = head.peer;
        match outcome {
            Outcome::Incomplete if is_kept => {
                kept.drain(..begin);
                head.bytes = kept;
            }
            Outcome::Incomplete => head.bytes = bytes[begin..].to_vec(),
            Outcome::BadProxyHeader => {
                self.core.counters.proxy_errors.add(1);
                self.finish(ring, key, Ended::ProtocolError);
            }
            Outcome::Refuse(rejection, cors) => self.refuse(ring, key, rejection, &cors, now),
            Outcome::Answered => self.close_answered(ring, key, now),
            Outcome::Page => {
                head.scan = HeadScan::new();
                head.deadline = now + HEAD_TIME_MAX;
                self.core.subscriptions.mark_ready(slot(key));
                return (end < bytes.len()).then_some(end - kept_len);
            }
            Outcome::Upgrade(opening, headers) => {
                let guest = Guest { peer, headers };
                self.open_websocket(ring, key, opening, guest, now);
                self.on_frame_bytes(ring, key, &mut bytes[end..], now);
            }
            Outcome::Stream {
                wire,
                connect,
                cors,
                headers,
            } => {
                let guest = Guest { peer, headers };
                self.open_stream(ring, key, wire, &connect, &cors, guest, now);
            }
            Outcome::Post(post) => self.begin_body(ring, key, post, peer, &bytes[end..], now),
        }
        None
    }

    /// Answers with a refusal, which is counted, and ends the connection.
    pub(super) fn refuse(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        rejection: Rejection,
        cors: &Cors,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        self.core.counters.rejections[rejection_index(rejection)].add(1);
        rejection.answer_for(cors, &mut connection.out);
        self.close_answered(ring, key, now);
    }

    /// The request head did not come in time.
    pub(super) fn on_head_timeout(&mut self, ring: &mut NetRing, key: Key, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Phase::Head(head) = &connection.phase else {
            return;
        };
        if head.bytes.is_empty() {
            // It never said a word: nobody waits for an answer.
            self.finish(ring, key, Ended::Stale);
            return;
        }
        self.refuse(ring, key, Rejection::HeadTimeout, &Cors::default(), now);
    }
}

/// What a request amounts to; an answer that is known at once goes into `out`.
fn decide(request: Request<'_>, shared: &Shared, now: Instant, out: &mut Vec<u8>) -> Outcome {
    if let Some(rejection) = turned_away(&request, shared, now) {
        let cors = match request {
            Request::Stream(stream) => stream.cors,
            Request::Post(post) => post.cors,
            _ => Cors::default(),
        };
        return Outcome::Refuse(rejection, cors);
    }
    match request {
        Request::Rejected(rejection) => Outcome::Refuse(rejection, Cors::default()),
        Request::Upgrade(upgrade) => {
            upgrade.answer_into(out);
            let wire = |unidirectional| Wire {
                format: match upgrade.is_protobuf {
                    true => WireFormat::Protobuf,
                    false => WireFormat::Json,
                },
                transport: Framing::WebSocket,
                unidirectional,
            };
            let opening = match upgrade.endpoint {
                Endpoint::Echo => Opening::Echo,
                Endpoint::Centrifuge => Opening::Session(wire(false)),
                Endpoint::Unidirectional => {
                    let connect = upgrade.connect.filter(|connect| !connect.is_empty());
                    Opening::Unidirectional(
                        wire(true),
                        connect.map(|text| text.into_owned().into()),
                    )
                }
            };
            Outcome::Upgrade(opening, upgrade.headers)
        }
        Request::Stream(stream) => Outcome::Stream {
            wire: stream.wire,
            connect: stream.connect.unwrap_or_default().into_owned().into(),
            cors: stream.cors,
            headers: stream.headers,
        },
        Request::Post(post) => Outcome::Post(post),
        Request::Preflight(preflight) => {
            preflight.answer_into(out);
            Outcome::Answered
        }
        Request::Plain(plain) => {
            // Who does not take the answers is not answered for ever, and a node that leaves keeps nobody.
            let persists = plain.persists
                && out.len() <= PAGES_BYTES_MAX
                && !shared.is_draining.load(Ordering::Relaxed);
            answer_page(Plain { persists, ..plain }, shared, out);
            match persists {
                true => Outcome::Page,
                false => Outcome::Answered,
            }
        }
    }
}

/// Why a request that would make a client of the connection cannot do so now; none: it can, or it is
/// another request.
fn turned_away(request: &Request<'_>, shared: &Shared, now: Instant) -> Option<Rejection> {
    let opens_client = match request {
        Request::Upgrade(_) | Request::Stream(_) => true,
        Request::Post(post) => matches!(post.purpose, Purpose::Stream(_)),
        Request::Rejected(_) | Request::Preflight(_) | Request::Plain(_) => false,
    };
    let is_draining = shared.is_draining.load(Ordering::Relaxed);
    let rate = shared.connection_rate.as_ref();
    match opens_client {
        true if is_draining => Some(Rejection::Draining),
        true if rate.is_some_and(|rate| !rate.admits(now)) => Some(Rejection::ConnectionRate),
        _ => None,
    }
}

fn answer_page(plain: Plain, shared: &Shared, out: &mut Vec<u8>) {
    let text = ContentType::Text;
    let (status, content_type, body): (u16, ContentType, Cow<'static, [u8]>) = match plain.page {
        Page::Index => {
            let name = concat!("Flux Gateway ", env!("CARGO_PKG_VERSION"), "\n");
            (200, text, name.as_bytes().into())
        }
        Page::Live => (200, text, b"live\n".as_slice().into()),
        Page::Ready => {
            let document = shared.readiness.document();
            let status = if document.ready { 200 } else { 503 };
            let body = serde_json::to_vec(&document).unwrap_or_default();
            (status, ContentType::Json, body.into())
        }
    };
    page_into(
        out,
        status,
        content_type,
        &body,
        plain.head_only,
        plain.persists,
    );
}
