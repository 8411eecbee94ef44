//! The newest publications of a channel, as far as this node remembers them: for recoveries that
//! need no read.

use flux_runtime::log::LogWriter;

use super::super::super::history::{
    Publications, Recovery, RecoveryMode, RecoveryRequest, StoredPublication,
};
use super::super::super::stream::Window;
use crate::pubsub::{KnownEpoch, MessageRef, StreamPosition};

#[derive(Default)]
pub(super) struct Recent {
    window: Window,
    /// Up to this offset Redis keeps nothing any more: nobody needs to ask it.
    gone_to: u64,
}

/// What is said to a subscriber that wants what it missed.
#[derive(Debug)]
pub(super) enum Settled {
    Answer(Recovery),
    /// What it missed is not remembered here.
    Unknown,
}

impl Recent {
    /// Nothing, of a channel whose newest publication is `top`.
    pub(super) fn new(top: u64) -> Self {
        Self {
            window: Window::new(top),
            gone_to: 0,
        }
    }

    /// Appends the publication behind the newest one. Behind a gap it is the only one.
    pub(super) fn push(&mut self, offset: u64, message: MessageRef<'_>) {
        if !self.window.append_at(offset, message) {
            *self = Self::new(offset.saturating_sub(1));
            self.window.append(message);
        }
    }

    /// Adds what came before, newest first, as far as it fits without a gap.
    pub(super) fn put_before(&mut self, newest_first: &[(u64, MessageRef<'_>)]) {
        let mut log = LogWriter::new();
        let mut next = self.window.first();
        let mut older = Vec::new();
        for (offset, message) in newest_first {
            if *offset >= next {
                // It is here already.
                continue;
            }
            if *offset + 1 != next {
                break;
            }
            next = *offset;
            older.push(StoredPublication {
                offset: *offset,
                message: message.store(&mut log, ""),
            });
        }
        older.reverse();
        // It fits by what was just checked; nothing would be remembered otherwise.
        let _ = self.window.extend_front(&older);
    }

    /// Forgets the oldest until no more than this is left.
    pub(super) fn trim(&mut self, count_max: usize, bytes_max: usize) {
        self.window.keep(count_max);
        while self.window.bytes() > bytes_max && self.window.drop_oldest() {}
    }

    pub(super) fn clear(&mut self) {
        self.window.clear();
    }

    /// Redis keeps nothing up to `offset` any more: neither does this.
    pub(super) fn forget_to(&mut self, offset: u64) {
        self.gone_to = self.gone_to.max(offset);
        while !self.window.is_empty() && self.window.first() <= offset {
            self.window.drop_oldest();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.window.bytes()
    }

    /// Offset of the oldest; that behind the newest one of the channel where nothing is here.
    pub(super) fn start(&self) -> u64 {
        self.window.first()
    }

    /// Offset of the newest.
    pub(super) fn end(&self) -> Option<u64> {
        (!self.window.is_empty()).then(|| self.window.top())
    }

    /// Whether everything behind `offset` is here, up to the newest.
    pub(super) fn reaches(&self, offset: u64) -> bool {
        !self.window.is_empty() && self.window.covers(offset)
    }

    /// What a subscriber gets that is at `position`, the newest here, when it reads the answer.
    pub(super) fn settle(
        &mut self,
        request: &RecoveryRequest,
        position: StreamPosition,
    ) -> Settled {
        let is_settled = match request.mode {
            RecoveryMode::Stream => {
                let missed = position.offset.checked_sub(request.offset);
                match missed.filter(|_| request.epoch.matches(position.epoch)) {
                    // It is somewhere else.
                    None => true,
                    Some(0) => true,
                    Some(missed) if missed > request.publications_max.into() => true,
                    Some(_) => self.reaches(request.offset) || request.offset < self.gone_to,
                }
            }
            RecoveryMode::Cache => {
                let has_it = request.epoch == KnownEpoch::Is(position.epoch)
                    && request.offset == position.offset;
                let is_gone = position.offset <= self.gone_to;
                is_gone || has_it || !self.window.is_empty()
            }
        };
        match is_settled {
            true => Settled::Answer(self.window.recover(request, position)),
            false => Settled::Unknown,
        }
    }
}

/// What a subscriber is told that cannot have what it missed.
pub(super) fn not_recovered(position: StreamPosition) -> Recovery {
    Recovery {
        position,
        recovered: false,
        publications: Publications::default(),
    }
}
