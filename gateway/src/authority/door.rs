//! The way from the shards to the authority and back.
//!
//! A shard asks and goes on: [`Door::ask`] and [`Door::tell`] never block. Answers come through the
//! shard's own mailbox of [`Answered`], in no particular order between sessions; each question gets
//! exactly one. A session that is gone by then is a `connection` that the shard no longer knows.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{Answer, AuthorityMetrics, Notice, Question};
use crate::limits::{NOTICES_WAITING_MAX, QUESTIONS_WAITING_MAX};
use std::sync::Arc;

/// A question on its way.
#[derive(Debug)]
pub struct Asked {
    /// Whose mailbox the answer goes into.
    pub shard: u16,
    /// The shard's own key of the connection: comes back with the answer.
    pub connection: u64,
    /// The question.
    pub question: Question,
}

/// An answer on its way.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered {
    /// As it was given with the question.
    pub connection: u64,
    /// The answer.
    pub answer: Answer,
}

/// The shards' side; each has its own clone.
#[derive(Clone, Debug)]
pub struct Door {
    questions: mpsc::Sender<Asked>,
    notices: mpsc::Sender<Notice>,
    wanted: Wanted,
    metrics: Arc<AuthorityMetrics>,
}

/// Which notices anybody wants; the others need not be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// [`NoticeKind::Connected`](super::NoticeKind::Connected).
    pub connected: bool,
    /// [`NoticeKind::Disconnected`](super::NoticeKind::Disconnected).
    pub disconnected: bool,
    /// [`NoticeKind::Subscribed`](super::NoticeKind::Subscribed).
    pub subscribed: bool,
    /// [`NoticeKind::Unsubscribed`](super::NoticeKind::Unsubscribed).
    pub unsubscribed: bool,
}

/// The authority's side.
#[derive(Debug)]
pub struct Inbox {
    pub(super) questions: mpsc::Receiver<Asked>,
    pub(super) notices: mpsc::Receiver<Notice>,
    pub(super) metrics: Arc<AuthorityMetrics>,
}

impl Door {
    /// Asks.
    ///
    /// # Errors
    /// The question comes back when too many wait, or the authority has ended: the session is to be
    /// refused with [`ErrorCode::TooManyRequests`](crate::protocol::ErrorCode::TooManyRequests).
    pub fn ask(&self, asked: Asked) -> Result<(), Box<Asked>> {
        self.questions.try_send(asked).map_err(|error| match error {
            TrySendError::Full(asked) | TrySendError::Closed(asked) => Box::new(asked),
        })
    }

    /// Tells; what does not fit is dropped and counted, as is what nobody wants (uncounted).
    pub fn tell(&self, notice: Notice) {
        if self.wanted.has(&notice) && self.notices.try_send(notice).is_err() {
            self.metrics.notices_dropped.add(1);
        }
    }

    /// Which notices anybody wants.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }
}

impl Wanted {
    fn has(self, notice: &Notice) -> bool {
        use super::NoticeKind as Kind;
        match notice.kind {
            Kind::Connected => self.connected,
            Kind::Disconnected { .. } => self.disconnected,
            Kind::Subscribed { .. } => self.subscribed,
            Kind::Unsubscribed { .. } => self.unsubscribed,
        }
    }
}

/// A door and what is behind it.
#[must_use]
pub fn door(wanted: Wanted) -> (Door, Inbox) {
    let (questions, asked) = mpsc::channel(QUESTIONS_WAITING_MAX);
    let (notices, told) = mpsc::channel(NOTICES_WAITING_MAX);
    let metrics = Arc::new(AuthorityMetrics::default());
    let door = Door {
        questions,
        notices,
        wanted,
        metrics: Arc::clone(&metrics),
    };
    let inbox = Inbox {
        questions: asked,
        notices: told,
        metrics,
    };
    (door, inbox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{NoticeKind, QuestionKind, Who};

    fn asked() -> Asked {
        Asked {
            shard: 0,
            connection: 1,
            question: Question {
                who: Who::default(),
                kind: QuestionKind::Refresh {
                    token: String::new(),
                },
            },
        }
    }

    #[test]
    fn a_full_door_gives_the_question_back() {
        let (door, inbox) = door(Wanted::default());
        for _ in 0..QUESTIONS_WAITING_MAX {
            assert!(door.ask(asked()).is_ok());
        }
        assert_eq!(door.ask(asked()).expect_err("full").connection, 1);
        drop(inbox);
        assert!(door.ask(asked()).is_err());
    }

    #[test]
    fn notices_that_nobody_wants_are_not_made_and_those_that_do_not_fit_are_counted() {
        let wanted = Wanted {
            connected: true,
            ..Wanted::default()
        };
        let (door, mut inbox) = door(wanted);
        let notice = |kind| Notice {
            who: Who::default(),
            kind,
        };
        door.tell(notice(NoticeKind::Disconnected {
            code: 0,
            reason: String::new(),
        }));
        assert!(inbox.notices.try_recv().is_err());
        for _ in 0..=NOTICES_WAITING_MAX {
            door.tell(notice(NoticeKind::Connected));
        }
        assert_eq!(door.metrics.notices_dropped.get(), 1);
    }
}
