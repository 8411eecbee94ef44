//! The first command of a session, and the server-side subscriptions that come with it.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Instant;

use super::commands::Denied;
use super::particulars::Asking;
use super::publish::json_line;
use super::subscribe::{Confirmed, Wants, seconds};
use super::subscriptions::Source;
use super::{Effect, Phase, Session};
use crate::authority::{ConnectGrant, NoticeKind, QuestionKind, Refusal};
use crate::protocol::command::ConnectRequest;
use crate::protocol::{ConnectResult, Disconnect, Error, ErrorCode, Push, Reply};

/// A connect that waits for its server-side subscriptions.
#[derive(Debug)]
pub(super) struct Connecting {
    id: u32,
    /// For the client, empty without.
    data: Vec<u8>,
    /// Subscriptions that the engine has not confirmed.
    pub(super) left: usize,
    /// Those that it has.
    confirmed: Vec<Confirmed>,
}

/// With which code a client that only listens, and so gets no replies, learns of an error.
pub(super) const fn close_of(error: Error<'_>) -> Disconnect<'static> {
    match error.code {
        103 => Disconnect::PERMISSION_DENIED,
        109 | 110 => Disconnect::EXPIRED,
        111 => Disconnect::TOO_MANY_REQUESTS,
        _ => Disconnect::SERVER_ERROR,
    }
}

impl Session {
    /// Connects a client that only listens, and whose transport has read the request. It gets a
    /// push instead of a reply, and a close instead of an error. Nothing happens the second time.
    pub fn connect_unidirectional(
        &mut self,
        request: &ConnectRequest<'_>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if self.phase != Phase::Connecting || self.is_waiting() {
            return;
        }
        if let Err(denied) = self.connect(0, request, now, out, effect) {
            self.deny(0, denied, out, effect);
        }
        self.settle();
    }

    pub(super) fn connect(
        &mut self,
        id: u32,
        request: &ConnectRequest<'_>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        let config = Rc::clone(&self.config);
        let has_token = !request.token.is_empty();
        // More than a client may have need not be remembered.
        let since = request
            .subs
            .iter()
            .take(config.limits.channels_max)
            .map(|(channel, since)| (Box::from(&**channel), Wants::since(since)))
            .collect();
        if has_token || (config.connect_proxy && !config.insecure) {
            let question = QuestionKind::Connect {
                token: request.token.clone().into_owned(),
                data: request.data.clone().into_owned(),
                name: request.name.clone().into_owned(),
                version: request.version.clone().into_owned(),
            };
            let asking = Asking::Connect {
                id,
                has_token,
                since,
            };
            self.ask(asking, question, effect);
            return Ok(());
        }
        // Without a token the client has no credentials at all.
        if !config.allow_anonymous && !config.insecure {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        self.admit(id, ConnectGrant::default(), &since, now, out, effect)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the command's parts, and those of every step"
    )]
    pub(super) fn connect_answered(
        &mut self,
        id: u32,
        has_token: bool,
        since: &[(Box<str>, Wants)],
        result: Result<ConnectGrant, Refusal>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let denied = match result {
            Err(refusal) => {
                self.refuse(id, &refusal, out, effect);
                None
            }
            Ok(grant)
                if has_token && grant.user.is_empty() && self.config.disallow_anonymous_tokens =>
            {
                Some(Disconnect::PERMISSION_DENIED.into())
            }
            Ok(grant) => {
                let channels: Vec<String> = match has_token {
                    true => grant
                        .subs
                        .iter()
                        .map(|(channel, _)| channel.clone())
                        .collect(),
                    false => Vec::new(),
                };
                let denied = self.admit(id, grant, since, now, out, effect).err();
                for channel in channels {
                    if let Some(subscription) = self.subscriptions.get_mut(&channel) {
                        subscription.source = Source::Token;
                    }
                }
                denied
            }
        };
        if let Some(denied) = denied {
            self.deny(id, denied, out, effect);
        }
        // What the client has pipelined was for a session that there is not.
        if !self.is_connected()
            && !self.is_waiting()
            && let Some(more) = &mut self.more
        {
            more.stash = Default::default();
        }
    }

    /// Takes the credentials, and begins the server-side subscriptions. The client is answered when
    /// all of them are there.
    fn admit(
        &mut self,
        id: u32,
        grant: ConnectGrant,
        since: &[(Box<str>, Wants)],
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        let config = Rc::clone(&self.config);
        let ConnectGrant {
            user,
            expires_in,
            info,
            data,
            meta,
            mut subs,
        } = grant;
        let expires_in = expires_in.filter(|_| !config.insecure);
        if expires_in.is_some_and(|expires_in| expires_in.is_zero()) {
            return Err(ErrorCode::Expired.into());
        }
        if let Some(personal) = &config.personal_channel
            && !user.is_empty()
        {
            let channel = config.channels.personal(&personal.namespace, &user);
            if !subs.iter().any(|(other, _)| *other == channel) {
                subs.push((channel, Default::default()));
            }
        }
        if subs.len() > config.limits.channels_max {
            return Err(Disconnect::CHANNEL_LIMIT.into());
        }
        let data = self
            .for_client(&data)
            .ok_or(ErrorCode::Internal)?
            .into_owned();
        let expires_at = expires_in.and_then(|expires_in| now.checked_add(expires_in));
        if !user.is_empty() || !info.is_empty() || !meta.is_empty() || expires_at.is_some() {
            let more = self.more();
            more.user = user.into();
            more.conn_info = info.into();
            more.meta = meta.into();
            more.expires_at = expires_at;
        }
        if subs.is_empty() {
            self.connected(id, &data, &[], now, out, effect);
            return Ok(());
        }
        self.more().connecting = Some(Box::new(Connecting {
            id,
            data,
            left: 0,
            confirmed: Vec::with_capacity(subs.len()),
        }));
        for (channel, grant) in subs {
            let wants = since
                .iter()
                .find(|(other, _)| **other == *channel)
                .map_or_else(Wants::default, |(_, wants)| *wants);
            if let Err(denied) = self.begin(0, &channel, wants, grant, now, effect) {
                self.withdraw(effect);
                return Err(denied);
            }
            if let Some(connecting) = &mut self.more().connecting {
                connecting.left += 1;
            }
        }
        Ok(())
    }

    /// A server-side subscription cannot be: the client is not connected.
    fn withdraw(&mut self, effect: &mut impl FnMut(Effect<'_>)) {
        for subscription in self.subscriptions.take() {
            self.end(&subscription, 0, effect);
        }
        let more = self.more();
        more.connecting = None;
        more.user = Default::default();
        more.conn_info = Default::default();
        more.meta = Default::default();
        more.expires_at = None;
    }

    /// The engine has confirmed one of the server-side subscriptions of a connect.
    pub(super) fn connect_proceeds(
        &mut self,
        confirmed: Confirmed,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let Some(mut connecting) = self.more().connecting.take() else {
            return;
        };
        connecting.confirmed.push(confirmed);
        connecting.left = connecting.left.saturating_sub(1);
        if connecting.left > 0 {
            self.more().connecting = Some(connecting);
            return;
        }
        let Connecting {
            id,
            data,
            confirmed,
            ..
        } = *connecting;
        self.connected(id, &data, &confirmed, now, out, effect);
        self.resume(now, out, effect);
    }

    fn connected(
        &mut self,
        id: u32,
        data: &[u8],
        confirmed: &[Confirmed],
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let publications: Vec<_> = confirmed.iter().map(Confirmed::publications).collect();
        let subs: Vec<_> = confirmed
            .iter()
            .zip(&publications)
            .map(|(confirmed, publications)| {
                (&*confirmed.channel, confirmed.result(publications, now))
            })
            .collect();
        let more = self.more.as_deref();
        let result = ConnectResult {
            client: self.client,
            version: &self.config.version,
            ttl_seconds: more
                .and_then(|more| more.expires_at)
                .filter(|_| self.client_renews())
                .map(|at| seconds(at.saturating_duration_since(now))),
            data,
            subs: &subs,
            ping_seconds: self.config.limits.ping_interval.as_secs() as u32,
            pong: !self.wire.unidirectional,
            session: more.map_or("", |more| &more.session_token),
            node: &self.config.node,
        };
        if self.wire.unidirectional {
            self.push(out, &Push::Connect(result));
        } else {
            self.reply(out, id, &Reply::Connect(result));
        }
        self.heartbeat = Some(self.first_ping(now));
        self.phase = Phase::Connected;
        self.reschedule();
        effect(Effect::Connected { user: self.user() });
        if self.config.notices.connected {
            effect(Effect::Notify(self.notice(NoticeKind::Connected)));
        }
    }

    /// What the backend has for the client, as the client's format can carry it; none where it
    /// cannot.
    pub(super) fn for_client<'d>(&self, data: &'d [u8]) -> Option<Cow<'d, [u8]>> {
        if self.is_json() && !data.is_empty() {
            json_line(data)
        } else {
            Some(Cow::Borrowed(data))
        }
    }
}
