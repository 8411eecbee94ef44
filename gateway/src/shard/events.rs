//! What the engine says: answers to the shard's sessions, and publications for its channels.

use std::sync::Arc;
use std::time::Instant;

use flux_runtime::ring::{Key, NetRing};

use crate::authority::{Answer, Answered};
use crate::engine::history::Recovery;
use crate::engine::{Asker, Event};
use crate::limits::EVENTS_A_TURN_MAX;
use crate::protocol::{Disconnect, ErrorCode};
use crate::pubsub::{Appended, ChannelKey, Slot, StreamPosition};
use crate::session::{Effect, Session, Subscribed};

use super::Shard;
use super::connection::{Phase, slot};
use super::core::{At, Core};
use super::links::QUESTIONS_MAX;

impl Shard {
    /// Takes what the engine has, as far as the next round can take it.
    pub(super) fn take_events(&mut self, ring: &mut NetRing, now: Instant) {
        for _ in 0..EVENTS_A_TURN_MAX {
            // A burst in one channel must reach its subscribers before more of it is taken.
            if self.core.subscriptions.is_urgent() {
                break;
            }
            let Some(event) = self.core.engine.poll() else {
                break;
            };
            match event {
                Event::Delivery {
                    key,
                    slice,
                    whole,
                    offset,
                } => {
                    let subscriptions = &mut self.core.subscriptions;
                    match subscriptions.append(key, &slice, whole.as_ref(), offset) {
                        Appended::Taken => {}
                        Appended::Gap => self.on_gap(ring, key, offset, now),
                    }
                }
                Event::Published { asker, result } => self.on_published(ring, asker, result, now),
                Event::Subscribed { key, result } => self.on_subscribed(ring, key, result, now),
                Event::Recovered { key, asker, result } => {
                    self.on_recovered(ring, key, asker, &result, now);
                }
                Event::History { asker, result } => {
                    let page = result.as_ref().map_err(|error| *error);
                    self.engine_answered(ring, asker, now, |session, replies| {
                        session.on_history(asker.command, page, replies);
                    });
                }
                Event::Presence { asker, result } => {
                    let members = result.as_deref().map_err(|error| *error);
                    self.engine_answered(ring, asker, now, |session, replies| {
                        session.on_presence(asker.command, members, replies);
                    });
                }
                Event::PresenceStats { asker, result } => {
                    self.engine_answered(ring, asker, now, |session, replies| {
                        session.on_presence_stats(asker.command, result, replies);
                    });
                }
                Event::Lost { key } => self.on_lost(ring, key, now),
                Event::Inappropriate { key } => self.on_inappropriate(ring, key, now),
            }
        }
    }

    /// Takes the authority's answers.
    pub(super) fn take_answers(&mut self, ring: &mut NetRing, now: Instant) {
        for _ in 0..QUESTIONS_MAX {
            let Some(Answered { connection, answer }) = self.answers.pop() else {
                break;
            };
            self.core.questions_out = self.core.questions_out.saturating_sub(1);
            let answer = self.within_user_limit(Key(connection), answer);
            self.step(ring, Key(connection), now, |session, replies, core, at| {
                session.on_answer(answer, now, replies, &mut |effect| core.effect(at, effect));
            });
        }
    }

    /// A client that has proved to be a user who has as many connections on the node as it may is
    /// turned away.
    fn within_user_limit(&mut self, key: Key, answer: Answer) -> Answer {
        let Answer::Connect(Ok(grant)) = &answer else {
            return answer;
        };
        let connection = self.connections.get_mut(key);
        let is_here = connection.is_some_and(|one| matches!(one.phase, Phase::Session(_)));
        if !is_here || self.core.users.insert(&grant.user, slot(key)) {
            return answer;
        }
        self.core.counters.user_limit_refusals.add(1);
        Answer::Connect(Err(Disconnect::CONNECTION_LIMIT.into()))
    }

    fn on_published(
        &mut self,
        ring: &mut NetRing,
        asker: Asker,
        result: Result<Option<StreamPosition>, ErrorCode>,
        now: Instant,
    ) {
        match result {
            Ok(_) => self.core.counters.published.add(1),
            Err(_) => self.core.counters.publish_failures.add(1),
        }
        self.engine_answered(ring, asker, now, |session, replies| {
            session.on_published(asker.command, result, replies);
        });
    }

    /// Lets the session that has asked the engine write what it makes of the answer.
    fn engine_answered(
        &mut self,
        ring: &mut NetRing,
        asker: Asker,
        now: Instant,
        write: impl FnOnce(&mut Session, &mut Vec<u8>),
    ) {
        let key = Key(asker.connection);
        self.step(ring, key, now, |session, replies, _, _| {
            write(session, replies);
        });
    }

    fn on_subscribed(
        &mut self,
        ring: &mut NetRing,
        key: ChannelKey,
        result: Result<Option<StreamPosition>, ErrorCode>,
        now: Instant,
    ) {
        let Some(channel) = self.core.subscriptions.name(key).map(Arc::clone) else {
            return;
        };
        let mut waited: Vec<(Slot, u32)> = Vec::new();
        let mut note = |slot, command| waited.push((slot, command));
        match result {
            Ok(position) => self.core.subscriptions.confirm(key, position, &mut note),
            Err(_) => self.core.subscriptions.refuse(key, &mut note),
        }
        let result = result.map(|position| Subscribed {
            position,
            recovery: None,
        });
        for (slot, command) in waited {
            self.step_at(ring, slot, now, |session, replies, core, at| {
                let mut effect = |effect: Effect<'_>| core.effect(at, effect);
                session.on_subscribed(&channel, command, result, now, replies, &mut effect);
            });
        }
    }

    /// A subscriber is told what it has missed; what comes from now on is pushed to it.
    fn on_recovered(
        &mut self,
        ring: &mut NetRing,
        key: ChannelKey,
        asker: Asker,
        result: &Result<Recovery, ErrorCode>,
        now: Instant,
    ) {
        let connection = Key(asker.connection);
        // Another connection may be in its place by now.
        if self.connections.get_mut(connection).is_none() {
            return;
        }
        let subscriptions = &mut self.core.subscriptions;
        let (slot, command) = (slot(connection), asker.command);
        let (here, name) = (
            subscriptions.position(key),
            subscriptions.name(key).cloned(),
        );
        let Some(name) = name else {
            return;
        };
        if !subscriptions.recovered(key, slot, command) {
            return;
        }
        let result = match result {
            Ok(recovery) if here == Some(recovery.position) => Ok(Subscribed {
                position: here,
                recovery: Some(recovery),
            }),
            Ok(recovery) => {
                tracing::error!(
                    shard = self.index,
                    channel = %name,
                    ?here,
                    answered = ?recovery.position,
                    "the engine's answer to a recovery does not fit its deliveries; the client is told to try again"
                );
                self.core.counters.gaps.add(1);
                Err(ErrorCode::Internal)
            }
            Err(error) => Err(*error),
        };
        if result.is_err() {
            self.core.unsubscribe(slot, &name);
        }
        self.step(ring, connection, now, |session, replies, core, at| {
            let mut effect = |effect: Effect<'_>| core.effect(at, effect);
            session.on_subscribed(&name, command, result, now, replies, &mut effect);
        });
    }

    /// The engine has delivered something whose predecessors are missing, against its promise. Its
    /// subscribers must not see what stands behind the gap; they are told instead.
    fn on_gap(&mut self, ring: &mut NetRing, key: ChannelKey, offset: u64, now: Instant) {
        let position = self.core.subscriptions.position(key);
        tracing::error!(
            shard = self.index,
            offset,
            ?position,
            "the engine left out publications of a channel"
        );
        self.core.counters.gaps.add(1);
        if let Some((name, variant)) = self.core.subscriptions.names(key) {
            self.core.engine.unsubscribe(&name, variant, key);
        }
        self.on_lost(ring, key, now);
    }

    /// Something of a channel was lost on its way to this shard: its subscribers are told, and
    /// their SDKs subscribe anew.
    fn on_lost(&mut self, ring: &mut NetRing, key: ChannelKey, now: Instant) {
        let Some((channel, ended)) = self.lose(key) else {
            return;
        };
        tracing::warn!(shard = self.index, %channel, subscribers = ended.len(), "a channel lost publications; its subscribers are told to subscribe anew");
        for slot in ended {
            self.step_at(ring, slot, now, |session, replies, core, at| {
                session.lost(&channel, replies, &mut |effect| core.effect(at, effect));
            });
        }
    }

    /// Something was published in a channel that its subscribers' format cannot carry: they are
    /// disconnected, since they would miss it whenever they came back.
    fn on_inappropriate(&mut self, ring: &mut NetRing, key: ChannelKey, now: Instant) {
        let Some((channel, ended)) = self.lose(key) else {
            return;
        };
        tracing::warn!(shard = self.index, %channel, subscribers = ended.len(), "something other than JSON was published for JSON clients; they are disconnected");
        for slot in ended {
            self.step_at(ring, slot, now, |session, _, core, at| {
                session.disconnect(Disconnect::INAPPROPRIATE_PROTOCOL, &mut |effect| {
                    core.effect(at, effect);
                });
            });
        }
    }

    /// Ends all subscriptions to a channel: its name, and whose they were. None where it is gone.
    fn lose(&mut self, key: ChannelKey) -> Option<(Arc<str>, Vec<Slot>)> {
        let mut ended = Vec::new();
        let subscriptions = &mut self.core.subscriptions;
        let channel = subscriptions.lose(key, &mut |slot| ended.push(slot))?;
        Some((channel, ended))
    }

    fn step_at(
        &mut self,
        ring: &mut NetRing,
        slot: Slot,
        now: Instant,
        step: impl FnOnce(&mut Session, &mut Vec<u8>, &mut Core, At),
    ) {
        if let Some((key, _)) = self.connections.at(slot) {
            self.step(ring, key, now, step);
        }
    }
}
