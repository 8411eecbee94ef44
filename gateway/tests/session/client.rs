//! A client with its session, under virtual time.

use std::rc::Rc;
use std::time::{Duration, Instant};

use flux_gateway::protocol::{ClientId, ErrorCode, WireFormat};
use flux_gateway::session::{ChannelOptions, ChannelRules, Effect, Session, SessionConfig};

/// The id of every client here, as text.
pub(crate) const CLIENT: &str = "00000000-0000-4000-8000-000080000000";

/// An effect that outlives the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Subscribe(u32, String, bool),
    Unsubscribe(String),
    Publish(u32, String, String),
    Join(String),
    Leave(String),
    Message(String),
    Close(u16, String),
}

impl From<Effect<'_>> for Seen {
    fn from(effect: Effect<'_>) -> Self {
        let text = |data: &[u8]| String::from_utf8(data.to_vec()).expect("JSON is UTF-8");
        match effect {
            Effect::Subscribe {
                id,
                channel,
                join_leave,
            } => Self::Subscribe(id, channel.to_owned(), join_leave),
            Effect::Unsubscribe { channel } => Self::Unsubscribe(channel.to_owned()),
            Effect::Publish {
                id, channel, data, ..
            } => Self::Publish(id, channel.to_owned(), text(data)),
            Effect::Join { channel, .. } => Self::Join(channel.to_owned()),
            Effect::Leave { channel, .. } => Self::Leave(channel.to_owned()),
            Effect::Message { data } => Self::Message(text(data)),
            Effect::Close(disconnect) => Self::Close(disconnect.code, disconnect.reason.to_owned()),
        }
    }
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

impl Client {
    pub(crate) fn new(config: SessionConfig) -> Self {
        Self::with_id(&Rc::new(config), ClientId::from_random(1 << 31))
    }

    pub(crate) fn with_id(config: &Rc<SessionConfig>, id: ClientId) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(Rc::clone(config), WireFormat::Json, id, now),
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

    /// The text that one message is answered with.
    pub(crate) fn sends(&mut self, message: &str) -> String {
        self.sends_bytes(message.as_bytes())
    }

    pub(crate) fn sends_bytes(&mut self, message: &[u8]) -> String {
        let mut out = Vec::new();
        let seen = &mut self.seen;
        self.session
            .on_message(message, self.now, &mut out, &mut |effect| {
                seen.push(effect.into());
            });
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    pub(crate) fn subscribed(
        &mut self,
        channel: &str,
        id: u32,
        result: Result<(), ErrorCode>,
    ) -> String {
        let mut out = Vec::new();
        let seen = &mut self.seen;
        self.session
            .on_subscribed(channel, id, result, &mut out, &mut |effect| {
                seen.push(effect.into());
            });
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    pub(crate) fn published(&mut self, id: u32, result: Result<(), ErrorCode>) -> String {
        let mut out = Vec::new();
        self.session.on_published(id, result, &mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
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

    /// Calls the timer now, due or not.
    pub(crate) fn fires(&mut self) -> Option<String> {
        let mut out = Vec::new();
        let seen = &mut self.seen;
        self.session.on_timer(self.now, &mut out, &mut |effect| {
            seen.push(effect.into());
        });
        (!out.is_empty()).then(|| String::from_utf8(out).expect("JSON is UTF-8"))
    }

    /// The effects since the last time.
    pub(crate) fn effects(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }
}
