//! The doors between a shard and the authority: questions and notices go out through bounded
//! channels of the control plane, answers come back through a mailbox that wakes the shard.
//!
//! A shard has at most [`QUESTIONS_MAX`] questions out, as many answers as its mailbox holds, so an
//! answer always finds room.

use flux_runtime::mailbox::Sender;
use tokio::sync::mpsc;

use crate::authority::{Answer, Notice, Question};

/// Questions of one shard that are not answered yet; beyond it the session gets error 111.
pub const QUESTIONS_MAX: usize = 4_096;
/// Questions of all shards that the authority has not looked at yet; beyond it error 111.
pub const ASKED_MAX: usize = 16_384;
/// Notices that the authority has not looked at yet; beyond it they are dropped and counted.
pub const NOTICES_MAX: usize = 16_384;

/// A question and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// The shard that asks.
    pub shard: u16,
    /// Its name for the session, generation included.
    pub connection: u64,
    /// What it asks.
    pub question: Question,
}

/// An answer on its way to the session that asked.
#[derive(Debug)]
pub struct Answered {
    /// As asked with.
    pub connection: u64,
    /// What the authority says.
    pub answer: Answer,
}

/// The shards' side. One for all of them.
#[derive(Clone, Debug)]
pub struct AuthorityDoor {
    /// Questions.
    pub questions: mpsc::Sender<Asked>,
    /// What the backend is told without being asked.
    pub notices: mpsc::Sender<Notice>,
}

/// The authority's side.
#[derive(Debug)]
pub struct AuthorityInbox {
    /// Questions, each to be answered once.
    pub questions: mpsc::Receiver<Asked>,
    /// What the backend is told.
    pub notices: mpsc::Receiver<Notice>,
    /// The way back.
    pub answers: Answers,
}

/// The way of answers to the shards.
#[derive(Clone, Debug)]
pub struct Answers(std::sync::Arc<[Sender<Answered>]>);

impl Answers {
    /// `senders`: one for each shard, by its number.
    #[must_use]
    pub fn new(senders: Vec<Sender<Answered>>) -> Self {
        Self(senders.into())
    }

    /// Gives an answer to whoever asked. One for a session that is gone is dropped by its shard.
    pub fn give(&self, shard: u16, answered: Answered) {
        if let Some(sender) = self.0.get(usize::from(shard)) {
            // There is room: a shard has no more questions out than its mailbox holds.
            let _ = sender.try_send(answered);
        }
    }
}

/// The two sides of the authority's doors. `answers`: a mailbox of [`QUESTIONS_MAX`] for each shard.
#[must_use]
pub fn authority_doors(answers: Vec<Sender<Answered>>) -> (AuthorityDoor, AuthorityInbox) {
    let (questions, asked) = mpsc::channel(ASKED_MAX);
    let (notices, noticed) = mpsc::channel(NOTICES_MAX);
    let inbox = AuthorityInbox {
        questions: asked,
        notices: noticed,
        answers: Answers::new(answers),
    };
    (AuthorityDoor { questions, notices }, inbox)
}
