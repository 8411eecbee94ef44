//! The part of a shard: asks at the door, finds answers in its mailbox.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_gateway::authority::{
    Answer, Answered, Asked, Authority, AuthorityConfig, AuthorityMetrics, Door, Notice,
    NoticeKind, Question, QuestionKind, Who, door,
};
use flux_gateway::backend::Endpoint;
use flux_gateway::protocol::ClientId;
use flux_runtime::mailbox::{Receiver, WakeSource, mailbox, wake_pair};

/// Longest wait for anything that has to come.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Shard {
    door: Door,
    answers: Receiver<Answered>,
    early: Vec<Answered>,
    connection: u64,
    pub(crate) metrics: Arc<AuthorityMetrics>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    authority: tokio::task::JoinHandle<()>,
    _wakes: WakeSource,
}

impl Shard {
    /// A shard whose mailbox has room for few answers, and its authority.
    pub(crate) fn start(config: &AuthorityConfig) -> Self {
        let (door, inbox) = door(config.backend.wanted());
        let (waker, wakes) = wake_pair().expect("a descriptor");
        let (sender, answers) = mailbox(4, waker);
        let authority = Authority::new(config, inbox, vec![sender]).expect("a good configuration");
        let metrics = authority.metrics();
        let endpoints = authority.endpoints().to_vec();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let run = authority.run(async {
            let _ = stopped.await;
        });
        Self {
            door,
            answers,
            early: Vec::new(),
            connection: 0,
            metrics,
            endpoints,
            stop: Some(stop),
            authority: tokio::spawn(run),
            _wakes: wakes,
        }
    }

    /// Asks for a connection of its own and does not wait.
    pub(crate) fn ask(&mut self, who: &Who, kind: QuestionKind) -> u64 {
        self.connection += 1;
        let asked = Asked {
            shard: 0,
            connection: self.connection,
            question: Question {
                who: who.clone(),
                kind,
            },
        };
        self.door.ask(asked).expect("room at the door");
        self.connection
    }

    pub(crate) async fn answer_to(&mut self, connection: u64) -> Answer {
        let until = Instant::now() + PATIENCE;
        loop {
            while let Some(answered) = self.answers.pop() {
                self.early.push(answered);
            }
            let found = self
                .early
                .iter()
                .position(|one| one.connection == connection);
            if let Some(found) = found {
                return self.early.swap_remove(found).answer;
            }
            assert!(Instant::now() < until, "no answer to {connection}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn answer(&mut self, who: &Who, kind: QuestionKind) -> Answer {
        let connection = self.ask(who, kind);
        self.answer_to(connection).await
    }

    pub(crate) fn tell(&self, who: &Who, kind: NoticeKind) {
        self.door.tell(Notice {
            who: who.clone(),
            kind,
        });
    }

    /// The end of the authority.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        let ended = tokio::time::timeout(PATIENCE, self.authority).await;
        ended.expect("it ends").expect("well");
    }
}

/// Polls until it holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn who() -> Who {
    Who {
        client: Some(ClientId::from_random(7)),
        user: "42".to_owned(),
        meta: br#"{"tenant":7}"#.to_vec(),
        transport: "websocket",
        headers: Arc::from([
            (Box::from("cookie"), Box::from("a=b")),
            (Box::from("x-secret"), Box::from("not asked for")),
        ]),
        ..Who::default()
    }
}

pub(crate) fn run(work: impl Future<Output = ()>) {
    flux_runtime::control::run(work).expect("a runtime");
}

pub(crate) fn connect(token: &str) -> QuestionKind {
    QuestionKind::Connect {
        token: token.to_owned(),
        data: Vec::new(),
        name: "js".to_owned(),
        version: String::new(),
    }
}

pub(crate) fn rpc(method: &str) -> QuestionKind {
    QuestionKind::Rpc {
        method: method.to_owned(),
        data: b"[1]".to_vec(),
    }
}
