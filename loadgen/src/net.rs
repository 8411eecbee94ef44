//! One epoll loop for all connections of a run: connect, send, receive, close.
//!
//! Invariants: a `Key` names one connection for ever (slot and generation), so an
//! event of a closed connection never reaches its successor; `Closed` is the last
//! event of a connection and comes at most once, and not at all after `close`;
//! bytes that the kernel does not take wait in `pending`, bounded by
//! `PENDING_MAX`, in the order of `send`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::TimerFd;

/// What one connection may have waiting before it is closed as stuck.
const PENDING_MAX: usize = 64 << 20;
const RECEIVE_BUFFER: usize = 256 << 10;
const EVENTS_MAX: usize = 1024;
const TIMER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// Names a connection; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    slot: u32,
    generation: u32,
    /// The caller's own number for the connection, as given to `connect`.
    pub(crate) tag: usize,
}

/// What happened to a connection.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// The TCP connection stands.
    Connected,
    /// Bytes came.
    Data(&'a mut [u8]),
    /// The connection is gone: an error, or an orderly end by the peer.
    Closed(Option<io::Error>),
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    generation: u32,
    tag: usize,
    connected: bool,
    pending: Vec<u8>,
}

/// The loop.
pub(crate) struct Net {
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

impl Net {
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

    /// Starts a connection, from `source` if given. `Connected` or `Closed` follows.
    pub(crate) fn connect(
        &mut self,
        to: SocketAddr,
        source: Option<IpAddr>,
        tag: usize,
    ) -> io::Result<Key> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
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

    /// Sends bytes, at once if the kernel takes them, else as soon as it does.
    pub(crate) fn send(&mut self, key: Key, bytes: &[u8]) {
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
                self.broken.push((
                    key,
                    io::Error::new(ErrorKind::TimedOut, "the peer takes no more bytes"),
                ));
                return;
            }
            connection.pending.extend_from_slice(rest);
        }
    }

    /// Closes a connection; no event of it follows.
    pub(crate) fn close(&mut self, key: Key) {
        if get(&mut self.connections, key).is_some() {
            // Dropping the stream closes the descriptor, which takes it out of epoll.
            drop(self.connections.remove(key.slot as usize));
        }
    }

    /// Waits until something happens or `until` comes (at most 100 ms, so that a signal is
    /// seen), and hands every event to `on_event`.
    pub(crate) fn turn(
        &mut self,
        until: Option<Instant>,
        on_event: &mut impl FnMut(&mut Net, Key, Event<'_>),
    ) -> io::Result<()> {
        let mut wait = Duration::from_millis(100);
        if let Some(until) = until {
            wait = wait.min(until.saturating_duration_since(Instant::now()));
        }
        if !self.broken.is_empty() {
            wait = Duration::ZERO;
        }
        if wait > Duration::ZERO && wait < Duration::from_millis(20) {
            self.timer.arm(wait)?;
            wait = Duration::from_millis(100);
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

    fn writable(&mut self, key: Key, on_event: &mut impl FnMut(&mut Net, Key, Event<'_>)) {
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
        on_event: &mut impl FnMut(&mut Net, Key, Event<'_>),
    ) {
        loop {
            let Some(connection) = get(&mut self.connections, key) else {
                return;
            };
            match connection.stream.read(buffer) {
                Ok(0) => return self.finish(key, None, on_event),
                Ok(read) => {
                    let drained = read < buffer.len();
                    on_event(self, key, Event::Data(&mut buffer[..read]));
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
        on_event: &mut impl FnMut(&mut Net, Key, Event<'_>),
    ) {
        if get(&mut self.connections, key).is_some() {
            self.close(key);
            on_event(self, key, Event::Closed(error));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_refused_connection_ends_in_one_closed_event() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        drop(listener);
        let mut net = Net::new().expect("net");
        let mut seen = Vec::new();
        match net.connect(address, None, 0) {
            Err(error) => seen.push(error.kind()),
            Ok(_) => {
                while seen.is_empty() {
                    net.turn(None, &mut |_, _, event| match event {
                        Event::Closed(Some(error)) => seen.push(error.kind()),
                        other => panic!("unexpected {other:?}"),
                    })
                    .expect("turn");
                }
            }
        }
        assert_eq!(seen, [ErrorKind::ConnectionRefused]);
    }

    #[test]
    fn bytes_beyond_the_socket_buffer_arrive_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n / 3) as u8).collect();
        let expected = sent.clone();
        let reader = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut got = vec![0; expected.len()];
            stream.read_exact(&mut got).expect("read");
            got == expected
        });
        let mut net = Net::new().expect("net");
        let mut closed = false;
        net.connect(address, Some("127.0.0.2".parse().expect("address")), 0)
            .expect("connect");
        while !closed {
            net.turn(None, &mut |net, key, event| match event {
                Event::Connected => {
                    for part in sent.chunks(100_000) {
                        net.send(key, part);
                    }
                }
                Event::Closed(_) => closed = true,
                Event::Data(_) => {}
            })
            .expect("turn");
        }
        assert!(reader.join().expect("reader"));
    }

    #[test]
    fn waits_shorter_than_a_millisecond_are_kept() {
        let mut net = Net::new().expect("net");
        let started = Instant::now();
        for _ in 0..100 {
            let until = Instant::now() + Duration::from_micros(200);
            while Instant::now() < until {
                net.turn(Some(until), &mut |_, _, _| {}).expect("turn");
            }
        }
        // 100 waits of whole milliseconds would take at least 100 ms; the bound allows a busy machine.
        assert!(started.elapsed() >= Duration::from_millis(20));
    }
}
