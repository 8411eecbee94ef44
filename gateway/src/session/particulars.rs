//! What only some sessions have: credentials, a question that is out, commands that wait for its
//! answer. An idle anonymous client of a WebSocket has none of it, and no memory for it.

use std::time::Instant;

use super::connect::Connecting;
use super::rate::Bucket;
use super::subscribe::Wants;
use crate::authority::Headers;

#[derive(Debug, Default)]
pub(super) struct Particulars {
    /// Empty for an anonymous client.
    pub(super) user: Box<str>,
    /// What others are told about the client: JSON, empty without.
    pub(super) conn_info: Box<[u8]>,
    /// For the backend: JSON, empty without.
    pub(super) meta: Box<[u8]>,
    /// See [`Door`](super::Door).
    pub(super) session_token: Box<str>,
    /// See [`Door`](super::Door).
    pub(super) headers: Headers,
    /// When the connection's credentials expire; none: never.
    pub(super) expires_at: Option<Instant>,
    /// When something expires, or is to be renewed; see `credentials`.
    pub(super) due: Option<Instant>,
    /// The command whose question is out. Others wait until it is answered.
    pub(super) asking: Option<Asking>,
    /// The server-side subscriptions of a connect that is not answered yet.
    pub(super) connecting: Option<Box<Connecting>>,
    /// Whether the backend was asked to renew the connection's credentials.
    pub(super) renews_connection: bool,
    /// The subscription that the backend was asked to renew.
    pub(super) renews_subscription: Option<Box<str>>,
    /// Commands that wait.
    pub(super) stash: Stash,
    /// Of all commands.
    pub(super) commands: Bucket,
    /// Of publishes.
    pub(super) publishes: Bucket,
}

/// A command that waits for the authority.
#[derive(Debug)]
pub(super) enum Asking {
    Connect {
        id: u32,
        has_token: bool,
        /// Where the client was in its server-side subscriptions.
        since: Vec<(Box<str>, Wants)>,
    },
    Subscribe {
        id: u32,
        channel: Box<str>,
        wants: Wants,
    },
    Publish {
        id: u32,
        channel: Box<str>,
        data: Vec<u8>,
    },
    Rpc {
        id: u32,
    },
    Refresh {
        id: u32,
    },
    SubRefresh {
        id: u32,
        channel: Box<str>,
    },
}

impl Particulars {
    /// Whether a session can do without them.
    pub(super) fn are_none(&self) -> bool {
        let Self {
            user,
            conn_info,
            meta,
            session_token,
            headers,
            expires_at,
            due,
            asking,
            connecting,
            renews_connection,
            renews_subscription,
            stash,
            commands,
            publishes,
        } = self;
        user.is_empty()
            && conn_info.is_empty()
            && meta.is_empty()
            && session_token.is_empty()
            && headers.is_empty()
            && expires_at.is_none()
            && due.is_none()
            && asking.is_none()
            && connecting.is_none()
            && !renews_connection
            && renews_subscription.is_none()
            && stash.is_empty()
            && *commands == Bucket::default()
            && *publishes == Bucket::default()
    }
}

/// Commands as they came, for later.
#[derive(Debug, Default)]
pub(super) struct Stash {
    bytes: Vec<u8>,
    /// How many of them are done with.
    taken: usize,
}

impl Stash {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// What waits.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// `count` bytes are done with.
    pub(super) fn advance(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.bytes.len());
        if self.is_empty() {
            // One question is no reason to keep memory for the next.
            *self = Self::default();
        }
    }

    /// Adds the bytes of one command; `separator` stands between two of them, once.
    pub(super) fn add(&mut self, command: &[u8], separator: &[u8]) {
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        if !self.is_empty() && !self.bytes.ends_with(separator) {
            self.bytes.extend_from_slice(separator);
        }
        self.bytes.extend_from_slice(command);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_stays_in_order_and_apart() {
        let mut stash = Stash::default();
        stash.add(b"a\n", b"\n");
        stash.add(b"b", b"\n");
        stash.add(b"c", b"\n");
        assert_eq!(stash.rest(), b"a\nb\nc");
        stash.advance(4);
        assert_eq!((stash.rest(), stash.len()), (&b"c"[..], 1));
        stash.add(b"d", b"\n");
        assert_eq!(stash.rest(), b"c\nd");
        stash.advance(3);
        assert!(stash.is_empty());
        stash.add(b"\x01x", b"");
        stash.add(b"\x01y", b"");
        assert_eq!(stash.rest(), b"\x01x\x01y");
    }
}
