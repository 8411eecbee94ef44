//! What this node knows of one channel with history: where its listeners are, what is remembered, what is
//! held back, what is to be read.

use std::collections::VecDeque;
use std::time::Instant;

use flux_runtime::log::LogWriter;

use super::super::super::history::HistoryOptions;
use super::super::interest::Waiter;
use super::super::record::Mark;
use super::read::Read;
use super::recent::Recent;
use super::recovery::Recoverer;
use crate::limits::REDIS_HELD_BYTES_MAX;
use crate::pubsub::{Epoch, Message, MessageRef, StreamPosition};

/// One channel, as this node sees it.
pub(in super::super) struct Stream {
    pub(super) options: HistoryOptions,
    pub(super) has_listeners: bool,
    /// Redis has confirmed the subscription, on this connection.
    pub(super) is_confirmed: bool,
    /// A read has shown that nothing is missing, on this connection.
    pub(super) is_live: bool,
    pub(super) position: Option<StreamPosition>,
    /// Which publication stands there, where that is known.
    pub(super) mark: Option<Mark>,
    pub(super) epoch: Option<Epoch>,
    pub(super) recent: Recent,
    /// When what is remembered is over at Redis; none where that is not known, or never.
    pub(super) expires: Option<Instant>,
    /// Its bytes, as they stand in the sum of all.
    pub(super) counted: usize,
    pub(super) held: VecDeque<(StreamPosition, Mark, Message)>,
    pub(super) held_bytes: usize,
    /// Some could not be held.
    pub(super) has_dropped: bool,
    pub(super) read: Read,
    /// When the last read was sent.
    pub(super) read_at: Option<Instant>,
    pub(super) subscribers: Vec<Waiter>,
    pub(super) recoverers: Vec<Recoverer>,
    /// When something was last heard, or the last listener left.
    pub(super) heard: Instant,
    /// When it is looked at again.
    pub(super) due: Instant,
}

/// Where a publication stands beside the position.
pub(super) enum Place {
    Known,
    Next,
    Gap,
    /// In another epoch, or there is no position.
    Elsewhere,
}

impl Stream {
    pub(super) fn new(options: HistoryOptions, now: Instant, due: Instant) -> Self {
        Self {
            options,
            has_listeners: true,
            is_confirmed: false,
            is_live: false,
            position: None,
            mark: None,
            epoch: None,
            recent: Recent::default(),
            expires: None,
            counted: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            has_dropped: false,
            read: Read::None,
            read_at: None,
            subscribers: Vec::new(),
            recoverers: Vec::new(),
            heard: now,
            due,
        }
    }

    pub(super) fn place(&self, position: StreamPosition) -> Place {
        match self.position {
            Some(last) if last.epoch == position.epoch => {
                if position.offset <= last.offset {
                    Place::Known
                } else if position.offset == last.offset + 1 {
                    Place::Next
                } else {
                    Place::Gap
                }
            }
            _ => Place::Elsewhere,
        }
    }

    /// Keeps the sum of all channels' bytes right.
    pub(super) fn count(&mut self, all: &mut usize) {
        let bytes = self.recent.bytes();
        *all = *all - self.counted + bytes;
        self.counted = bytes;
    }

    pub(super) fn hold(
        &mut self,
        channel: &str,
        (position, mark): (StreamPosition, Mark),
        message: MessageRef<'_>,
    ) {
        if self.held_bytes + message.size() > REDIS_HELD_BYTES_MAX {
            self.has_dropped = true;
            return;
        }
        let message = message.store(&mut LogWriter::new(), channel);
        self.held_bytes += message.size();
        self.held.push_back((position, mark, message));
    }

    /// Forgets what is over at Redis. What comes after it is asked for there: somebody may have published
    /// meanwhile, which keeps all of it longer.
    pub(super) fn expire(&mut self, now: Instant, all: &mut usize) {
        if self.expires.is_some_and(|at| now >= at) {
            self.expires = None;
            self.recent.clear();
            self.count(all);
        }
    }

    pub(super) fn drop_held(&mut self) {
        self.held = VecDeque::new();
        self.held_bytes = 0;
        self.has_dropped = false;
    }
}
