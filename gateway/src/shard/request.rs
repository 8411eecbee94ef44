//! Requests with a body: read whole, then a stream is opened, commands are handed to the session that
//! they are for, or the control plane is asked.

use std::net::IpAddr;
use std::time::Instant;

use flux_runtime::ring::{Key, NetRing};

use crate::http::{
    ApiHead, BODY_TIME_MAX, Body, Cors, Emulation, Post, Purpose, Rejection, continue_into,
    foreign_answer_into,
};
use crate::limits::PLAIN_ANSWER_MAX;

use super::Shard;
use super::call::EmulatedSession;
use super::connection::{Answering, BodyIn, Phase};
use super::open::Guest;
use super::plain::{
    ApiRequest, PLAIN_REQUESTS_MAX, PlainAnswered, PlainKind, PlainReply, PlainRequest,
};

impl Shard {
    /// The head has come; `rest` stands behind it.
    pub(super) fn begin_body(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        post: Post,
        peer: IpAddr,
        rest: &[u8],
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let body = match Body::new(post.length, post.body_bytes_max) {
            Ok(body) => body,
            Err(rejection) => return self.refuse(ring, key, rejection, &post.cors, now),
        };
        let deadline = now + BODY_TIME_MAX;
        let is_whole = body.is_whole();
        connection.phase = Phase::Body(Box::new(BodyIn {
            body,
            purpose: post.purpose,
            cors: post.cors,
            guest: Guest {
                peer,
                headers: post.headers,
            },
            deadline,
        }));
        if let Some(timer) = connection.timer.take() {
            self.core.wheel.cancel(timer);
        }
        connection.timer = Some(self.core.wheel.insert(deadline, key));
        if post.expects_continue && !is_whole && rest.is_empty() {
            continue_into(&mut connection.out);
            self.core
                .subscriptions
                .mark_ready(super::connection::slot(key));
        }
        self.on_body_bytes(ring, key, rest, now);
    }

    /// Takes bytes of a connection whose request body is not whole.
    pub(super) fn on_body_bytes(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        bytes: &[u8],
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Phase::Body(incoming) = &mut connection.phase else {
            return;
        };
        match incoming.body.advance(bytes) {
            Ok(false) => {}
            Ok(true) => self.on_whole_request(ring, key, now),
            Err(rejection) => {
                let cors = std::mem::take(&mut incoming.cors);
                self.refuse(ring, key, rejection, &cors, now);
            }
        }
    }

    /// The request body did not come in time.
    pub(super) fn on_body_timeout(&mut self, ring: &mut NetRing, key: Key, now: Instant) {
        if let Some(connection) = self.connections.get_mut(key)
            && let Phase::Body(incoming) = &mut connection.phase
        {
            let cors = std::mem::take(&mut incoming.cors);
            self.refuse(ring, key, Rejection::BodyTimeout, &cors, now);
        }
    }

    fn on_whole_request(&mut self, ring: &mut NetRing, key: Key, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let answering = Phase::Answering(Box::new(Answering {
            cors: Cors::default(),
            deadline: now + PLAIN_ANSWER_MAX,
        }));
        let Phase::Body(incoming) = std::mem::replace(&mut connection.phase, answering) else {
            return;
        };
        let BodyIn {
            body,
            purpose,
            cors,
            guest,
            ..
        } = *incoming;
        let body = body.into_bytes();
        match purpose {
            Purpose::Stream(wire) => self.open_stream(ring, key, wire, &body, &cors, guest, now),
            Purpose::Emulation { is_protobuf } => {
                let request = match is_protobuf {
                    true => Emulation::from_protobuf(&body),
                    false => Emulation::from_json(&body),
                };
                match request {
                    Some(request) => self.emulate(ring, key, request, cors, now),
                    None => self.refuse(ring, key, Rejection::Emulation, &cors, now),
                }
            }
            Purpose::Api(head) => {
                let ApiHead {
                    method,
                    path_and_query,
                    headers,
                } = head;
                let request = ApiRequest {
                    method,
                    path_and_query,
                    headers,
                    body,
                };
                self.hand_over(ring, key, PlainKind::Api(request), cors, now);
            }
        }
    }

    /// Commands for a session: of this shard, of another one, or of another node. Whoever names a
    /// session that is not there is told the same as everybody else.
    fn emulate(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        request: Emulation,
        cors: Cors,
        now: Instant,
    ) {
        let Emulation {
            node,
            session,
            data,
        } = request;
        if node != self.core.session_config.node {
            let kind = PlainKind::Emulation {
                node,
                session,
                data,
            };
            return self.hand_over(ring, key, kind, cors, now);
        }
        self.core.counters.emulated.add(1);
        match EmulatedSession::parse(&session) {
            None => self.core.counters.emulated_unknown.add(1),
            Some(session) if session.shard == self.index => {
                self.on_emulated(ring, session, &data, now);
            }
            Some(session) => {
                if self
                    .core
                    .shared
                    .control
                    .calls
                    .commands(session, data)
                    .is_err()
                {
                    return self.refuse(ring, key, Rejection::Busy, &cors, now);
                }
            }
        }
        self.answer(ring, key, 204, "", &cors, b"", now);
    }

    /// Commands that came over `/emulation` for a session of this shard, if it is here and the
    /// sender may speak for it.
    pub(super) fn on_emulated(
        &mut self,
        ring: &mut NetRing,
        session: EmulatedSession,
        data: &[u8],
        now: Instant,
    ) {
        let key = Key(session.connection);
        let is_its = self.connections.get_mut(key).is_some_and(|connection| {
            let Phase::Session(open) = &connection.phase else {
                return false;
            };
            let token = EmulatedSession::parse(open.session_token());
            token.is_some_and(|token| is_equal(token.secret, session.secret))
        });
        if is_its {
            self.on_commands(ring, key, data, now);
        } else {
            self.core.counters.emulated_unknown.add(1);
        }
    }

    /// Asks the control plane to answer.
    fn hand_over(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        kind: PlainKind,
        cors: Cors,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let control = self.core.shared.control.plain.clone();
        // The permit first: a request that finds no room must not be dropped with its reply.
        let permit = control
            .try_reserve()
            .ok()
            .filter(|_| self.plain_out < PLAIN_REQUESTS_MAX);
        let Some(permit) = permit else {
            return self.refuse(ring, key, Rejection::Busy, &cors, now);
        };
        self.plain_out += 1;
        permit.send(PlainRequest {
            kind,
            answer: PlainReply::new(key.0, self.plain_answer.clone()),
        });
        let deadline = now + PLAIN_ANSWER_MAX;
        connection.phase = Phase::Answering(Box::new(Answering { cors, deadline }));
        if let Some(timer) = connection.timer.take() {
            self.core.wheel.cancel(timer);
        }
        connection.timer = Some(self.core.wheel.insert(deadline, key));
    }

    /// Takes the control plane's answers.
    pub(super) fn take_plain_answers(&mut self, ring: &mut NetRing, now: Instant) {
        while let Some(PlainAnswered { connection, answer }) = self.plain_answers.pop() {
            self.plain_out = self.plain_out.saturating_sub(1);
            let key = Key(connection);
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            let Phase::Answering(answering) = &mut connection.phase else {
                continue;
            };
            let cors = std::mem::take(&mut answering.cors);
            self.answer(
                ring,
                key,
                answer.status,
                &answer.content_type,
                &cors,
                &answer.body,
                now,
            );
        }
    }

    /// The control plane did not answer in time.
    pub(super) fn on_answer_timeout(&mut self, ring: &mut NetRing, key: Key, now: Instant) {
        if let Some(connection) = self.connections.get_mut(key)
            && let Phase::Answering(answering) = &mut connection.phase
        {
            let cors = std::mem::take(&mut answering.cors);
            self.refuse(ring, key, Rejection::Busy, &cors, now);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is a part of one answer")]
    fn answer(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        status: u16,
        content_type: &str,
        cors: &Cors,
        body: &[u8],
        now: Instant,
    ) {
        if let Some(connection) = self.connections.get_mut(key) {
            foreign_answer_into(&mut connection.out, status, content_type, cors, body);
            self.close_answered(ring, key, now);
        }
    }
}

/// Compares in a time that says nothing about where the two differ.
fn is_equal(left: u128, right: u128) -> bool {
    std::hint::black_box(left ^ right) == 0
}
