//! Whom a node lets in: how many connections a second, and how many of one user.
//!
//! Both bounds are the node's, so its shards share them. Neither is on the way of a message: one
//! is asked at a handshake, the other when a client has proved who it is and when it leaves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// How many connections may come in a second (`client.connection_rate_limit`); as many may come at
/// once after a pause.
///
/// A token bucket in one number, as the sessions' buckets of commands are (`session/rate`), but
/// taken from by all shards.
#[derive(Debug)]
pub struct ConnectionRate {
    started: Instant,
    /// Time in which one connection's room comes back.
    interval_ns: u64,
    /// When there would be room for a whole second's connections, in ns since `started`.
    full_at_ns: AtomicU64,
}

impl ConnectionRate {
    /// None where `per_second` is 0: there is no such bound.
    #[must_use]
    pub fn new(per_second: u64, now: Instant) -> Option<Self> {
        let second_ns = Duration::from_secs(1).as_nanos() as u64;
        Some(Self {
            started: now,
            interval_ns: second_ns.checked_div(per_second)?,
            full_at_ns: AtomicU64::new(0),
        })
    }

    /// Whether a connection that comes now is let in.
    pub(super) fn admits(&self, now: Instant) -> bool {
        let now_ns = now.saturating_duration_since(self.started).as_nanos() as u64;
        let most_ns = Duration::from_secs(1).as_nanos() as u64 - self.interval_ns;
        let take = |full_at_ns: u64| {
            let full_at_ns = full_at_ns.max(now_ns);
            (full_at_ns - now_ns <= most_ns).then(|| full_at_ns + self.interval_ns)
        };
        let order = Ordering::Relaxed;
        self.full_at_ns.fetch_update(order, order, take).is_ok()
    }
}

/// How many connections one user may have on the node (`client.user_connection_limit`).
///
/// Invariant: a user stands here exactly while it has connections, with how many.
#[derive(Debug)]
pub struct UserLimit {
    max: u64,
    connections: Mutex<HashMap<Box<str>, u64, RandomState>>,
}

impl UserLimit {
    /// None where `max` is 0: there is no such bound.
    #[must_use]
    pub fn new(max: u64) -> Option<Self> {
        (max > 0).then(|| Self {
            max,
            connections: Mutex::default(),
        })
    }

    /// Counts one connection more of the user, unless it has as many as it may.
    pub(super) fn take(&self, user: &str) -> bool {
        let mut connections = self.connections();
        match connections.get_mut(user) {
            Some(count) if *count >= self.max => return false,
            Some(count) => *count += 1,
            None => {
                connections.insert(user.into(), 1);
            }
        }
        true
    }

    /// One connection of the user is gone.
    pub(super) fn give_back(&self, user: &str) {
        let mut connections = self.connections();
        if let Some(count) = connections.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                connections.remove(user);
            }
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<Box<str>, u64, RandomState>> {
        // Each change is one step: a shard that panicked left no half of one.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_connections_at_once_and_then_the_rate() {
        let mut now = Instant::now();
        let rate = ConnectionRate::new(4, now).expect("a bound");
        let admitted = |now| (0..20).filter(|_| rate.admits(now)).count();
        assert_eq!(admitted(now), 4);
        now += Duration::from_millis(249);
        assert_eq!(admitted(now), 0);
        now += Duration::from_millis(1);
        assert_eq!(admitted(now), 1);
        now += Duration::from_secs(60);
        assert_eq!(admitted(now), 4, "no more however long the rest");
        assert!(ConnectionRate::new(0, now).is_none());
    }

    #[test]
    fn a_user_has_as_many_as_it_may_and_no_memory_when_it_has_none() {
        let limit = UserLimit::new(2).expect("a bound");
        assert!(limit.take("a") && limit.take("a") && limit.take("b"));
        assert!(!limit.take("a"));
        limit.give_back("a");
        assert!(limit.take("a"));
        for user in ["a", "a", "b"] {
            limit.give_back(user);
        }
        assert!(limit.connections().is_empty());
        assert!(UserLimit::new(0).is_none());
    }
}
