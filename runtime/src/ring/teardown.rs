//! Dropping a net ring whose operations are in flight.
//!
//! Why no memory is freed under the kernel: every operation that reads or writes our memory has a
//! slot (payloads), a buffer id in the pool's ring (receives) or is the wake read (`wake_word`).
//! `drop` cancels everything, then waits until each slot has had its last completion. By then the
//! kernel is through with the payloads; the pool is unregistered before its mapping can go. If
//! some operation does not end within the limit, whatever it may touch is leaked instead of
//! freed, which is safe at any time.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use io_uring::opcode;
use io_uring::types::CancelBuilder;

use super::sys::{self, Wait};
use super::{Kind, NO_SLOT, NetRing, Operation, ReceiverState, buffers, user_data};

/// Cancelled socket operations end at once; this bounds what should never happen.
const LIMIT: Duration = Duration::from_secs(2);

impl NetRing {
    /// Cancels everything and waits for it. True when nothing is in flight any more.
    fn quiesce(&mut self) -> bool {
        let started = Instant::now();
        loop {
            self.work_off_backlog();
            while let Some(completion) = self.next_completion() {
                drop(completion);
            }
            self.forget_waiting();
            if self.in_flight() == 0 && !self.wake_armed {
                return true;
            }
            if started.elapsed() > LIMIT {
                return false;
            }
            let everything = opcode::AsyncCancel2::new(CancelBuilder::any().all())
                .build()
                .user_data(user_data(Kind::CancelAll, NO_SLOT));
            self.push(&everything);
            let _ = self.enter(Some(Wait {
                want: 2,
                min_wait_us: 0,
                limit: Duration::from_millis(20),
            }));
            self.reap();
        }
    }

    /// Lets go of slots that the kernel does not have.
    fn forget_waiting(&mut self) {
        self.receivers.retain(|receiver| {
            !matches!(
                receiver.state,
                ReceiverState::Starved | ReceiverState::Resting
            )
        });
        self.operations
            .retain(|operation| !matches!(operation, Operation::Accept { resting: true, .. }));
    }
}

impl Drop for NetRing {
    fn drop(&mut self) {
        let quiet = self.quiesce();
        // Errors would mean that there is nothing to undo.
        let _ = self.kernel.submitter().unregister_buf_ring(buffers::GROUP);
        if self.direct.slots() > 0 {
            // Closes the sockets in it now; the ring's own end would do so some time later.
            let _ = self.kernel.submitter().unregister_files();
        }
        if self.enter_flags & sys::ENTER_REGISTERED_RING != 0 {
            let _ = sys::unregister_ring_fd(self.kernel.as_raw_fd(), self.enter_fd as u32);
        }
        if !quiet {
            tracing::error!(
                in_flight = self.in_flight(),
                "socket operations did not end after being cancelled; their memory is leaked"
            );
            for operation in self.operations.take_all() {
                std::mem::forget(operation);
            }
            std::mem::forget(Rc::clone(&self.pool));
            std::mem::forget(std::mem::take(&mut self.wake_word));
        }
    }
}
