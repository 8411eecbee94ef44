//! Pings and pongs: a client that is gone without a word is found out.

use std::time::Instant;

use super::commands::Denied;
use super::{Effect, Phase, Session};
use crate::protocol::Disconnect;

impl Session {
    /// The first ping comes after a random half to whole interval, so that the pings of clients
    /// that came together do not stay together.
    pub(super) fn first_ping(&self, now: Instant) -> Instant {
        let half = self.config.limits.ping_interval / 2;
        let share = f64::from(self.client.random_bits()) / f64::from(u32::MAX);
        now + half + half.mul_f64(share)
    }

    /// What is due at the heartbeat.
    pub(super) fn beat(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        let limits = &self.config.limits;
        match self.phase {
            Phase::Connecting => self.disconnect(Disconnect::STALE, effect),
            // Nothing is read from the client while so many of its commands wait: the pong may be
            // there.
            Phase::AwaitingPong if self.is_stash_heavy() => {
                self.heartbeat = Some(now + limits.pong_timeout);
            }
            Phase::AwaitingPong => self.disconnect(Disconnect::NO_PONG, effect),
            Phase::Connected if self.wire.unidirectional => {
                self.heartbeat = Some(now + limits.ping_interval);
                self.wire.format.ping(out);
            }
            Phase::Connected => {
                self.heartbeat = Some(now + limits.pong_timeout);
                self.phase = Phase::AwaitingPong;
                self.wire.format.ping(out);
            }
            Phase::Closed => {}
        }
    }

    pub(super) fn pong(&mut self) -> Result<(), Denied> {
        if self.phase != Phase::AwaitingPong {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        self.phase = Phase::Connected;
        let limits = &self.config.limits;
        let until_next = limits.ping_interval - limits.pong_timeout;
        self.heartbeat = self.heartbeat.map(|due| due + until_next);
        Ok(())
    }
}
