//! A stream of a known pattern over plain TCP: sent from memory, received into nothing.
//!
//! The byte at position p is p modulo 251, a prime, so that a part that is lost, doubled or moved shows. The first
//! [`CHECKED`] bytes of a stream are compared; what comes after them is counted and dropped by the kernel
//! (`MSG_TRUNC`), so that the load generator copies each byte once and what is measured copies it twice.

use std::io::{self, ErrorKind, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;

use mio::net::TcpStream;
use socket2::SockRef;

/// Bytes at the start of a stream that are compared.
pub(crate) const CHECKED: u64 = 1 << 20;
/// What both ends moved, at the end of what the server sends: bytes received, bytes sent, big-endian.
pub(crate) const TRAILER: usize = 16;

const PERIOD: u64 = 251;
/// Bytes of one write at most.
const CHUNK: usize = 1024 * PERIOD as usize;
/// Bytes of one read at most.
const READ_MAX: usize = 1 << 20;
/// Bytes that one stream moves in a direction before the others get their turn.
const TURN_MAX: u64 = 4 << 20;

/// What is sent and where what is dropped would go; one for all streams of a process.
pub(crate) struct Memory {
    pattern: Vec<u8>,
    /// The kernel writes here only what is compared.
    dropped: Box<[MaybeUninit<u8>]>,
    compared: Vec<u8>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            pattern: (0..CHUNK as u64 + PERIOD)
                .map(|position| (position % PERIOD) as u8)
                .collect(),
            dropped: Box::new_uninit_slice(READ_MAX),
            compared: vec![0; 64 << 10],
        }
    }
}

/// What a read or write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// There may be more to do at once.
    More,
    /// The kernel tells when there is more to do.
    Waits,
    /// The other side has ended its stream.
    Ended,
}

/// One connection and what it has moved.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    /// Bytes of the pattern.
    pub(crate) sent: u64,
    /// Bytes of the pattern.
    pub(crate) received: u64,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            sent: 0,
            received: 0,
        }
    }

    /// Sends of the pattern what the kernel takes.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(crate) fn send(&mut self, memory: &Memory) -> io::Result<Moved> {
        let until = self.sent + TURN_MAX;
        while self.sent < until {
            let from = (self.sent % PERIOD) as usize;
            match self.socket.write(&memory.pattern[from..from + CHUNK]) {
                Ok(taken) => self.sent += taken as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Moved::Waits),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Moved::More)
    }

    /// Receives of the pattern what is there.
    ///
    /// # Errors
    /// When the connection is broken, or other bytes came than were sent.
    pub(crate) fn receive(&mut self, memory: &mut Memory) -> io::Result<Moved> {
        let until = self.received + TURN_MAX;
        while self.received < until {
            let read = if self.received < CHECKED {
                self.receive_checked(memory)
            } else {
                SockRef::from(&self.socket).recv_with_flags(&mut memory.dropped, libc::MSG_TRUNC)
            };
            match read {
                Ok(0) => return Ok(Moved::Ended),
                Ok(read) => self.received += read as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Moved::Waits),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Moved::More)
    }

    fn receive_checked(&mut self, memory: &mut Memory) -> io::Result<usize> {
        let room = memory
            .compared
            .len()
            .min((CHECKED - self.received) as usize);
        let read = io::Read::read(&mut self.socket, &mut memory.compared[..room])?;
        let from = (self.received % PERIOD) as usize;
        if memory.compared[..read] != memory.pattern[from..from + read] {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "other bytes came than were sent",
            ));
        }
        Ok(read)
    }

    /// Tells the other side that nothing more comes.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(crate) fn end(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

/// The last [`TRAILER`] bytes of what the server sends.
pub(crate) fn trailer(received: u64, sent: u64) -> [u8; TRAILER] {
    let mut bytes = [0; TRAILER];
    bytes[..8].copy_from_slice(&received.to_be_bytes());
    bytes[8..].copy_from_slice(&sent.to_be_bytes());
    bytes
}
