//! One client's life: it connects, subscribes, publishes, answers pings, and goes.
//!
//! Messages, answers and `now` go in; replies go into `out` and everything else comes out as
//! [`Effect`]s. There is no I/O, clock or randomness in here, and no transport: the same session
//! serves whatever carries messages.
//!
//! | stage | file |
//! |---|---|
//! | what all sessions have in common; a client's door | `config` |
//! | which channels exist, and what is allowed there | `rules` |
//! | from a command to what it does; how many there may be | `commands`, `rate` |
//! | questions to the authority; commands that wait for the answer | `asking` |
//! | the first command, and server-side subscriptions with it | `connect` |
//! | a subscription's beginning, its end, all of them | `subscribe`, `unsubscribe`, `subscriptions` |
//! | publications | `publish` |
//! | history and presence | `lookup` |
//! | credentials: how they are renewed and expire | `credentials` |
//! | pings and pongs | `heartbeat` |
//! | what the server's API does to a session | `server` |
//! | what is asked of the shard | `effect` |
//! | what only some sessions have | `particulars` |
//!
//! Invariants
//! - A command with an id gets exactly one reply, unless the session closes first.
//! - Nothing is written and no effect happens after [`Effect::Close`] or [`Session::on_gone`].
//! - Replies of commands that need neither engine nor authority come in the order of the commands;
//!   commands behind one that waits for the authority wait too.
//! - Every [`Effect::Subscribe`] is followed by exactly one [`Effect::Unsubscribe`], unless the
//!   engine refused it; every [`Effect::Join`] by exactly one [`Effect::Leave`]; every
//!   [`Effect::Enter`] by exactly one [`Effect::Exit`], further ones in between changing the info.
//! - At most one question that a command caused is out, and at most one of each kind.
//! - An open session waits for something: its deadline is set.

mod asking;
mod commands;
mod config;
mod connect;
mod credentials;
mod effect;
mod heartbeat;
mod lookup;
mod particulars;
mod publish;
mod rate;
mod rules;
mod server;
mod subscribe;
mod subscriptions;
mod unsubscribe;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

pub use config::{Door, PersonalChannel, RpcRules, SessionConfig};
pub use effect::{Effect, Subscribed};
pub use rules::{
    ChannelOptions, ChannelPattern, ChannelRules, DataFormat, DeltaType, Namespace, Naming,
};

use crate::authority::{Notice, NoticeKind, Who};
use crate::protocol::{ClientId, ClientInfo, Disconnect, Error, Push, Reply, WireFormat};
use crate::pubsub::Wire;
use particulars::Particulars;
use subscriptions::Subscriptions;

/// One client's session. Small, since most connections are idle: 80 bytes, and 32 bytes and
/// the name of the channel for each subscription; credentials and what else only some have come on
/// top.
#[derive(Debug)]
pub struct Session {
    config: Rc<SessionConfig>,
    subscriptions: Subscriptions,
    /// When a ping or a pong is due, or the connect command; None once closed.
    heartbeat: Option<Instant>,
    /// What most sessions do without.
    more: Option<Box<Particulars>>,
    client: ClientId,
    /// Commands that the engine has not answered.
    pending: u32,
    phase: Phase,
    wire: Wire,
}

// Idle connections are most of a node's memory: what only some have belongs into `Particulars`.
const _: () = assert!(size_of::<Session>() <= 88);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the connect command, or for what is needed to answer it.
    Connecting,
    /// The next ping is due at the heartbeat.
    Connected,
    /// A ping is out; its pong is due at the heartbeat.
    AwaitingPong,
    /// Nothing happens any more.
    Closed,
}

impl Session {
    /// A session whose transport has just opened. The time of the first ping depends on
    /// `client_id`, which has to be random for the pings of many clients to spread.
    #[must_use]
    pub fn new(config: Rc<SessionConfig>, door: Door, client_id: ClientId, now: Instant) -> Self {
        let heartbeat = Some(now + config.limits.stale_close_delay);
        let wire = door.wire();
        let is_plain = door.session_token.is_empty() && door.headers.is_empty();
        let more = (!is_plain).then(|| {
            Box::new(Particulars {
                session_token: door.session_token,
                headers: door.headers,
                ..Particulars::default()
            })
        });
        Self {
            config,
            subscriptions: Subscriptions::default(),
            heartbeat,
            more,
            client: client_id,
            pending: 0,
            phase: Phase::Connecting,
            wire,
        }
    }

    /// The id that the client was told.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.client
    }

    /// Whose connection it is; empty for an anonymous client, and before it has connected.
    #[must_use]
    pub fn user(&self) -> &str {
        self.more.as_ref().map_or("", |more| &*more.user)
    }

    /// What names the session in requests of its client's transport; see [`Door`].
    #[must_use]
    pub fn session_token(&self) -> &str {
        self.more.as_ref().map_or("", |more| &*more.session_token)
    }

    /// How messages look to the client.
    #[must_use]
    pub fn wire(&self) -> Wire {
        self.wire
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

    /// Whether publications, joins and leaves may not go to the client yet: the server has begun to
    /// subscribe it, and the reply to its connect, which names these subscriptions, is not written.
    #[must_use]
    pub fn holds_publications(&self) -> bool {
        self.more
            .as_ref()
            .is_some_and(|more| more.connecting.is_some())
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

    /// Whether so much waits for an answer that the transport should stop reading until less does.
    #[must_use]
    pub fn wants_pause(&self) -> bool {
        self.pending >= self.config.limits.pending_commands_max / 2 || self.is_stash_heavy()
    }

    /// When [`Session::on_timer`] is due. Every call may move it, nearer too: a timer that is armed
    /// for a later moment has to be armed again then. One that is armed for an earlier moment may
    /// stay so, and be armed again when it fires.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.more.as_ref().and_then(|more| more.due);
        match (self.heartbeat, due) {
            (Some(heartbeat), Some(due)) => Some(heartbeat.min(due)),
            (heartbeat, due) => heartbeat.or(due),
        }
    }

    /// Does what is due: a ping, the renewal or the end of what expires, or the end of a client
    /// that did not connect or answer in time. Nothing when called early.
    pub fn on_timer(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if self.heartbeat.is_some_and(|heartbeat| heartbeat <= now) {
            self.beat(now, out, effect);
        }
        if self
            .more
            .as_ref()
            .and_then(|more| more.due)
            .is_some_and(|due| due <= now)
        {
            self.expire(now, out, effect);
        }
        self.settle();
    }

    /// Ends the session with a code. Nothing happens where it is over already.
    pub fn disconnect(&mut self, disconnect: Disconnect<'_>, effect: &mut impl FnMut(Effect<'_>)) {
        if self.is_closed() {
            return;
        }
        self.finish(disconnect.code, disconnect.reason, effect);
        effect(Effect::Close(disconnect));
    }

    /// The transport is gone: the subscriptions end, and nobody is told why.
    pub fn on_gone(&mut self, effect: &mut impl FnMut(Effect<'_>)) {
        if !self.is_closed() {
            self.finish(0, "", effect);
        }
    }

    fn finish(&mut self, code: u16, reason: &str, effect: &mut impl FnMut(Effect<'_>)) {
        for subscription in self.subscriptions.take() {
            self.end(&subscription, 0, effect);
        }
        if self.config.notices.disconnected && self.is_connected() {
            let reason = reason.to_owned();
            effect(Effect::Notify(
                self.notice(NoticeKind::Disconnected { code, reason }),
            ));
        }
        self.phase = Phase::Closed;
        self.heartbeat = None;
        self.more = None;
        self.pending = 0;
        self.settle();
    }

    /// The room for what only some sessions have.
    fn more(&mut self) -> &mut Particulars {
        self.more.get_or_insert_default()
    }

    /// Whether the client's commands wait for the answer to an earlier one.
    fn is_waiting(&self) -> bool {
        self.more
            .as_ref()
            .is_some_and(|more| more.asking.is_some() || more.connecting.is_some())
    }

    fn is_json(&self) -> bool {
        self.wire.format == WireFormat::Json
    }

    fn reply(&self, out: &mut Vec<u8>, id: u32, reply: &Reply<'_>) {
        self.wire.format.reply(out, id, reply);
    }

    fn push(&self, out: &mut Vec<u8>, push: &Push<'_>) {
        if self.wire.unidirectional {
            self.wire.format.bare_push(out, push);
        } else {
            self.wire.format.push(out, push);
        }
    }

    /// Tells the client that its command failed; one that only listens has sent nothing but its
    /// connect, and is told by the code of the close.
    fn fail(
        &mut self,
        id: u32,
        error: Error<'_>,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if self.wire.unidirectional {
            self.disconnect(connect::close_of(error), effect);
        } else {
            self.reply(out, id, &Reply::Error(error));
        }
    }

    /// Who the client is, for others to see in a channel.
    fn info<'a>(&'a self, chan_info: &'a [u8]) -> ClientInfo<'a> {
        let (user, conn_info) = self
            .more
            .as_ref()
            .map_or(("", &b""[..]), |more| (&*more.user, &*more.conn_info));
        ClientInfo {
            user,
            client: self.client,
            conn_info,
            chan_info,
        }
    }

    /// Who the client is, for the authority.
    fn who(&self) -> Who {
        let mut who = Who {
            client: Some(self.client),
            transport: config::transport_name(self.wire),
            format: self.wire.format,
            ..Who::default()
        };
        if let Some(more) = &self.more {
            who.user = more.user.to_string();
            who.meta = more.meta.to_vec();
            who.headers = Arc::clone(&more.headers);
        }
        who
    }

    fn notice(&self, kind: NoticeKind) -> Notice {
        Notice {
            who: self.who(),
            kind,
        }
    }

    /// To be called at the end of every call: memory that is not needed any more goes, and the
    /// invariants hold.
    fn settle(&mut self) {
        if self.more.as_ref().is_some_and(|more| more.are_none()) {
            self.more = None;
        }
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    fn check_invariants(&self) {
        let limits = &self.config.limits;
        self.subscriptions.check_invariants(limits.channels_max);
        assert!(self.pending <= limits.pending_commands_max);
        assert_eq!(self.deadline().is_none(), self.is_closed());
        let more = self.more.as_deref();
        let connecting = more.and_then(|more| more.connecting.as_ref());
        if self.is_closed() {
            assert!(more.is_none());
        }
        if !self.is_connected() {
            assert_eq!(self.pending, 0);
            let waiting = self.subscriptions.iter().filter(|one| !one.is_live).count();
            assert_eq!(connecting.map_or(0, |connecting| connecting.left), waiting);
            assert!(connecting.is_some() || self.subscriptions.len() == 0);
        } else {
            assert!(connecting.is_none());
        }
        if let Some(more) = more {
            assert!(
                more.stash.is_empty() || self.is_waiting(),
                "commands wait for nothing"
            );
            assert_eq!(
                more.due,
                self.next_due(),
                "the timer is not where it belongs"
            );
        }
    }
}
