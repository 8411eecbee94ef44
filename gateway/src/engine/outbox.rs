//! The way to one shard: its mailbox, and what waits while that is full.
//!
//! A mailbox is bounded and a shard may be behind, so something has to give. Waiting for the shard
//! would let one slow shard hold up the channels of all others; dropping in silence would break the
//! promise of order without gaps. So deliveries wait here, up to a bound in bytes (they are slices
//! of logs: what waits is not copied). Beyond it the shard loses that channel: it is told, its
//! subscribers of the channel are told, and they subscribe anew, which is what a client can handle.
//!
//! Answers always wait: there are never more of them than the shard has asked questions, and a
//! shard that does not read asks nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use flux_runtime::mailbox::{Full, Sender};

use super::request::{Mail, Request};
use super::{EngineMetrics, Event};
use crate::limits::PARKED_BYTES_MAX;
use crate::pubsub::{ChannelKey, Delivered};

pub(super) struct Outbox {
    sender: Sender<Mail>,
    parked: VecDeque<Mail>,
    /// Bytes of the deliveries among what is parked.
    parked_bytes: usize,
    /// Requests among what is parked.
    parked_requests: usize,
    bytes_max: usize,
    owes_wake: bool,
    metrics: Arc<EngineMetrics>,
}

impl Outbox {
    pub(super) fn new(sender: Sender<Mail>, metrics: Arc<EngineMetrics>) -> Self {
        Self {
            sender,
            parked: VecDeque::new(),
            parked_bytes: 0,
            parked_requests: 0,
            bytes_max: PARKED_BYTES_MAX,
            owes_wake: false,
            metrics,
        }
    }

    /// Hands a message over, or parks it in its order.
    pub(super) fn send(&mut self, mail: Mail) {
        self.owes_wake = true;
        if self.parked.is_empty() {
            if let Err(Full(mail)) = self.sender.push(mail) {
                self.park(mail);
            }
        } else {
            self.park(mail);
        }
    }

    /// Hands a delivery over. False when too much waits already: the shard is told that it has
    /// lost the channel and must not be given more of it under this key.
    pub(super) fn deliver(&mut self, key: ChannelKey, delivered: Delivered) -> bool {
        let event = Event::delivery(key, delivered);
        if self.parked_bytes + event.bytes() > self.bytes_max {
            self.metrics.lost.add(1);
            self.send(Mail::Event(Event::Lost { key }));
            return false;
        }
        self.metrics.handed_over.add(1);
        self.send(Mail::Event(event));
        true
    }

    /// Hands a request over unless something waits already; a publisher that is refused learns of
    /// it at once, which is all the backpressure there is.
    pub(super) fn offer(&mut self, request: Request) -> bool {
        self.owes_wake = true;
        self.parked.is_empty() && self.sender.push(Mail::Request(request)).is_ok()
    }

    /// Moves what is parked into the mailbox as far as it goes and wakes the shard if there is
    /// anything new. False while something remains parked.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(mail) = self.parked.pop_front() {
            let bytes = bytes_of(&mail);
            let is_request = matches!(mail, Mail::Request(_));
            match self.sender.push(mail) {
                Ok(()) => {
                    self.parked_bytes -= bytes;
                    self.parked_requests -= usize::from(is_request);
                }
                Err(Full(mail)) => {
                    self.parked.push_front(mail);
                    break;
                }
            }
        }
        if self.parked.is_empty() && self.parked.capacity() > 1_024 {
            self.parked = VecDeque::new();
        }
        if std::mem::take(&mut self.owes_wake) || !self.parked.is_empty() {
            self.sender.wake();
        }
        self.parked.is_empty()
    }

    fn park(&mut self, mail: Mail) {
        self.metrics.parked.add(1);
        self.parked_bytes += bytes_of(&mail);
        self.parked_requests += usize::from(matches!(mail, Mail::Request(_)));
        self.parked.push_back(mail);
    }

    /// How many requests are parked.
    pub(super) fn parked_requests(&self) -> usize {
        self.parked_requests
    }
}

fn bytes_of(mail: &Mail) -> usize {
    match mail {
        Mail::Event(event) => event.bytes(),
        Mail::Request(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use flux_runtime::log::LogWriter;
    use flux_runtime::mailbox::{mailbox, wake_pair};

    use super::*;

    fn key(index: u32) -> ChannelKey {
        ChannelKey {
            index,
            generation: 0,
        }
    }

    #[test]
    fn what_a_full_mailbox_refuses_waits_in_order_and_beyond_the_bound_the_channel_is_lost() {
        let (waker, _source) = wake_pair().expect("an eventfd");
        let (sender, receiver) = mailbox(2, waker);
        let metrics = Arc::new(EngineMetrics::default());
        let mut outbox = Outbox::new(sender, Arc::clone(&metrics));
        outbox.bytes_max = 30;
        let mut log = LogWriter::new();
        let mut message = |bytes: &[u8]| Delivered {
            slice: log.append(&[bytes]),
            whole: None,
            offset: 0,
        };
        for _ in 0..5 {
            assert!(outbox.deliver(key(1), message(b"0123456789")));
        }
        assert!(
            !outbox.deliver(key(2), message(b"x")),
            "30 bytes wait already"
        );
        assert!(!outbox.flush());
        let mut seen = Vec::new();
        while !outbox.flush() || !receiver.is_empty() {
            while let Some(mail) = receiver.pop() {
                seen.push(match mail {
                    Mail::Event(Event::Delivery { key, .. }) => ("delivery", key.index),
                    Mail::Event(Event::Lost { key }) => ("lost", key.index),
                    other => panic!("unexpected {other:?}"),
                });
            }
        }
        assert_eq!(seen[..5], [("delivery", 1); 5]);
        assert_eq!(seen[5..], [("lost", 2)]);
        assert_eq!((metrics.lost.get(), outbox.parked_bytes), (1, 0));
        assert!(outbox.deliver(key(1), message(b"again")));
    }
}
