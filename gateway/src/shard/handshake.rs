//! The first bytes of a connection: PROXY header, request head, and what is answered.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use flux_runtime::proxy_protocol::{Parse, parse_v2};
use flux_runtime::ring::{Key, NetRing};

use crate::http::{ContentType, Endpoint, Page, Plain, Progress, Rejection, Request, answer_into};
use crate::protocol::{ClientId, WireFormat};
use crate::session::Session;

use super::accept::rejection_index;
use super::connection::{Connection, Phase};
use super::counters::Ended;
use super::{Client, Shard, Shared};

/// What the bytes so far amount to.
enum Outcome {
    Incomplete,
    BadProxyHeader,
    Upgrade(Endpoint),
    Answer {
        status: u16,
        content_type: ContentType,
        body: Vec<u8>,
        head_only: bool,
    },
    Refuse(Rejection),
}

impl Shard {
    /// Takes bytes of a connection whose request head is not complete.
    pub(super) fn on_head_bytes(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        bytes: &mut [u8],
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Connection {
            phase: Phase::Head(head),
            out,
            ..
        } = connection
        else {
            return;
        };
        // A head that comes at once, as most do, is read where it lies.
        let mut kept = std::mem::take(&mut head.bytes);
        let is_kept = !kept.is_empty();
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
                outcome = decide(&request, &self.core.shared, out);
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
            Outcome::Refuse(rejection) => {
                self.core.counters.rejections[rejection_index(rejection)].add(1);
                rejection.answer_into(out);
                self.close_answered(ring, key, now);
            }
            Outcome::Answer {
                status,
                content_type,
                body,
                head_only,
            } => {
                answer_into(out, status, content_type, &body, head_only);
                self.close_answered(ring, key, now);
            }
            Outcome::Upgrade(endpoint) => {
                self.open(key, endpoint, peer, now);
                self.on_frame_bytes(ring, key, &mut bytes[end..], now);
            }
        }
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
        self.core.counters.rejections[rejection_index(Rejection::HeadTimeout)].add(1);
        Rejection::HeadTimeout.answer_into(&mut connection.out);
        self.close_answered(ring, key, now);
    }

    /// The handshake is done: the connection becomes a client.
    fn open(&mut self, key: Key, endpoint: Endpoint, peer: IpAddr, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        self.core
            .counters
            .clients
            .set(self.core.counters.clients.get() + 1);
        connection.phase = match endpoint {
            Endpoint::Echo => {
                if let Some(timer) = connection.timer.take() {
                    self.core.wheel.cancel(timer);
                }
                Phase::Echo
            }
            Endpoint::Centrifuge => {
                let client = self.core.shared.directory.insert(Client {
                    shard: self.index,
                    connection: key,
                    peer,
                });
                let id = client.map_or_else(
                    || ClientId::from_random(fastrand::u128(..)),
                    |(id, directory_key)| {
                        connection.directory_key = Some(directory_key);
                        id
                    },
                );
                let config = std::rc::Rc::clone(&self.core.session_config);
                let session = Session::new(config, WireFormat::Json, id, now);
                if let Some(timer) = connection.timer.take() {
                    self.core.wheel.cancel(timer);
                }
                connection.timer = session.deadline().map(|at| self.core.wheel.insert(at, key));
                Phase::Session(session)
            }
        };
    }
}

/// What a request amounts to; the answer to an upgrade goes into `out` at once.
fn decide(request: &Request<'_>, shared: &Shared, out: &mut Vec<u8>) -> Outcome {
    match request {
        Request::Rejected(rejection) => Outcome::Refuse(*rejection),
        Request::Upgrade(_) if shared.is_draining.load(Ordering::Relaxed) => {
            Outcome::Refuse(Rejection::Draining)
        }
        Request::Upgrade(upgrade) => {
            upgrade.answer_into(out);
            Outcome::Upgrade(upgrade.endpoint)
        }
        Request::Plain(Plain { page, head_only }) => {
            let (status, content_type, body) = match page {
                Page::Index => (
                    200,
                    ContentType::Text,
                    concat!("Flux Gateway ", env!("CARGO_PKG_VERSION"), "\n").into(),
                ),
                Page::Live => (200, ContentType::Text, "live\n".into()),
                Page::Ready => {
                    let document = shared.readiness.document();
                    let status = if document.ready { 200 } else { 503 };
                    (
                        status,
                        ContentType::Json,
                        serde_json::to_vec(&document).unwrap_or_default(),
                    )
                }
            };
            Outcome::Answer {
                status,
                content_type,
                body,
                head_only: *head_only,
            }
        }
    }
}
