//! What comes back from the net ring, and the names used in it.

use std::io;
use std::os::fd::OwnedFd;

use super::buffers::RecvBuffer;
use super::payload::Payload;
use super::slots::SlotId;

/// The caller's name for a listener, connection or flow, returned with each of its completions.
///
/// Completions can arrive after the caller has let go of the socket, so put a generation into it
/// beside the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u64);

/// Names one receiver, to stop it. A handle whose receiver has ended names nothing; using it is
/// harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecvHandle(pub(super) SlotId);

/// Names one accept, connect or send, to cancel it. A handle whose operation has ended names
/// nothing; using it is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpHandle(pub(super) SlotId);

/// One thing that happened.
#[derive(Debug)]
pub enum Completion {
    /// A listener has a new connection. It is close-on-exec and blocking, as the ring wants it.
    /// Socket options such as `TCP_NODELAY` are inherited from the listener.
    Accepted {
        /// Key of the listener.
        key: Key,
        /// The connection.
        socket: OwnedFd,
    },
    /// An accept failed.
    AcceptFailed {
        /// Key of the listener.
        key: Key,
        /// Why. `EMFILE`, `ENFILE`, `ENOBUFS` and `ENOMEM` mean that this machine is out of
        /// something; the accept starts again by itself after a pause.
        error: io::Error,
        /// False when the listener cannot accept any more and was given up.
        again: bool,
    },
    /// Bytes came in.
    Received {
        /// Key of the receiver.
        key: Key,
        /// The bytes, never none.
        buffer: RecvBuffer,
    },
    /// The receiver is over: no more `Received` for it.
    ReceiveEnded {
        /// Key of the receiver.
        key: Key,
        /// `None` is an orderly end of the stream.
        error: Option<io::Error>,
    },
    /// A send is over. The payload comes back exactly once for each send.
    Sent {
        /// Key given to the send.
        key: Key,
        /// What was to be sent, not advanced. If the result is less than its length, advance it
        /// and send again.
        payload: Payload,
        /// Bytes taken by the kernel.
        result: io::Result<usize>,
    },
    /// A connect is over.
    Connected {
        /// Key given to the connect.
        key: Key,
        /// `ECANCELED` after [`cancel`](super::NetRing::cancel).
        result: io::Result<()>,
    },
}
