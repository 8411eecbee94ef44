//! What a shard's connections work with: subscriptions, engine, timers, spare memory. Apart from
//! the connections themselves, so that both can be borrowed at once.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use flux_runtime::ring::Key;
use flux_runtime::wheel::{TimerKey, TimerWheel};

use crate::authority::{Answer, QuestionKind};
use crate::engine::history::HistoryOptions;
use crate::engine::{Asker, Engine, PublishOptions};
use crate::protocol::{Disconnect, ErrorCode, WireFormat};
use crate::pubsub::{
    MessageRef, Released, StreamPosition, Subscribed, Subscriptions, Unsubscribed, Variant, Wire,
};
use crate::session::{self, Effect, Session, SessionConfig};

use super::Shared;
use super::buffers::Spares;
use super::connection::slot;
use super::counters::Counters;

/// A session's place, and how its client is spoken to.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) key: Key,
    pub(super) wire: Wire,
}

/// Why a session asks for its connection to be closed.
#[derive(Debug)]
pub(super) struct Disconnected {
    pub(super) code: u16,
    pub(super) reason: String,
}

/// An answer that was there at once, while the session that asked was still busy.
enum Ready {
    Subscribed(Box<str>, u32, Result<Option<StreamPosition>, ErrorCode>),
    Answer(Answer),
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
    answers: VecDeque<Ready>,
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
        at: At,
        session: &mut Session,
        out: &mut Vec<u8>,
        now: Instant,
        step: impl FnOnce(&mut Session, &mut Vec<u8>, &mut Core),
    ) {
        let mut replies = std::mem::take(&mut self.replies);
        step(session, &mut replies, self);
        while let Some(answer) = self.answers.pop_front() {
            let effect = &mut |effect: Effect<'_>| self.effect(at, effect);
            match answer {
                Ready::Subscribed(channel, id, result) => {
                    let result = result.map(|position| session::Subscribed {
                        position,
                        recovery: None,
                    });
                    session.on_subscribed(&channel, id, result, now, &mut replies, effect);
                }
                Ready::Answer(answer) => session.on_answer(answer, now, &mut replies, effect),
            }
        }
        at.wire.frame_into(out, &replies);
        replies.clear();
        self.replies = replies;
    }

    /// Gives a session a WebSocket message of commands. Text messages carry JSON, binary ones
    /// Protobuf; what the session's format is not is refused with 3501.
    pub(super) fn take_message(
        &mut self,
        at: At,
        session: &mut Session,
        out: &mut Vec<u8>,
        format: WireFormat,
        message: &[u8],
        now: Instant,
    ) {
        if self.disconnected.is_some() {
            return;
        }
        self.drive(at, session, out, now, |session, replies, core| {
            if at.wire.format == format {
                session.on_message(message, now, replies, &mut |effect| core.effect(at, effect));
            } else {
                session.disconnect(Disconnect::BAD_REQUEST, &mut |effect| {
                    core.effect(at, effect);
                });
            }
        });
    }

    /// Carries out one effect of the session at `at`.
    pub(super) fn effect(&mut self, at: At, effect: Effect<'_>) {
        match effect {
            Effect::Subscribe {
                id,
                channel,
                join_leave,
                delta,
                history,
                ..
            } => {
                self.subscribe(at, id, channel, (join_leave, delta), history);
            }
            Effect::Unsubscribe { channel } => {
                if let Unsubscribed::Left(Some(released)) =
                    self.subscriptions.unsubscribe(slot(at.key), channel)
                {
                    unsubscribe(&mut self.engine, &released);
                }
            }
            Effect::Publish {
                id,
                channel,
                message,
                options,
            } => {
                self.engine
                    .publish(channel, message, &options, Some(asker(at, id)));
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
            Effect::Enter { channel, info } => self.engine.enter(channel, info),
            Effect::Exit { channel, client } => self.engine.exit(channel, client),
            Effect::History {
                id,
                channel,
                query,
                options,
            } => self.engine.history(channel, query, options, asker(at, id)),
            Effect::Presence { id, channel } => self.engine.presence(channel, asker(at, id)),
            Effect::PresenceStats { id, channel } => {
                self.engine.presence_stats(channel, asker(at, id));
            }
            // Nobody checks tokens yet, and no backend is asked.
            Effect::Ask(question) => self.answers.push_back(Ready::Answer(no(&question.kind))),
            Effect::Notify(_) | Effect::Connected { .. } => {}
            Effect::Message { .. } => self.counters.messages_dropped.add(1),
            Effect::Close(disconnect) => {
                self.disconnected = Some(Disconnected {
                    code: disconnect.code,
                    reason: disconnect.reason.to_owned(),
                });
            }
        }
    }

    /// A timer stays armed for the earlier time when a session's deadline moves away, and is armed
    /// again when it fires; but the first ping may be due before a newcomer's patience would have
    /// ended.
    pub(super) fn bring_forward(
        &mut self,
        timer: Option<TimerKey>,
        was_due: Option<Instant>,
        due: Option<Instant>,
    ) {
        if let (Some(timer), Some(due)) = (timer, due)
            && was_due.is_some_and(|was_due| due < was_due)
        {
            self.wheel.reset(timer, due);
        }
    }

    /// Ends everything that the place of `key` is subscribed to.
    pub(super) fn release(&mut self, key: Key) {
        let engine = &mut self.engine;
        self.subscriptions
            .close(slot(key), &mut |released| unsubscribe(engine, &released));
    }

    fn subscribe(
        &mut self,
        at: At,
        id: u32,
        channel: &str,
        (join_leave, delta): (bool, bool),
        history: Option<HistoryOptions>,
    ) {
        let variant = Variant {
            wire: at.wire,
            join_leave,
            delta,
        };
        let result = match self
            .subscriptions
            .subscribe(slot(at.key), channel, variant, id, false)
        {
            Subscribed::Active { position } => Ok(position),
            Subscribed::Duplicate => Err(ErrorCode::AlreadySubscribed),
            // The engine's word reaches everybody who waits, through the shard's mail.
            Subscribed::Waiting | Subscribed::Recovering { .. } => return,
            Subscribed::First { key, name } => {
                self.engine.subscribe(&name, variant, key, history);
                return;
            }
        };
        self.answers
            .push_back(Ready::Subscribed(channel.into(), id, result));
    }
}

fn asker(at: At, command: u32) -> Asker {
    Asker {
        connection: at.key.0,
        command,
    }
}

/// The answer where nobody can say yes.
fn no(question: &QuestionKind) -> Answer {
    let invalid_token = || Disconnect::INVALID_TOKEN.into();
    let not_available = || ErrorCode::NotAvailable.into();
    match question {
        QuestionKind::Connect { .. } => Answer::Connect(Err(invalid_token())),
        QuestionKind::Refresh { .. } => Answer::Refresh(Err(invalid_token())),
        QuestionKind::Subscribe { .. } => {
            Answer::Subscribe(Err(ErrorCode::PermissionDenied.into()))
        }
        QuestionKind::SubRefresh { .. } => Answer::SubRefresh(Err(invalid_token())),
        QuestionKind::Publish { .. } => Answer::Publish(Err(not_available())),
        QuestionKind::Rpc { .. } => Answer::Rpc(Err(not_available())),
    }
}

fn unsubscribe(engine: &mut Engine, released: &Released) {
    engine.unsubscribe(&released.name, released.variant, released.key);
}
