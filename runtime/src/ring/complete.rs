//! From the kernel's completion entries to [`Completion`]s.
#![allow(
    unsafe_code,
    reason = "descriptors that the kernel hands over become owned"
)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Instant;

use io_uring::cqueue;

use super::slots::SlotId;
use super::{Completion, INDEX_BITS, Kind, NetRing, Operation, ReceiverState, Resting};

/// Kind and slot of an entry; the reverse of `user_data`.
fn parse(user_data: u64) -> (Option<Kind>, SlotId) {
    let kind = match user_data >> 60 {
        1 => Some(Kind::Receive),
        2 => Some(Kind::Operation),
        3 => Some(Kind::CancelReceive),
        4 => Some(Kind::CancelOperation),
        5 => Some(Kind::Wake),
        6 => Some(Kind::Close),
        7 => Some(Kind::CancelAll),
        8 => Some(Kind::Adopt),
        9 => Some(Kind::CloseSlot),
        _ => None,
    };
    let id = SlotId {
        index: (user_data >> 32) as u32 & ((1 << INDEX_BITS) - 1),
        generation: user_data as u32,
    };
    (kind, id)
}

/// Errors that mean that the machine is short of something, not that the socket is bad.
fn is_shortage(code: i32) -> bool {
    matches!(
        code,
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM
    )
}

/// Errors of accept(2) that belong to the one connection that was to be accepted.
fn concerns_one_connection(code: i32) -> bool {
    matches!(
        code,
        libc::ECONNABORTED
            | libc::EPROTO
            | libc::EPERM
            | libc::EINTR
            | libc::EAGAIN
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ETIMEDOUT
    )
}

/// The result of an operation: a count, or an errno.
fn outcome(result: i32) -> Result<u32, i32> {
    u32::try_from(result).map_err(|_| -result)
}

impl NetRing {
    /// The next thing that happened, in the kernel's order; `None` when the turn is through.
    pub fn next_completion(&mut self) -> Option<Completion> {
        while let Some(entry) = self.reaped.pop_front() {
            let (kind, id) = parse(entry.user_data());
            let completion = match kind {
                Some(Kind::Receive) => self.complete_receive(id, &entry),
                Some(Kind::Operation) => self.complete_operation(id, &entry),
                Some(Kind::CancelReceive) => {
                    // The kernel did not find the receive, yet its last completion has not come:
                    // it was between two shots.
                    if entry.result() == -libc::ENOENT
                        && matches!(
                            self.receivers.get(id).map(|receiver| receiver.state),
                            Some(ReceiverState::Stopping { .. })
                        )
                    {
                        self.cancel_receive(id);
                    }
                    None
                }
                Some(Kind::CancelOperation) => {
                    if entry.result() == -libc::ENOENT && self.operations.get(id).is_some() {
                        self.cancel_operation(id);
                    }
                    None
                }
                Some(Kind::Wake) => {
                    self.wake_armed = false;
                    self.stats.wakes += 1;
                    None
                }
                // Operations on the slot answer `EBADF`; their caller lets go of it then.
                Some(Kind::Adopt) => {
                    self.stats.adopt_failures += 1;
                    None
                }
                Some(Kind::CloseSlot) => {
                    self.direct.give_back(id.index);
                    None
                }
                Some(Kind::Close | Kind::CancelAll) | None => None,
            };
            if completion.is_some() {
                return completion;
            }
        }
        None
    }

    fn complete_receive(&mut self, id: SlotId, entry: &cqueue::Entry) -> Option<Completion> {
        let last = !cqueue::more(entry.flags());
        // Take the buffer first: whatever else happens, it must not be lost.
        let len = outcome(entry.result()).unwrap_or(0);
        let buffer = cqueue::buffer_select(entry.flags()).map(|buffer| self.pool.take(buffer, len));
        let receiver = self.receivers.get_mut(id)?;
        let (key, descriptor) = (receiver.key, receiver.socket.descriptor());
        let (stopping, resume) = match receiver.state {
            ReceiverState::Stopping { resume } => (true, resume),
            _ => (false, true),
        };
        if last && stopping {
            self.stopping.retain(|other| *other != id);
        }
        match outcome(entry.result()) {
            Ok(0) => {
                self.receivers.remove(id);
                Some(Completion::ReceiveEnded { key, error: None })
            }
            Ok(len) => {
                self.stats.bytes_received += u64::from(len);
                if last {
                    self.restart_receive(id, resume);
                }
                buffer.map(|buffer| Completion::Received { key, buffer })
            }
            Err(libc::ENOBUFS) => {
                self.stats.no_buffers += 1;
                if !resume {
                    self.receivers.remove(id);
                } else if let Some(receiver) = self.receivers.get_mut(id) {
                    receiver.state = ReceiverState::Starved;
                    self.starved.push_back(id);
                }
                None
            }
            Err(libc::ECANCELED) if stopping => {
                self.restart_receive(id, resume);
                None
            }
            Err(libc::EINTR) => {
                self.restart_receive(id, resume);
                None
            }
            Err(libc::EAGAIN) if descriptor.is_some() => {
                // Someone has made the socket non-blocking; put that right, once for good.
                if let Some(descriptor) = descriptor {
                    clear_nonblocking(descriptor);
                }
                self.restart_receive(id, resume);
                None
            }
            Err(libc::ENOMEM) => {
                if !resume {
                    self.receivers.remove(id);
                } else if let Some(receiver) = self.receivers.get_mut(id) {
                    receiver.state = ReceiverState::Resting;
                    self.rest(Resting::Receive(id));
                }
                None
            }
            Err(code) => {
                self.receivers.remove(id);
                Some(Completion::ReceiveEnded {
                    key,
                    error: Some(io::Error::from_raw_os_error(code)),
                })
            }
        }
    }

    /// After a receiver's last completion: start it again, or let it go.
    fn restart_receive(&mut self, id: SlotId, resume: bool) {
        if !resume {
            self.receivers.remove(id);
            return;
        }
        if self.features.multishot_recv {
            self.stats.rearmed += 1;
        }
        self.arm_receive(id, false);
    }

    fn complete_operation(&mut self, id: SlotId, entry: &cqueue::Entry) -> Option<Completion> {
        if matches!(self.operations.get(id), Some(Operation::Accept { .. })) {
            return self.complete_accept(id, entry);
        }
        match self.operations.remove(id)? {
            Operation::Send { key, payload } => {
                let result = outcome(entry.result());
                if let Ok(count) = result {
                    self.stats.bytes_sent += u64::from(count);
                    if (count as usize) < payload.len() {
                        self.stats.partial_sends += 1;
                    }
                }
                Some(Completion::Sent {
                    key,
                    payload,
                    result: result
                        .map(|count| count as usize)
                        .map_err(io::Error::from_raw_os_error),
                })
            }
            Operation::Connect { key, .. } => Some(Completion::Connected {
                key,
                result: outcome(entry.result())
                    .map(drop)
                    .map_err(io::Error::from_raw_os_error),
            }),
            Operation::Shutdown { slot, how } => {
                self.complete_shutdown(slot, how, outcome(entry.result()));
                None
            }
            // Handled above.
            Operation::Accept { .. } => None,
        }
    }

    fn complete_accept(&mut self, id: SlotId, entry: &cqueue::Entry) -> Option<Completion> {
        let last = !cqueue::more(entry.flags());
        let Some(Operation::Accept {
            key,
            multishot,
            resting,
            cancelled,
            ..
        }) = self.operations.get_mut(id)
        else {
            return None;
        };
        let (key, cancelled) = (*key, *cancelled);
        let code = match outcome(entry.result()) {
            Ok(descriptor) => {
                // SAFETY: a new descriptor that the kernel made for this completion; nobody else
                // knows it.
                let socket = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
                self.stats.accepted += 1;
                if last && cancelled {
                    self.operations.remove(id);
                } else if last {
                    if *multishot {
                        self.stats.rearmed += 1;
                    }
                    self.arm_accept(id);
                }
                return Some(Completion::Accepted { key, socket });
            }
            Err(code) => code,
        };
        if cancelled {
            self.operations.remove(id);
            return None;
        }
        let error = io::Error::from_raw_os_error(code);
        if is_shortage(code) {
            self.stats.accept_shortages += 1;
            *resting = true;
            self.rest(Resting::Accept(id));
            return Some(Completion::AcceptFailed {
                key,
                error,
                again: true,
            });
        }
        if code == libc::EINVAL && *multishot {
            // Perhaps a kernel without multishot accept; if it is the listener, it says so again.
            *multishot = false;
            self.arm_accept(id);
            return None;
        }
        self.stats.accept_errors += 1;
        let again = concerns_one_connection(code);
        if again {
            self.arm_accept(id);
        } else {
            self.operations.remove(id);
        }
        Some(Completion::AcceptFailed { key, error, again })
    }

    pub(super) fn rest(&mut self, what: Resting) {
        self.resting
            .push((Instant::now() + self.config.accept_pause, what));
    }
}

fn clear_nonblocking(socket: i32) {
    // SAFETY: two fcntl calls on a number; a descriptor that is gone yields an error.
    unsafe {
        let flags = libc::fcntl(socket, libc::F_GETFL);
        if flags >= 0 {
            libc::fcntl(socket, libc::F_SETFL, flags & !libc::O_NONBLOCK);
        }
    }
}
