//! The net ring: every socket of a shard, on one io_uring.
//!
//! The caller queues operations and then calls [`NetRing::wait`] once per turn: one
//! `io_uring_enter` submits everything queued and waits for what happens next;
//! [`NetRing::next_completion`] yields it. Payloads and receive buffers are owned values, so
//! callers need no `unsafe`.
//!
//! Invariants
//! - Memory that the kernel may touch is owned by an operation's slot or by the buffer pool until
//!   the operation's last completion; if the ring is dropped before, it cancels and waits, and
//!   what it cannot wait for it leaks (`teardown.rs`).
//! - A payload comes back exactly once per send; a buffer is lent to one owner at a time.
//! - A key's received bytes arrive in stream order: a receiver starts again only after its last
//!   completion, and one that is started while the old one is being stopped takes its place.
//! - A receiver that found no buffer starts again when one is back, in the order of starving.
//! - An accept that ran out of descriptors or memory starts again after a pause; nothing spins.
//!
//! - A direct descriptor's slot has a new socket only after the kernel has closed the old one
//!   (`direct.rs`).
//!
//! Sockets handed in must be blocking (without `O_NONBLOCK`): the ring itself never blocks, and a
//! non-blocking socket would answer `EAGAIN` where the ring is meant to wait. Their descriptors
//! must stay open while anything is queued on them that [`NetRing::wait`] has not yet submitted,
//! and receivers must be stopped before: [`NetRing::close`] does both in the right order.
//!
//! Connections are best given to the ring for good ([`NetRing::adopt`]): they then take no
//! descriptor of the process, but a slot of the ring's table, where there is one.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the ring: making it, operations |
//! | `adopt` | sockets in the ring's hands: adopting, shutting down, resetting, closing |
//! | `socket`, `direct` | a socket by descriptor or slot; the table of slots |
//! | `turn` | waiting, starting again what starved or rested |
//! | `complete` | from the kernel's entries to [`Completion`]s |
//! | `submit` | the submission queue, headers of vectored sends |
//! | `teardown` | dropping with operations in flight |
//! | `buffers`, `payload`, `completion`, `config`, `stats`, `slots`, `sys` | parts |
#![allow(
    unsafe_code,
    reason = "registration of the buffer ring; each block has its reasoning"
)]

mod adopt;
mod buffers;
mod complete;
mod completion;
mod config;
mod direct;
mod payload;
mod slots;
mod socket;
mod stats;
mod submit;
mod sys;
mod teardown;
mod turn;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use socket2::SockAddr;

use crate::mailbox::WakeSource;
use buffers::Pool;
use direct::Table;
use slots::{SlotId, Slots};
use stats::Load;
use submit::Headers;

pub use adopt::direct_slots;
pub use buffers::RecvBuffer;
pub use completion::{Completion, Key, OpHandle, RecvHandle};
pub use config::{Features, RingConfig, RingError};
pub use payload::{Payload, Piece};
pub use socket::{Socket, Target};
pub use stats::RingStats;
pub use std::net::Shutdown;

/// Kind of operation, in the top bits of an entry's user data; below it index and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Receive = 1,
    Operation = 2,
    CancelReceive = 3,
    CancelOperation = 4,
    Wake = 5,
    Close = 6,
    CancelAll = 7,
    Adopt = 8,
    CloseSlot = 9,
}

const INDEX_BITS: u32 = 28;

fn user_data(kind: Kind, id: SlotId) -> u64 {
    debug_assert!(id.index < 1 << INDEX_BITS);
    (kind as u64) << 60 | u64::from(id.index) << 32 | u64::from(id.generation)
}

const NO_SLOT: SlotId = SlotId {
    index: 0,
    generation: 0,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReceiverState {
    /// The kernel has it.
    Armed,
    /// Found no buffer; in the `starved` queue.
    Starved,
    /// The kernel was short of memory; in the `resting` list.
    Resting,
    /// Cancelled, its last completion is to come; `resume` starts it again then.
    Stopping { resume: bool },
}

/// One armed receive: this is what an idle connection costs here (24 bytes with its slot).
#[derive(Debug)]
struct Receiver {
    key: Key,
    socket: Target,
    state: ReceiverState,
}

#[derive(Debug)]
enum Operation {
    Send {
        key: Key,
        payload: Payload,
    },
    Accept {
        key: Key,
        listener: RawFd,
        multishot: bool,
        resting: bool,
        cancelled: bool,
    },
    Connect {
        key: Key,
        /// The kernel reads it when it takes the entry; it stays until the end all the same.
        _address: Box<SockAddr>,
    },
    /// A descriptor is made for a slot, to shut its socket down.
    Shutdown {
        slot: u32,
        how: Shutdown,
    },
}

/// What starts again at a given time.
#[derive(Clone, Copy, Debug)]
enum Resting {
    Accept(SlotId),
    Receive(SlotId),
    Shutdown { slot: u32, how: Shutdown },
}

/// See the [module](self). Stays on the thread that made it.
pub struct NetRing {
    kernel: IoUring,
    /// The ring's descriptor, or its registered index.
    enter_fd: RawFd,
    enter_flags: u32,
    features: Features,
    config: RingConfig,
    pool: Rc<Pool>,
    direct: Table,
    receivers: Slots<Receiver>,
    operations: Slots<Operation>,
    /// Entries that the kernel would not take yet.
    backlog: VecDeque<squeue::Entry>,
    headers: Headers,
    /// Sockets with sends that were not submitted yet; a `shutdown` must not overtake them.
    unsubmitted_sends: Vec<RawFd>,
    /// Sends queued since the last wait.
    fresh_sends: u32,
    /// See [`gather`](Self::gather).
    gather: Duration,
    reaped: VecDeque<cqueue::Entry>,
    starved: VecDeque<SlotId>,
    resting: Vec<(Instant, Resting)>,
    stopping: Vec<SlotId>,
    wake: WakeSource,
    /// Where the kernel writes the eventfd's counter.
    wake_word: Box<u64>,
    wake_armed: bool,
    stats: RingStats,
    load: Load,
}

impl NetRing {
    /// Makes a ring that is woken through `wake`. It belongs to the calling thread.
    ///
    /// # Errors
    /// When io_uring or its buffer rings are not to be had; the message carries the remedy.
    pub fn new(config: &RingConfig, wake: WakeSource) -> Result<NetRing, RingError> {
        config.check()?;
        let (kernel, mut features) = config::build(config)?;
        let pool = Pool::new(
            config.buffer_len,
            config.buffer_count,
            config.buffer_count_max,
        )
        .map_err(|source| RingError::Buffers { source })?;
        // SAFETY: the pool's ring has `ring_entries` entries of mapped, page-aligned memory. It is
        // unregistered in `drop`, and the pool is dropped after that.
        unsafe {
            kernel.submitter().register_buf_ring_with_flags(
                pool.ring_address(),
                pool.ring_entries(),
                buffers::GROUP,
                0,
            )
        }
        .map_err(|source| RingError::Buffers { source })?;
        let direct = adopt::register_table(&kernel, config, &mut features);
        let mut enter_fd = kernel.as_raw_fd();
        let mut enter_flags = 0;
        if features.registered_ring {
            match sys::register_ring_fd(enter_fd) {
                Ok(index) => {
                    enter_fd = index as RawFd;
                    enter_flags |= sys::ENTER_REGISTERED_RING;
                }
                Err(_) => features.registered_ring = false,
            }
        }
        if kernel.params().is_feature_no_iowait() {
            // A parked shard is idle, not waiting for a disk.
            enter_flags |= sys::ENTER_NO_IOWAIT;
        }
        Ok(NetRing {
            kernel,
            enter_fd,
            enter_flags,
            features,
            config: config.clone(),
            pool,
            direct,
            receivers: Slots::new(),
            operations: Slots::new(),
            backlog: VecDeque::new(),
            headers: Headers::default(),
            unsubmitted_sends: Vec::new(),
            fresh_sends: 0,
            gather: Duration::ZERO,
            reaped: VecDeque::new(),
            starved: VecDeque::new(),
            resting: Vec::new(),
            stopping: Vec::new(),
            wake,
            wake_word: Box::new(0),
            wake_armed: false,
            stats: RingStats::default(),
            load: Load::new(Instant::now(), sys::thread_cpu_time()),
        })
    }

    /// Accepts connections until [`cancel`](Self::cancel)led or until the listener fails.
    ///
    /// The listener must stay open for as long.
    pub fn accept(&mut self, listener: impl AsFd, key: Key) -> OpHandle {
        let multishot = self.features.multishot_accept;
        let id = self.operations.insert(Operation::Accept {
            key,
            listener: listener.as_fd().as_raw_fd(),
            multishot,
            resting: false,
            cancelled: false,
        });
        self.arm_accept(id);
        OpHandle(id)
    }

    /// Receives from a socket until [`stop_recv`](Self::stop_recv), the end of the stream or an
    /// error.
    ///
    /// If a receiver of the same key is being stopped just now, it is resumed instead, so that
    /// the stream's order holds.
    pub fn recv(&mut self, socket: impl Into<Target>, key: Key) -> RecvHandle {
        let socket = socket.into();
        for index in 0..self.stopping.len() {
            let id = self.stopping[index];
            if let Some(receiver) = self.receivers.get_mut(id)
                && receiver.key == key
                && receiver.socket == socket
            {
                receiver.state = ReceiverState::Stopping { resume: true };
                return RecvHandle(id);
            }
        }
        let id = self.receivers.insert(Receiver {
            key,
            socket,
            state: ReceiverState::Armed,
        });
        self.arm_receive(id, true);
        RecvHandle(id)
    }

    /// Stops a receiver (backpressure, or before closing). Bytes that the kernel had taken off the
    /// socket before still arrive; if the end of the stream is found meanwhile, it is told.
    /// Afterwards nothing more arrives. Start again with [`recv`](Self::recv).
    pub fn stop_recv(&mut self, handle: RecvHandle) {
        let RecvHandle(id) = handle;
        let Some(receiver) = self.receivers.get_mut(id) else {
            return;
        };
        match receiver.state {
            ReceiverState::Armed => {
                receiver.state = ReceiverState::Stopping { resume: false };
                self.stopping.push(id);
                self.cancel_receive(id);
            }
            ReceiverState::Stopping { .. } => {
                receiver.state = ReceiverState::Stopping { resume: false };
            }
            // The kernel does not have it; its place in the queue names nothing from now on.
            ReceiverState::Starved | ReceiverState::Resting => {
                self.receivers.remove(id);
            }
        }
    }

    /// Sends a payload. It goes out with the turn's other operations and comes back with
    /// [`Completion::Sent`].
    ///
    /// Queue the next send of a socket only after that: several at once could overtake each other
    /// after a partial one.
    pub fn send(&mut self, socket: impl Into<Target>, key: Key, payload: Payload) -> OpHandle {
        let socket = socket.into();
        let (file, flags) = socket.entry_parts();
        if self.nothing_queued() {
            self.headers.reset();
        }
        let pieces = payload.piece_count();
        let id = self.operations.insert(Operation::Send { key, payload });
        // The pieces' bytes do not move while the payload lies in its slot, nor when the slab
        // grows: they are behind a `Vec`, a shared chunk, a buffer or in static memory.
        let Some(Operation::Send { payload, .. }) = self.operations.get_mut(id) else {
            return OpHandle(id);
        };
        let entry = if pieces > 1 {
            let header = self.headers.message(payload.chunks(), pieces);
            opcode::SendMsg::new(file, header)
                .flags(libc::MSG_NOSIGNAL as u32)
                .build()
        } else {
            let bytes = payload.chunks().next().unwrap_or_default();
            // Longer ones go out as partial sends.
            let len = u32::try_from(bytes.len()).unwrap_or(1 << 30);
            opcode::Send::new(file, bytes.as_ptr(), len)
                .flags(libc::MSG_NOSIGNAL)
                .build()
        };
        self.push(&entry.flags(flags).user_data(user_data(Kind::Operation, id)));
        // Whatever is done about a slot is queued behind.
        self.unsubmitted_sends.extend(socket.descriptor());
        self.stats.sends += 1;
        self.fresh_sends += 1;
        OpHandle(id)
    }

    /// Connects a blocking socket that was just made.
    pub fn connect(
        &mut self,
        socket: impl Into<Target>,
        key: Key,
        address: SocketAddr,
    ) -> OpHandle {
        let (file, flags) = socket.into().entry_parts();
        let address = Box::new(SockAddr::from(address));
        let entry = opcode::Connect::new(file, address.as_ptr().cast(), address.len());
        let id = self.operations.insert(Operation::Connect {
            key,
            _address: address,
        });
        let entry = entry.build().flags(flags);
        self.push(&entry.user_data(user_data(Kind::Operation, id)));
        OpHandle(id)
    }

    /// Cancels an accept, connect or send. Connects and sends complete with `ECANCELED` unless
    /// they were done already; a cancelled accept says nothing more, but connections accepted
    /// before still arrive.
    pub fn cancel(&mut self, handle: OpHandle) {
        let OpHandle(id) = handle;
        match self.operations.get_mut(id) {
            None => return,
            Some(Operation::Accept { resting: true, .. }) => {
                self.operations.remove(id);
                return;
            }
            Some(Operation::Accept { cancelled, .. }) => *cancelled = true,
            Some(Operation::Send { .. } | Operation::Connect { .. }) => {}
            // Nobody has a handle of it.
            Some(Operation::Shutdown { .. }) => return,
        }
        self.cancel_operation(id);
    }

    /// What the kernel can do and the configuration allows.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Slots for direct descriptors; 0 without a table.
    pub fn direct_slots(&self) -> u32 {
        self.direct.slots()
    }

    /// Counters since the ring was made.
    pub fn stats(&self) -> &RingStats {
        &self.stats
    }

    /// From now on a wait lasts for this long before it ends with only a few completions (where the kernel can
    /// do that: Linux 6.12). Zero, which is how a ring begins: it ends with the first. Who sends to this
    /// thread does not pay for waking it each time then.
    pub fn gather(&mut self, at_least: Duration) {
        self.gather = at_least;
    }

    /// Share of the last tenths of a second in which this thread worked instead of waiting, 0 to 1.
    pub fn busy_share(&self) -> f32 {
        self.load.share()
    }

    /// Receive buffers that callers hold at the moment.
    pub fn buffers_lent(&self) -> usize {
        usize::from(self.pool.lent())
    }

    /// True when callers hold three quarters of all the receive buffers there can be. Copy what
    /// must wait (a relay's bytes for a slow peer) while this holds: buffers that wait for slow
    /// peers must never be all of them, or nobody receives any more.
    pub fn buffers_short(&self) -> bool {
        let max = usize::from(self.config.buffer_count_max);
        self.buffers_lent() >= max - max / 4
    }

    /// Receive buffers there are by now.
    pub fn buffers_provided(&self) -> usize {
        usize::from(self.pool.provided())
    }

    /// Operations that have not had their last completion, receivers included.
    pub fn in_flight(&self) -> usize {
        self.operations.len() + self.receivers.len()
    }

    fn arm_accept(&mut self, id: SlotId) {
        let Some(Operation::Accept {
            listener,
            multishot,
            resting,
            ..
        }) = self.operations.get_mut(id)
        else {
            return;
        };
        *resting = false;
        let listener = Fd(*listener);
        let entry = if *multishot {
            opcode::AcceptMulti::new(listener)
                .flags(libc::SOCK_CLOEXEC)
                .build()
        } else {
            opcode::Accept::new(listener, std::ptr::null_mut(), std::ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build()
        };
        self.push(&entry.user_data(user_data(Kind::Operation, id)));
    }

    /// `fresh`: nothing is known to wait in the socket, so the first attempt is not worth it.
    fn arm_receive(&mut self, id: SlotId, fresh: bool) {
        let multishot = self.features.multishot_recv;
        let Some(receiver) = self.receivers.get_mut(id) else {
            return;
        };
        receiver.state = ReceiverState::Armed;
        let mut how = 0;
        if multishot {
            how |= sys::RECV_MULTISHOT;
        }
        if fresh {
            how |= sys::RECV_POLL_FIRST;
        }
        let (file, flags) = receiver.socket.entry_parts();
        let entry = opcode::Recv::new(file, std::ptr::null_mut(), 0)
            .buf_group(buffers::GROUP)
            .ioprio(how)
            .build()
            .flags(flags | squeue::Flags::BUFFER_SELECT)
            .user_data(user_data(Kind::Receive, id));
        self.push(&entry);
    }

    fn cancel_receive(&mut self, id: SlotId) {
        let target = CancelBuilder::user_data(user_data(Kind::Receive, id));
        let entry = opcode::AsyncCancel2::new(target)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(Kind::CancelReceive, id));
        self.push(&entry);
    }

    fn cancel_operation(&mut self, id: SlotId) {
        let target = CancelBuilder::user_data(user_data(Kind::Operation, id));
        let entry = opcode::AsyncCancel2::new(target)
            .build()
            .user_data(user_data(Kind::CancelOperation, id));
        self.push(&entry);
    }
}

impl fmt::Debug for NetRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetRing")
            .field("features", &self.features)
            .field("receivers", &self.receivers.len())
            .field("operations", &self.operations.len())
            .field("pool", &self.pool)
            .field("direct_slots", &self.direct.slots())
            .finish_non_exhaustive()
    }
}
