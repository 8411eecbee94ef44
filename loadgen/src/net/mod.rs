//! Connections of a run on one event loop: connect, send, receive, close.
//!
//! | file | what | used by |
//! |---|---|---|
//! | `epoll` | readiness, one system call for each receive and send | commands that hold or judge connections: they run wherever Linux does, and owe nothing to the code under test |
//! | `ring` | the runtime's net ring: receives and sends of a turn enter the kernel together | commands whose load generator must not be the bottleneck |
//!
//! Invariants of both: a `Key` names one connection for ever (slot and generation), so an
//! event of a closed connection never reaches its successor; `Closed` is the last event of
//! a connection and comes at most once, and not at all after `close`; bytes go out in the
//! order of `send`, what the kernel does not take waits, bounded by `PENDING_MAX`.

mod epoll;
mod ring;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use flux_runtime::sockets::bind_address_no_port;
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) use epoll::EpollNet;
pub(crate) use ring::RingNet;

/// What one connection may have waiting before it is closed as stuck.
const PENDING_MAX: usize = 64 << 20;
/// Longest wait: a signal is seen within this.
const WAIT_MAX: Duration = Duration::from_millis(100);

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
    Data(&'a [u8]),
    /// The connection is gone: an error, or an orderly end by the peer.
    Closed(Option<io::Error>),
}

/// An event loop.
pub(crate) trait Net: Sized {
    /// Starts a connection, from `source` if given. `Connected` or `Closed` follows.
    ///
    /// # Errors
    /// When this machine has no descriptor or port left.
    fn connect(&mut self, to: SocketAddr, source: Option<IpAddr>, tag: usize) -> io::Result<Key>;

    /// Sends bytes as soon as the kernel takes them.
    fn send(&mut self, key: Key, bytes: &[u8]);

    /// Closes a connection; no event of it follows.
    fn close(&mut self, key: Key);

    /// From now on a turn waits at least this long before it hands out only a few events, where the loop can do
    /// that (the ring, from Linux 6.12 on).
    fn gather(&mut self, at_least: Duration);

    /// Waits until something happens or `until` comes (at most `WAIT_MAX`), and hands every
    /// event to `on_event`.
    ///
    /// # Errors
    /// When the kernel refuses to wait: nothing works any more.
    fn turn(
        &mut self,
        until: Option<Instant>,
        on_event: &mut impl FnMut(&mut Self, Key, Event<'_>),
    ) -> io::Result<()>;
}

/// A TCP socket without Nagle's delay, bound to `source` if given; the port is chosen by connect(2), which
/// knows where to and so has all of them for each destination.
fn socket(to: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

fn stuck() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer takes no more bytes")
}
