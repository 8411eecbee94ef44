//! Waking a shard that is parked in its net ring: an eventfd that the ring reads.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::signal::Signal;

#[derive(Debug)]
struct Shared {
    signal: Signal,
    event: File,
}

/// Wakes one shard, from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    /// Makes the shard take another turn. Many wakes before that turn are one.
    pub fn wake(&self) {
        if self.shared.signal.notify() {
            // The counter would have to reach 2^64-1 to make this fail or block; the shard's read
            // resets it, and between two reads there is at most one write per park.
            let _ = (&self.shared.event).write(&1u64.to_ne_bytes());
        }
    }
}

/// The shard's end of a wake pair; given to [`NetRing::new`](crate::ring::NetRing::new).
#[derive(Debug)]
pub struct WakeSource {
    shared: Arc<Shared>,
}

impl WakeSource {
    /// True when the shard may wait now: nothing has called since [`Self::unpark`].
    pub(crate) fn park(&self) -> bool {
        self.shared.signal.park()
    }

    /// To be called after a wait, before mailboxes are looked at.
    pub(crate) fn unpark(&self) {
        self.shared.signal.clear();
    }

    /// What the ring reads to be woken. Blocking, as the ring's own reads want it.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }

    /// Another waker for this shard.
    pub fn waker(&self) -> Waker {
        Waker {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// A waker and what it wakes.
///
/// # Errors
/// When the process is out of descriptors.
pub fn wake_pair() -> io::Result<(Waker, WakeSource)> {
    let shared = Arc::new(Shared {
        signal: Signal::new(),
        event: File::from(eventfd()?),
    });
    Ok((
        Waker {
            shared: Arc::clone(&shared),
        },
        WakeSource { shared },
    ))
}

#[allow(unsafe_code, reason = "eventfd(2) has no safe wrapper in std")]
fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: the call takes two plain numbers.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
