//! A shard's door to the Redis engine: requests go to its thread, events come back.

use std::collections::VecDeque;
use std::sync::Arc;

use flux_runtime::log::LogWriter;
use flux_runtime::mailbox::Receiver;
use tokio::sync::mpsc;

use super::super::{Asker, EngineMetrics, Event, Mail, Request};
use crate::protocol::ErrorCode;
use crate::pubsub::{ChannelKey, MessageRef, ShardIndex, Variant};

/// One shard's door.
pub struct RedisShard {
    shard: ShardIndex,
    inbox: Receiver<Mail>,
    requests: mpsc::Sender<Request>,
    /// Interest that waits for room among the requests; bounded by the shard's own channels.
    parked: VecDeque<Request>,
    /// Answers that need nobody else.
    local: VecDeque<Event>,
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
            local: VecDeque::new(),
            arena: LogWriter::new(),
            metrics,
        }
    }

    pub(in super::super) fn subscribe(
        &mut self,
        channel: &Arc<str>,
        variant: Variant,
        key: ChannelKey,
    ) {
        self.ask(Request::Subscribe {
            channel: Arc::clone(channel),
            variant,
            shard: self.shard,
            key,
        });
    }

    pub(in super::super) fn unsubscribe(
        &mut self,
        channel: &Arc<str>,
        variant: Variant,
        key: ChannelKey,
    ) {
        self.ask(Request::Unsubscribe {
            channel: Arc::clone(channel),
            variant,
            shard: self.shard,
            key,
        });
    }

    pub(in super::super) fn publish(
        &mut self,
        channel: &str,
        message: MessageRef<'_>,
        asker: Option<Asker>,
    ) {
        // Nothing overtakes interest that waits, so that a client that subscribes and publishes
        // sees its own publication.
        let is_accepted = self.parked.is_empty() && {
            let request = Request::Publish {
                message: message.store(&mut self.arena, channel),
                asker: asker.map(|asker| (self.shard, asker)),
            };
            self.requests.try_send(request).is_ok()
        };
        match asker {
            _ if is_accepted => {}
            Some(asker) => {
                self.metrics.refused.add(1);
                self.local.push_back(Event::Published {
                    asker,
                    result: Err(ErrorCode::TooManyRequests),
                });
            }
            None => self.metrics.presence_dropped.add(1),
        }
    }

    pub(in super::super) fn poll(&mut self) -> Option<Event> {
        if let Some(event) = self.local.pop_front() {
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
