//! The subscriptions of one session.
//!
//! Invariants
//! - A channel stands here at most once.
//! - There are never more than the limit that `begin` was given.
//! - There is an index exactly while there are more than `FEW`, and it names every place of the list.

use std::hash::BuildHasher;
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::protocol::ErrorCode;

/// A list of up to this many is searched from its start.
const FEW: usize = 16;

/// A client has few subscriptions and most have one, so a plain list is smallest and fastest; a longer one has
/// an index by name beside it.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    list: Vec<Subscription>,
    index: Option<Box<Index>>,
}

/// Places in the list, by the channels' names.
#[derive(Debug, Default)]
struct Index {
    hasher: RandomState,
    places: HashTable<u32>,
}

impl Index {
    fn of(list: &[Subscription]) -> Self {
        let mut index = Self::default();
        for place in 0..list.len() {
            index.add(list, place);
        }
        index
    }

    fn find(&self, list: &[Subscription], channel: &str) -> Option<usize> {
        let hash = self.hasher.hash_one(channel);
        let found = self
            .places
            .find(hash, |place| *list[*place as usize].channel == *channel)?;
        Some(*found as usize)
    }

    fn add(&mut self, list: &[Subscription], place: usize) {
        let Self { hasher, places } = self;
        let hash = |place: &u32| hasher.hash_one(&*list[*place as usize].channel);
        let place = place as u32;
        places.insert_unique(hash(&place), place, hash);
    }

    /// What stood in place `from` stands in place `to` from now on, or nowhere.
    fn moved(&mut self, channel: &str, from: usize, to: Option<usize>) {
        let hash = self.hasher.hash_one(channel);
        if let Ok(mut entry) = self
            .places
            .find_entry(hash, |place| *place as usize == from)
        {
            match to {
                Some(to) => *entry.get_mut() = to as u32,
                None => drop(entry.remove()),
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) channel: Box<str>,
    /// What a plain subscription that is live does without.
    pub(super) details: Option<Box<Details>>,
    /// The subscribe command that waits for the engine; 0 where the server subscribes the client.
    pub(super) id: u32,
    pub(super) is_live: bool,
    /// Whether the channel's subscribers are told when this client comes and goes.
    pub(super) announces: bool,
    /// Whether the client is present in the channel while it is subscribed.
    pub(super) is_present: bool,
    pub(super) source: Source,
}

/// Whose doing a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Client,
    /// The backend's or the server API's, or the user's personal channel.
    Server,
    /// The connection's token named it.
    Token,
}

// The memory of an idle connection counts: see `Session`.
const _: () = assert!(size_of::<Subscription>() <= 32);

/// What some subscriptions have, and others while they wait for the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    /// What others are told about the client in this channel: JSON, empty without.
    pub(super) chan_info: Box<[u8]>,
    /// When the credentials expire; none: never.
    pub(super) expires_at: Option<Instant>,
    /// Whether the backend renews them, instead of the client.
    pub(super) backend_renews: bool,
    /// What the answer needs; unchanged once it is given.
    pub(super) granted: Granted,
    /// For the client, empty without; gone once it is told.
    pub(super) data: Vec<u8>,
}

/// What the client asked for and may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a field of the protocol's answer"
)]
pub(super) struct Granted {
    pub(super) positioned: bool,
    pub(super) recoverable: bool,
    pub(super) delta: bool,
    /// The client asked to recover.
    pub(super) was_recovering: bool,
    /// A position that cannot be recovered is an error, not an answer.
    pub(super) fails_unrecovered: bool,
    /// The offset that it asked with.
    pub(super) offset: u64,
}

impl Details {
    /// Whether a live subscription can do without them.
    pub(super) fn is_plain(&self) -> bool {
        self.chan_info.is_empty() && self.expires_at.is_none()
    }
}

impl Subscription {
    /// Whether the server subscribed the client.
    pub(super) fn is_server_side(&self) -> bool {
        self.source != Source::Client
    }

    /// What others are told about the client in this channel.
    pub(super) fn chan_info(&self) -> &[u8] {
        self.details
            .as_ref()
            .map_or(b"", |details| &*details.chan_info)
    }

    /// The answer is given: what only it needed goes.
    pub(super) fn settle(&mut self) {
        self.is_live = true;
        if let Some(details) = &mut self.details {
            details.data = Vec::new();
            if details.is_plain() {
                self.details = None;
            }
        }
    }

    /// New credentials.
    pub(super) fn renew(&mut self, expires_at: Option<Instant>, info: Option<Vec<u8>>) {
        let details = self.details.get_or_insert_default();
        details.expires_at = expires_at;
        if let Some(info) = info {
            details.chan_info = info.into();
        }
        if self.is_live && details.is_plain() {
            self.details = None;
        }
    }
}

impl Subscriptions {
    /// Whether there is one to the channel, pending or live.
    pub(super) fn contains(&self, channel: &str) -> bool {
        self.find(channel).is_some()
    }

    /// Whether another one is possible: 105 for a second one, 106 beyond the limit.
    pub(super) fn admits(&self, channel: &str, channels_max: usize) -> Result<(), ErrorCode> {
        if self.contains(channel) {
            Err(ErrorCode::AlreadySubscribed)
        } else if self.list.len() >= channels_max {
            Err(ErrorCode::LimitExceeded)
        } else {
            Ok(())
        }
    }

    /// Adds one that waits for the engine. Ask `admits` first.
    pub(super) fn begin(&mut self, subscription: Subscription) {
        if self.list.len() < FEW {
            // One at a time: doubling would leave half of the list unused in every connection.
            self.list.reserve_exact(1);
        }
        self.list.push(subscription);
        match &mut self.index {
            Some(index) => index.add(&self.list, self.list.len() - 1),
            None if self.list.len() > FEW => self.index = Some(Box::new(Index::of(&self.list))),
            None => {}
        }
    }

    /// The one to the channel.
    pub(super) fn get(&self, channel: &str) -> Option<&Subscription> {
        self.find(channel).map(|at| &self.list[at])
    }

    /// The one to the channel.
    pub(super) fn get_mut(&mut self, channel: &str) -> Option<&mut Subscription> {
        self.find(channel).map(|at| &mut self.list[at])
    }

    /// The one that waits for the answer to command `id`.
    pub(super) fn pending(&mut self, channel: &str, id: u32) -> Option<&mut Subscription> {
        self.get_mut(channel)
            .filter(|subscription| !subscription.is_live && subscription.id == id)
    }

    /// Takes the one to the channel out.
    pub(super) fn remove(&mut self, channel: &str) -> Option<Subscription> {
        let at = self.find(channel)?;
        let Some(index) = &mut self.index else {
            return Some(self.list.remove(at));
        };
        index.moved(channel, at, None);
        let removed = self.list.swap_remove(at);
        if let Some(last) = self.list.get(at) {
            index.moved(&last.channel, self.list.len(), Some(at));
        }
        if self.list.len() <= FEW {
            self.index = None;
            self.list.shrink_to_fit();
        }
        Some(removed)
    }

    /// Takes all of them out.
    pub(super) fn take(&mut self) -> Vec<Subscription> {
        self.index = None;
        std::mem::take(&mut self.list)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.list.iter()
    }

    fn find(&self, channel: &str) -> Option<usize> {
        if let Some(index) = &self.index {
            return index.find(&self.list, channel);
        }
        self.list
            .iter()
            .position(|subscription| &*subscription.channel == channel)
    }

    pub(super) fn check_invariants(&self, channels_max: usize) {
        debug_assert!(self.list.len() <= channels_max, "more than the limit");
        debug_assert_eq!(
            self.index.as_ref().map(|index| index.places.len()),
            (self.list.len() > FEW).then_some(self.list.len()),
            "an index, and of all"
        );
        for (at, subscription) in self.list.iter().enumerate() {
            debug_assert!(!subscription.channel.is_empty(), "a channel without a name");
            debug_assert_eq!(
                self.find(&subscription.channel),
                Some(at),
                "a channel stands here twice"
            );
            debug_assert!(
                subscription.is_server_side() == (subscription.id == 0),
                "the id tells who subscribed"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(channel: &str) -> Subscription {
        Subscription {
            channel: channel.into(),
            details: None,
            id: 1,
            is_live: true,
            announces: false,
            is_present: false,
            source: Source::Client,
        }
    }

    #[test]
    fn each_subscription_is_found_by_its_channel_however_many_come_and_go() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut subscriptions = Subscriptions::default();
        let mut expected = std::collections::BTreeSet::new();
        for step in 0..2_000 {
            // First mostly more, then mostly less.
            let adds = random.u32(..2_000) > step;
            let channel = format!("channel-{}", random.u32(..60));
            if adds && subscriptions.admits(&channel, 100).is_ok() {
                subscriptions.begin(subscription(&channel));
                expected.insert(channel);
            } else if !adds {
                let removed = subscriptions.remove(&channel);
                assert_eq!(removed.is_some(), expected.remove(&channel), "seed {seed}");
            }
            subscriptions.check_invariants(100);
            let found = |channel: &String| subscriptions.get(channel).map(|one| &*one.channel);
            assert!(
                expected
                    .iter()
                    .all(|channel| found(channel) == Some(channel)),
                "seed {seed}, step {step}"
            );
            assert_eq!(subscriptions.len(), expected.len(), "seed {seed}");
        }
    }
}
