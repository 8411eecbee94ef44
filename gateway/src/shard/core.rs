//! What a shard's connections work with: subscriptions, engine, timers, spare memory. Apart from
//! the connections themselves, so that both can be borrowed at once.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use flux_runtime::ring::Key;
use flux_runtime::wheel::{TimerKey, TimerWheel};

use crate::authority::{Answer, Asked, Question, QuestionKind, Refusal};
use crate::engine::history::{HistoryOptions, RecoveryRequest};
use crate::engine::{Asker, Engine, PublishOptions};
use crate::protocol::{ConnectRequest, Disconnect, ErrorCode, WireFormat};
use crate::pubsub::{
    ChannelKey, MessageRef, Released, Slot, StreamPosition, Subscribed, Subscriptions,
    Unsubscribed, Variant, Wire,
};
use crate::session::{self, Effect, Session, SessionConfig};

use super::Shared;
use super::buffers::Spares;
use super::connection::slot;
use super::counters::Counters;
use super::links::QUESTIONS_MAX;
use super::users::Users;

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
enum Immediate {
    Subscribed {
        channel: Box<str>,
        id: u32,
        result: Result<Option<StreamPosition>, ErrorCode>,
    },
    Answer(Answer),
}

pub(super) struct Core {
    pub(super) index: u16,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
    pub(super) session_config: Rc<SessionConfig>,
    pub(super) subscriptions: Subscriptions,
    pub(super) engine: Engine,
    pub(super) wheel: TimerWheel<Key>,
    pub(super) spares: Spares,
    /// Set by a session's last effect.
    pub(super) disconnected: Option<Disconnected>,
    pub(super) users: Users,
    /// Questions that the authority has not answered yet.
    pub(super) questions_out: usize,
    immediate: VecDeque<Immediate>,
    replies: Vec<u8>,
}

impl Core {
    pub(super) fn new(
        index: u16,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        session_config: SessionConfig,
        subscriptions: Subscriptions,
        engine: Engine,
        wheel: TimerWheel<Key>,
    ) -> Self {
        let users = Users::new(shared.user_limit.clone());
        Self {
            index,
            shared,
            counters,
            session_config: Rc::new(session_config),
            subscriptions,
            engine,
            wheel,
            spares: Spares::default(),
            disconnected: None,
            users,
            questions_out: 0,
            immediate: VecDeque::new(),
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
        while let Some(immediate) = self.immediate.pop_front() {
            match immediate {
                Immediate::Subscribed {
                    channel,
                    id,
                    result,
                } => {
                    let result = result.map(|position| session::Subscribed {
                        position,
                        recovery: None,
                    });
                    let mut effect = |effect: Effect<'_>| self.effect(at, effect);
                    session.on_subscribed(&channel, id, result, now, &mut replies, &mut effect);
                }
                Immediate::Answer(answer) => {
                    session.on_answer(answer, now, &mut replies, &mut |effect| {
                        self.effect(at, effect);
                    });
                }
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
            if at.wire.unidirectional {
                core.take_connect(at, session, message, now, replies);
            } else if at.wire.format == format {
                session.on_message(message, now, replies, &mut |effect| core.effect(at, effect));
            } else {
                session.disconnect(Disconnect::BAD_REQUEST, &mut |effect| {
                    core.effect(at, effect);
                });
            }
        });
    }

    /// Gives a session of a client that only listens its connect request; what the client says
    /// later is of no use. Nothing at all is a request without anything in it.
    pub(super) fn take_connect(
        &mut self,
        at: At,
        session: &mut Session,
        message: &[u8],
        now: Instant,
        replies: &mut Vec<u8>,
    ) {
        if session.is_connected() {
            return;
        }
        let request = match message.is_empty() {
            true => Ok(ConnectRequest::default()),
            false => at.wire.format.decode_connect_request(message),
        };
        let effect = &mut |effect: Effect<'_>| self.effect(at, effect);
        match request {
            Ok(request) => session.connect_unidirectional(&request, now, replies, effect),
            Err(_) => session.disconnect(Disconnect::BAD_REQUEST, effect),
        }
    }

    /// Carries out one effect of the session at `at`.
    pub(super) fn effect(&mut self, at: At, effect: Effect<'_>) {
        let asker = |command| Asker {
            connection: at.key.0,
            command,
        };
        match effect {
            Effect::Subscribe {
                id,
                channel,
                join_leave,
                delta,
                history,
                recover,
            } => {
                let variant = Variant {
                    wire: at.wire,
                    join_leave,
                    delta,
                };
                self.subscribe(at, id, channel, variant, history, recover);
            }
            Effect::Unsubscribe { channel } => self.unsubscribe(slot(at.key), channel),
            Effect::Publish {
                id,
                channel,
                message,
                options,
            } => self
                .engine
                .publish(channel, message, &options, Some(asker(id))),
            Effect::Join { channel, info } => self.tell(channel, MessageRef::Join(info)),
            Effect::Leave { channel, info } => self.tell(channel, MessageRef::Leave(info)),
            Effect::Enter { channel, info } => self.engine.enter(channel, info),
            Effect::Exit { channel, client } => self.engine.exit(channel, client),
            Effect::History {
                id,
                channel,
                query,
                options,
            } => self.engine.history(channel, query, options, asker(id)),
            Effect::Presence { id, channel } => self.engine.presence(channel, asker(id)),
            Effect::PresenceStats { id, channel } => {
                self.engine.presence_stats(channel, asker(id));
            }
            Effect::Ask(question) => self.ask(at, question),
            Effect::Notify(notice) => self.shared.control.authority.tell(notice),
            Effect::Connected { user } => {
                let is_in = self.users.insert(user, slot(at.key));
                debug_assert!(
                    is_in,
                    "the authority's answer has passed `within_user_limit`"
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

    /// Joins and leaves enter no history, and nobody waits for them.
    fn tell(&mut self, channel: &str, message: MessageRef<'_>) {
        self.engine
            .publish(channel, message, &PublishOptions::default(), None);
    }

    /// Hands a question to the authority. One that finds no room is refused at once.
    fn ask(&mut self, at: At, question: Question) {
        let asked = Asked {
            shard: self.index,
            connection: at.key.0,
            question,
        };
        let refused = if self.questions_out < QUESTIONS_MAX {
            self.shared.control.authority.ask(asked).err()
        } else {
            Some(Box::new(asked))
        };
        match refused {
            None => self.questions_out += 1,
            Some(asked) => {
                self.counters.questions_refused.add(1);
                let answer = refusal(&asked.question.kind, ErrorCode::TooManyRequests.into());
                self.immediate.push_back(Immediate::Answer(answer));
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
        variant: Variant,
        history: Option<HistoryOptions>,
        recover: Option<RecoveryRequest>,
    ) {
        let recover = history.zip(recover);
        let subscribed =
            self.subscriptions
                .subscribe(slot(at.key), channel, variant, id, recover.is_some());
        let result = match subscribed {
            Subscribed::Active { position } => Ok(position),
            Subscribed::Duplicate => Err(ErrorCode::AlreadySubscribed),
            // The engine's word reaches everybody who waits, through the shard's mail.
            Subscribed::Waiting => return,
            Subscribed::First { key, name } => {
                self.engine.subscribe(&name, variant, key, history);
                self.recover(at, id, &name, key, recover);
                return;
            }
            Subscribed::Recovering { key, name } => {
                self.recover(at, id, &name, key, recover);
                return;
            }
        };
        self.immediate.push_back(Immediate::Subscribed {
            channel: channel.into(),
            id,
            result,
        });
    }

    fn recover(
        &mut self,
        at: At,
        id: u32,
        name: &Arc<str>,
        key: ChannelKey,
        recover: Option<(HistoryOptions, RecoveryRequest)>,
    ) {
        if let Some((history, request)) = recover {
            let asker = Asker {
                connection: at.key.0,
                command: id,
            };
            self.engine.recover(name, key, request, history, asker);
        }
    }

    /// Ends a subscription, and the channel with the last one.
    pub(super) fn unsubscribe(&mut self, slot: Slot, channel: &str) {
        if let Unsubscribed::Left(Some(released)) = self.subscriptions.unsubscribe(slot, channel) {
            unsubscribe(&mut self.engine, &released);
        }
    }
}

fn unsubscribe(engine: &mut Engine, released: &Released) {
    engine.unsubscribe(&released.name, released.variant, released.key);
}

/// The refusing answer to a question of this kind.
fn refusal(kind: &QuestionKind, refusal: Refusal) -> Answer {
    match kind {
        QuestionKind::Connect { .. } => Answer::Connect(Err(refusal)),
        QuestionKind::Refresh { .. } => Answer::Refresh(Err(refusal)),
        QuestionKind::Subscribe { .. } => Answer::Subscribe(Err(refusal)),
        QuestionKind::SubRefresh { .. } => Answer::SubRefresh(Err(refusal)),
        QuestionKind::Publish { .. } => Answer::Publish(Err(refusal)),
        QuestionKind::Rpc { .. } => Answer::Rpc(Err(refusal)),
    }
}
