//! Reads of a channel's history: when one is made and of what, and what follows from its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::super::history::{RecoveryMode, RecoveryRequest};
use super::super::scripts::{LastSeen, Range, Stretch};
use super::super::shards::Shards;
use super::recent::Recent;
use super::recovery::limit_of;
use super::stream::{Place, Stream};
use super::{Pushed, Streams};
use crate::limits::REDIS_READ_INTERVAL;
use crate::pubsub::{MessageRef, StreamPosition};

/// What a read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Nobody has a position yet. Newest first, down to what recoveries want.
    First,
    /// What is missing behind the position that was held when it was sent.
    Fill(StreamPosition),
    /// What recoveries want of the time before `recent`. Newest first.
    Older,
    /// It was sent before Redis has confirmed the subscription that now counts.
    Outdated,
}

/// A read on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    purpose: Purpose,
    range: Range,
    /// The history was removed meanwhile: what is read may be from before.
    is_removed: bool,
}

#[derive(Debug, Default)]
pub(super) enum Read {
    #[default]
    None,
    /// At this time.
    Wanted(Instant),
    UnderWay(Sent),
}

/// A read to be made.
#[derive(Debug)]
pub(in super::super) struct Wanted {
    pub(in super::super) channel: Arc<str>,
    pub(in super::super) range: Range,
    /// What the channel's listeners were handed last, where they are to be handed what follows.
    pub(in super::super) seen: Option<LastSeen>,
    pub(in super::super) meta_ttl: Duration,
}

impl Streams {
    /// The next reads, at most so many. Each is answered by [`Self::read`] or [`Self::failed`],
    /// unless the connection is lost.
    pub(in super::super) fn next_reads(&mut self, count: usize, now: Instant) -> Vec<Wanted> {
        let mut reads = Vec::new();
        while reads.len() < count
            && self.wanted.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, channel)) = self.wanted.pop_first()
        {
            let Some(stream) = self.channels.get_mut(&channel) else {
                continue;
            };
            stream.read = Read::None;
            let Some(sent) = stream.plan() else { continue };
            let seen = match sent.purpose {
                Purpose::Fill(position) => Some(LastSeen {
                    position,
                    mark: stream.mark,
                }),
                _ => None,
            };
            stream.read = Read::UnderWay(sent);
            stream.read_at = Some(now);
            reads.push(Wanted {
                channel,
                range: sent.range,
                seen,
                meta_ttl: stream.options.meta_ttl.max(stream.options.ttl),
            });
        }
        reads
    }

    /// Whether [`Self::next_reads`] would give any.
    pub(in super::super) fn has_reads(&self, now: Instant) -> bool {
        self.wanted.first().is_some_and(|(at, _)| *at <= now)
    }

    /// The read that is under way, which has come to its end, and whose it is.
    fn take_sent(&mut self, channel: &str) -> Option<(&mut Stream, Sent)> {
        let stream = self.channels.get_mut(channel)?;
        match std::mem::take(&mut stream.read) {
            Read::UnderWay(sent) => Some((stream, sent)),
            _ => None,
        }
    }

    /// Redis has answered a read. True when the channel has no listeners left.
    pub(in super::super) fn read(
        &mut self,
        channel: &str,
        stretch: &Stretch<'_>,
        now: Instant,
        shards: &mut Shards,
    ) -> bool {
        let Some((stream, sent)) = self.take_sent(channel) else {
            return false;
        };
        if sent.purpose == Purpose::Outdated || !stream.has_listeners {
            self.want_read(channel, now);
            return false;
        }
        stream.heard = now;
        let is_whole = match sent.purpose {
            Purpose::First => {
                self.begin(channel, stretch);
                true
            }
            Purpose::Fill(from) => {
                let filled = self.fill(channel, from, stretch, now, shards);
                if sent.is_removed
                    && let Some(stream) = self.channels.get_mut(channel)
                {
                    stream.recent.clear();
                }
                match filled {
                    Filled::Whole => true,
                    Filled::InPart => false,
                    Filled::Lost => return true,
                }
            }
            Purpose::Older | Purpose::Outdated => {
                self.add_older(channel, stretch);
                true
            }
        };
        if let Some(stream) = self.channels.get_mut(channel) {
            stream.recent.forget_to(stretch.oldest.saturating_sub(1));
            // Where nothing was kept, what has been pushed since knows better.
            if let Some(time) = stretch.expires_in {
                stream.expires = now.checked_add(time);
            }
            stream.count(&mut self.recent_bytes);
        }
        self.answer(channel, sent, now, shards);
        if sent.is_removed
            && let Some(stream) = self.channels.get_mut(channel)
        {
            stream.recent.clear();
            stream.count(&mut self.recent_bytes);
        }
        let has_ended = is_whole && self.resume(channel, now, shards);
        self.trim(channel);
        has_ended
    }

    /// Redis does not give what was to be read. True when the channel has no listeners left.
    pub(in super::super) fn failed(
        &mut self,
        channel: &str,
        now: Instant,
        shards: &mut Shards,
    ) -> bool {
        let Some((stream, sent)) = self.take_sent(channel) else {
            return false;
        };
        match sent.purpose {
            Purpose::First | Purpose::Fill(_) if stream.has_listeners => {
                // Who wants to recover is answered behind the refusal of its subscription.
                self.lose(channel, now, shards);
                true
            }
            Purpose::Outdated => {
                stream.refuse_recoverers(shards);
                self.want_read(channel, now);
                false
            }
            _ => {
                stream.refuse_recoverers(shards);
                false
            }
        }
    }

    /// A read has come to nothing, and is to be made again.
    pub(in super::super) fn retry(&mut self, channel: &str, now: Instant) {
        if let Some(stream) = self.channels.get_mut(channel) {
            stream.read = Read::None;
            self.want_read(channel, now);
        }
    }

    pub(super) fn want_read(&mut self, channel: &str, now: Instant) {
        let Some((name, stream)) = self.channels.get_key_value_mut(channel) else {
            return;
        };
        let is_possible = self.is_connected && stream.is_confirmed;
        if is_possible && matches!(stream.read, Read::None) {
            let earliest = stream.read_at.map(|at| at + REDIS_READ_INTERVAL);
            let at = earliest.map_or(now, |earliest| earliest.max(now));
            stream.read = Read::Wanted(at);
            self.wanted.insert((at, Arc::clone(name)));
        }
    }

    /// Everything begins at what the first read has found.
    fn begin(&mut self, channel: &str, stretch: &Stretch<'_>) {
        let Some(stream) = self.channels.get_mut(channel) else {
            return;
        };
        let top = stretch.position;
        let is_continued = stream.epoch == Some(top.epoch)
            && stream.recent.end().is_some_and(|end| {
                let oldest = stretch.entries.last();
                let reaches_back = oldest.map_or(top.offset, |(offset, _)| offset - 1);
                end <= top.offset && reaches_back <= end && contiguous(&stretch.entries, top.offset)
            });
        if is_continued {
            let end = stream.recent.end().unwrap_or_default();
            for (offset, message) in stretch.entries.iter().rev() {
                if *offset > end {
                    stream.recent.push(*offset, *message);
                }
            }
        } else {
            stream.recent = Recent::new(top.offset);
        }
        stream.recent.put_before(&stretch.entries);
        stream.count(&mut self.recent_bytes);
        stream.epoch = Some(top.epoch);
        stream.position = Some(top);
        let mut seen = stretch.entries.iter().zip(&stretch.marks);
        let newest = seen.find(|((offset, _), _)| *offset == top.offset);
        stream.mark = newest.map(|(_, mark)| *mark);
    }

    /// Delivers what was missing behind `from`.
    fn fill(
        &mut self,
        channel: &str,
        from: StreamPosition,
        stretch: &Stretch<'_>,
        now: Instant,
        shards: &mut Shards,
    ) -> Filled {
        let top = stretch.position;
        // The read was sent when `from` had been reached: a history that ends before it is another
        // one, or has lost what was in it.
        if top.epoch != from.epoch || top.offset < from.offset {
            self.lose(channel, now, shards);
            return Filled::Lost;
        }
        let mut count = 0;
        for ((offset, message), mark) in stretch.entries.iter().zip(&stretch.marks) {
            let position = StreamPosition {
                epoch: top.epoch,
                offset: *offset,
            };
            // What the history is too short for may have been pushed since it was asked.
            if self.deliver_held(channel, position.offset, shards) {
                self.end(channel, now, shards);
                return Filled::Lost;
            }
            let Some(stream) = self.channels.get_mut(channel) else {
                return Filled::Lost;
            };
            match stream.place(position) {
                Place::Known => {}
                Place::Next => {
                    count += 1;
                    if self.deliver(channel, (position, *mark), *message, shards) {
                        self.end(channel, now, shards);
                        return Filled::Lost;
                    }
                }
                Place::Gap | Place::Elsewhere => {
                    self.lose(channel, now, shards);
                    return Filled::Lost;
                }
            }
        }
        shards.metrics.redis_filled.add(count);
        if self.deliver_held(channel, top.offset + 1, shards) {
            self.end(channel, now, shards);
            return Filled::Lost;
        }
        let Some(stream) = self.channels.get_mut(channel) else {
            return Filled::Lost;
        };
        let reached = stream.position.map_or(0, |position| position.offset);
        if reached >= top.offset {
            Filled::Whole
        } else if count > 0 && stretch.rejected.is_empty() {
            stream.is_live = false;
            self.want_read(channel, now);
            Filled::InPart
        } else {
            self.lose(channel, now, shards);
            Filled::Lost
        }
    }

    /// Delivers what was held back and follows without a gap, up to `before`. True when the channel has no
    /// listeners left.
    fn deliver_held(&mut self, channel: &str, before: u64, shards: &mut Shards) -> bool {
        while let Some(stream) = self.channels.get_mut(channel)
            && let Some((position, ..)) = stream.held.front()
            && position.offset < before
            && matches!(stream.place(*position), Place::Known | Place::Next)
        {
            let is_next = matches!(stream.place(*position), Place::Next);
            let Some((position, mark, message)) = stream.held.pop_front() else {
                break;
            };
            stream.held_bytes -= message.size();
            if is_next && self.deliver(channel, (position, mark), message.as_ref(), shards) {
                return true;
            }
        }
        false
    }

    /// Remembers what recoveries want of the time before.
    fn add_older(&mut self, channel: &str, stretch: &Stretch<'_>) {
        if let Some(stream) = self.channels.get_mut(channel)
            && let Some(position) = stream.position
            && position.epoch == stretch.position.epoch
        {
            stream.recent.put_before(&stretch.entries);
            stream.count(&mut self.recent_bytes);
        }
    }

    /// From now on pushes are delivered as they come; first those that were held back. True when
    /// the channel has no listeners left.
    fn resume(&mut self, channel: &str, now: Instant, shards: &mut Shards) -> bool {
        let Some(stream) = self.channels.get_mut(channel) else {
            return false;
        };
        if !stream.is_confirmed {
            return false;
        }
        stream.is_live = true;
        let held = std::mem::take(&mut stream.held);
        let has_dropped = std::mem::take(&mut stream.has_dropped);
        stream.held_bytes = 0;
        for (position, mark, message) in held {
            match self.push(channel, (position, mark), message.as_ref(), now, shards) {
                Pushed::Ended => return true,
                Pushed::Taken | Pushed::Untracked => {}
            }
        }
        if has_dropped && let Some(stream) = self.channels.get_mut(channel) {
            stream.is_live = false;
            self.want_read(channel, now);
        }
        false
    }
}

enum Filled {
    /// Nothing is missing.
    Whole,
    /// More has to be read.
    InPart,
    /// There are no listeners left.
    Lost,
}

impl Stream {
    /// The history was removed at Redis. What is known to come from before is not shown any more.
    pub(super) fn remove(&mut self) {
        match self.position {
            // All that was published before the removal has been pushed before the word of it.
            Some(position) if self.is_live && self.held.is_empty() => {
                self.recent.forget_to(position.offset);
            }
            _ => self.recent.clear(),
        }
        if let Read::UnderWay(sent) = &mut self.read {
            sent.is_removed = true;
        }
    }

    pub(super) fn outdate_read(&mut self) {
        if let Read::UnderWay(sent) = &mut self.read {
            sent.purpose = Purpose::Outdated;
        }
    }

    /// What is to be read now, if anything.
    fn plan(&self) -> Option<Sent> {
        if !self.has_listeners || !self.is_confirmed {
            return None;
        }
        let Some(position) = self.position else {
            let wanted = self.recoverers.iter().map(|waiting| {
                let request = &waiting.request;
                match (request.mode, self.recent.end()) {
                    (RecoveryMode::Cache, _) => 0,
                    (_, Some(end)) if self.recent.reaches(request.offset) => end,
                    _ => request.offset,
                }
            });
            let range = match wanted.chain(self.recent.end()).min() {
                None => Range::NEWEST,
                Some(after) => Range {
                    after,
                    before: None,
                    limit: self.limit_of_recoveries(),
                    reverse: true,
                },
            };
            return Some(Sent {
                purpose: Purpose::First,
                range,
                is_removed: false,
            });
        };
        let is_check = self.recoverers.is_empty();
        if !self.is_live || is_check {
            return Some(Sent {
                purpose: Purpose::Fill(position),
                range: Range::after(position.offset),
                is_removed: false,
            });
        }
        let before = position.offset.saturating_sub(1);
        let wanted = self
            .recoverers
            .iter()
            .map(|waiting| match waiting.request.mode {
                RecoveryMode::Stream => waiting.request.offset,
                RecoveryMode::Cache => before,
            });
        Some(Sent {
            purpose: Purpose::Older,
            range: Range {
                after: wanted.min().unwrap_or(before),
                before: Some(self.recent.start()),
                limit: self.limit_of_recoveries(),
                reverse: true,
            },
            is_removed: false,
        })
    }
}

impl Sent {
    /// Whether what `request` wants would have been in the answer, if it were there.
    pub(super) fn covers(&self, request: &RecoveryRequest) -> bool {
        let reaches = self.range.limit >= limit_of(request)
            && (request.mode == RecoveryMode::Cache || self.range.after <= request.offset);
        match self.purpose {
            Purpose::Fill(_) | Purpose::Outdated => false,
            Purpose::First | Purpose::Older => reaches,
        }
    }
}

/// Whether entries, newest first, have no gap and end at `end`.
fn contiguous(newest_first: &[(u64, MessageRef<'_>)], end: u64) -> bool {
    let offsets = newest_first.iter().map(|(offset, _)| *offset);
    offsets.eq((1..=end).rev().take(newest_first.len()))
}
