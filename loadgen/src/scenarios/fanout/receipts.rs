//! What comes: every subscriber checks order and completeness, for each publisher and channel.

use std::collections::HashSet;
use std::time::Instant;

use super::layout::Layout;
use crate::clients::pubsub::{Heard, Trouble};
use crate::clients::subscriber::{Deliveries, Stamp};
use crate::clients::twins::Twins;
use crate::clients::websocket;
use crate::net::{Event, Key, Net};
use crate::record::Latencies;
use crate::scenarios::crowd::Member;

/// What was sent and what came of it.
pub(super) struct Receipts {
    layout: Layout,
    /// Subscribers, then publishers.
    members: Vec<Member>,
    /// Intended times by publisher and sequence number.
    intended: Vec<Vec<Instant>>,
    /// By subscriber, channel of the subscriber, and publisher: the next sequence number due.
    due: Vec<u64>,
    deliveries: Deliveries,
    twins: Twins,
    pub(super) latencies: Latencies,
    pub(super) in_window: u64,
    pub(super) received: u64,
    pub(super) out_of_order: u64,
    /// Publications that the server would not take.
    pub(super) refused: u64,
    /// Connections that the server has closed.
    closed: HashSet<usize>,
    pub(super) first_closed: Option<String>,
    /// What came that nobody can have sent: it ends the run.
    pub(super) error: Option<String>,
}

impl Receipts {
    pub(super) fn new(layout: Layout, members: Vec<Member>) -> Self {
        // Publishers number their publications over all channels: in channel c a subscriber sees every
        // `channels`-th, starting with c.
        let due = (0..layout.subscribers * layout.per_subscriber)
            .flat_map(|number| vec![(number % layout.channels) as u64; layout.publishers])
            .collect();
        Self {
            layout,
            members,
            intended: vec![Vec::new(); layout.publishers],
            due,
            deliveries: Deliveries::new(),
            twins: Twins::new(),
            latencies: Latencies::new(),
            in_window: 0,
            received: 0,
            out_of_order: 0,
            refused: 0,
            closed: HashSet::new(),
            first_closed: None,
            error: None,
        }
    }

    /// A publication is being sent, which was meant to be at `intended`: the publisher's connection, and its sequence
    /// number.
    pub(super) fn expect(&mut self, publisher: usize, intended: Instant) -> (Key, u64) {
        let times = &mut self.intended[publisher];
        times.push(intended);
        let connection = self.members[self.layout.subscribers + publisher].key;
        (connection, times.len() as u64 - 1)
    }

    /// What was counted until now is forgotten: measuring begins.
    pub(super) fn begin_window(&mut self) {
        self.latencies.clear();
        self.in_window = 0;
    }

    pub(super) fn on_event(&mut self, net: &mut impl Net, key: Key, event: Event<'_>) {
        match event {
            Event::Connected => {}
            Event::Closed(error) => self.on_closed(key.tag, &format!("ended: {error:?}")),
            Event::Data(mut bytes) => {
                let now = Instant::now();
                while !bytes.is_empty() && self.error.is_none() {
                    let taken = self
                        .take_twin(key.tag, bytes, now)
                        .unwrap_or_else(|| self.take(net, key, bytes, now));
                    bytes = &bytes[taken..];
                }
            }
        }
    }

    /// Takes the frame that comes next for a subscriber where another one had it before; `None`: nobody had.
    fn take_twin(&mut self, subscriber: usize, bytes: &[u8], now: Instant) -> Option<usize> {
        if !self.has_twins(subscriber) || self.members[subscriber].link.missing() > 0 {
            return None;
        }
        let sequence = self.due[subscriber];
        let len = self.twins.find(sequence, bytes)?;
        let intended = *self.intended[0].get(sequence as usize)?;
        self.due[subscriber] += 1;
        self.delivered(intended, now);
        Some(len)
    }

    /// Whether what comes for a connection is what others have, frame by frame.
    fn has_twins(&self, connection: usize) -> bool {
        self.layout.is_the_same_for_all() && connection < self.layout.subscribers
    }

    /// Parses and checks what came: one frame or the rest of one where it may have twins, else all of it. Returns how
    /// much that was.
    fn take(&mut self, net: &mut impl Net, key: Key, bytes: &[u8], now: Instant) -> usize {
        let (mut part, mut before) = (bytes, None);
        if self.has_twins(key.tag) {
            let missing = self.members[key.tag].link.missing();
            if missing > 0 {
                part = &bytes[..missing.min(bytes.len())];
            } else if let Some(len) = websocket::frame_len(bytes) {
                part = &bytes[..len];
                before = Some(self.due[key.tag]);
            }
        }
        let mut heard = Vec::new();
        let fed = self.members[key.tag].feed(net, part, &self.deliveries, &mut |what| {
            heard.push(what);
        });
        for what in heard {
            self.on_heard(key.tag, &what, now);
        }
        match fed {
            Ok(()) => {}
            Err(closed @ Trouble::Closed(_)) => {
                self.on_closed(key.tag, &closed.to_string());
                return bytes.len();
            }
            Err(broken @ Trouble::Broken(_)) => {
                self.error.get_or_insert(broken.to_string());
            }
        }
        if let Some(before) = before
            && self.due[key.tag] == before + 1
        {
            self.twins.keep(before, part);
        }
        part.len()
    }

    /// The server does not want a connection any more: what was published for it from then on will be missing.
    fn on_closed(&mut self, connection: usize, how: &str) {
        if self.closed.insert(connection) {
            self.first_closed
                .get_or_insert_with(|| format!("connection {connection} {how}"));
        }
    }

    /// How many connections the server has closed.
    pub(super) fn closed(&self) -> usize {
        self.closed.len()
    }

    fn on_heard(&mut self, connection: usize, heard: &Heard, now: Instant) {
        match heard {
            Heard::Delivery(stamp) => match self.check(connection, *stamp) {
                Ok(Some(intended)) => self.delivered(intended, now),
                Ok(None) => self.out_of_order += 1,
                Err(what) => {
                    self.error.get_or_insert(what);
                }
            },
            Heard::Refused => self.refused += 1,
            Heard::Ready => {}
        }
    }

    fn delivered(&mut self, intended: Instant, now: Instant) {
        self.received += 1;
        self.in_window += 1;
        self.latencies.record(intended, now);
    }

    /// When a delivery was meant to be published; `None`: it came out of order or again.
    fn check(&mut self, subscriber: usize, stamp: Stamp) -> Result<Option<Instant>, String> {
        let layout = &self.layout;
        let publisher = stamp.publisher as usize;
        let channel = match layout.channels {
            1 => 0,
            channels => stamp.sequence as usize % channels,
        };
        let sent = self
            .intended
            .get(publisher)
            .and_then(|times| times.get(stamp.sequence as usize));
        let place = (subscriber < layout.subscribers)
            .then(|| layout.place_of(subscriber, channel))
            .flatten();
        let (Some(sent), Some(place)) = (sent, place) else {
            return Err(format!("received what nobody sent to it: {stamp:?}"));
        };
        let slot = (subscriber * layout.per_subscriber + place) * layout.publishers + publisher;
        if stamp.sequence < self.due[slot] {
            return Ok(None);
        }
        self.due[slot] = stamp.sequence + layout.channels as u64;
        Ok(Some(*sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_checked_for_each_publisher_and_channel_of_a_subscriber() {
        // Subscriber 1 hears channels 2 and 0 of 3.
        let layout = Layout {
            subscribers: 2,
            publishers: 2,
            channels: 3,
            per_subscriber: 2,
        };
        let mut receipts = Receipts::new(layout, Vec::new());
        receipts.intended = vec![vec![Instant::now(); 9]; 2];
        let mut heard = |publisher, sequence| {
            let stamp = Stamp {
                publisher,
                sequence,
            };
            receipts.check(1, stamp).map(|sent| sent.is_some())
        };
        // Of two channels in any order, of one in its order, none twice.
        assert_eq!(heard(0, 5), Ok(true));
        assert_eq!(heard(0, 3), Ok(true));
        assert_eq!(heard(0, 2), Ok(false));
        assert_eq!(heard(0, 5), Ok(false));
        assert_eq!(heard(1, 2), Ok(true));
        assert_eq!(heard(0, 6), Ok(true));
        // Of a channel that it does not hear, and what was never sent.
        assert!(heard(0, 4).is_err());
        assert!(heard(0, 9).is_err());
    }

    #[test]
    fn a_connection_that_the_server_closes_is_counted_once_and_the_run_goes_on() {
        let layout = Layout {
            subscribers: 2,
            publishers: 1,
            channels: 1,
            per_subscriber: 1,
        };
        let mut receipts = Receipts::new(layout, Vec::new());
        receipts.on_closed(1, &Trouble::Closed(3008).to_string());
        receipts.on_closed(1, "ended: None");
        receipts.on_closed(0, "ended: None");
        assert_eq!(receipts.closed(), 2);
        assert_eq!(
            receipts.first_closed.as_deref(),
            Some("connection 1 closed with 3008")
        );
        assert_eq!(receipts.error, None);
    }
}
