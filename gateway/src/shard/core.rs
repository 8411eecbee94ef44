//! What a shard's connections work with: subscriptions, engine, timers, spare memory. Apart from
//! the connections themselves, so that both can be borrowed at once.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use flux_runtime::ring::Key;
use flux_runtime::wheel::TimerWheel;

use crate::engine::{Asker, Engine, PublishOptions};
use crate::protocol::{ErrorCode, Tags};
use crate::pubsub::{MessageRef, Released, Subscribed, Subscriptions, Unsubscribed, Variant};
use crate::session::{Effect, Session, SessionConfig};
use crate::websocket::{self, Opcode};

use super::Shared;
use super::buffers::Spares;
use super::connection::slot;
use super::counters::Counters;

/// Why a session asks for its connection to be closed.
#[derive(Debug)]
pub(super) struct Disconnected {
    pub(super) code: u16,
    pub(super) reason: String,
}

/// The answer to a subscribe that was there at once, while the session that asked was still busy.
struct Subscription {
    channel: Box<str>,
    id: u32,
    result: Result<(), ErrorCode>,
}

pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
    pub(super) session_config: Rc<SessionConfig>,
    pub(super) subscriptions: Subscriptions,
    pub(super) engine: Engine,
    pub(super) wheel: TimerWheel<Key>,
    pub(super) spares: Spares,
    /// Set by a session's last effect.
    pub(super) disconnected: Option<Disconnected>,
    answers: VecDeque<Subscription>,
    replies: Vec<u8>,
}

impl Core {
    pub(super) fn new(
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        session_config: SessionConfig,
        subscriptions: Subscriptions,
        engine: Engine,
        wheel: TimerWheel<Key>,
    ) -> Self {
        Self {
            shared,
            counters,
            session_config: Rc::new(session_config),
            subscriptions,
            engine,
            wheel,
            spares: Spares::default(),
            disconnected: None,
            answers: VecDeque::new(),
            replies: Vec::new(),
        }
    }

    /// Lets a session take a step, carries out its effects, gives it the answers that are there at
    /// once, and frames what it has to say into `out`.
    pub(super) fn drive(
        &mut self,
        key: Key,
        session: &mut Session,
        out: &mut Vec<u8>,
        step: impl FnOnce(&mut Session, &mut Vec<u8>, &mut Core),
    ) {
        let mut replies = std::mem::take(&mut self.replies);
        step(session, &mut replies, self);
        while let Some(answer) = self.answers.pop_front() {
            let Subscription {
                channel,
                id,
                result,
            } = answer;
            session.on_subscribed(&channel, id, result, &mut replies, &mut |effect| {
                self.effect(key, effect);
            });
        }
        if !replies.is_empty() {
            websocket::frame_into(out, Opcode::Text, &replies);
            replies.clear();
        }
        self.replies = replies;
    }

    /// Carries out one effect of the session behind `key`.
    pub(super) fn effect(&mut self, key: Key, effect: Effect<'_>) {
        match effect {
            Effect::Subscribe {
                id,
                channel,
                join_leave,
            } => {
                self.subscribe(key, id, channel, join_leave);
            }
            Effect::Unsubscribe { channel } => {
                if let Unsubscribed::Left(Some(released)) =
                    self.subscriptions.unsubscribe(slot(key), channel)
                {
                    unsubscribe(&mut self.engine, &released);
                }
            }
            Effect::Publish {
                id,
                channel,
                data,
                info,
            } => {
                let asker = Some(Asker {
                    connection: key.0,
                    command: id,
                });
                let message = MessageRef::Publication {
                    data,
                    info: Some(info),
                    tags: Tags::NONE,
                    delta: false,
                };
                self.engine
                    .publish(channel, message, &PublishOptions::default(), asker);
            }
            Effect::Join { channel, info } => {
                self.engine.publish(
                    channel,
                    MessageRef::Join(info),
                    &PublishOptions::default(),
                    None,
                );
            }
            Effect::Leave { channel, info } => {
                self.engine.publish(
                    channel,
                    MessageRef::Leave(info),
                    &PublishOptions::default(),
                    None,
                );
            }
            Effect::Message { .. } => self.counters.messages_dropped.add(1),
            Effect::Close(disconnect) => {
                self.disconnected = Some(Disconnected {
                    code: disconnect.code,
                    reason: disconnect.reason.to_owned(),
                });
            }
        }
    }

    /// Ends everything that the place of `key` is subscribed to.
    pub(super) fn release(&mut self, key: Key) {
        let engine = &mut self.engine;
        self.subscriptions
            .close(slot(key), &mut |released| unsubscribe(engine, &released));
    }

    fn subscribe(&mut self, key: Key, id: u32, channel: &str, join_leave: bool) {
        let variant = if join_leave {
            Variant::JSON_JOIN_LEAVE
        } else {
            Variant::JSON
        };
        let result = match self
            .subscriptions
            .subscribe(slot(key), channel, variant, id)
        {
            Subscribed::Active => Ok(()),
            Subscribed::Duplicate => Err(ErrorCode::AlreadySubscribed),
            // The engine's word reaches everybody who waits, through the shard's mail.
            Subscribed::Waiting => return,
            Subscribed::First { key, name } => {
                self.engine.subscribe(&name, variant, key, None);
                return;
            }
        };
        self.answers.push_back(Subscription {
            channel: channel.into(),
            id,
            result,
        });
    }
}

fn unsubscribe(engine: &mut Engine, released: &Released) {
    engine.unsubscribe(&released.name, released.variant, released.key);
}
