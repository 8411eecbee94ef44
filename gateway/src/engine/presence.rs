//! Who is present in which channel, as the channel's owner knows it.
//!
//! Invariants
//! - A channel is in the table exactly while somebody is present in it.
//! - `users` counts the members of each user; their sum is the number of members.
//! - `members` is the number of members of all channels.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{Members, PresenceStats};
use crate::protocol::ClientId;
use crate::pubsub::OwnedClientInfo;

#[derive(Default)]
struct Channel {
    members: HashMap<ClientId, OwnedClientInfo, RandomState>,
    users: HashMap<Box<str>, u32, RandomState>,
    /// What was answered last, while it holds: many who ask at once share one list.
    answered: Option<Members>,
}

impl Channel {
    fn forget_user(&mut self, user: &str) {
        if let Some(count) = self.users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(user);
            }
        }
    }
}

/// The members of channels.
#[derive(Default)]
pub(super) struct Presence {
    channels: HashMap<Arc<str>, Channel, RandomState>,
    members: usize,
}

impl Presence {
    /// A client is present. One that is already is present with this info.
    pub(super) fn enter(&mut self, channel: &Arc<str>, info: OwnedClientInfo) {
        let found = self.channels.entry(Arc::clone(channel)).or_default();
        found.answered = None;
        match found.users.get_mut(&info.user) {
            Some(count) => *count += 1,
            None => {
                found.users.insert(info.user.clone(), 1);
            }
        }
        match found.members.insert(info.client, info) {
            Some(before) => found.forget_user(&before.user),
            None => self.members += 1,
        }
        self.check_invariants(channel);
    }

    /// A client is no longer present. Nothing, if it was not.
    pub(super) fn exit(&mut self, channel: &str, client: ClientId) {
        let Some(found) = self.channels.get_mut(channel) else {
            return;
        };
        if let Some(gone) = found.members.remove(&client) {
            found.answered = None;
            found.forget_user(&gone.user);
            self.members -= 1;
        }
        if found.members.is_empty() {
            self.channels.remove(channel);
        }
        self.check_invariants(channel);
    }

    /// Who is there.
    pub(super) fn members(&mut self, channel: &str) -> Members {
        let Some(found) = self.channels.get_mut(channel) else {
            return Members::default();
        };
        let answered = found
            .answered
            .get_or_insert_with(|| found.members.values().cloned().collect());
        Arc::clone(answered)
    }

    /// How many are there.
    pub(super) fn stats(&self, channel: &str) -> PresenceStats {
        self.channels
            .get(channel)
            .map_or(PresenceStats::default(), |found| PresenceStats {
                clients: found.members.len() as u64,
                users: found.users.len() as u64,
            })
    }

    /// Members of all channels.
    pub(super) fn len(&self) -> usize {
        self.members
    }

    /// Checked after each change in debug builds while the channel is small enough for it.
    fn check_invariants(&self, channel: &str) {
        let Some(found) = self.channels.get(channel) else {
            return;
        };
        if cfg!(debug_assertions) && found.members.len() <= 64 {
            assert!(!found.members.is_empty(), "{channel}: kept without members");
            let of_users = found.users.values().map(|count| *count as usize);
            assert_eq!(of_users.sum::<usize>(), found.members.len(), "{channel}");
            assert!(self.members >= found.members.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(client: u128, user: &str) -> OwnedClientInfo {
        OwnedClientInfo {
            client: ClientId::from_random(client),
            user: user.into(),
            conn_info: b"{}".as_slice().into(),
            chan_info: Box::default(),
        }
    }

    #[test]
    fn users_are_counted_once_however_many_clients_they_have() {
        let mut presence = Presence::default();
        let room: Arc<str> = "room".into();
        for (client, user) in [(1, "ann"), (2, "ann"), (3, "bob"), (4, ""), (5, "")] {
            presence.enter(&room, member(client, user));
        }
        let stats = |clients, users| PresenceStats { clients, users };
        assert_eq!(presence.stats("room"), stats(5, 3));
        presence.exit("room", ClientId::from_random(1));
        presence.exit("room", ClientId::from_random(4));
        assert_eq!(presence.stats("room"), stats(3, 3));
        // It has become somebody else, as a refreshed token may say.
        presence.enter(&room, member(2, "bob"));
        assert_eq!(presence.stats("room"), stats(3, 2));
        for client in 1..=5 {
            presence.exit("room", ClientId::from_random(client));
        }
        assert_eq!((presence.len(), presence.channels.len()), (0, 0));
        assert_eq!(presence.stats("room"), stats(0, 0));
        assert!(presence.members("room").is_empty());
    }

    #[test]
    fn those_who_ask_while_nobody_comes_or_goes_share_one_list() {
        let mut presence = Presence::default();
        let room: Arc<str> = "room".into();
        presence.enter(&room, member(1, "ann"));
        let first = presence.members("room");
        assert!(Arc::ptr_eq(&first, &presence.members("room")));
        presence.enter(&room, member(2, "bob"));
        assert_eq!(presence.members("room").len(), 2);
        assert_eq!(first.len(), 1, "what was answered stays as it was");
        presence.exit("room", ClientId::from_random(1));
        assert_eq!(&*presence.members("room"), [member(2, "bob")]);
    }
}
