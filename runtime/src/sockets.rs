//! A socket option that socket2 does not know.
#![allow(unsafe_code, reason = "a direct setsockopt(2)")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Leaves the choice of the port to connect(2), when the socket is to be bound to an address without one: otherwise a
/// bound source has one pool of ports for all destinations together instead of one for each (ip(7),
/// `IP_BIND_ADDRESS_NO_PORT`).
///
/// # Errors
/// As setsockopt(2).
pub fn bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
