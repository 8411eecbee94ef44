//! The subscriptions of one session.
//!
//! Invariants
//! - A channel stands here at most once.
//! - There are never more than the limit that `begin` was given.

use std::time::Instant;

use crate::protocol::ErrorCode;

/// A client has few subscriptions and most have one, so a plain list is smallest and fastest.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    list: Vec<Subscription>,
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
        // One at a time: doubling would leave half of the list unused in every connection.
        self.list.reserve_exact(1);
        self.list.push(subscription);
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
            debug_assert!(
                subscription.is_server_side() == (subscription.id == 0),
                "the id tells who subscribed"
            );
        }
    }
}
