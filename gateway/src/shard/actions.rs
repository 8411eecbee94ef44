//! Carries out calls of the control plane, a bounded number of sessions or channels a turn.
//!
//! Calls are worked on one after another, in the order in which they came. Who is meant is decided
//! when a call's turn comes; a session that is gone by the time it would be reached is left out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use flux_runtime::ring::{Key, NetRing};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio::sync::oneshot;

use crate::http::Glob;
use crate::protocol::{Disconnect, Unsubscribe};
use crate::session::Session;

use super::Shard;
use super::call::{
    CHANNELS_MAX, Call, EmulatedSession, ShardChannels, ShardInfo, Step, Target, USERS_MAX,
};
use super::connection::Phase;

/// Sessions that calls reach in one turn.
const SESSIONS_A_TURN_MAX: usize = 256;
/// Places of the channel table that calls look at in one turn.
const PLACES_A_TURN_MAX: usize = 4_096;
/// Calls that a shard begins in one turn.
const CALLS_A_TURN_MAX: usize = 64;

/// A call that takes more than one turn, or waits for its own.
pub(super) enum Action {
    Sessions {
        /// Those that are still to be reached.
        keys: Vec<Key>,
        target: Target,
        step: Step,
        done: usize,
        reply: oneshot::Sender<usize>,
    },
    Channels {
        from: usize,
        /// None matches nothing.
        pattern: Option<Glob>,
        found: HashMap<Arc<str>, usize, RandomState>,
        is_cut: bool,
        reply: oneshot::Sender<ShardChannels>,
    },
}

impl Shard {
    /// Takes calls, and works on those that were taken.
    pub(super) fn take_calls(&mut self, ring: &mut NetRing, now: Instant) {
        for _ in 0..CALLS_A_TURN_MAX {
            let Some(call) = self.calls.pop() else {
                break;
            };
            self.begin_call(ring, call, now);
        }
        self.work_on_calls(ring, now);
    }

    /// Whether there is a call to go on with in the next turn.
    pub(super) fn has_calls(&self) -> bool {
        !self.actions.is_empty() || !self.calls.is_empty()
    }

    fn begin_call(&mut self, ring: &mut NetRing, call: Call, now: Instant) {
        match call {
            Call::Sessions {
                target,
                step,
                reply,
            } => {
                let keys = self.keys_of(&target);
                self.actions.push_back(Action::Sessions {
                    keys,
                    target,
                    step,
                    done: 0,
                    reply,
                });
            }
            Call::Commands { session, data } => self.on_emulated(ring, session, &data, now),
            Call::Info { reply } => {
                // Whoever asked may have gone: so has the answer.
                let _ = reply.send(self.info());
            }
            Call::Users { reply } => {
                let names = self.core.users.names().take(USERS_MAX);
                let _ = reply.send(names.map(Box::from).collect());
            }
            Call::Channels { pattern, reply } => {
                let pattern = if pattern.is_empty() { "*" } else { &pattern };
                self.actions.push_back(Action::Channels {
                    from: 0,
                    pattern: Glob::new(pattern).ok(),
                    found: HashMap::default(),
                    is_cut: false,
                    reply,
                });
            }
        }
    }

    fn info(&self) -> ShardInfo {
        let stats = self.core.subscriptions.stats();
        ShardInfo {
            clients: self.core.counters.clients.get() as usize,
            users: self.core.users.len(),
            subscriptions: stats.subscriptions as usize,
        }
    }

    /// The connections that may be meant; whether they are is asked again when they are reached.
    fn keys_of(&mut self, target: &Target) -> Vec<Key> {
        if let Some(client) = target.client {
            let found = self.core.shared.directory.find(client);
            let here = found.filter(|client| client.shard == self.core.index);
            return here.map(|client| client.connection).into_iter().collect();
        }
        if let Some(session) = &target.session {
            let session = EmulatedSession::parse(session);
            let here = session.filter(|session| session.shard == self.core.index);
            return here
                .map(|session| Key(session.connection))
                .into_iter()
                .collect();
        }
        let connections = &mut self.connections;
        let slots = self.core.users.slots(&target.user);
        slots
            .iter()
            .filter_map(|slot| connections.at(*slot).map(|(key, _)| key))
            .collect()
    }

    fn work_on_calls(&mut self, ring: &mut NetRing, now: Instant) {
        let (mut sessions, mut places) = (SESSIONS_A_TURN_MAX, PLACES_A_TURN_MAX);
        while sessions > 0
            && places > 0
            && let Some(mut action) = self.actions.pop_front()
        {
            let is_done = match &mut action {
                Action::Sessions {
                    keys,
                    target,
                    step,
                    done,
                    ..
                } => loop {
                    let Some(key) = keys.pop() else {
                        break true;
                    };
                    if sessions == 0 {
                        keys.push(key);
                        break false;
                    }
                    sessions -= 1;
                    *done += usize::from(self.reach(ring, key, target, step, now));
                },
                Action::Channels {
                    from,
                    pattern,
                    found,
                    is_cut,
                    ..
                } => {
                    let subscriptions = &self.core.subscriptions;
                    let next = subscriptions.list(*from, places, &mut |name, count| {
                        if !pattern.as_ref().is_some_and(|glob| glob.matches(name)) {
                            return;
                        }
                        if found.len() < CHANNELS_MAX || found.contains_key(name) {
                            *found.entry(Arc::clone(name)).or_default() += count;
                        } else {
                            *is_cut = true;
                        }
                    });
                    places = 0;
                    *from = next.unwrap_or_default();
                    next.is_none()
                }
            };
            if is_done {
                action.answer();
            } else {
                self.actions.push_front(action);
            }
        }
    }

    /// Does to one session what the call says, if it is meant.
    fn reach(
        &mut self,
        ring: &mut NetRing,
        key: Key,
        target: &Target,
        step: &Step,
        now: Instant,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        let Phase::Session(session) = &connection.phase else {
            return false;
        };
        if !is_meant(session, target) {
            return false;
        }
        if let Step::Disconnect { whitelist, .. } = step
            && whitelist.contains(&session.client_id())
        {
            return false;
        }
        self.step(ring, key, now, |session, replies, core, at| {
            let mut effect = |effect: crate::session::Effect<'_>| core.effect(at, effect);
            match step {
                Step::Disconnect { code, reason, .. } => {
                    session.disconnect(Disconnect::new(*code, reason), &mut effect);
                }
                Step::Unsubscribe {
                    channel,
                    code,
                    reason,
                } => {
                    let channels: Vec<String> = match channel.is_empty() {
                        true => session.channels().map(ToOwned::to_owned).collect(),
                        false => vec![channel.clone()],
                    };
                    for channel in channels {
                        let unsubscribe = Unsubscribe {
                            code: *code,
                            reason,
                        };
                        session.unsubscribe(&channel, unsubscribe, replies, &mut effect);
                    }
                }
                Step::Subscribe {
                    channel,
                    grant,
                    recover_since,
                } => {
                    // One that is subscribed already, or may not be, stays as it is.
                    let _ = session.subscribe_by_server(
                        channel,
                        grant.clone(),
                        *recover_since,
                        now,
                        &mut effect,
                    );
                }
                Step::Refresh {
                    expired,
                    expires_in,
                    info,
                } => session.refresh_by_server(
                    *expired,
                    *expires_in,
                    info.clone(),
                    now,
                    replies,
                    &mut effect,
                ),
            }
        });
        true
    }
}

impl Action {
    /// Tells whoever called, if anybody waits still.
    fn answer(self) {
        match self {
            Self::Sessions { done, reply, .. } => {
                let _ = reply.send(done);
            }
            Self::Channels {
                found,
                is_cut,
                reply,
                ..
            } => {
                let channels = found.into_iter().collect();
                let _ = reply.send(ShardChannels { channels, is_cut });
            }
        }
    }
}

fn is_meant(session: &Session, target: &Target) -> bool {
    let Target {
        user,
        client,
        session: token,
    } = target;
    session.is_connected()
        && (user.is_empty() || session.user() == user)
        && client.is_none_or(|client| session.client_id() == client)
        && token
            .as_ref()
            .is_none_or(|token| !token.is_empty() && session.session_token() == token)
}

/// Calls that wait for their turn.
pub(super) type Actions = VecDeque<Action>;
