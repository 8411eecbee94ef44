//! `serve-bulk`: the far side of `bulk`. A flow begins with a line that names its direction (a balancer's PROXY
//! header may stand before it); when the client has ended its side, the server says what it received and sent and
//! ends its own. Not a peer in any comparison.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;
use slab::Slab;

use super::super::Stop;
use super::super::head::{HEAD_MAX, line};
use super::super::open::check_descriptors;
use super::Direction;
use super::stream::{Memory, Moved, Stream, trailer};
use crate::report::Output;

const LISTENER: Token = Token(usize::MAX);

struct Peer {
    stream: Stream,
    stage: Stage,
    readable: bool,
    writable: bool,
}

enum Stage {
    /// What came so far of the PROXY header and the line.
    Head(Vec<u8>),
    Moving(Direction),
    /// The rest of the trailer.
    Ending(Vec<u8>),
}

/// Serves until a signal; prints the address it listens on first (port 0: the kernel's choice).
pub(crate) fn run(listen: SocketAddr, output: &Output, stop: &Stop) -> Result<()> {
    check_descriptors(1)?;
    serve(listen, stop, |address| {
        output.announce(
            &json!({"listening": address}),
            &format!("listening on {address}"),
        );
    })
}

pub(crate) fn serve(
    listen: SocketAddr,
    stop: &Stop,
    listening: impl FnOnce(SocketAddr),
) -> Result<()> {
    let listener =
        TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    listening(address);

    let mut events = Events::with_capacity(1024);
    let mut peers: Slab<Peer> = Slab::new();
    let mut memory = Memory::new();
    let mut busy: Vec<usize> = Vec::new();
    while !stop.requested() {
        let wait = if busy.is_empty() {
            Duration::from_millis(100)
        } else {
            Duration::ZERO
        };
        match poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    let entry = peers.vacant_entry();
                    let mut stream = Stream::new(socket);
                    poll.registry().register(
                        &mut stream.socket,
                        Token(entry.key()),
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                    entry.insert(Peer {
                        stream,
                        stage: Stage::Head(Vec::new()),
                        readable: false,
                        writable: false,
                    });
                }
            } else if let Some(peer) = peers.get_mut(event.token().0) {
                peer.readable |= event.is_readable();
                peer.writable |= event.is_writable();
                busy.push(event.token().0);
            }
        }
        busy.sort_unstable();
        busy.dedup();
        busy.retain(|number| {
            let Some(peer) = peers.get_mut(*number) else {
                return false;
            };
            match peer.serve(&mut memory) {
                Ok(true) => peer.readable || peer.writable && !matches!(peer.stage, Stage::Head(_)),
                // Over, or a client that broke off.
                Ok(false) | Err(_) => {
                    drop(peers.remove(*number));
                    false
                }
            }
        });
    }
    Ok(())
}

impl Peer {
    /// Does what can be done now; false when the flow is over.
    fn serve(&mut self, memory: &mut Memory) -> io::Result<bool> {
        if let Stage::Head(head) = &mut self.stage {
            self.readable = false;
            if !read_line(&mut self.stream.socket, head)? {
                return Ok(false);
            }
            let Some(direction) = direction(head)? else {
                return Ok(true);
            };
            self.stage = Stage::Moving(direction);
            (self.readable, self.writable) = (true, direction.down());
        }
        if let Stage::Moving(direction) = self.stage {
            if self.readable {
                match self.stream.receive(memory)? {
                    Moved::Ended => {
                        let stream = &self.stream;
                        self.stage = Stage::Ending(trailer(stream.received, stream.sent).to_vec());
                        (self.readable, self.writable) = (false, true);
                    }
                    moved => self.readable = moved == Moved::More,
                }
            }
            if matches!(self.stage, Stage::Moving(_)) {
                self.writable =
                    self.writable && direction.down() && self.stream.send(memory)? == Moved::More;
            }
        }
        if let Stage::Ending(rest) = &mut self.stage {
            self.readable = false;
            while !rest.is_empty() {
                match self.stream.socket.write(rest) {
                    Ok(taken) => drop(rest.drain(..taken)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.writable = false;
                        return Ok(true);
                    }
                    Err(error) => return Err(error),
                }
            }
            self.stream.end()?;
            return Ok(false);
        }
        Ok(true)
    }
}

/// Reads up to the end of the line and not a byte further; false when the client has left.
fn read_line(socket: &mut TcpStream, head: &mut Vec<u8>) -> io::Result<bool> {
    let mut byte = [0];
    while line(head).is_none() {
        match socket.read(&mut byte) {
            Ok(0) => return Ok(false),
            Ok(_) if head.len() >= HEAD_MAX => return Err(ErrorKind::InvalidData.into()),
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn direction(head: &[u8]) -> io::Result<Option<Direction>> {
    let Some(line) = line(head) else {
        return Ok(None);
    };
    [Direction::Up, Direction::Down, Direction::Both]
        .into_iter()
        .find(|direction| line == direction.line().as_bytes())
        .map(Some)
        .ok_or_else(|| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_understood_by_its_line() {
        assert_eq!(
            direction(b"bulk both\n").expect("known"),
            Some(Direction::Both)
        );
        assert_eq!(direction(b"bulk bo").expect("no error"), None);
        assert!(direction(b"GET / HTTP/1.1\r\n").is_err());
    }
}
