//! What the control plane asks of the shards while clients are served: the server API's actions on
//! sessions, its questions, and commands that came over `/emulation`.
//!
//! A call goes to every shard, as only the shards know whose sessions they have; each answers for
//! its own. A shard works on a bounded number of sessions or channels a turn, so that a user with
//! many connections does not keep others waiting; the answer comes when all of them are done.

use std::sync::Arc;
use std::time::Duration;

use flux_runtime::mailbox::Sender;
use flux_runtime::ring::Key;
use tokio::sync::oneshot;

use crate::authority::SubscribeGrant;
use crate::protocol::ClientId;
use crate::pubsub::KnownEpoch;

/// Calls that may wait for a shard; beyond it a call is refused at once.
pub const CALLS_MAX: usize = 1_024;

/// Whose sessions are meant: all that fit every part that is set. One of the three has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The user's id; empty: whichever.
    pub user: String,
    /// The connection's id.
    pub client: Option<ClientId>,
    /// The session's text, of transports that have one.
    pub session: Option<String>,
}

/// What happens to each session that is meant.
#[derive(Clone, Debug)]
pub enum Step {
    /// Its connection is closed.
    Disconnect {
        /// 3000-4999.
        code: u16,
        /// At most 123 bytes.
        reason: String,
        /// These stay.
        whitelist: Vec<ClientId>,
    },
    /// A subscription ends.
    Unsubscribe {
        /// Where; empty: everywhere.
        channel: String,
        /// 2000-2999.
        code: u16,
        /// For people.
        reason: String,
    },
    /// A server-side subscription begins.
    Subscribe {
        /// Where.
        channel: String,
        /// How.
        grant: SubscribeGrant,
        /// From where the client goes on.
        recover_since: Option<(u64, KnownEpoch)>,
    },
    /// The connection's credentials are renewed, or end.
    Refresh {
        /// They have expired: the session ends with 3005.
        expired: bool,
        /// Time until they expire; none: never.
        expires_in: Option<Duration>,
        /// New `conn_info`; none: as before.
        info: Option<Vec<u8>>,
    },
}

/// One call to one shard. An answer that nobody waits for any more is dropped.
#[derive(Debug)]
pub enum Call {
    /// Do something to sessions.
    Sessions {
        /// To which.
        target: Target,
        /// What.
        step: Step,
        /// To how many it was done.
        reply: oneshot::Sender<usize>,
    },
    /// How much there is on the shard.
    Info {
        /// See [`ShardInfo`].
        reply: oneshot::Sender<ShardInfo>,
    },
    /// The users that are connected to the shard, each once. Bounded by [`USERS_MAX`].
    Users {
        /// Their ids.
        reply: oneshot::Sender<Vec<Box<str>>>,
    },
    /// Channels with subscribers on the shard.
    Channels {
        /// A glob for their names, as in Centrifugo (`*`, `?`, `[..]`, `{a,b}`); empty: all.
        pattern: String,
        /// Names and numbers of subscribers.
        reply: oneshot::Sender<ShardChannels>,
    },
    /// Commands of a session whose transport takes none; no answer (see [`EmulatedSession`]).
    Commands {
        /// Which session, and the proof that the sender may speak for it.
        session: EmulatedSession,
        /// A frame of commands in the session's wire format.
        data: Vec<u8>,
    },
}

/// Users in one answer at most; further ones are left out, and counted by `Info` all the same.
pub const USERS_MAX: usize = 1_000_000;
/// Channels in one answer at most.
pub const CHANNELS_MAX: usize = 1_000_000;

/// How much there is on one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardInfo {
    /// Clients, whatever the transport.
    pub clients: usize,
    /// Users with an id that have at least one client here.
    pub users: usize,
    /// Subscriptions.
    pub subscriptions: usize,
}

/// Channels of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardChannels {
    /// Name and subscribers, each name once.
    pub channels: Vec<(Arc<str>, usize)>,
    /// Whether there were more than [`CHANNELS_MAX`].
    pub is_cut: bool,
}

/// Names a session of a transport without a way in, for `/emulation`: where it is, and a secret
/// that only its client was told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EmulatedSession {
    /// Its shard.
    pub(super) shard: u16,
    /// Its connection there.
    pub(super) connection: u64,
    /// Random; compared in constant time.
    pub(super) secret: u128,
}

impl EmulatedSession {
    /// The session of a connection of a shard.
    pub(super) fn new(shard: u16, connection: Key, secret: u128) -> Self {
        Self {
            shard,
            connection: connection.0,
            secret,
        }
    }

    const TEXT_LEN: usize = 4 + 16 + 32;

    /// The session that a client names; none of ours looks like anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != Self::TEXT_LEN || !text.bytes().all(is_hex) {
            return None;
        }
        Some(Self {
            shard: u16::from_str_radix(&text[..4], 16).ok()?,
            connection: u64::from_str_radix(&text[4..20], 16).ok()?,
            secret: u128::from_str_radix(&text[20..], 16).ok()?,
        })
    }
}

impl std::fmt::Display for EmulatedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            shard,
            connection,
            secret,
        } = self;
        write!(f, "{shard:04x}{connection:016x}{secret:032x}")
    }
}

impl std::fmt::Debug for EmulatedSession {
    /// Without the secret: it must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EmulatedSession({}, {:x})", self.shard, self.connection)
    }
}

/// The way to the shards of this node, from any thread.
#[derive(Clone, Debug)]
pub struct Calls(Arc<[Sender<Call>]>);

/// What the shards answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallAnswers<T> {
    /// One for each shard that answered in time, in no order.
    pub answers: Vec<T>,
    /// How many did not: they are behind, or have ended.
    pub missing: usize,
}

impl Calls {
    /// `senders`: one for each shard, by its number.
    #[must_use]
    pub fn new(senders: Vec<Sender<Call>>) -> Self {
        Self(senders.into())
    }

    /// Calls every shard and waits for the answers, at most for `patience` in all.
    ///
    /// Cancel-safe: when it is dropped the calls are carried out all the same.
    pub async fn all<T>(
        &self,
        patience: Duration,
        call: impl Fn(oneshot::Sender<T>) -> Call,
    ) -> CallAnswers<T> {
        let until = tokio::time::Instant::now() + patience;
        let mut waiting = Vec::with_capacity(self.0.len());
        for sender in &*self.0 {
            let (reply, answer) = oneshot::channel();
            // A call that was refused has dropped its sender: its answer fails at once.
            let _ = sender.try_send(call(reply));
            waiting.push(answer);
        }
        let mut all = CallAnswers {
            answers: Vec::with_capacity(waiting.len()),
            missing: 0,
        };
        for answer in waiting {
            match tokio::time::timeout_at(until, answer).await {
                Ok(Ok(answer)) => all.answers.push(answer),
                Ok(Err(_)) | Err(_) => all.missing += 1,
            }
        }
        all
    }

    /// Hands the commands to the session's shard. `Ok` also where no such session is: whoever
    /// guesses learns nothing.
    ///
    /// # Errors
    /// The shard is behind and takes nothing more.
    pub fn commands(&self, session: EmulatedSession, data: Vec<u8>) -> Result<(), ShardBehind> {
        match self.0.get(usize::from(session.shard)) {
            Some(sender) => sender
                .try_send(Call::Commands { session, data })
                .map_err(|_| ShardBehind),
            None => Ok(()),
        }
    }
}

/// A shard has as many calls waiting as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard has {CALLS_MAX} calls waiting and takes no more; try again later")]
pub struct ShardBehind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_comes_back_from_its_text_and_nothing_else_is_one() {
        let session = EmulatedSession {
            shard: 7,
            connection: 0x0000_0003_0000_0009,
            secret: 0x0123_4567_89ab_cdef,
        };
        let text = session.to_string();
        assert_eq!(EmulatedSession::parse(&text), Some(session));
        assert!(!format!("{session:?}").contains("89abcdef"));
        for bad in ["", "00", &text[1..], &text.to_uppercase(), &"+".repeat(52)] {
            assert_eq!(EmulatedSession::parse(bad), None, "{bad}");
        }
    }
}
