//! The control plane's way to the engine: what the server API does with channels.
//!
//! A call is a request put where the shards put theirs, with a one-shot channel for the answer.
//! Calls are bounded: at most [`ENGINE_CALLS_MAX`] wait for an answer at a time, each at most
//! [`ENGINE_CALL_TIMEOUT`], and a full mailbox refuses at once, as it does for publishers.
//!
//! All futures are cancel-safe: one that is dropped withdraws its interest in the answer. What was
//! asked may be carried out all the same.

use std::sync::Arc;
use std::time::Duration;

use flux_runtime::log::LogWriter;
use flux_runtime::mailbox::Sender;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::PublishOptions;
use super::history::{HistoryOptions, HistoryPage, HistoryQuery};
use super::memory::owner_of;
use super::request::{Conditions, Mail, Reply, ReplyTo, Request};
use super::{Members, PresenceStats};
use crate::limits::{ENGINE_CALL_TIMEOUT, ENGINE_CALLS_MAX};
use crate::protocol::ErrorCode;
use crate::pubsub::{MessageRef, StreamPosition};

/// Asks the engine from outside the shards; cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    way: Way,
    calls: Arc<Semaphore>,
    answer_max: Duration,
}

/// Where requests go.
#[derive(Clone, Debug)]
enum Way {
    /// To the shard that owns the channel.
    Owners(Arc<[Sender<Mail>]>),
    /// To the engine's own thread.
    Thread(mpsc::Sender<Request>),
}

impl EngineHandle {
    pub(super) fn to_owners(owners: Vec<Sender<Mail>>) -> Self {
        Self::new(Way::Owners(owners.into()))
    }

    pub(super) fn to_thread(requests: mpsc::Sender<Request>) -> Self {
        Self::new(Way::Thread(requests))
    }

    fn new(way: Way) -> Self {
        Self {
            way,
            calls: Arc::new(Semaphore::new(ENGINE_CALLS_MAX)),
            answer_max: ENGINE_CALL_TIMEOUT,
        }
    }

    /// Publishes; the answer is the publication's position where it has one. When a publication
    /// is suppressed (a known idempotency key, a version that is not newer), the answer is that of
    /// the one that was taken, or the newest position.
    ///
    /// # Errors
    /// 111 when too much waits, 100 when the engine cannot (then it may have been published).
    pub async fn publish(
        &self,
        channel: &str,
        message: MessageRef<'_>,
        options: &PublishOptions<'_>,
    ) -> Result<Option<StreamPosition>, ErrorCode> {
        let history = options.history_of(&message);
        let conditions = Conditions::of(&message, options);
        let message = message.store(&mut LogWriter::new(), channel);
        self.ask(channel, |reply| Request::Publish {
            message,
            history,
            conditions,
            reply: Some(ReplyTo::Caller(reply)),
        })
        .await
    }

    /// Past publications.
    ///
    /// # Errors
    /// 112 when the query names another epoch than the channel's, 107 when it can never be
    /// answered, 111 when too much waits, 100 when the engine cannot.
    pub async fn history(
        &self,
        channel: &str,
        query: HistoryQuery,
        history: HistoryOptions,
    ) -> Result<HistoryPage, ErrorCode> {
        let name = Arc::from(channel);
        self.ask(channel, |reply| Request::History {
            channel: name,
            query,
            history,
            reply: ReplyTo::Caller(reply),
        })
        .await
    }

    /// Forgets the publications of a channel; its position stays.
    ///
    /// # Errors
    /// 111 when too much waits, 100 when the engine cannot.
    pub async fn remove_history(&self, channel: &str) -> Result<(), ErrorCode> {
        let name = Arc::from(channel);
        self.ask(channel, |reply| Request::RemoveHistory {
            channel: name,
            reply,
        })
        .await
    }

    /// The members of a channel, in no order.
    ///
    /// # Errors
    /// 111 when too much waits, 100 when the engine cannot.
    pub async fn presence(&self, channel: &str) -> Result<Members, ErrorCode> {
        let name = Arc::from(channel);
        self.ask(channel, |reply| Request::Presence {
            channel: name,
            reply: ReplyTo::Caller(reply),
        })
        .await
    }

    /// How many members a channel has.
    ///
    /// # Errors
    /// 111 when too much waits, 100 when the engine cannot.
    pub async fn presence_stats(&self, channel: &str) -> Result<PresenceStats, ErrorCode> {
        let name = Arc::from(channel);
        self.ask(channel, |reply| Request::PresenceStats {
            channel: name,
            reply: ReplyTo::Caller(reply),
        })
        .await
    }

    /// Names of the channels that have subscribers on this node, in no order.
    ///
    /// # Errors
    /// 111 when too much waits, 100 when the engine cannot.
    pub async fn channels(&self) -> Result<Vec<Arc<str>>, ErrorCode> {
        let ways = match &self.way {
            Way::Owners(owners) => owners.len(),
            Way::Thread(_) => 1,
        };
        let mut names = Vec::new();
        for to in 0..ways {
            names.extend(self.ask_at(to, |reply| Request::Channels { reply }).await?);
        }
        Ok(names)
    }

    async fn ask<T>(
        &self,
        channel: &str,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, ErrorCode> {
        let to = match &self.way {
            Way::Owners(owners) => owner_of(channel, owners.len()),
            Way::Thread(_) => 0,
        };
        self.ask_at(to, request).await
    }

    async fn ask_at<T>(
        &self,
        to: usize,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, ErrorCode> {
        // Held until the answer is there, or nobody waits for it any more.
        let _permit = self
            .calls
            .try_acquire()
            .map_err(|_| ErrorCode::TooManyRequests)?;
        let (sender, answer) = oneshot::channel();
        let request = request(sender);
        let is_taken = match &self.way {
            Way::Owners(owners) => owners[to].try_send(Mail::Request(request)).is_ok(),
            Way::Thread(requests) => match requests.try_send(request) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => false,
                // The engine has ended: the process is about to.
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(ErrorCode::Internal),
            },
        };
        if !is_taken {
            return Err(ErrorCode::TooManyRequests);
        }
        match timeout(self.answer_max, answer).await {
            Ok(Ok(result)) => result,
            // Nobody is left to answer, or not in time.
            Ok(Err(_)) | Err(_) => Err(ErrorCode::Internal),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use flux_runtime::mailbox::{Receiver, mailbox, wake_pair};

    use super::*;

    /// A shard's mailbox that only the test looks into, and the way to it.
    fn unanswered(capacity: usize) -> (EngineHandle, Receiver<Mail>) {
        let (waker, _source) = wake_pair().expect("an eventfd");
        let (sender, receiver) = mailbox(capacity, waker);
        (EngineHandle::to_owners(vec![sender]), receiver)
    }

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn calls_that_nobody_answers_are_bounded_and_one_that_is_dropped_makes_room() {
        let (handle, inbox) = unanswered(2 * ENGINE_CALLS_MAX);
        let mut calls: Vec<_> = (0..ENGINE_CALLS_MAX)
            .map(|_| Box::pin(handle.presence_stats("c")))
            .collect();
        for call in &mut calls {
            assert!(poll(call.as_mut()).is_pending());
        }
        let refused = poll(pin!(handle.presence_stats("c")));
        assert_eq!(refused, Poll::Ready(Err(ErrorCode::TooManyRequests)));
        drop(calls.pop());
        let mut taken = pin!(handle.presence_stats("c"));
        assert!(poll(taken.as_mut()).is_pending());
        let mut last = None;
        while let Some(Mail::Request(request)) = inbox.pop() {
            last = Some(request);
        }
        let Some(Request::PresenceStats { reply, .. }) = last else {
            panic!("a question about members");
        };
        let stats = PresenceStats {
            clients: 2,
            users: 1,
        };
        assert!(reply.answer(Ok(stats), |_, _| panic!("no shard")).is_none());
        assert_eq!(poll(taken.as_mut()), Poll::Ready(Ok(stats)));
    }

    #[tokio::test]
    async fn a_full_mailbox_refuses_and_a_shard_that_is_gone_is_an_error() {
        let (handle, inbox) = unanswered(1);
        let mut first = Box::pin(handle.remove_history("c"));
        assert!(poll(first.as_mut()).is_pending());
        let second = poll(pin!(handle.remove_history("c")));
        assert_eq!(second, Poll::Ready(Err(ErrorCode::TooManyRequests)));
        drop(inbox.pop());
        assert_eq!(poll(first.as_mut()), Poll::Ready(Err(ErrorCode::Internal)));
    }

    #[tokio::test]
    async fn no_call_waits_for_ever() {
        let (mut handle, _inbox) = unanswered(1);
        handle.answer_max = Duration::from_millis(1);
        let result = handle.history(
            "c",
            HistoryQuery {
                limit: 0,
                since: None,
                reverse: false,
            },
            HistoryOptions {
                size: 1,
                ttl: Duration::from_secs(1),
                meta_ttl: Duration::from_secs(1),
            },
        );
        assert_eq!(result.await.err(), Some(ErrorCode::Internal));
    }
}
