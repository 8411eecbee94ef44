//! What each command does.

use std::time::Instant;

use super::{ChannelOptions, Effect, Phase, Session, rules};
use crate::protocol::command::{
    ChannelRequest, Command, ConnectRequest, HistoryRequest, PublishRequest, Request,
    SubscribeRequest,
};
use crate::protocol::{ConnectResult, Disconnect, ErrorCode, Reply, SubscribeResult};

/// Why a command is not carried out.
enum Refusal {
    /// It is answered with an error.
    Error(ErrorCode),
    /// It ends the session.
    Disconnect(Disconnect<'static>),
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Self {
        Self::Error(error)
    }
}

impl From<Disconnect<'static>> for Refusal {
    fn from(disconnect: Disconnect<'static>) -> Self {
        Self::Disconnect(disconnect)
    }
}

impl Session {
    pub(super) fn on_command(
        &mut self,
        command: Command<'_>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let id = command.id;
        match self.dispatch(command, now, out, effect) {
            Ok(()) => {}
            Err(Refusal::Error(error)) => self.format.reply(out, id, &Reply::from(error)),
            Err(Refusal::Disconnect(disconnect)) => self.disconnect(disconnect, effect),
        }
    }

    fn dispatch(
        &mut self,
        command: Command<'_>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Refusal> {
        let Command { id, request } = command;
        let connecting = self.phase == Phase::Connecting;
        match request {
            Some(Request::Connect(request)) if connecting && id > 0 => {
                self.connect(id, &request, now, out)
            }
            // Anything else comes too early, and a second connect too late.
            _ if connecting => Err(Disconnect::BAD_REQUEST.into()),
            None if id == 0 => self.pong(),
            Some(Request::Send(request)) => {
                effect(Effect::Message {
                    data: &request.data,
                });
                Ok(())
            }
            _ if id == 0 => Err(Disconnect::BAD_REQUEST.into()),
            Some(Request::Subscribe(request)) => self.subscribe(id, &request, effect),
            Some(Request::Publish(request)) => self.publish(id, &request, effect),
            Some(Request::Unsubscribe(request)) => {
                self.client_unsubscribes(id, &request.channel, out, effect)
            }
            Some(
                Request::Presence(ChannelRequest { channel })
                | Request::PresenceStats(ChannelRequest { channel })
                | Request::History(HistoryRequest { channel, .. }),
            ) => {
                self.channel_options(&channel)?;
                Err(ErrorCode::NotAvailable.into())
            }
            Some(Request::Rpc(_)) => Err(ErrorCode::NotAvailable.into()),
            // No token is acceptable where none can be verified, and none at all breaks the
            // protocol.
            Some(Request::Refresh(request)) => Err(if request.token.is_empty() {
                Disconnect::BAD_REQUEST.into()
            } else {
                Disconnect::INVALID_TOKEN.into()
            }),
            Some(Request::SubRefresh(request)) => Err(if request.channel.is_empty() {
                Disconnect::BAD_REQUEST.into()
            } else if !self.subscriptions.contains(&request.channel) {
                ErrorCode::PermissionDenied.into()
            } else if request.token.is_empty() {
                ErrorCode::BadRequest.into()
            } else {
                Disconnect::INVALID_TOKEN.into()
            }),
            Some(Request::Connect(_) | Request::Ping) | None => Err(Disconnect::BAD_REQUEST.into()),
        }
    }

    fn connect(
        &mut self,
        id: u32,
        request: &ConnectRequest<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        // No key is configured by which a token could be valid.
        if !request.token.is_empty() {
            return Err(Disconnect::INVALID_TOKEN.into());
        }
        if !self.config.allow_anonymous {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let limits = &self.config.limits;
        let result = ConnectResult {
            client: self.client,
            version: &self.config.version,
            ttl_seconds: None,
            data: b"",
            subs: &[],
            ping_seconds: limits.ping_interval.as_secs() as u32,
            pong: true,
            session: "",
            node: &self.config.node,
        };
        self.format.reply(out, id, &Reply::Connect(result));
        // The first ping comes after a random half to whole interval, so that the pings of clients
        // that came together do not stay together.
        let half = limits.ping_interval / 2;
        let share = f64::from(self.client.random_bits()) / f64::from(u32::MAX);
        self.deadline = Some(now + half + half.mul_f64(share));
        self.phase = Phase::Connected;
        Ok(())
    }

    fn pong(&mut self) -> Result<(), Refusal> {
        if self.phase != Phase::AwaitingPong {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        self.phase = Phase::Connected;
        let limits = &self.config.limits;
        let until_next = limits.ping_interval - limits.pong_timeout;
        self.deadline = self.deadline.map(|due| due + until_next);
        Ok(())
    }

    fn subscribe(
        &mut self,
        id: u32,
        request: &SubscribeRequest<'_>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Refusal> {
        let channel = &*request.channel;
        if channel.is_empty() || !matches!(&*request.delta, "" | "fossil") {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let limits = &self.config.limits;
        if channel.len() > limits.channel_length_max_bytes {
            return Err(ErrorCode::BadRequest.into());
        }
        self.subscriptions.admits(channel, limits.channels_max)?;
        let options = self.config.channels.options(channel)?;
        // A token cannot be verified here, so none is valid; without one a private channel is
        // closed to everybody.
        if rules::is_private(channel) || !request.token.is_empty() {
            return Err(ErrorCode::PermissionDenied.into());
        }
        if !options.may_subscribe(channel, self.user()) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        if request.has_tags_filter {
            return Err(ErrorCode::BadRequest.into());
        }
        let join_leave = options.pushes_join_leave(self.user(), request.join_leave);
        self.subscriptions.begin(channel, id, options.join_leave);
        effect(Effect::Subscribe {
            id,
            channel,
            join_leave,
        });
        Ok(())
    }

    fn client_unsubscribes(
        &mut self,
        id: u32,
        channel: &str,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Refusal> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        if let Some(subscription) = self.subscriptions.remove(channel) {
            // A subscribe that still waits succeeds and ends in one: nothing was published in
            // between, and the client may subscribe again without waiting for the engine.
            if let Some(pending) = subscription.pending {
                self.format
                    .reply(out, pending, &Reply::Subscribe(SubscribeResult::default()));
            }
            self.end(&subscription, effect);
        }
        self.format.reply(out, id, &Reply::Unsubscribe);
        Ok(())
    }

    fn publish(
        &mut self,
        id: u32,
        request: &PublishRequest<'_>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Refusal> {
        let channel = &*request.channel;
        if request.data.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let options = self.channel_options(channel)?;
        // A subscribe that waits passed the same rules, and the engine gets it first.
        let subscribed = self.subscriptions.contains(channel);
        if !options.may_publish(self.user(), subscribed) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        if self.publishing >= self.config.limits.pending_publishes_max {
            return Err(ErrorCode::TooManyRequests.into());
        }
        self.publishing += 1;
        effect(Effect::Publish {
            id,
            channel,
            data: &request.data,
            info: self.info(),
        });
        Ok(())
    }

    /// The options of a channel that a command names.
    fn channel_options(&self, channel: &str) -> Result<&ChannelOptions, Refusal> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        if channel.len() > self.config.limits.channel_length_max_bytes {
            return Err(ErrorCode::BadRequest.into());
        }
        Ok(self.config.channels.options(channel)?)
    }
}
