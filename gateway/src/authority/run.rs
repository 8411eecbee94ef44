//! The authority at work: takes questions, has them answered side by side, brings the answers back.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use flux_runtime::mailbox::{Full, Sender};
use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::decide::Decider;
use super::notices::Notices;
use super::{Answered, Asked, AuthorityConfig, AuthorityMetrics, Inbox, Refusal};
use crate::backend::Endpoint;
use crate::limits::{ANSWER_RETRY, QUESTIONS_IN_FLIGHT_MAX};
use crate::protocol::ErrorCode;

/// Answers the questions of all shards. Made at start, so that a bad configuration is told before
/// anybody connects; [`Authority::run`] is its life.
pub struct Authority {
    decider: Arc<Decider>,
    inbox: Inbox,
    mailboxes: Vec<Sender<Answered>>,
}

impl Authority {
    /// An authority for the shards behind `inbox`, whose mailboxes are in the shards' order.
    ///
    /// # Errors
    /// One line that names the key of the configuration, the value (never a secret) and the remedy.
    pub fn new(
        config: &AuthorityConfig,
        inbox: Inbox,
        mailboxes: Vec<Sender<Answered>>,
    ) -> Result<Self, String> {
        let decider = Arc::new(Decider::new(config, &inbox.metrics)?);
        Ok(Self {
            decider,
            inbox,
            mailboxes,
        })
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> Arc<AuthorityMetrics> {
        Arc::clone(&self.inbox.metrics)
    }

    /// The endpoints of the backend, with what they count.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        self.decider.routes().all()
    }

    /// Answers until `stop` is ready or every door is gone. Questions that are open then stay so:
    /// their sessions have ended or will. Notices that wait are given a short while to leave.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            decider,
            inbox,
            mailboxes,
        } = self;
        let Inbox {
            mut questions,
            notices: mut told,
            metrics,
        } = inbox;
        let mut work = JoinSet::new();
        let outboxes: Vec<_> = mailboxes
            .into_iter()
            .map(|mailbox| {
                // Bounded by the questions in flight: each holds its permit until it is delivered.
                let (outbox, delivered) = mpsc::unbounded_channel();
                work.spawn(deliver(mailbox, delivered, Arc::clone(&metrics)));
                outbox
            })
            .collect();
        let mut notices = Notices::new(&decider, &metrics);
        let places = Arc::new(Semaphore::new(QUESTIONS_IN_FLIGHT_MAX));
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(notice) = told.recv() => notices.take(notice),
                Some(_) = work.join_next(), if work.len() > outboxes.len() => {}
                (asked, place) = next(&mut questions, &places) => {
                    let Some(asked) = asked else { break };
                    let Some(outbox) = outboxes.get(usize::from(asked.shard)).cloned() else {
                        tracing::error!(shard = asked.shard, "a question of a shard that does not exist");
                        continue;
                    };
                    metrics.questions_in_flight.add(1);
                    let decider = Arc::clone(&decider);
                    work.spawn(async move {
                        let answered = answer(&decider, asked).await;
                        // Only the end of everything takes the receiver away.
                        let _ = outbox.send((answered, place));
                    });
                }
            }
        }
        while let Ok(notice) = told.try_recv() {
            notices.take(notice);
        }
        notices.finish().await;
    }
}

/// The next question, when there is a place for it: until then they wait at the door. Cancel-safe.
async fn next(
    questions: &mut mpsc::Receiver<Asked>,
    places: &Arc<Semaphore>,
) -> (Option<Asked>, Option<tokio::sync::OwnedSemaphorePermit>) {
    let place = Arc::clone(places).acquire_owned().await.ok();
    (questions.recv().await, place)
}

/// Every question gets its answer, whatever happens on the way.
async fn answer(decider: &Decider, asked: Asked) -> Answered {
    let Asked {
        connection,
        question,
        ..
    } = asked;
    let answer = AssertUnwindSafe(decider.answer(&question, SystemTime::now()));
    let answer = answer.catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a question has broken its answering; this is a bug");
        super::refused(&question.kind, Refusal::from(ErrorCode::Internal))
    });
    Answered { connection, answer }
}

type Delivery = (Answered, Option<tokio::sync::OwnedSemaphorePermit>);

/// Puts answers into one shard's mailbox, in order; while it is full they wait.
async fn deliver(
    mailbox: Sender<Answered>,
    mut answers: mpsc::UnboundedReceiver<Delivery>,
    metrics: Arc<AuthorityMetrics>,
) {
    while let Some((answered, place)) = answers.recv().await {
        let mut waiting = mailbox.try_send(answered);
        if waiting.is_err() {
            metrics.answers_delayed.add(1);
        }
        while let Err(Full(answered)) = waiting {
            tokio::time::sleep(ANSWER_RETRY).await;
            waiting = mailbox.try_send(answered);
        }
        metrics.questions_in_flight.sub(1);
        metrics.answers.add(1);
        drop(place);
    }
}
