//! Listeners and upstream sockets with their options.
#![allow(unsafe_code, reason = "a way to receive that socket2 does not know")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use flux_runtime::sockets::bind_address_no_port;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::limits;

/// A listener of one shard: several share the port, and the kernel spreads connections over them.
/// What is set here is inherited by every connection, which saves six calls on each.
///
/// # Errors
/// As bind(2) and listen(2).
pub fn listener(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    watch(
        &socket,
        limits::CLIENT_KEEPALIVE_IDLE,
        limits::CLIENT_USER_TIMEOUT,
    )?;
    // What a client says first is answered by the node: its acknowledgement travels with the answer, where
    // that does not take long.
    socket.set_tcp_quickack(false)?;
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG)?;
    Ok(socket)
}

/// A socket to connect to a node at `address`, from `source` if given. `speaks_first`: bytes follow as soon as it is
/// connected; the last packet of TCP's handshake then travels with them, which saves both sides one. One that lasts
/// needs [`upstream_lasts`] as well.
///
/// # Errors
/// As socket(2) and bind(2): out of descriptors, or `source` is not of this machine.
pub fn upstream(
    address: SocketAddr,
    source: Option<IpAddr>,
    speaks_first: bool,
) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    if speaks_first {
        socket.set_tcp_quickack(false)?;
    }
    if let Some(source) = source {
        bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket.into())
}

/// What a connection to a node needs once it has stood for a while: four calls that one that is over within a second
/// does without.
///
/// # Errors
/// As setsockopt(2).
pub fn upstream_lasts(socket: BorrowedFd<'_>) -> io::Result<()> {
    watch(
        &SockRef::from(&socket),
        limits::UPSTREAM_KEEPALIVE_IDLE,
        limits::UPSTREAM_USER_TIMEOUT,
    )
}

/// Has the kernel find out when the peer is gone.
fn watch(
    socket: &Socket,
    keepalive_idle: std::time::Duration,
    user_timeout: std::time::Duration,
) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(keepalive_idle)
        .with_interval(limits::KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(user_timeout))
}

/// What has come in already, without waiting for more.
///
/// # Errors
/// As recv(2); `WouldBlock` where nothing is there.
pub fn read_at_once(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most the buffer's length into it before the call returns.
    let count = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn a_node_that_is_gone_is_found_out_on_connections_that_last() {
        let socket = upstream(([127, 0, 0, 1], 1).into(), None, true).expect("a socket");
        let options = SockRef::from(&socket);
        assert!(options.tcp_nodelay().expect("read"));
        upstream_lasts(socket.as_fd()).expect("set");
        assert!(options.keepalive().expect("read"));
        assert_eq!(
            options.tcp_user_timeout().expect("read"),
            Some(limits::UPSTREAM_USER_TIMEOUT)
        );
    }

    #[test]
    fn what_is_there_is_read_and_nothing_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut far = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (near, _) = listener.accept().expect("accepted");
        let mut buffer = [0; 8];
        let nothing = read_at_once(near.as_fd(), &mut buffer).expect_err("nothing is there");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        far.write_all(b"here").expect("written");
        near.peek(&mut [0]).expect("it has come");
        assert_eq!(read_at_once(near.as_fd(), &mut buffer).expect("there"), 4);
        assert_eq!(&buffer[..4], b"here");
        drop(far);
        near.peek(&mut [0]).expect("it has ended");
        assert_eq!(read_at_once(near.as_fd(), &mut buffer).expect("the end"), 0);
    }
}
