//! A shard's door to the Redis engine: requests go to its thread, events come back.

use std::collections::VecDeque;
use std::sync::Arc;

use flux_runtime::log::LogWriter;
use flux_runtime::mailbox::Receiver;
use tokio::sync::mpsc;

use super::super::history::{HistoryOptions, HistoryQuery, RecoveryRequest};
use super::super::local::Local;
use super::super::request::{Conditions, Mail, ReplyTo, Request};
use super::super::{Asker, EngineMetrics, Event, PublishOptions};
use crate::limits::INTEREST_PARKED_MAX;
use crate::protocol::{ClientId, ClientInfo, ErrorCode};
use crate::pubsub::{ChannelKey, MessageRef, ShardIndex, Variant};

/// One shard's door.
pub struct RedisShard {
    shard: ShardIndex,
    inbox: Receiver<Mail>,
    requests: mpsc::Sender<Request>,
    /// Interest that waits for room among the requests: `INTEREST_PARKED_MAX` subscribes and the
    /// ends of them and of the shard's channels.
    parked: VecDeque<Request>,
    /// Answers that need nobody else.
    local: Local,
    arena: LogWriter,
    metrics: Arc<EngineMetrics>,
}

impl RedisShard {
    pub(super) fn new(
        shard: ShardIndex,
        inbox: Receiver<Mail>,
        requests: mpsc::Sender<Request>,
        metrics: Arc<EngineMetrics>,
    ) -> Self {
        Self {
            shard,
            inbox,
            requests,
            parked: VecDeque::new(),
            local: Local::default(),
            arena: LogWriter::new(),
            metrics,
        }
    }

    pub(in super::super) fn subscribe(
        &mut self,
        channel: &Arc<str>,
        variant: Variant,
        key: ChannelKey,
        history: Option<HistoryOptions>,
    ) {
        if self.parked.len() >= INTEREST_PARKED_MAX {
            self.metrics.refused.add(1);
            self.local.refuse(key);
            return;
        }
        self.ask(Request::Subscribe {
            channel: Arc::clone(channel),
            variant,
            shard: self.shard,
            key,
            history,
        });
    }

    pub(in super::super) fn unsubscribe(
        &mut self,
        channel: &Arc<str>,
        variant: Variant,
        key: ChannelKey,
    ) {
        if self.local.ends_refused(key) {
            return;
        }
        self.ask(Request::Unsubscribe {
            channel: Arc::clone(channel),
            variant,
            shard: self.shard,
            key,
        });
    }

    pub(in super::super) fn recover(
        &mut self,
        channel: &Arc<str>,
        key: ChannelKey,
        request: RecoveryRequest,
        history: HistoryOptions,
        asker: Asker,
    ) {
        if self.local.is_refused(key) || self.is_behind() {
            let result = Err(ErrorCode::TooManyRequests);
            return self.local.push(Event::Recovered { key, asker, result });
        }
        self.ask(Request::Recover {
            channel: Arc::clone(channel),
            key,
            request,
            history,
            shard: self.shard,
            asker,
        });
    }

    pub(in super::super) fn history(
        &mut self,
        channel: &str,
        query: HistoryQuery,
        history: HistoryOptions,
        asker: Asker,
    ) {
        if self.is_behind() {
            let result = Err(ErrorCode::TooManyRequests);
            return self.local.push(Event::History { asker, result });
        }
        self.ask(Request::History {
            channel: channel.into(),
            query,
            history,
            reply: ReplyTo::Shard(self.shard, asker),
        });
    }

    pub(in super::super) fn enter(&mut self, channel: &str, info: ClientInfo<'_>) {
        self.ask(Request::Enter {
            channel: channel.into(),
            info: Box::new(info.into()),
        });
    }

    pub(in super::super) fn exit(&mut self, channel: &str, client: ClientId) {
        self.ask(Request::Exit {
            channel: channel.into(),
            client,
        });
    }

    pub(in super::super) fn presence(&mut self, channel: &str, asker: Asker) {
        if self.is_behind() {
            let result = Err(ErrorCode::TooManyRequests);
            return self.local.push(Event::Presence { asker, result });
        }
        self.ask(Request::Presence {
            channel: channel.into(),
            reply: ReplyTo::Shard(self.shard, asker),
        });
    }

    pub(in super::super) fn presence_stats(&mut self, channel: &str, asker: Asker) {
        if self.is_behind() {
            let result = Err(ErrorCode::TooManyRequests);
            return self.local.push(Event::PresenceStats { asker, result });
        }
        self.ask(Request::PresenceStats {
            channel: channel.into(),
            reply: ReplyTo::Shard(self.shard, asker),
        });
    }

    /// Whether so much waits for the engine's thread that questions are refused.
    fn is_behind(&self) -> bool {
        let is_behind = self.parked.len() >= INTEREST_PARKED_MAX;
        self.metrics.refused.add(is_behind.into());
        is_behind
    }

    pub(in super::super) fn publish(
        &mut self,
        channel: &str,
        message: MessageRef<'_>,
        options: &PublishOptions<'_>,
        asker: Option<Asker>,
    ) {
        // Nothing overtakes interest that waits, so that a client that subscribes and publishes
        // sees its own publication.
        let is_accepted = self.parked.is_empty() && {
            let request = Request::Publish {
                message: message.store(&mut self.arena, channel),
                history: options.history_of(&message),
                conditions: Conditions::of(&message, options),
                reply: asker.map(|asker| ReplyTo::Shard(self.shard, asker)),
            };
            self.requests.try_send(request).is_ok()
        };
        match asker {
            _ if is_accepted => {}
            Some(asker) => {
                self.metrics.refused.add(1);
                self.local.push(Event::Published {
                    asker,
                    result: Err(ErrorCode::TooManyRequests),
                });
            }
            None => self.metrics.presence_dropped.add(1),
        }
    }

    pub(in super::super) fn poll(&mut self) -> Option<Event> {
        if let Some(event) = self.local.pop() {
            return Some(event);
        }
        match self.inbox.pop()? {
            Mail::Event(event) => Some(event),
            // The engine's thread asks nothing of a shard.
            Mail::Request(_) => None,
        }
    }

    pub(in super::super) fn has_mail(&self) -> bool {
        !self.local.is_empty() || !self.inbox.is_empty()
    }

    pub(in super::super) fn flush(&mut self) -> bool {
        while let Some(request) = self.parked.pop_front() {
            match self.requests.try_send(request) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(request)) => {
                    self.parked.push_front(request);
                    return false;
                }
                // The engine has ended: the process is about to.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        true
    }

    pub(in super::super) fn metrics(&self) -> &Arc<EngineMetrics> {
        &self.metrics
    }

    fn ask(&mut self, request: Request) {
        self.parked.push_back(request);
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use flux_runtime::mailbox::{mailbox, wake_pair};

    use super::*;

    #[test]
    fn clients_that_come_and_go_cannot_pile_up_requests_for_an_engine_that_is_behind() {
        let (waker, _source) = wake_pair().expect("an eventfd");
        let (_mail, inbox) = mailbox(2, waker);
        let (requests, _unread) = mpsc::channel(2);
        let mut door = RedisShard::new(0, inbox, requests, Arc::default());
        let channel: Arc<str> = Arc::from("c");
        for generation in 0..4 * INTEREST_PARKED_MAX as u32 {
            let key = ChannelKey {
                index: 0,
                generation,
            };
            door.subscribe(&channel, Variant::JSON, key, None);
            door.unsubscribe(&channel, Variant::JSON, key);
            if generation % 64 == 0 {
                while door.poll().is_some() {}
            }
        }
        assert!(door.metrics.refused.get() > 0);
        let waiting = door.parked.len();
        assert!(waiting <= 2 * INTEREST_PARKED_MAX, "{waiting}");
    }
}
