//! One listening socket a shard, all on one address: the kernel spreads new connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait for `accept` on one shard's socket; the kernel caps it at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Binds `count` sockets to `address` with SO_REUSEPORT. A port of 0 is chosen once and shared.
///
/// # Errors
/// The bind's or listen's error; the message names the address.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    let mut bound = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bind_one(bound).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {bound}: {error}"))
        })?;
        if let Some(local) = socket.local_addr()?.as_socket() {
            bound = local;
        }
        sockets.push(OwnedFd::from(socket));
    }
    Ok((bound, sockets))
}

fn bind_one(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit this: small frames must not wait for acknowledgements.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_listens_on_the_same_port() {
        let (address, sockets) =
            bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3).expect("a free port");
        assert_ne!(address.port(), 0);
        assert_eq!(sockets.len(), 3);
    }

    #[test]
    fn a_taken_address_is_named_in_the_error() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = other.local_addr().expect("bound");
        let error = bind(address, 1).expect_err("taken");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
