//! Sessions under virtual time with an engine that answers late and in any order. The seed decides
//! everything; a failure prints it, and `FLUX_SEED=N` runs it again.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use flux_gateway::protocol::{ClientId, ErrorCode};
use flux_gateway::session::{ChannelOptions, ChannelRules, SessionConfig};
use serde_json::Value;

use crate::client::{Client, Seen, open_config};

const SESSIONS: usize = 40;
const STEPS: usize = 400;

/// What an honest observer of one session knows.
struct Observed {
    client: Client,
    next_id: u32,
    /// Commands that need no engine, in the order in which they were sent.
    synchronous: Vec<u32>,
    /// Commands that need the engine.
    unanswered: HashSet<u32>,
    /// What the engine owes.
    owed: Vec<Owed>,
    /// Channels by the effects: whether the client has joined.
    subscribed: HashMap<String, bool>,
    ping_out: bool,
    closed: bool,
}

enum Owed {
    Subscribed(String, u32),
    Published(u32),
}

impl Observed {
    fn new(config: &Rc<SessionConfig>, random: &mut Rng) -> Self {
        Self {
            client: Client::with_id(config, ClientId::from_random(random.u128(..))),
            next_id: 1,
            synchronous: Vec::new(),
            unanswered: HashSet::new(),
            owed: Vec::new(),
            subscribed: HashMap::new(),
            ping_out: false,
            closed: false,
        }
    }

    fn id(&mut self, synchronous: bool) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        if synchronous {
            self.synchronous.push(id);
        } else {
            self.unanswered.insert(id);
        }
        id
    }

    fn command(&mut self, random: &mut Rng) -> String {
        let channel = random
            .choice(["a", "b", "c", "d:e", "$p"])
            .expect("not empty");
        match random.u32(..100) {
            0..30 => {
                let id = self.id(false);
                let join_leave = random.bool();
                format!(
                    r#"{{"id":{id},"subscribe":{{"channel":"{channel}","join_leave":{join_leave}}}}}"#
                )
            }
            30..50 => {
                let id = self.id(false);
                format!(r#"{{"id":{id},"unsubscribe":{{"channel":"{channel}"}}}}"#)
            }
            50..75 => {
                let id = self.id(false);
                format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{id}}}}}"#)
            }
            75..90 => {
                let id = self.id(true);
                format!(r#"{{"id":{id},"rpc":{{"method":"m"}}}}"#)
            }
            90..97 => r#"{"send":{"data":1}}"#.to_owned(),
            97..99 => {
                let id = self.id(true);
                format!(r#"{{"id":{id},"history":{{"channel":"a"}}}}"#)
            }
            _ => random
                .choice(["{", "{}", r#"{"id":9}"#, r#"{"id":9,"connect":{}}"#])
                .expect("not empty")
                .to_owned(),
        }
    }

    fn step(&mut self, random: &mut Rng) {
        match random.u32(..10) {
            0..5 => {
                let frame = if !self.closed && !self.client.session.is_connected() {
                    let id = self.id(true);
                    format!(r#"{{"id":{id},"connect":{{}}}}"#)
                } else if self.ping_out && random.u32(..10) > 0 {
                    self.ping_out = false;
                    "{}".to_owned()
                } else {
                    let commands = random.usize(1..4);
                    let lines: Vec<_> = (0..commands).map(|_| self.command(random)).collect();
                    lines.join("\n")
                };
                let replies = self.client.sends(&frame);
                self.observe(&replies);
            }
            5..8 => self.engine_answers(random),
            _ => {
                let wait = Duration::from_millis(random.u64(..6_000));
                for sent in self.client.waits(wait) {
                    assert_eq!(sent, "{}", "timers send pings and nothing else");
                    assert!(!self.closed && !self.ping_out, "a ping over a ping");
                    self.ping_out = true;
                }
                self.observe("");
            }
        }
    }

    fn engine_answers(&mut self, random: &mut Rng) {
        if self.owed.is_empty() {
            return;
        }
        let owed = self.owed.swap_remove(random.usize(..self.owed.len()));
        let result = if random.u32(..10) == 0 {
            Err(ErrorCode::Internal)
        } else {
            Ok(())
        };
        let reply = match owed {
            Owed::Subscribed(channel, id) => {
                let before = self.client.session.subscription_count();
                let reply = self.client.subscribed(&channel, id, result);
                if self.client.session.subscription_count() < before {
                    assert!(result.is_err());
                    assert_eq!(self.subscribed.remove(&channel), Some(false));
                }
                reply
            }
            Owed::Published(id) => self.client.published(id, result),
        };
        self.observe(&reply);
    }

    /// Holds what came out against what may come out.
    fn observe(&mut self, replies: &str) {
        let effects = self.client.effects();
        if self.closed {
            assert_eq!(replies, "", "a reply after the close");
            assert_eq!(effects, [], "an effect after the close");
            return;
        }
        for effect in effects {
            assert!(!self.closed, "{effect:?} after the close");
            match effect {
                Seen::Subscribe(id, channel, _) => {
                    assert!(self.unanswered.contains(&id));
                    let second = self.subscribed.insert(channel.clone(), false);
                    assert_eq!(second, None, "subscribed twice to {channel}");
                    self.owed.push(Owed::Subscribed(channel, id));
                }
                Seen::Unsubscribe(channel) => {
                    let joined = self.subscribed.remove(&channel);
                    assert!(joined.is_some(), "not subscribed to {channel}");
                    if joined == Some(true) {
                        self.subscribed.insert(format!("left {channel}"), true);
                    }
                }
                Seen::Leave(channel) => {
                    let left = self.subscribed.remove(&format!("left {channel}"));
                    assert_eq!(left, Some(true), "left {channel} without having been there");
                }
                Seen::Join(channel) => {
                    let before = self.subscribed.insert(channel.clone(), true);
                    assert_eq!(before, Some(false), "came to {channel} out of turn");
                }
                Seen::Publish(id, ..) => {
                    assert!(self.unanswered.contains(&id));
                    self.owed.push(Owed::Published(id));
                }
                Seen::Message(_) | Seen::Connected(_) => {}
                Seen::Close(..) => self.closed = true,
                other => panic!("{other:?} is not switched on"),
            }
        }
        for reply in replies.lines() {
            let reply: Value = serde_json::from_str(reply).expect("a reply is JSON");
            let id = reply["id"].as_u64().expect("a reply has an id") as u32;
            if self.unanswered.remove(&id) {
                continue;
            }
            let first = self.synchronous.first().copied();
            assert_eq!(first, Some(id), "a second reply, or one out of order");
            self.synchronous.remove(0);
        }
        assert_eq!(self.closed, self.client.session.is_closed());
        if self.closed {
            assert!(
                self.subscribed.is_empty(),
                "{:?} left behind",
                self.subscribed
            );
        } else {
            assert!(self.client.session.deadline().is_some());
            assert!(
                self.synchronous.is_empty(),
                "no answer to {:?}",
                self.synchronous
            );
            let channels: HashSet<_> = self.client.session.channels().collect();
            let expected: HashSet<_> = self.subscribed.keys().map(String::as_str).collect();
            assert_eq!(channels, expected);
        }
    }
}

fn run(seed: u64) -> (usize, usize) {
    let mut random = Rng::with_seed(seed);
    let mut config = open_config();
    config.channels = ChannelRules::flat(ChannelOptions::open());
    config.limits.pending_commands_max = 6;
    config.limits.channels_max = 2;
    let config = Rc::new(config);
    let mut sessions: Vec<_> = (0..SESSIONS)
        .map(|_| Observed::new(&config, &mut random))
        .collect();
    for _ in 0..STEPS * SESSIONS {
        let at = random.usize(..SESSIONS);
        sessions[at].step(&mut random);
    }
    let mut answered = 0;
    let mut open = 0;
    for session in &mut sessions {
        while !session.owed.is_empty() {
            session.engine_answers(&mut random);
        }
        if !session.closed {
            open += 1;
            assert!(
                session.unanswered.is_empty(),
                "no answer to {:?}",
                session.unanswered
            );
            assert!(!session.client.session.wants_pause(), "nothing is pending");
        }
        answered += session.next_id as usize;
    }
    (answered, open)
}

#[test]
fn every_command_gets_its_one_answer_or_the_close() {
    let first = std::env::var("FLUX_SEED").map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("a number"),
    );
    let mut commands = 0;
    for seed in first..first.saturating_add(20) {
        println!("FLUX_SEED={seed}");
        let (answered, _) = run(seed);
        commands += answered;
    }
    println!("{commands} commands");
    assert!(
        commands > 5_000,
        "the simulation hardly ran: {commands} commands"
    );
}
