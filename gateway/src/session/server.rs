//! What the server's API does to a session.

use std::time::{Duration, Instant};

use super::commands::Denied;
use super::subscribe::{Wants, seconds};
use super::{Effect, Session};
use crate::authority::{RefreshGrant, SubscribeGrant};
use crate::protocol::{Disconnect, ErrorCode, Push};
use crate::pubsub::KnownEpoch;

impl Session {
    /// Subscribes the client to a channel; it is told by a push once the engine has confirmed, and
    /// by a publication push for each that it missed since `recover_since`.
    ///
    /// # Errors
    /// 102 or 107 where there cannot be such a channel, 105 where the client is subscribed, 108
    /// where it has not connected. Beyond the limit of channels the session closes with 3505.
    pub fn subscribe_by_server(
        &mut self,
        channel: &str,
        grant: SubscribeGrant,
        recover_since: Option<(u64, KnownEpoch)>,
        now: Instant,
        effect: &mut impl FnMut(Effect<'_>),
    ) -> Result<(), ErrorCode> {
        if !self.is_connected() {
            return Err(ErrorCode::NotAvailable);
        }
        let wants = Wants::from_position(recover_since);
        let result = match self.begin(0, channel, wants, grant, now, effect) {
            Ok(()) => Ok(()),
            Err(Denied::Error(ErrorCode::LimitExceeded)) => {
                self.disconnect(Disconnect::CHANNEL_LIMIT, effect);
                Err(ErrorCode::LimitExceeded)
            }
            Err(Denied::Error(error)) => Err(error),
            // A channel without a name.
            Err(Denied::Disconnect(_)) => Err(ErrorCode::BadRequest),
        };
        self.settle();
        result
    }

    /// Renews the connection's credentials, or ends it where they have expired (3005). The client
    /// is told when they expire now, where it renews them itself.
    pub fn refresh_by_server(
        &mut self,
        expired: bool,
        expires_in: Option<Duration>,
        info: Option<Vec<u8>>,
        now: Instant,
        out: &mut Vec<u8>,
        effect: &mut impl FnMut(Effect<'_>),
    ) {
        if !self.is_connected() {
            return;
        }
        if expired {
            return self.disconnect(Disconnect::EXPIRED, effect);
        }
        let grant = RefreshGrant {
            expires_in,
            info,
            ..RefreshGrant::default()
        };
        self.renew_connection(grant, now, effect);
        if self.client_renews() {
            let ttl_seconds = expires_in.map(seconds);
            self.push(out, &Push::Refresh { ttl_seconds });
        }
        self.reschedule();
        self.settle();
    }

    /// Sends the client a message outside of any channel. `data`: for a client of the JSON format a
    /// JSON value on one line.
    pub fn send(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if self.is_connected() {
            self.push(out, &Push::Message { data });
        }
    }
}
