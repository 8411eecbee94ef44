//! Publications of one server's ledger that came to nothing there: it has answered that their channel
//! belongs elsewhere or that it does not know the script, or they were never sent.
//!
//! Where one of a channel has come back, no later one of it is sent there, and all of them are handed out
//! together, in order, when whatever was sent before has been answered.
//!
//! Invariants
//! - A publication is here only if it was certainly not carried out.
//! - One that a later one of its channel has overtaken is not tried again: order comes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::ledger::{Content, Entry, Publisher};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Returned {
    /// Channels of which nothing is sent, each with the sequence number that follows all that was sent of it.
    channels: HashMap<Arc<str>, u64, RandomState>,
    /// Those among them that nobody has been told of.
    closed: Vec<Arc<str>>,
    entries: BTreeMap<u64, Entry>,
    overtaken: Vec<Publisher>,
}

impl Returned {
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Nothing of `channel` is sent from now on; what was has numbers below `next`.
    pub(super) fn close(&mut self, channel: &str, next: u64) {
        if !self.channels.contains_key(channel) {
            let channel: Arc<str> = Arc::from(channel);
            self.closed.push(Arc::clone(&channel));
            self.channels.insert(channel, next);
        }
    }

    pub(super) fn is_closed(&self, channel: &str) -> bool {
        !self.channels.is_empty() && self.channels.contains_key(channel)
    }

    /// `entry` came to nothing.
    pub(super) fn put(&mut self, sequence: u64, entry: Entry, next: u64) {
        if let Content::Append(append) = &entry.content {
            self.close(append.message.channel(), next);
            self.entries.insert(sequence, entry);
        }
    }

    /// The publication `sequence` of `channel` was carried out.
    pub(super) fn overtake(&mut self, sequence: u64, channel: &str) {
        if !self.is_closed(channel) {
            return;
        }
        let is_earlier = |at: &u64, entry: &mut Entry| {
            let Content::Append(append) = &entry.content else {
                return false;
            };
            *at < sequence && append.message.channel() == channel
        };
        let earlier = self.entries.extract_if(.., is_earlier);
        self.overtaken
            .extend(earlier.filter_map(|(_, entry)| entry.asker));
    }

    /// Who published what was overtaken.
    pub(super) fn take_overtaken(&mut self) -> Vec<Publisher> {
        std::mem::take(&mut self.overtaken)
    }

    /// Channels that were closed since the last call.
    pub(super) fn take_closed(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.closed)
    }

    /// The closed channels of which all was answered, as everything below `done` was, and what came back of
    /// them. They are open again.
    pub(super) fn take(&mut self, done: u64) -> Vec<(Arc<str>, Vec<Entry>)> {
        let is_done = |_: &Arc<str>, next: &mut u64| *next <= done;
        let mut taken: HashMap<Arc<str>, Vec<Entry>, RandomState> = HashMap::default();
        for (channel, _) in self.channels.extract_if(is_done) {
            taken.insert(channel, Vec::new());
        }
        if !taken.is_empty() {
            let is_taken = |_: &u64, entry: &mut Entry| match &entry.content {
                Content::Append(append) => taken.contains_key(append.message.channel()),
                _ => true,
            };
            let entries: Vec<Entry> = self
                .entries
                .extract_if(.., is_taken)
                .map(|(_, entry)| entry)
                .collect();
            for entry in entries {
                if let Content::Append(append) = &entry.content
                    && let Some(list) = taken.get_mut(append.message.channel())
                {
                    list.push(entry);
                }
            }
        }
        taken.into_iter().collect()
    }
}
