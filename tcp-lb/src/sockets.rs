//! Listeners and upstream sockets with their options.
#![allow(unsafe_code, reason = "one socket option that socket2 does not know")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::limits;

/// A listener of one shard: several share the port, and the kernel spreads connections over them.
/// What is set here is inherited by every connection, which saves five calls on each.
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
    options(
        &socket,
        limits::CLIENT_KEEPALIVE_IDLE,
        limits::CLIENT_USER_TIMEOUT,
    )?;
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG)?;
    Ok(socket)
}

/// A socket to connect to a node at `address`, from `source` if given.
///
/// # Errors
/// As socket(2) and bind(2): out of descriptors, or `source` is not of this machine.
pub fn upstream(address: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    options(
        &socket,
        limits::UPSTREAM_KEEPALIVE_IDLE,
        limits::UPSTREAM_USER_TIMEOUT,
    )?;
    if let Some(source) = source {
        bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket.into())
}

fn options(
    socket: &Socket,
    keepalive_idle: std::time::Duration,
    user_timeout: std::time::Duration,
) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(keepalive_idle)
        .with_interval(limits::KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(user_timeout))
}

/// Leaves the choice of the port to connect(2): without it a bound source has one pool of ports for
/// all destinations together instead of one for each.
fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
