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

use anyhow::{Result, bail};
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
    /// What ends a run: the server closed, broke the protocol or refused what was asked for.
    pub(crate) fn receive(
        &mut self,
        frame: &Frame<'_>,
        deliveries: &Deliveries,
        out: &mut Vec<u8>,
        on_heard: &mut impl FnMut(Heard),
    ) -> Result<()> {
        match frame.opcode {
            PING => websocket::frame(out, PONG, MASK, frame.payload),
            PONG => {}
            CLOSE => bail!("closed with {}", close_code(frame.payload)),
            _ => match self {
                Self::Centrifuge(session) => {
                    session.receive(frame.payload, deliveries, out, on_heard)?;
                }
                Self::Nats(session) => session.receive(frame.payload, out, on_heard)?,
                Self::Nchan(session) => session.receive(frame.payload, on_heard)?,
            },
        }
        Ok(())
    }
}
