//! Sockets in the ring's hands: adopting, shutting down, resetting, closing.
#![allow(
    unsafe_code,
    reason = "descriptors that the kernel hands over become owned"
)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, opcode, squeue};
use socket2::SockRef;

use super::direct::Table;
use super::slots::SlotId;
use super::socket::{Place, Socket, Target};
use super::{
    Features, Kind, NO_SLOT, NetRing, Operation, RecvHandle, Resting, RingConfig, RingError,
    Shutdown, config, user_data,
};
use crate::doctor;

/// Connecting to it resets a TCP connection (connect(2): it "dissolves the association").
static NOWHERE: libc::sockaddr = libc::sockaddr {
    sa_family: libc::AF_UNSPEC as libc::sa_family_t,
    sa_data: [0; 14],
};

/// Slots for direct descriptors that a ring made here and now has.
///
/// # Errors
/// When there is no ring to be had.
pub fn direct_slots(config: &RingConfig) -> Result<u32, RingError> {
    let smallest = RingConfig {
        submission_entries: 1,
        completion_entries: 2,
        ..config.clone()
    };
    let (kernel, mut features) = config::build(&smallest)?;
    Ok(register_table(&kernel, config, &mut features).slots())
}

/// Registers the table of direct descriptors, where the kernel and the limit of open files allow one.
pub(super) fn register_table(
    kernel: &IoUring,
    config: &RingConfig,
    features: &mut Features,
) -> Table {
    let limit = doctor::nofile().unwrap_or(0);
    let slots = config
        .direct_slots
        .min(limit.try_into().unwrap_or(u32::MAX));
    features.direct_descriptors &=
        slots > 0 && kernel.submitter().register_files_sparse(slots).is_ok();
    Table::new(if features.direct_descriptors {
        slots
    } else {
        0
    })
}

impl NetRing {
    /// Takes a socket over: into a slot of the ring's table, whereupon its descriptor is closed. When
    /// the table is full, or there is none, it keeps its descriptor.
    ///
    /// What needs a descriptor (addresses, options) comes before. The socket must be blocking.
    pub fn adopt(&mut self, socket: impl Into<OwnedFd>) -> Socket {
        let descriptor = socket.into().into_raw_fd();
        let Some(slot) = self.direct.take(descriptor) else {
            // SAFETY: it was owned a line before.
            return unsafe { OwnedFd::from_raw_fd(descriptor) }.into();
        };
        // The kernel reads the entry while it takes this; the entry stays until the slot closes.
        let take_over = opcode::FilesUpdate::new(self.direct.entry(slot), 1)
            .offset(slot as i32)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(Kind::Adopt, NO_SLOT));
        self.push(&take_over);
        self.close_descriptor(descriptor);
        Socket(Place::Slot(slot))
    }

    /// Takes over what the ring has worked with by its descriptor so far (a [`Socket`] made from one), its receiver
    /// and sends in flight included; a socket in a slot stays there. A connect on it has to be over.
    pub fn settle(&mut self, socket: Socket, receiver: Option<RecvHandle>) -> Socket {
        let Place::Descriptor(descriptor) = socket.0 else {
            return socket;
        };
        let before = Target::from(&descriptor);
        let socket = self.adopt(descriptor);
        let after = Target::from(&socket);
        // They begin again by what they know: a descriptor that is closed now.
        let stopping = self.stopping.iter().copied();
        for id in stopping.chain(receiver.map(|RecvHandle(id)| id)) {
            if let Some(receiver) = self.receivers.get_mut(id)
                && receiver.socket == before
            {
                receiver.socket = after;
            }
        }
        socket
    }

    /// Shuts a connection down, after whatever was queued for it; without a completion. A descriptor is
    /// shut down at once, a slot in the next turn.
    ///
    /// # Errors
    /// Those of shutdown(2) on a descriptor; `ENOTCONN` is normal after the peer has reset the
    /// connection. Of a slot nothing is told; its receiver tells of the reset.
    pub fn shutdown(&mut self, socket: impl Into<Target>, how: Shutdown) -> io::Result<()> {
        let target = socket.into();
        let Some(descriptor) = target.descriptor() else {
            if let Some(slot) = target.as_slot() {
                self.shutdown_slot(slot, how);
            }
            return Ok(());
        };
        // IORING_OP_SHUTDOWN always goes through a worker thread of the kernel; the plain call
        // costs less.
        if self.unsubmitted_sends.contains(&descriptor) {
            self.submit()?;
        }
        // SAFETY: whoever called has it open.
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        SockRef::from(&socket).shutdown(how)
    }

    /// shutdown(2) wants a descriptor: the kernel makes one for the moment.
    pub(super) fn shutdown_slot(&mut self, slot: u32, how: Shutdown) {
        let id = self.operations.insert(Operation::Shutdown { slot, how });
        let entry = opcode::FixedFdInstall::new(Fixed(slot), 0)
            .build()
            .user_data(user_data(Kind::Operation, id));
        self.push(&entry);
    }

    /// The descriptor is there, or the process is out of them.
    pub(super) fn complete_shutdown(&mut self, slot: u32, how: Shutdown, made: Result<u32, i32>) {
        match made {
            Ok(descriptor) => {
                // SAFETY: a new descriptor that the kernel made for this completion; nobody else
                // knows it.
                let socket = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
                // It may have been reset meanwhile; its receiver says so.
                let _ = SockRef::from(&socket).shutdown(how);
            }
            // The socket may be closed by now, but has no successor: the completion of its close
            // comes after this one.
            Err(libc::EMFILE | libc::ENFILE | libc::ENOMEM) if !self.direct.is_closing(slot) => {
                self.rest(Resting::Shutdown { slot, how });
            }
            Err(_) => {}
        }
    }

    /// Ends a connection at once, without waiting for a peer that does not take its bytes: they are
    /// dropped, the peer sees a reset, and a send in flight completes with an error. Closes the socket
    /// and stops its receiver as [`close`](Self::close) does.
    pub fn reset(&mut self, socket: Socket, receiver: Option<RecvHandle>) {
        match &socket.0 {
            Place::Slot(slot) => {
                let entry = opcode::Connect::new(
                    Fixed(*slot),
                    &raw const NOWHERE,
                    size_of::<libc::sockaddr>() as libc::socklen_t,
                )
                .build()
                .flags(squeue::Flags::FIXED_FILE | squeue::Flags::SKIP_SUCCESS)
                .user_data(user_data(Kind::Close, NO_SLOT));
                self.push(&entry);
            }
            Place::Descriptor(descriptor) => {
                // Errors mean that the connection is gone already.
                let socket = SockRef::from(descriptor);
                let _ = socket.set_linger(Some(Duration::ZERO));
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        self.close(socket, receiver);
    }

    /// Closes a socket after everything queued on it was submitted, and stops its receiver.
    ///
    /// Sends in flight go on and complete; bytes not yet received are lost, so for an orderly end
    /// shut down and wait for [`Completion::ReceiveEnded`](super::Completion::ReceiveEnded) first.
    pub fn close(&mut self, socket: impl Into<Socket>, receiver: Option<RecvHandle>) {
        if let Some(handle) = receiver {
            self.stop_recv(handle);
            // Its place is about to become someone else's.
            if let Some(receiver) = self.receivers.get_mut(handle.0) {
                receiver.socket = Target::NONE;
            }
        }
        match socket.into().0 {
            Place::Descriptor(descriptor) => self.close_descriptor(descriptor.into_raw_fd()),
            Place::Slot(slot) => self.close_slot(slot),
        }
    }

    fn close_descriptor(&mut self, descriptor: i32) {
        let entry = opcode::Close::new(Fd(descriptor))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(Kind::Close, NO_SLOT));
        self.push(&entry);
    }

    fn close_slot(&mut self, slot: u32) {
        // A shutdown that waits for a descriptor must not reach the next socket.
        self.resting.retain(
            |(_, what)| !matches!(what, Resting::Shutdown { slot: other, .. } if *other == slot),
        );
        self.direct.begin_close(slot);
        let id = SlotId {
            index: slot,
            generation: 0,
        };
        let entry = opcode::Close::new(Fixed(slot))
            .build()
            .user_data(user_data(Kind::CloseSlot, id));
        self.push(&entry);
    }
}
