//! A client with its session, under virtual time.

use std::rc::Rc;
use std::time::{Duration, Instant};

use flux_gateway::authority::{
    Answer, ConnectGrant, NoticeKind, Question, QuestionKind, SubscribeGrant,
};
use flux_gateway::engine::history::{HistoryOptions, HistoryQuery, RecoveryRequest};
use flux_gateway::protocol::{ClientId, ErrorCode, WireFormat};
use flux_gateway::pubsub::MessageRef;
use flux_gateway::session::{
    ChannelOptions, ChannelRules, Door, Effect, Session, SessionConfig, Subscribed,
};

/// The id of every client here, as text.
pub(crate) const CLIENT: &str = "00000000-0000-4000-8000-000080000000";

/// An effect that outlives the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Subscribe(u32, String, bool),
    /// Only what goes beyond a plain subscribe; follows it.
    With {
        delta: bool,
        history: Option<HistoryOptions>,
        recover: Option<RecoveryRequest>,
    },
    Unsubscribe(String),
    Publish(u32, String, String),
    /// Follows a publish with more to it than data.
    Kept {
        history: Option<HistoryOptions>,
        delta: bool,
    },
    Join(String),
    Leave(String),
    Enter(String),
    Exit(String),
    History(u32, String, HistoryQuery),
    Presence(u32, String),
    PresenceStats(u32, String),
    Ask(Box<Question>),
    Notify(NoticeKind),
    Connected(String),
    Message(String),
    Close(u16, String),
}

/// What an effect is, in one or two pieces.
pub(crate) fn seen(effect: Effect<'_>, seen: &mut Vec<Seen>) {
    let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
    let owned = str::to_owned;
    let one = match effect {
        Effect::Subscribe {
            id,
            channel,
            join_leave,
            delta,
            history,
            recover,
        } => {
            seen.push(Seen::Subscribe(id, owned(channel), join_leave));
            if !delta && history.is_none() && recover.is_none() {
                return;
            }
            Seen::With {
                delta,
                history,
                recover,
            }
        }
        Effect::Unsubscribe { channel } => Seen::Unsubscribe(owned(channel)),
        Effect::Publish {
            id,
            channel,
            message,
            options,
        } => {
            let MessageRef::Publication { data, delta, .. } = message else {
                panic!("clients publish publications");
            };
            seen.push(Seen::Publish(id, owned(channel), text(data)));
            if !delta && options.history.is_none() {
                return;
            }
            let history = options.history;
            Seen::Kept { history, delta }
        }
        Effect::Join { channel, .. } => Seen::Join(owned(channel)),
        Effect::Leave { channel, .. } => Seen::Leave(owned(channel)),
        Effect::Enter { channel, .. } => Seen::Enter(owned(channel)),
        Effect::Exit { channel, .. } => Seen::Exit(owned(channel)),
        Effect::History {
            id, channel, query, ..
        } => Seen::History(id, owned(channel), query),
        Effect::Presence { id, channel } => Seen::Presence(id, owned(channel)),
        Effect::PresenceStats { id, channel } => Seen::PresenceStats(id, owned(channel)),
        Effect::Ask(question) => Seen::Ask(Box::new(question)),
        Effect::Notify(notice) => Seen::Notify(notice.kind),
        Effect::Connected { user } => Seen::Connected(owned(user)),
        Effect::Message { data } => Seen::Message(text(data)),
        Effect::Close(disconnect) => Seen::Close(disconnect.code, owned(disconnect.reason)),
    };
    seen.push(one);
}

pub(crate) fn closed(code: u16, reason: &str) -> Seen {
    Seen::Close(code, reason.to_owned())
}

pub(crate) struct Client {
    pub(crate) session: Session,
    pub(crate) now: Instant,
    /// All effects so far.
    pub(crate) seen: Vec<Seen>,
}

/// Everything is allowed to everybody.
pub(crate) fn open_config() -> SessionConfig {
    SessionConfig {
        node: "gateway-2".to_owned(),
        version: "flux".to_owned(),
        allow_anonymous: true,
        channels: ChannelRules::flat(ChannelOptions {
            join_leave: false,
            ..ChannelOptions::open()
        }),
        ..SessionConfig::default()
    }
}

/// As [`open_config`], with options of one's own for channels without a namespace.
pub(crate) fn config_with(set: impl FnOnce(&mut ChannelOptions)) -> SessionConfig {
    let mut config = open_config();
    set(&mut config.channels.without_namespace);
    config
}

/// Ten publications for a minute.
pub(crate) fn keep_history(options: &mut ChannelOptions) {
    options.history_size = 10;
    options.history_ttl = Duration::from_secs(60);
}

impl Client {
    pub(crate) fn new(config: SessionConfig) -> Self {
        Self::with_id(&Rc::new(config), ClientId::from_random(1 << 31))
    }

    pub(crate) fn with_id(config: &Rc<SessionConfig>, id: ClientId) -> Self {
        Self::at_door(config, Door::websocket(WireFormat::Json), id)
    }

    pub(crate) fn at_door(config: &Rc<SessionConfig>, door: Door, id: ClientId) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(Rc::clone(config), door, id, now),
            now,
            seen: Vec::new(),
        }
    }

    /// One that has connected, with nothing seen yet.
    pub(crate) fn connected(config: SessionConfig) -> Self {
        let mut client = Self::new(config);
        client.sends(r#"{"id":1,"connect":{}}"#);
        assert!(client.session.is_connected());
        client.seen.clear();
        client
    }

    /// One that has connected with a token, with nothing seen yet.
    pub(crate) fn granted(config: SessionConfig, grant: ConnectGrant) -> Self {
        let mut client = Self::new(config);
        client.sends(r#"{"id":1,"connect":{"token":"t"}}"#);
        client.answers(Answer::Connect(Ok(grant)));
        assert!(client.session.is_connected());
        client.seen.clear();
        client
    }

    /// Lets the session take a step; what it writes.
    pub(crate) fn step(
        &mut self,
        step: impl FnOnce(&mut Session, Instant, &mut Vec<u8>, &mut dyn FnMut(Effect<'_>)),
    ) -> String {
        let mut out = Vec::new();
        let effects = &mut self.seen;
        step(&mut self.session, self.now, &mut out, &mut |effect| {
            seen(effect, effects);
        });
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    /// The text that one message is answered with.
    pub(crate) fn sends(&mut self, message: &str) -> String {
        self.sends_bytes(message.as_bytes())
    }

    pub(crate) fn sends_bytes(&mut self, message: &[u8]) -> String {
        self.step(|session, now, out, mut effect| {
            session.on_message(message, now, out, &mut effect);
        })
    }

    pub(crate) fn subscribed(
        &mut self,
        channel: &str,
        id: u32,
        result: Result<(), ErrorCode>,
    ) -> String {
        self.subscribed_at(channel, id, result.map(|()| Subscribed::default()))
    }

    pub(crate) fn subscribed_at(
        &mut self,
        channel: &str,
        id: u32,
        result: Result<Subscribed<'_>, ErrorCode>,
    ) -> String {
        self.step(|session, now, out, mut effect| {
            session.on_subscribed(channel, id, result, now, out, &mut effect);
        })
    }

    pub(crate) fn published(&mut self, id: u32, result: Result<(), ErrorCode>) -> String {
        self.step(|session, _, out, _| session.on_published(id, result.map(|()| None), out))
    }

    pub(crate) fn answers(&mut self, answer: Answer) -> String {
        self.step(|session, now, out, mut effect| {
            session.on_answer(answer, now, out, &mut effect);
        })
    }

    /// Lets time pass up to `after`, with every timer that is due on the way; what was sent.
    pub(crate) fn waits(&mut self, after: Duration) -> Vec<String> {
        let until = self.now + after;
        let mut sent = Vec::new();
        while let Some(due) = self.session.deadline().filter(|due| *due <= until) {
            self.now = due;
            sent.extend(self.fires());
        }
        self.now = until;
        sent
    }

    /// As [`Self::waits`], with a pong for every ping; what was sent besides.
    pub(crate) fn waits_alive(&mut self, after: Duration) -> Vec<String> {
        let until = self.now + after;
        let mut sent = Vec::new();
        while let Some(due) = self.session.deadline().filter(|due| *due <= until) {
            self.now = due;
            for message in self.fires().iter().flat_map(|sent| sent.lines()) {
                if message == "{}" {
                    self.sends("{}");
                } else {
                    sent.push(message.to_owned());
                }
            }
        }
        self.now = until;
        sent
    }

    /// Calls the timer now, due or not.
    pub(crate) fn fires(&mut self) -> Option<String> {
        let out = self.step(|session, now, out, mut effect| {
            session.on_timer(now, out, &mut effect);
        });
        (!out.is_empty()).then_some(out)
    }

    /// The effects since the last time.
    pub(crate) fn effects(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// The questions since the last time; there was nothing else.
    pub(crate) fn questions(&mut self) -> Vec<QuestionKind> {
        let effects = self.effects().into_iter();
        effects
            .map(|effect| match effect {
                Seen::Ask(question) => question.kind,
                other => panic!("{other:?} is no question"),
            })
            .collect()
    }
}

/// Credentials of a user that never expire.
pub(crate) fn user(user: &str) -> ConnectGrant {
    ConnectGrant {
        user: user.to_owned(),
        ..ConnectGrant::default()
    }
}

/// A server-side subscription as the channel's options have it.
pub(crate) fn sub(channel: &str) -> (String, SubscribeGrant) {
    (channel.to_owned(), SubscribeGrant::default())
}

/// The reply to a command that failed.
pub(crate) fn error(id: u32, code: ErrorCode) -> String {
    format!(
        r#"{{"id":{id},"error":{{"code":{},"message":"{}"}}}}"#,
        code.code(),
        code.message()
    )
}
