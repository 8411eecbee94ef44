//! What a scenario needs of a publish/subscribe protocol over WebSocket, whichever it is: the path to
//! connect to, what goes out once the WebSocket is open, a publication, and what comes in return.
//!
//! | file | protocol |
//! |---|---|
//! | `centrifuge` | Centrifuge, JSON |
//! | `nats` | NATS over WebSocket |
//! | `nchan` | nginx with nchan: channels are in the path, messages come bare |
//!
//! A publication's data is that of `subscriber::data` in all of them, so order and completeness are
//! checked alike.

mod centrifuge;
mod nats;
mod nchan;

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;

use super::subscriber::{Deliveries, Stamp};
use super::websocket::{self, CLOSE, Frame, PING, PONG, close_code};
use crate::target::Target;

/// The key of masked frames: any will do, nothing in between here needs protection from their bytes.
const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x2d];

/// The protocol that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Centrifuge, JSON
    Centrifuge,
    /// NATS over WebSocket
    Nats,
    /// nginx with nchan: subscribers at /sub/CHANNEL,CHANNEL, publishers at /pub/CHANNEL
    Nchan,
}

/// What a connection is there for.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// Hears these channels.
    Subscriber(Vec<String>),
    /// Publishes to these.
    Publisher(Vec<String>),
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The last answer that a connection waits for after it was opened: what it asked for stands.
    Ready,
    /// A publication.
    Delivery(Stamp),
    /// A publication of this connection was refused.
    Refused,
}

/// One connection's conversation. Commands go out in `out`, as whole WebSocket frames.
#[derive(Debug)]
pub(crate) enum Session {
    Centrifuge(centrifuge::Session),
    Nats(nats::Session),
    Nchan(nchan::Session),
}

/// Why nothing more is to come from a connection.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The server has closed it with this code.
    Closed(u16),
    /// What came is not to be understood.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "closed with {code}"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Trouble {}

impl Protocol {
    /// Where connection `number` goes.
    ///
    /// # Errors
    /// When the protocol has no such connection.
    pub(crate) fn path(self, target: &Target, number: usize, role: &Role) -> Result<String> {
        match self {
            Self::Centrifuge => Ok(target.path_with("sid", &format!("crowd-{number}"))),
            Self::Nats => Ok(target.path.clone()),
            Self::Nchan => nchan::path(target, role),
        }
    }

    /// A connection that was not opened yet.
    pub(crate) fn session(self, role: &Role) -> Session {
        match self {
            Self::Centrifuge => Session::Centrifuge(centrifuge::Session::new(role)),
            Self::Nats => Session::Nats(nats::Session::default()),
            Self::Nchan => Session::Nchan(nchan::Session::new(role)),
        }
    }

    /// The command that publishes `data`, JSON, to a channel.
    pub(crate) fn publish(self, out: &mut Vec<u8>, id: u32, channel: &str, data: &str) {
        match self {
            Self::Centrifuge => centrifuge::publish(out, id, channel, data),
            Self::Nats => nats::publish(out, channel, data),
            Self::Nchan => nchan::publish(out, data),
        }
    }
}

impl Session {
    /// The WebSocket is open; true when nothing more has to come before the connection is ready.
    pub(crate) fn opened(&self, out: &mut Vec<u8>, role: &Role) -> bool {
        match self {
            Self::Centrifuge(_) => centrifuge::greet(out, role),
            Self::Nats(_) => nats::greet(out, role),
            Self::Nchan(_) => return true,
        }
        false
    }

    /// Takes a frame; pings are answered here.
    ///
    /// # Errors
    /// The server closed, broke the protocol or refused what was asked for.
    pub(crate) fn receive(
        &mut self,
        frame: &Frame<'_>,
        deliveries: &Deliveries,
        out: &mut Vec<u8>,
        on_heard: &mut impl FnMut(Heard),
    ) -> Result<(), Trouble> {
        let payload = frame.payload;
        let taken = match (frame.opcode, self) {
            (PING, _) => {
                websocket::frame(out, PONG, MASK, payload);
                Ok(())
            }
            (PONG, _) => Ok(()),
            (CLOSE, _) => return Err(Trouble::Closed(close_code(payload))),
            (_, Self::Centrifuge(session)) => session.receive(payload, deliveries, out, on_heard),
            (_, Self::Nats(session)) => session.receive(payload, out, on_heard),
            (_, Self::Nchan(session)) => session.receive(payload, on_heard),
        };
        taken.map_err(|error| Trouble::Broken(format!("{error:#}")))
    }
}
