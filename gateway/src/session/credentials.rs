//! How credentials are renewed, and what happens when they expire.
//!
//! Either the client renews them, with a new token before they expire; then there is some patience
//! behind that moment, since networks are slow. Or the backend does, asked at that moment by the
//! session itself.

use std::time::Instant;

use super::commands::Denied;
use super::particulars::Asking;
use super::subscribe::seconds;
use super::subscriptions::{Source, Subscription};
use super::{Effect, Session};
use crate::authority::{Question, QuestionKind, RefreshGrant, Refusal};
use crate::protocol::command::{RefreshRequest, SubRefreshRequest};
use crate::protocol::{Disconnect, ErrorCode, Reply, Unsubscribe};

/// What becomes of a subscription whose moment has come.
enum Due {
    Renewal,
    Close,
    Unsubscribe,
}

impl Session {
    /// Whether the client renews the connection's credentials.
    pub(super) fn client_renews(&self) -> bool {
        !self.config.refresh_proxy && !self.wire.unidirectional
    }

    /// When something is due to expire or to be renewed, what is being renewed left out.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if !self.is_connected() {
            return None;
        }
        let connection = self
            .more
            .as_ref()
            .filter(|more| !more.renews_connection)
            .and_then(|more| more.expires_at)
            .and_then(|at| {
                if self.config.refresh_proxy {
                    Some(at)
                } else {
                    at.checked_add(self.config.limits.expired_close_delay)
                }
            });
        let subscriptions = self.due_subscriptions().map(|(at, _, _)| at);
        connection.into_iter().chain(subscriptions).min()
    }

    /// Which subscriptions are due when, and to what.
    fn due_subscriptions(&self) -> impl Iterator<Item = (Instant, &str, Due)> {
        let may_ask = self.may_ask_for_subscription();
        let delay = self.config.limits.expired_sub_close_delay;
        self.subscriptions.iter().filter_map(move |subscription| {
            let details = subscription.details.as_ref()?;
            let at = details.expires_at?;
            let channel = &*subscription.channel;
            if details.backend_renews {
                may_ask.then_some((at, channel, Due::Renewal))
            } else {
                let due = if subscription.is_server_side() {
                    Due::Close
                } else {
                    Due::Unsubscribe
                };
                Some((at.checked_add(delay)?, channel, due))
            }
        })
    }

    /// Answers name no channel, so there is one such question at a time.
    fn may_ask_for_subscription(&self) -> bool {
        self.more.as_ref().is_none_or(|more| {
            more.renews_subscription.is_none()
                && !matches!(more.asking, Some(Asking::SubRefresh { .. }))
        })
    }

    /// Sets the timer for what is due next. To be called whenever that may have changed.
    pub(super) fn reschedule(&mut self) {
        let due = self.next_due();
        if due.is_some() || self.more.is_some() {
            self.more().due = due;
        }
    }

    /// Does what is due.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if !self.is_connected() {
            return;
        }
        if let Some(more) = &self.more
            && !more.renews_connection
            && let Some(at) = more.expires_at
            && at <= now
        {
            if self.config.refresh_proxy {
                self.more().renews_connection = true;
                let token = String::new();
                self.ask_aside(QuestionKind::Refresh { token }, effect);
            } else if at + self.config.limits.expired_close_delay <= now {
                return self.disconnect(Disconnect::EXPIRED, effect);
            }
        }
        loop {
            let Some((_, channel, due)) = self.due_subscriptions().find(|(at, _, _)| *at <= now)
            else {
                break;
            };
            let channel: Box<str> = channel.into();
            match due {
                Due::Close => return self.disconnect(Disconnect::SUBSCRIPTION_EXPIRED, effect),
                Due::Unsubscribe => {
                    self.end_by_server(&channel, Unsubscribe::EXPIRED, out, effect);
                }
                Due::Renewal => {
                    let question = QuestionKind::SubRefresh {
                        channel: channel.to_string(),
                        token: String::new(),
                    };
                    self.more().renews_subscription = Some(channel);
                    self.ask_aside(question, effect);
                }
            }
        }
        self.reschedule();
    }

    /// Asks a question of the session's own, for which no command waits.
    fn ask_aside(&self, kind: QuestionKind, effect: &mut impl FnMut(Effect<'_>)) {
        let who = self.who();
        effect(Effect::Ask(Question { who, kind }));
    }

    /// The backend has been asked to renew the connection's credentials.
    pub(super) fn connection_renewed(
        &mut self,
        result: Result<RefreshGrant, Refusal>,
        now: Instant,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        self.more().renews_connection = false;
        match result {
            Ok(grant) if grant.expired => self.disconnect(Disconnect::EXPIRED, effect),
            Ok(grant) => self.renew_connection(grant, now, effect),
            Err(Refusal::Disconnect { code, reason }) => {
                self.disconnect(Disconnect::new(code, &reason), effect);
            }
            // The backend's trouble is not the client's.
            Err(Refusal::Error(_)) => {
                let retry_at = now + self.config.limits.renewal_retry_delay;
                self.more().expires_at = Some(retry_at);
            }
        }
    }

    /// The backend has been asked to renew a subscription's credentials.
    pub(super) fn subscription_renewed(
        &mut self,
        result: Result<RefreshGrant, Refusal>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let Some(channel) = self.more().renews_subscription.take() else {
            return;
        };
        match result {
            Ok(grant) if grant.expired => self.end_expired(&channel, out, effect),
            Ok(grant) => self.renew_subscription(&channel, grant, now, effect),
            Err(Refusal::Disconnect { code, reason }) => {
                self.disconnect(Disconnect::new(code, &reason), effect);
            }
            Err(Refusal::Error(_)) => {
                let retry_at = now + self.config.limits.renewal_retry_delay;
                if let Some(subscription) = self.subscriptions.get_mut(&channel) {
                    subscription.renew(Some(retry_at), None);
                }
            }
        }
    }

    fn end_expired(
        &mut self,
        channel: &str,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let is_server_side = self
            .subscriptions
            .get(channel)
            .is_some_and(|subscription| subscription.is_server_side());
        if is_server_side {
            self.disconnect(Disconnect::SUBSCRIPTION_EXPIRED, effect);
        } else {
            self.end_by_server(channel, Unsubscribe::EXPIRED, out, effect);
        }
    }

    pub(super) fn renew_connection(
        &mut self,
        grant: RefreshGrant,
        now: Instant,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let is_insecure = self.config.insecure;
        let more = self.more();
        more.expires_at = grant
            .expires_in
            .filter(|_| !is_insecure)
            .and_then(|expires_in| now.checked_add(expires_in));
        if let Some(info) = grant.info {
            more.conn_info = info.into();
            for subscription in self.subscriptions.iter() {
                self.enter_anew(subscription, effect);
            }
        }
    }

    fn renew_subscription(
        &mut self,
        channel: &str,
        grant: RefreshGrant,
        now: Instant,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let Some(subscription) = self.subscriptions.get_mut(channel) else {
            return;
        };
        let expires_at = grant
            .expires_in
            .and_then(|expires_in| now.checked_add(expires_in));
        let has_info = grant.info.is_some();
        subscription.renew(expires_at, grant.info);
        if has_info && let Some(subscription) = self.subscriptions.get(channel) {
            self.enter_anew(subscription, effect);
        }
    }

    /// Those who ask who is present are to see the new info.
    fn enter_anew(&self, subscription: &Subscription, effect: &mut impl FnMut(Effect<'_>)) {
        if subscription.is_live && subscription.is_present {
            effect(Effect::Enter {
                channel: &subscription.channel,
                info: self.info(subscription.chan_info()),
            });
        }
    }

    pub(super) fn refresh(
        &mut self,
        id: u32,
        request: &RefreshRequest<'_>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        if request.token.is_empty() || !self.client_renews() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let token = request.token.clone().into_owned();
        self.ask(
            Asking::Refresh { id },
            QuestionKind::Refresh { token },
            effect,
        );
        Ok(())
    }

    /// The client's new token is checked.
    pub(super) fn refreshed(
        &mut self,
        id: u32,
        grant: RefreshGrant,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if grant.expired {
            return self.disconnect(Disconnect::EXPIRED, effect);
        }
        if let Some(channels) = &grant.channels
            && self.is_subscribed_otherwise(channels)
        {
            // By connecting anew it gets what the new token says.
            return self.disconnect(Disconnect::INSUFFICIENT_STATE, effect);
        }
        self.renew_connection(grant, now, effect);
        let expires_at = self.more.as_ref().and_then(|more| more.expires_at);
        let reply = Reply::Refresh {
            client: self.client,
            version: &self.config.version,
            ttl_seconds: expires_at.map(|at| seconds(at.saturating_duration_since(now))),
        };
        self.reply(out, id, &reply);
    }

    /// Whether the client is not subscribed to one of the channels that its token names now, or is to
    /// one because an earlier token named it.
    fn is_subscribed_otherwise(&self, channels: &[String]) -> bool {
        let is_missing = |channel: &String| !self.subscriptions.contains(channel);
        let is_left_over = |subscription: &Subscription| {
            subscription.source == Source::Token
                && !channels
                    .iter()
                    .any(|channel| **channel == *subscription.channel)
        };
        channels.iter().any(is_missing) || self.subscriptions.iter().any(is_left_over)
    }

    pub(super) fn sub_refresh(
        &mut self,
        id: u32,
        request: &SubRefreshRequest<'_>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        let channel = &*request.channel;
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let subscription = self
            .subscriptions
            .get(channel)
            .ok_or(ErrorCode::PermissionDenied)?;
        let backend_renews = subscription
            .details
            .as_ref()
            .is_some_and(|details| details.backend_renews);
        if request.token.is_empty() || backend_renews {
            return Err(ErrorCode::BadRequest.into());
        }
        if !self.may_ask_for_subscription() {
            return Err(ErrorCode::TooManyRequests.into());
        }
        let question = QuestionKind::SubRefresh {
            channel: channel.to_owned(),
            token: request.token.clone().into_owned(),
        };
        let asking = Asking::SubRefresh {
            id,
            channel: channel.into(),
        };
        self.ask(asking, question, effect);
        self.reschedule();
        Ok(())
    }

    /// The client's new subscription token is checked.
    pub(super) fn sub_refreshed(
        &mut self,
        id: u32,
        channel: &str,
        grant: RefreshGrant,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        // The server may have ended it meanwhile.
        if !self.subscriptions.contains(channel) {
            return self.reply(out, id, &Reply::from(ErrorCode::PermissionDenied));
        }
        if grant.expired {
            // The push comes first: the client subscribes again by it, and would give up by the
            // error.
            self.end_expired(channel, out, effect);
            if !self.is_closed() {
                self.reply(out, id, &Reply::from(ErrorCode::Expired));
            }
            return;
        }
        let ttl_seconds = grant.expires_in.map(seconds);
        self.renew_subscription(channel, grant, now, effect);
        self.reply(out, id, &Reply::SubRefresh { ttl_seconds });
    }
}
