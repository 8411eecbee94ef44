//! The subscriptions of one session.
//!
//! Invariants
//! - A channel stands here at most once.
//! - There are never more than the limit that `begin` was given.

use crate::protocol::ErrorCode;

/// A client has few subscriptions and most have one, so a plain list is smallest and fastest.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    list: Vec<Subscription>,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) channel: Box<str>,
    /// The subscribe command that waits for the engine; None once it is answered.
    pub(super) pending: Option<u32>,
    /// Whether the channel's subscribers are told when this client comes and goes.
    pub(super) announces: bool,
}

// The memory of an idle connection counts: see `Session`.
const _: () = assert!(size_of::<Subscription>() <= 32);

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
    pub(super) fn begin(&mut self, channel: &str, id: u32, announces: bool) {
        // One at a time: doubling would leave half of the list unused in every connection.
        self.list.reserve_exact(1);
        self.list.push(Subscription {
            channel: channel.into(),
            pending: Some(id),
            announces,
        });
    }

    /// The one that waits for the answer to command `id`.
    pub(super) fn pending(&mut self, channel: &str, id: u32) -> Option<&mut Subscription> {
        let at = self.find(channel)?;
        let subscription = &mut self.list[at];
        (subscription.pending == Some(id)).then_some(subscription)
    }

    /// Takes the one to the channel out.
    pub(super) fn remove(&mut self, channel: &str) -> Option<Subscription> {
        let at = self.find(channel)?;
        Some(self.list.remove(at))
    }

    /// Takes all of them out.
    pub(super) fn take(&mut self) -> Vec<Subscription> {
        std::mem::take(&mut self.list)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.list.iter()
    }

    fn find(&self, channel: &str) -> Option<usize> {
        self.list
            .iter()
            .position(|subscription| &*subscription.channel == channel)
    }

    pub(super) fn check_invariants(&self, channels_max: usize) {
        debug_assert!(self.list.len() <= channels_max, "more than the limit");
        for (at, subscription) in self.list.iter().enumerate() {
            debug_assert!(!subscription.channel.is_empty(), "a channel without a name");
            debug_assert_eq!(
                self.find(&subscription.channel),
                Some(at),
                "a channel stands here twice"
            );
        }
    }
}
