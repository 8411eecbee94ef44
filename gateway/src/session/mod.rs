//! One client's life: it connects, subscribes, publishes, answers pings, and goes.
//!
//! Messages, answers of the engine and `now` go in; replies go into `out` and everything else
//! comes out as [`Effect`]s. There is no I/O, clock or randomness in here, and no transport: the
//! same session serves whatever carries messages.
//!
//! Invariants
//! - A command with an id gets exactly one reply, unless the session closes first.
//! - Nothing is written and no effect happens after [`Effect::Close`] or [`Session::on_gone`].
//! - Replies of commands that need no engine come in the order of the commands.
//! - Every [`Effect::Subscribe`] is followed by exactly one [`Effect::Unsubscribe`], unless the
//!   engine refused it; every [`Effect::Join`] by exactly one [`Effect::Leave`].
//! - An open session waits for something: its deadline is set.

mod commands;
mod effect;
mod rules;
mod subscriptions;

use std::rc::Rc;
use std::time::Instant;

pub use effect::Effect;
pub use rules::{ChannelOptions, ChannelRules, Namespace};

use crate::limits::SessionLimits;
use crate::protocol::{
    ClientId, ClientInfo, Disconnect, ErrorCode, Push, Reply, SubscribeResult, Unsubscribe,
    WireFormat,
};
use subscriptions::{Subscription, Subscriptions};

/// What all sessions of a node have in common.
#[derive(Clone, Debug, Default)]
pub struct SessionConfig {
    /// The id of this node, told to every client.
    pub node: String,
    /// Name and version of this server, told to every client.
    pub version: String,
    /// Whether a client may connect without a token.
    pub allow_anonymous: bool,
    /// Which channels exist and what a client may do there.
    pub channels: ChannelRules,
    /// What bounds a session.
    pub limits: SessionLimits,
}

/// One client's session. Small, since most connections are idle: about 80 bytes, and 32 bytes and
/// the name of the channel for each subscription.
#[derive(Debug)]
pub struct Session {
    config: Rc<SessionConfig>,
    subscriptions: Subscriptions,
    /// When something is due; None once closed.
    deadline: Option<Instant>,
    client: ClientId,
    /// Publishes without an answer.
    publishing: u32,
    phase: Phase,
    format: WireFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the connect command until the deadline.
    Connecting,
    /// The next ping is due at the deadline.
    Connected,
    /// A ping is out; its pong is due at the deadline.
    AwaitingPong,
    /// Nothing happens any more.
    Closed,
}

impl Session {
    /// A session whose transport has just opened. The time of the first ping depends on
    /// `client_id`, which has to be random for the pings of many clients to spread.
    #[must_use]
    pub fn new(
        config: Rc<SessionConfig>,
        format: WireFormat,
        client_id: ClientId,
        now: Instant,
    ) -> Self {
        let deadline = Some(now + config.limits.stale_close_delay);
        Self {
            config,
            subscriptions: Subscriptions::default(),
            deadline,
            client: client_id,
            publishing: 0,
            phase: Phase::Connecting,
            format,
        }
    }

    /// The id that the client was told.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.client
    }

    /// Whether the client has connected and the session is open.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected | Phase::AwaitingPong)
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Subscriptions, pending ones included.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.subscriptions.len()
    }

    /// The channels, pending ones included.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.subscriptions
            .iter()
            .map(|subscription| &*subscription.channel)
    }

    /// Whether so many publishes wait for their answer that the transport should stop reading
    /// until fewer do.
    #[must_use]
    pub fn wants_pause(&self) -> bool {
        self.publishing >= self.config.limits.pending_publishes_max / 2
    }

    /// When [`Session::on_timer`] is due. Every call may move it. Nearly always it moves further
    /// away, and a timer may stay armed for the earlier time, and be armed again when it fires; but
    /// [`Session::on_message`] with the connect command may bring it nearer.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Carries out the commands of one message and appends their replies to `out`, as one message.
    /// `out` has to be empty or to hold messages of the same wire format.
    pub fn on_message(
        &mut self,
        message: &[u8],
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        for command in self.format.decode(message) {
            if self.is_closed() {
                break;
            }
            match command {
                Ok(command) => self.on_command(command, now, out, effect),
                Err(_) => self.disconnect(Disconnect::BAD_REQUEST, effect),
            }
            self.check_invariants();
        }
    }

    /// Does what is due: a ping, or the end of a client that did not connect or answer in time.
    /// Nothing when called early.
    pub fn on_timer(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.phase {
            Phase::Connecting => self.disconnect(Disconnect::STALE, effect),
            Phase::AwaitingPong => self.disconnect(Disconnect::NO_PONG, effect),
            Phase::Connected => {
                self.format.ping(out);
                self.phase = Phase::AwaitingPong;
                self.deadline = Some(now + self.config.limits.pong_timeout);
            }
            Phase::Closed => {}
        }
        self.check_invariants();
    }

    /// The engine's answer to [`Effect::Subscribe`]. With an error the subscription is gone on
    /// both sides. An answer that nobody waits for any more changes nothing.
    pub fn on_subscribed(
        &mut self,
        channel: &str,
        id: u32,
        result: Result<(), ErrorCode>,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let Some(subscription) = self.subscriptions.pending(channel, id) else {
            return;
        };
        match result {
            Ok(()) => {
                subscription.pending = None;
                let announces = subscription.announces;
                self.format
                    .reply(out, id, &Reply::Subscribe(SubscribeResult::default()));
                if announces {
                    effect(Effect::Join {
                        channel,
                        info: self.info(),
                    });
                }
            }
            Err(error) => {
                self.subscriptions.remove(channel);
                self.format.reply(out, id, &Reply::from(error));
            }
        }
        self.check_invariants();
    }

    /// The engine's answer to [`Effect::Publish`].
    pub fn on_published(&mut self, id: u32, result: Result<(), ErrorCode>, out: &mut Vec<u8>) {
        if self.is_closed() {
            return;
        }
        debug_assert!(self.publishing > 0, "an answer to a publish that was not");
        self.publishing = self.publishing.saturating_sub(1);
        let reply = result.map_or_else(Reply::from, |()| Reply::Publish);
        self.format.reply(out, id, &reply);
        self.check_invariants();
    }

    /// The server ends one subscription. Nothing happens where there is none.
    pub fn unsubscribe(
        &mut self,
        channel: &str,
        unsubscribe: Unsubscribe<'_>,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let Some(subscription) = self.subscriptions.remove(channel) else {
            return;
        };
        // The subscribe that waits is answered too: the client sees it succeed and end.
        if let Some(id) = subscription.pending {
            self.format
                .reply(out, id, &Reply::Subscribe(SubscribeResult::default()));
        }
        self.end(&subscription, effect);
        let push = Push::Unsubscribe {
            channel,
            unsubscribe,
        };
        self.format.push(out, &push);
        self.check_invariants();
    }

    /// Ends the session with a code. Nothing happens where it is over already.
    pub fn disconnect(&mut self, disconnect: Disconnect<'_>, effect: &mut impl FnMut(Effect<'_>)) {
        if self.is_closed() {
            return;
        }
        self.on_gone(effect);
        effect(Effect::Close(disconnect));
    }

    /// The transport is gone: the subscriptions end, and nobody is told why.
    pub fn on_gone(&mut self, effect: &mut impl FnMut(Effect<'_>)) {
        for subscription in self.subscriptions.take() {
            self.end(&subscription, effect);
        }
        self.phase = Phase::Closed;
        self.deadline = None;
        self.publishing = 0;
        self.check_invariants();
    }

    /// The effects of a subscription's end. The leave comes second, so that it does not reach the
    /// client that left.
    fn end(&self, subscription: &Subscription, effect: &mut impl FnMut(Effect<'_>)) {
        let channel = &*subscription.channel;
        effect(Effect::Unsubscribe { channel });
        if subscription.announces && subscription.pending.is_none() {
            effect(Effect::Leave {
                channel,
                info: self.info(),
            });
        }
    }

    /// Everybody is anonymous as long as there are no tokens.
    fn user(&self) -> &'static str {
        ""
    }

    fn info(&self) -> ClientInfo<'static> {
        ClientInfo {
            user: self.user(),
            client: self.client,
            conn_info: b"",
            chan_info: b"",
        }
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let limits = &self.config.limits;
            self.subscriptions.check_invariants(limits.channels_max);
            assert!(self.publishing <= limits.pending_publishes_max);
            assert_eq!(self.deadline.is_none(), self.is_closed());
            if !self.is_connected() {
                assert_eq!(self.subscriptions.len(), 0);
                assert_eq!(self.publishing, 0);
            }
        }
    }
}
