//! The event loop over epoll.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use super::{Event, Key, Net, PENDING_MAX, WAIT_MAX, socket, stuck};
use crate::sys::TimerFd;

const RECEIVE_BUFFER: usize = 256 << 10;
const EVENTS_MAX: usize = 1024;
const TIMER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    generation: u32,
    tag: usize,
    connected: bool,
    pending: Vec<u8>,
}

/// The loop.
pub(crate) struct EpollNet {
    poll: Poll,
    events: Events,
    connections: Slab<Connection>,
    generation: u32,
    buffer: Vec<u8>,
    /// Connections whose write failed: they get their `Closed` in the next turn.
    broken: Vec<(Key, io::Error)>,
    timer: TimerFd,
    waker: Arc<Waker>,
}

impl EpollNet {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = TimerFd::new()?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            connections: Slab::new(),
            generation: 0,
            buffer: vec![0; RECEIVE_BUFFER],
            broken: Vec::new(),
            timer,
            waker,
        })
    }

    /// Ends a wait from another thread.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// The connection that an event is about, if it still stands.
    fn key(&self, token: Token) -> Option<Key> {
        let (slot, generation) = (token.0 as u32, (token.0 >> 32) as u32);
        let connection = self.connections.get(slot as usize)?;
        (connection.generation == generation).then_some(Key {
            slot,
            generation,
            tag: connection.tag,
        })
    }

    fn writable(&mut self, key: Key, on_event: &mut impl FnMut(&mut Self, Key, Event<'_>)) {
        let Some(connection) = get(&mut self.connections, key) else {
            return;
        };
        if !connection.connected {
            match connection.stream.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return self.finish(key, Some(error), on_event),
            }
            if let Err(error) = connection.stream.peer_addr() {
                // Not connected yet: the event came before the handshake ended.
                if error.kind() != ErrorKind::NotConnected {
                    self.finish(key, Some(error), on_event);
                }
                return;
            }
            connection.connected = true;
            on_event(self, key, Event::Connected);
        }
        let Some(connection) = get(&mut self.connections, key) else {
            return;
        };
        let mut sent = 0;
        while sent < connection.pending.len() {
            match connection.stream.write(&connection.pending[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return self.finish(key, Some(error), on_event),
            }
        }
        connection.pending.drain(..sent);
        if connection.pending.is_empty() {
            connection.pending = Vec::new();
        }
    }

    fn readable(
        &mut self,
        key: Key,
        ending: bool,
        buffer: &mut [u8],
        on_event: &mut impl FnMut(&mut Self, Key, Event<'_>),
    ) {
        loop {
            let Some(connection) = get(&mut self.connections, key) else {
                return;
            };
            match connection.stream.read(buffer) {
                Ok(0) => return self.finish(key, None, on_event),
                Ok(read) => {
                    let drained = read < buffer.len();
                    on_event(self, key, Event::Data(&buffer[..read]));
                    // A short read on a stream means that there is no more, unless the end is near.
                    if drained && !ending {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if !connection.connected && error.kind() == ErrorKind::NotConnected => {
                    return;
                }
                Err(error) => return self.finish(key, Some(error), on_event),
            }
        }
    }

    fn finish(
        &mut self,
        key: Key,
        error: Option<io::Error>,
        on_event: &mut impl FnMut(&mut Self, Key, Event<'_>),
    ) {
        if get(&mut self.connections, key).is_some() {
            self.close(key);
            on_event(self, key, Event::Closed(error));
        }
    }
}

impl Net for EpollNet {
    fn connect(&mut self, to: SocketAddr, source: Option<IpAddr>, tag: usize) -> io::Result<Key> {
        let socket = socket(to, source)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let mut stream = TcpStream::from_std(socket.into());
        self.generation = self.generation.wrapping_add(1);
        let entry = self.connections.vacant_entry();
        let key = Key {
            slot: entry.key() as u32,
            generation: self.generation,
            tag,
        };
        self.poll.registry().register(
            &mut stream,
            token(key),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        entry.insert(Connection {
            stream,
            generation: key.generation,
            tag,
            connected: false,
            pending: Vec::new(),
        });
        Ok(key)
    }

    fn send(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = get(&mut self.connections, key) else {
            return;
        };
        let mut rest = bytes;
        if connection.connected && connection.pending.is_empty() {
            match connection.stream.write(bytes) {
                Ok(written) => rest = &bytes[written..],
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.broken.push((key, error));
                    return;
                }
            }
        }
        if !rest.is_empty() {
            if connection.pending.len() + rest.len() > PENDING_MAX {
                self.broken.push((key, stuck()));
                return;
            }
            connection.pending.extend_from_slice(rest);
        }
    }

    fn close(&mut self, key: Key) {
        if get(&mut self.connections, key).is_some() {
            // Dropping the stream closes the descriptor, which takes it out of epoll.
            drop(self.connections.remove(key.slot as usize));
        }
    }

    fn gather(&mut self, _at_least: Duration) {}

    fn turn(
        &mut self,
        until: Option<Instant>,
        on_event: &mut impl FnMut(&mut Self, Key, Event<'_>),
    ) -> io::Result<()> {
        let mut wait = WAIT_MAX;
        if let Some(until) = until {
            wait = wait.min(until.saturating_duration_since(Instant::now()));
        }
        if !self.broken.is_empty() {
            wait = Duration::ZERO;
        }
        if wait > Duration::ZERO && wait < Duration::from_millis(20) {
            self.timer.arm(wait)?;
            wait = WAIT_MAX;
        }
        match self.poll.poll(&mut self.events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for (key, error) in std::mem::take(&mut self.broken) {
            self.finish(key, Some(error), on_event);
        }
        // Taken out for the loop, so that handlers can use the net while the buffer is lent to them.
        let mut buffer = std::mem::take(&mut self.buffer);
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            if event.token() == TIMER || event.token() == WAKER {
                continue;
            }
            let Some(key) = self.key(event.token()) else {
                continue;
            };
            if event.is_writable() || event.is_error() {
                self.writable(key, on_event);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.readable(
                    key,
                    event.is_read_closed() || event.is_error(),
                    &mut buffer,
                    on_event,
                );
            }
        }
        self.events = events;
        self.buffer = buffer;
        Ok(())
    }
}

fn token(key: Key) -> Token {
    Token(key.slot as usize | (key.generation as usize) << 32)
}

fn get(connections: &mut Slab<Connection>, key: Key) -> Option<&mut Connection> {
    connections
        .get_mut(key.slot as usize)
        .filter(|connection| connection.generation == key.generation)
}
