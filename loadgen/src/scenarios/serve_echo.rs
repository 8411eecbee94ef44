//! `serve-echo`: a TCP server that returns every byte, for measuring balancers without
//! a WebSocket server behind them. Not a peer in any comparison.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;
use slab::Slab;

use super::Stop;
use super::open::check_descriptors;
use crate::report::Output;

const LISTENER: Token = Token(usize::MAX);
const BUFFER: usize = 64 << 10;
/// A peer that does not read what it sent is cut off here.
const BACKLOG_MAX: usize = 16 << 20;

struct Peer {
    stream: TcpStream,
    unsent: Vec<u8>,
}

/// Serves until a signal; prints the address it listens on first (port 0: the kernel's choice).
pub(crate) fn run(listen: SocketAddr, output: &Output, stop: &Stop) -> Result<()> {
    check_descriptors(1)?;
    let listener =
        TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    output.announce(
        &json!({"listening": address}),
        &format!("listening on {address}"),
    );

    let mut events = Events::with_capacity(1024);
    let mut peers: Slab<Peer> = Slab::new();
    let mut buffer = vec![0; BUFFER];
    while !stop.requested() {
        match poll.poll(&mut events, Some(std::time::Duration::from_millis(200))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    // Without it small answers would wait for acknowledgements; a failure only costs time.
                    let _ = stream.set_nodelay(true);
                    let entry = peers.vacant_entry();
                    poll.registry().register(
                        &mut stream,
                        Token(entry.key()),
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                    entry.insert(Peer {
                        stream,
                        unsent: Vec::new(),
                    });
                }
            } else if let Some(peer) = peers.get_mut(event.token().0)
                && !peer.serve(&mut buffer)
            {
                drop(peers.remove(event.token().0));
            }
        }
    }
    Ok(())
}

impl Peer {
    /// Reads and returns what there is; false when the connection is over.
    fn serve(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            if !self.flush() {
                return false;
            }
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(read) => {
                    let sent = if self.unsent.is_empty() {
                        self.stream.write(&buffer[..read])
                    } else {
                        Ok(0)
                    };
                    match sent {
                        Ok(sent) => self.unsent.extend_from_slice(&buffer[sent..read]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            self.unsent.extend_from_slice(&buffer[..read]);
                        }
                        Err(_) => return false,
                    }
                    if self.unsent.len() > BACKLOG_MAX {
                        return false;
                    }
                    if read < buffer.len() && self.unsent.is_empty() {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }
}
