//! From the commands of a message to what each does.

use std::ops::ControlFlow;
use std::time::Instant;

use super::{ChannelOptions, Effect, Phase, Session, SessionConfig};
use crate::protocol::command::{Command, Request};
use crate::protocol::{Disconnect, ErrorCode};

/// Why a command is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It is answered with an error.
    Error(ErrorCode),
    /// It ends the session.
    Disconnect(Disconnect<'static>),
}

impl From<ErrorCode> for Denied {
    fn from(error: ErrorCode) -> Self {
        Self::Error(error)
    }
}

impl From<Disconnect<'static>> for Denied {
    fn from(disconnect: Disconnect<'static>) -> Self {
        Self::Disconnect(disconnect)
    }
}

impl Session {
    /// Carries out the commands of one message and appends their replies to `out`, as one message.
    /// `out` has to be empty or to hold messages of the same wire format. Nothing is expected from
    /// a client that only listens, and nothing of it is looked at.
    pub fn on_message(
        &mut self,
        message: &[u8],
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if self.wire.unidirectional {
            return;
        }
        let mut commands = self.wire.format.decode(message);
        loop {
            let rest = commands.remaining();
            let Some(command) = commands.next() else {
                break;
            };
            if self.is_closed() {
                break;
            }
            let Ok(command) = command else {
                self.disconnect(Disconnect::BAD_REQUEST, effect);
                break;
            };
            if self.is_waiting() {
                let bytes = &rest[..rest.len() - commands.remaining().len()];
                self.put_off(&command, bytes, effect);
            } else if self.on_command(&command, now, out, effect).is_break() {
                break;
            }
        }
        self.settle();
    }

    /// Breaks when what stands behind the command is to be dropped.
    pub(super) fn on_command(
        &mut self,
        command: &Command<'_>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> ControlFlow<()> {
        match self.dispatch(command, now, out, effect) {
            Ok(()) => {}
            Err(denied) => self.deny(command.id, denied, out, effect),
        }
        // A client that could not connect has pipelined the rest for a session that there is not.
        if self.phase == Phase::Connecting && !self.is_waiting() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    pub(super) fn deny(
        &mut self,
        id: u32,
        denied: Denied,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        match denied {
            Denied::Error(error) => self.fail(id, error.into(), out, effect),
            Denied::Disconnect(disconnect) => self.disconnect(disconnect, effect),
        }
    }

    fn dispatch(
        &mut self,
        command: &Command<'_>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), Denied> {
        let Command { id, request } = command;
        let id = *id;
        let Some(request) = request else {
            return if id == 0 && self.is_connected() {
                self.pong()
            } else {
                Err(Disconnect::BAD_REQUEST.into())
            };
        };
        if self.phase == Phase::Connecting {
            return match request {
                Request::Connect(request) if id > 0 => self.connect(id, request, now, out, effect),
                // Anything else comes too early.
                _ => Err(Disconnect::BAD_REQUEST.into()),
            };
        }
        if id == 0 && !matches!(request, Request::Send(_)) {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        self.admit_command(id, now)?;
        match request {
            Request::Subscribe(request) => self.subscribe(id, request, now, effect),
            Request::Unsubscribe(request) => {
                self.client_unsubscribes(id, &request.channel, out, effect)
            }
            Request::Publish(request) => self.publish(id, request, now, effect),
            Request::Presence(request) => self.presence(id, &request.channel, effect),
            Request::PresenceStats(request) => self.presence_stats(id, &request.channel, effect),
            Request::History(request) => self.history(id, request, effect),
            Request::Rpc(request) => self.rpc(id, request, effect),
            Request::Send(request) => {
                effect(Effect::Message {
                    data: &request.data,
                });
                Ok(())
            }
            Request::Refresh(request) => self.refresh(id, request, effect),
            Request::SubRefresh(request) => self.sub_refresh(id, request, effect),
            // A second connect comes too late.
            Request::Connect(_) | Request::Ping => Err(Disconnect::BAD_REQUEST.into()),
        }
    }

    /// Counts a command against the client's rate.
    fn admit_command(&mut self, id: u32, now: Instant) -> Result<(), Denied> {
        let Some(rate) = self.config.limits.commands_rate else {
            return Ok(());
        };
        if self.more().commands.take(rate, now) {
            Ok(())
        } else if id == 0 {
            // There is no reply by which the client could learn that its message is lost.
            Err(Disconnect::TOO_MANY_REQUESTS.into())
        } else {
            Err(ErrorCode::TooManyRequests.into())
        }
    }

    /// Makes room for one more command that the engine answers.
    pub(super) fn hand_over(&mut self) -> Result<(), Denied> {
        if self.pending >= self.config.limits.pending_commands_max {
            return Err(ErrorCode::TooManyRequests.into());
        }
        self.pending += 1;
        Ok(())
    }

    /// The engine has answered a command; whether the client is still to be told.
    pub(super) fn is_answer_wanted(&mut self) -> bool {
        if self.is_closed() {
            return false;
        }
        debug_assert!(self.pending > 0, "an answer to a command that was not");
        self.pending = self.pending.saturating_sub(1);
        true
    }
}

/// The options of a channel that a command names.
pub(super) fn channel_options<'c>(
    config: &'c SessionConfig,
    channel: &str,
) -> Result<&'c ChannelOptions, Denied> {
    if channel.is_empty() {
        return Err(Disconnect::BAD_REQUEST.into());
    }
    if channel.len() > config.limits.channel_length_max_bytes {
        return Err(ErrorCode::BadRequest.into());
    }
    Ok(config.channels.options(channel)?)
}
