//! Sessions under virtual time with an engine and an authority that answer late and in any order,
//! and a server's API that does what it likes. The seed decides everything; a failure prints it,
//! and `FLUX_SEED=N` runs it again.

mod observed;

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use flux_gateway::authority::{
    Answer, ConnectGrant, PublishGrant, QuestionKind, RefreshGrant, Refusal, RpcGrant,
    SubscribeGrant, Wanted,
};
use flux_gateway::limits::Rate;
use flux_gateway::protocol::{Disconnect, ErrorCode};
use flux_gateway::session::{
    ChannelOptions, ChannelRules, Namespace, PersonalChannel, RpcRules, SessionConfig,
};

use self::observed::Observed;
use crate::client::{keep_history, open_config, sub, user};

const SESSIONS: usize = 20;
const STEPS: usize = 400;
const CHANNELS: [&str; 7] = ["a", "b", "c", "d:e", "$p", "back:f", "back:g"];

/// What the authority may say.
fn answer(question: &QuestionKind, random: &mut Rng) -> Answer {
    let refusal: Option<Refusal> = match random.u32(..150) {
        0..25 => Some(ErrorCode::PermissionDenied.into()),
        25 => Some(Disconnect::INVALID_TOKEN.into()),
        _ => None,
    };
    let expires_in = random
        .bool()
        .then(|| Duration::from_secs(random.u64(1..40)));
    let renewed = RefreshGrant {
        expired: random.u32(..30) == 0,
        expires_in,
        info: random.bool().then(|| b"2".to_vec()),
        channels: None,
    };
    fn or<T>(refusal: Option<Refusal>, grant: T) -> Result<T, Refusal> {
        refusal.map_or(Ok(grant), Err)
    }
    match question {
        QuestionKind::Connect { .. } => {
            let subs = ["a", "back:f", "x:y"];
            let count = random.usize(..2) + usize::from(random.u32(..8) == 0);
            let grant = ConnectGrant {
                expires_in,
                subs: subs[..count].iter().map(|channel| sub(channel)).collect(),
                ..user("42")
            };
            Answer::Connect(or(refusal, grant))
        }
        QuestionKind::Refresh { .. } => Answer::Refresh(or(refusal, renewed)),
        QuestionKind::SubRefresh { .. } => Answer::SubRefresh(or(refusal, renewed)),
        QuestionKind::Subscribe { .. } => {
            let grant = SubscribeGrant {
                expires_in,
                info: if random.bool() { b"1".to_vec() } else { vec![] },
                ..SubscribeGrant::default()
            };
            Answer::Subscribe(or(refusal, grant))
        }
        QuestionKind::Publish { .. } => Answer::Publish(or(refusal, PublishGrant::default())),
        QuestionKind::Rpc { .. } => Answer::Rpc(or(refusal, RpcGrant::default())),
    }
}

fn config(random: &mut Rng) -> SessionConfig {
    let mut config = open_config();
    let mut options = ChannelOptions::open();
    options.presence = true;
    keep_history(&mut options);
    config.channels = ChannelRules::flat(options.clone());
    options.subscribe_proxy_enabled = true;
    options.publish_proxy_enabled = true;
    options.sub_refresh_proxy_enabled = true;
    options.force_recovery = true;
    config.channels.namespaces.push(Namespace {
        name: "back".to_owned(),
        options,
    });
    config.rpc = RpcRules {
        without_namespace: random.bool(),
        namespaces: Vec::new(),
    };
    config.refresh_proxy = random.bool();
    config.connect_proxy = random.bool();
    config.personal_channel = random.bool().then(PersonalChannel::default);
    let told = random.bool();
    config.notices = Wanted {
        connected: told,
        disconnected: told,
        subscribed: told,
        unsubscribed: told,
    };
    config.limits.pending_commands_max = 6;
    config.limits.channels_max = 5;
    config.limits.stashed_bytes_max = 4_096;
    config.limits.expired_close_delay = Duration::from_secs(20);
    config.limits.publishes_rate = random.bool().then_some(Rate {
        per_second: 1,
        burst: 3,
    });
    config
}

fn run(seed: u64) -> (usize, usize) {
    let mut random = Rng::with_seed(seed);
    let config = Rc::new(config(&mut random));
    let mut sessions: Vec<_> = (0..SESSIONS)
        .map(|_| Observed::new(&config, &mut random))
        .collect();
    let mut commands = 0;
    for _ in 0..STEPS * SESSIONS {
        let at = random.usize(..SESSIONS);
        sessions[at].step(&mut random);
        // The next client comes.
        if sessions[at].closed && random.u32(..10) == 0 {
            commands += sessions[at].next_id as usize;
            sessions[at] = Observed::new(&config, &mut random);
        }
    }
    let mut open = 0;
    for session in &mut sessions {
        while !session.owed.is_empty() {
            session.others_answer(&mut random);
        }
        if !session.closed {
            open += 1;
            assert!(
                session.unanswered.is_empty() && session.ordered.is_empty(),
                "no answer to {:?} {:?}",
                session.unanswered,
                session.ordered
            );
            assert!(!session.client.session.wants_pause(), "nothing is pending");
        }
        commands += session.next_id as usize;
    }
    (commands, open)
}

#[test]
fn every_command_gets_its_one_answer_or_the_close() {
    let first = std::env::var("FLUX_SEED").map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("a number"),
    );
    let mut commands = 0;
    let mut open = 0;
    for seed in first..first.saturating_add(20) {
        println!("FLUX_SEED={seed}");
        let (sent, left) = run(seed);
        commands += sent;
        open += left;
    }
    println!("{commands} commands, {open} sessions open at the end");
    assert!(
        commands > 10_000,
        "the simulation hardly ran: {commands} commands"
    );
    assert!(open > 50, "hardly a session lived: {open}");
}
