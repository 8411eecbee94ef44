//! One session and what an honest observer knows of it: what it was asked, what others owe it, what its
//! client and the world around it were told.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use flux_gateway::authority::{QuestionKind, SubscribeGrant};
use flux_gateway::engine::PresenceStats;
use flux_gateway::engine::history::{HistoryPage, Recovery};
use flux_gateway::protocol::{ClientId, Disconnect, ErrorCode, Unsubscribe};
use flux_gateway::pubsub::{Epoch, StreamPosition};
use flux_gateway::session::{SessionConfig, Subscribed};
use serde_json::Value;

use super::{CHANNELS, answer};
use crate::client::{Client, Seen};

/// What an honest observer of one session knows.
pub(super) struct Observed {
    pub(super) client: Client,
    pub(super) next_id: u32,
    /// The connect command that is not answered.
    connecting: Option<u32>,
    /// Commands whose replies come in the order in which they were sent.
    pub(super) ordered: Vec<u32>,
    /// Commands whose replies come in any order.
    pub(super) unanswered: HashSet<u32>,
    /// What others owe.
    pub(super) owed: Vec<Owed>,
    subscribed: HashMap<String, Presence>,
    /// Channels left, whose effects are not all there.
    leaving: HashMap<String, Presence>,
    /// As the backend was told.
    told: HashSet<String>,
    ping_out: bool,
    pub(super) closed: bool,
    client_renews: bool,
}

/// How much of a client others see in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Presence {
    is_live: bool,
    entered: bool,
    joined: bool,
}

#[derive(Debug)]
pub(super) enum Owed {
    Subscribed(String, u32, bool),
    Published(u32),
    History(u32),
    Presence(u32),
    PresenceStats(u32),
    Answer(QuestionKind),
}

impl Observed {
    pub(super) fn new(config: &Rc<SessionConfig>, random: &mut Rng) -> Self {
        Self {
            client: Client::with_id(config, ClientId::from_random(random.u128(..))),
            next_id: 1,
            connecting: None,
            ordered: Vec::new(),
            unanswered: HashSet::new(),
            owed: Vec::new(),
            subscribed: HashMap::new(),
            leaving: HashMap::new(),
            told: HashSet::new(),
            ping_out: false,
            closed: false,
            client_renews: !config.refresh_proxy,
        }
    }

    fn id(&mut self, ordered: bool) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        if ordered {
            self.ordered.push(id);
        } else {
            self.unanswered.insert(id);
        }
        id
    }

    fn command(&mut self, random: &mut Rng) -> String {
        let channel = random.choice(CHANNELS).expect("not empty");
        let kind = random.u32(..120);
        let body = match kind {
            0..30 => {
                let token = random.choice(["", "", "t"]).expect("not empty");
                let [join_leave, recover, fails] = std::array::from_fn(|_| random.bool());
                let flag = if fails { 3 } else { 1 };
                format!(
                    r#""subscribe":{{"channel":"{channel}","join_leave":{join_leave},"recover":{recover},"recoverable":true,"token":"{token}","flag":{flag}}}"#
                )
            }
            30..50 => format!(r#""unsubscribe":{{"channel":"{channel}"}}"#),
            50..65 => format!(r#""publish":{{"channel":"{channel}","data":1}}"#),
            65..80 => r#""rpc":{"method":"m"}"#.to_owned(),
            80..86 => return r#"{"send":{"data":1}}"#.to_owned(),
            86..93 => format!(r#""history":{{"channel":"{channel}","limit":1}}"#),
            93..98 => format!(r#""presence":{{"channel":"{channel}"}}"#),
            98..103 => format!(r#""presence_stats":{{"channel":"{channel}"}}"#),
            // Where the backend renews it would be the end.
            103..108 if self.client_renews || random.u32(..20) == 0 => {
                r#""refresh":{"token":"t"}"#.to_owned()
            }
            103..108 => r#""rpc":{"method":"x:m"}"#.to_owned(),
            108..119 => format!(r#""sub_refresh":{{"channel":"{channel}","token":"t"}}"#),
            _ if random.u32(..4) > 0 => return r#"{"send":{}}"#.to_owned(),
            _ => {
                let broken = ["{", "{}", r#"{"id":9}"#, r#"{"id":9,"connect":{}}"#];
                return random.choice(broken).expect("not empty").to_owned();
            }
        };
        let id = self.id(body.contains("rpc"));
        format!(r#"{{"id":{id},{body}}}"#)
    }

    pub(super) fn step(&mut self, random: &mut Rng) {
        match random.u32(..20) {
            0..9 => {
                let is_new = !self.client.session.is_connected() && self.connecting.is_none();
                let frame = if is_new && !self.closed {
                    let id = self.id(true);
                    self.connecting = Some(id);
                    let token = random.choice(["", "t"]).expect("not empty");
                    format!(r#"{{"id":{id},"connect":{{"token":"{token}"}}}}"#)
                } else if self.ping_out && random.u32(..10) > 0 {
                    self.ping_out = false;
                    "{}".to_owned()
                } else {
                    let commands = random.usize(1..4);
                    let lines: Vec<_> = (0..commands).map(|_| self.command(random)).collect();
                    lines.join("\n")
                };
                let out = self.client.sends(&frame);
                self.observe(&out);
            }
            9..15 => self.others_answer(random),
            15..17 => self.server_acts(random),
            _ => {
                let wait = Duration::from_millis(random.u64(..6_000));
                let sent = self.client.waits(wait).join("\n");
                self.observe(&sent);
            }
        }
    }

    fn server_acts(&mut self, random: &mut Rng) {
        let channel = *random.choice(CHANNELS.iter()).expect("not empty");
        let action = random.u32(..200);
        let seconds = Duration::from_secs(random.u64(1..30));
        let out = self
            .client
            .step(|session, now, out, mut effect| match action {
                0..30 => {
                    let grant = SubscribeGrant::default();
                    // Whether it can be is not the point.
                    let _ = session.subscribe_by_server(channel, grant, None, now, &mut effect);
                }
                30..100 => session.unsubscribe(channel, Unsubscribe::SERVER, out, &mut effect),
                100..150 => {
                    session.refresh_by_server(false, Some(seconds), None, now, out, &mut effect);
                }
                150..180 => session.send(b"1", out),
                180..199 => session.lost(channel, out, &mut effect),
                _ => session.disconnect(Disconnect::FORCE_RECONNECT, &mut effect),
            });
        self.observe(&out);
    }

    pub(super) fn others_answer(&mut self, random: &mut Rng) {
        if self.owed.is_empty() {
            return;
        }
        let owed = self.owed.swap_remove(random.usize(..self.owed.len()));
        let failed = random.u32(..10) == 0;
        fn result<T>(failed: bool, value: T) -> Result<T, ErrorCode> {
            if failed {
                Err(ErrorCode::Internal)
            } else {
                Ok(value)
            }
        }
        let position = StreamPosition {
            epoch: Epoch::from_random(7),
            offset: 9,
        };
        let out = match owed {
            Owed::Subscribed(channel, id, recovers) => {
                let recovery = Recovery {
                    position,
                    recovered: random.bool(),
                    publications: Arc::from([]),
                };
                let subscribed = Subscribed {
                    position: Some(position),
                    recovery: recovers.then_some(&recovery),
                };
                let before = self.client.session.subscription_count();
                let out = self
                    .client
                    .subscribed_at(&channel, id, result(failed, subscribed));
                let is_gone = self.client.session.subscription_count() < before;
                if failed && is_gone && !self.client.session.is_closed() {
                    let presence = self.subscribed.remove(&channel);
                    assert_eq!(presence, Some(Presence::default()));
                } else if failed && is_gone {
                    // Refused while connecting: no effect undoes what never was.
                    self.subscribed.remove(&channel);
                }
                out
            }
            Owed::Published(id) => self.client.published(id, result(failed, ())),
            Owed::History(id) => {
                let page = HistoryPage {
                    publications: Arc::from([]),
                    position,
                };
                let result = if failed {
                    Err(ErrorCode::Internal)
                } else {
                    Ok(&page)
                };
                self.client
                    .step(|session, _, out, _| session.on_history(id, result, out))
            }
            Owed::Presence(id) => {
                let result = result(failed, &[][..]);
                self.client
                    .step(|session, _, out, _| session.on_presence(id, result, out))
            }
            Owed::PresenceStats(id) => {
                let result = result(failed, PresenceStats::default());
                self.client
                    .step(|session, _, out, _| session.on_presence_stats(id, result, out))
            }
            Owed::Answer(question) => {
                let answer = answer(&question, random);
                self.client.answers(answer)
            }
        };
        self.observe(&out);
    }

    fn ask(&mut self, kind: QuestionKind) {
        let is_own = |kind: &QuestionKind| matches!(kind, QuestionKind::Refresh { token } | QuestionKind::SubRefresh { token, .. } if token.is_empty());
        for owed in &self.owed {
            if let Owed::Answer(other) = owed {
                assert_ne!(
                    std::mem::discriminant(other),
                    std::mem::discriminant(&kind),
                    "answers could not be told apart"
                );
                assert!(
                    is_own(other) || is_own(&kind),
                    "{kind:?} while {other:?} waits"
                );
            }
        }
        self.owed.push(Owed::Answer(kind));
    }

    /// Holds what came out against what may come out.
    fn observe(&mut self, out: &str) {
        let effects = self.client.effects();
        if self.closed {
            assert_eq!(out, "", "a message after the close");
            assert_eq!(effects, [], "an effect after the close");
            return;
        }
        for effect in effects {
            assert!(!self.closed, "{effect:?} after the close");
            self.observe_effect(effect);
        }
        for message in out.lines() {
            let message: Value = serde_json::from_str(message).expect("JSON");
            self.observe_message(&message);
        }
        assert_eq!(self.closed, self.client.session.is_closed());
        assert!(self.leaving.is_empty(), "{:?} left behind", self.leaving);
        if self.closed {
            assert!(
                self.subscribed.is_empty() && self.told.is_empty(),
                "{:?} left behind",
                self.subscribed
            );
        } else {
            assert!(self.client.session.deadline().is_some());
            let channels: HashSet<_> = self.client.session.channels().collect();
            let expected: HashSet<_> = self.subscribed.keys().map(String::as_str).collect();
            assert_eq!(channels, expected);
        }
    }

    fn observe_effect(&mut self, effect: Seen) {
        // The leave is the last of an end.
        self.leaving
            .retain(|_, presence| presence.joined || presence.entered);
        match effect {
            Seen::Subscribe(id, channel, _) => {
                assert!(id == 0 || self.unanswered.contains(&id));
                let second = self.subscribed.insert(channel.clone(), Presence::default());
                assert_eq!(second, None, "subscribed twice to {channel}");
                self.owed.push(Owed::Subscribed(channel, id, false));
            }
            Seen::With { recover, .. } => {
                let Some(Owed::Subscribed(_, _, recovers)) = self.owed.last_mut() else {
                    panic!("with nothing");
                };
                *recovers = recover.is_some();
            }
            Seen::Unsubscribe(channel) => {
                let presence = self.subscribed.remove(&channel);
                let presence = presence.unwrap_or_else(|| panic!("not subscribed to {channel}"));
                // A pending one needs no answer any more.
                self.owed
                    .retain(|owed| !matches!(owed, Owed::Subscribed(name, ..) if *name == channel));
                if presence.joined || presence.entered {
                    self.leaving.insert(channel, presence);
                }
            }
            Seen::Enter(channel) => {
                let presence = self.subscribed.get_mut(&channel).expect("subscribed");
                presence.entered = true;
            }
            Seen::Join(channel) => {
                let presence = self.subscribed.get_mut(&channel).expect("subscribed");
                assert!(!std::mem::replace(&mut presence.joined, true));
            }
            Seen::Exit(channel) => {
                let presence = self.leaving.get_mut(&channel).expect("just left");
                assert!(std::mem::replace(&mut presence.entered, false));
            }
            Seen::Leave(channel) => {
                let presence = self.leaving.remove(&channel).expect("just left");
                assert!(presence.joined && !presence.entered);
            }
            Seen::Publish(id, ..) => self.owe(id, Owed::Published(id)),
            Seen::History(id, ..) => self.owe(id, Owed::History(id)),
            Seen::Presence(id, ..) => self.owe(id, Owed::Presence(id)),
            Seen::PresenceStats(id, ..) => self.owe(id, Owed::PresenceStats(id)),
            Seen::Ask(question) => self.ask(question.kind),
            Seen::Notify(kind) => self.observe_notice(kind),
            Seen::Connected(_) => assert!(self.connecting.is_some(), "connected twice"),
            Seen::Close(..) => self.closed = true,
            Seen::Message(_) | Seen::Kept { .. } => {}
        }
        self.leaving
            .retain(|_, presence| presence.joined || presence.entered);
    }

    fn owe(&mut self, id: u32, owed: Owed) {
        assert!(self.unanswered.contains(&id));
        self.owed.push(owed);
    }

    fn observe_notice(&mut self, kind: flux_gateway::authority::NoticeKind) {
        use flux_gateway::authority::NoticeKind;
        match kind {
            NoticeKind::Subscribed { channel } => assert!(self.told.insert(channel)),
            NoticeKind::Unsubscribed { channel, .. } => assert!(self.told.remove(&channel)),
            NoticeKind::Connected | NoticeKind::Disconnected { .. } => {}
        }
    }

    fn observe_message(&mut self, message: &Value) {
        if message.as_object().is_some_and(serde_json::Map::is_empty) {
            assert!(!self.ping_out, "a ping over a ping");
            self.ping_out = true;
            return;
        }
        if message.get("push").is_some() {
            assert!(self.client.session.is_connected() || self.closed);
            return;
        }
        let id = message["id"].as_u64().expect("a reply has an id") as u32;
        if self.connecting == Some(id) {
            self.connecting = None;
            if message.get("error").is_some() {
                // What was sent behind it was for a session that there is not.
                self.ordered.clear();
                self.unanswered.clear();
                return;
            }
        }
        if self.unanswered.remove(&id) {
            return;
        }
        let first = self.ordered.first().copied();
        assert_eq!(first, Some(id), "a second reply, or one out of order");
        self.ordered.remove(0);
    }
}
