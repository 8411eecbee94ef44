//! Subscribers that stop reading: connected and subscribed like the others, and then silent until the end
//! of the run. They have threads and sockets of their own, so that what they do costs the others nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use socket2::{Domain, Protocol as Transport, SockAddr, Socket, Type};

use crate::clients::link::{Link, LinkEvent};
use crate::clients::pubsub::{Heard, Protocol, Role};
use crate::clients::subscriber::Deliveries;
use crate::target::Target;

/// What a reader behind a usual network has, and the kernel's least of a receive buffer: loopback's own
/// segments would give the server megabytes to send before it notices anything.
const SEGMENT_BYTES: u32 = 1460;
const RECEIVE_BUFFER_BYTES: usize = 4096;
/// Longest wait for each answer until the subscription stands.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// On its way to silence.
#[derive(Debug)]
pub(crate) struct SlowReader(JoinHandle<Result<TcpStream>>);

impl SlowReader {
    /// Connects in a thread of its own.
    pub(crate) fn start(protocol: Protocol, target: Target, number: usize, role: Role) -> Self {
        Self(thread::spawn(move || {
            subscribe(protocol, &target, number, &role)
        }))
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.0.is_finished()
    }

    /// The connection, which was read from until its subscription stood and must be held until the end.
    ///
    /// # Errors
    /// When the subscription failed.
    pub(crate) fn silent(self) -> Result<TcpStream> {
        self.0
            .join()
            .map_err(|_| anyhow!("the thread of a slow reader panicked"))?
            .context("a slow reader could not subscribe")
    }
}

fn subscribe(protocol: Protocol, target: &Target, number: usize, role: &Role) -> Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(target.address),
        Type::STREAM,
        Some(Transport::TCP),
    )?;
    // Both before the connection is made: the server learns of them in the handshake.
    socket.set_tcp_mss(SEGMENT_BYTES)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.connect(&SockAddr::from(target.address))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_MAX))?;

    let (mut link, request) = Link::new(target, &protocol.path(target, number, role)?);
    let mut session = protocol.session(role);
    let deliveries = Deliveries::new();
    stream.write_all(&request)?;
    let mut buffer = [0; 4096];
    let mut ready = false;
    while !ready {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            bail!("the server closed the connection");
        }
        let mut out = Vec::new();
        let mut problem = None;
        link.feed(&buffer[..length], &mut |event| {
            match event {
                LinkEvent::Open => ready = session.opened(&mut out, role),
                LinkEvent::Frame(frame) => {
                    let received = session.receive(&frame, &deliveries, &mut out, &mut |heard| {
                        ready |= heard == Heard::Ready;
                    });
                    problem = received.err();
                }
            }
            problem.is_none()
        })
        .map_err(|failure| anyhow!("{failure}"))?;
        if let Some(problem) = problem {
            return Err(problem.into());
        }
        stream.write_all(&out)?;
    }
    Ok(stream)
}
