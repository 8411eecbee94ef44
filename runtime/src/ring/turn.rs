//! One turn: start again what starved or rested, submit, wait, take what happened.

use std::io;
use std::time::{Duration, Instant};

use io_uring::opcode;
use io_uring::types::Fd;

use super::slots::SlotId;
use super::sys::{self, Wait};
use super::{Kind, NO_SLOT, NetRing, Operation, ReceiverState, Resting, user_data};

/// Longest wait when the caller names no end.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Buffers are not doubled beyond this only because many connections spoke at once: a receiver
/// that starves for a moment costs one more submission, a buffer a page for good.
const BURST_BUFFERS_MAX: u16 = 512;
/// Sends up to which one enter both submits them and waits. The kernel does its TCP work for each while it
/// takes it: for more of them that is work worth its own enter, which then counts as work. Within a wait it
/// would pass for idleness.
const SENDS_WITH_WAIT_MAX: u32 = 16;
/// Pause after the kernel was too short of memory to take entries.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(1);

impl NetRing {
    /// Submits everything queued and waits until something happens, a [`Waker`] wakes, or `until`.
    /// Take what happened with [`next_completion`](Self::next_completion).
    ///
    /// Returns the time after the wait. A past `until` does not wait.
    ///
    /// [`Waker`]: crate::mailbox::Waker
    pub fn wait(&mut self, until: Option<Instant>) -> Instant {
        let before = Instant::now();
        self.start_again(before);
        if !self.wake_armed {
            self.arm_wake();
        }
        self.work_off_backlog();

        let mut end = until.unwrap_or(before + WAIT_MAX);
        for (due, _) in &self.resting {
            end = end.min(*due);
        }
        let limit = end.saturating_duration_since(before);
        let park = !limit.is_zero()
            && self.fresh_sends < SENDS_WITH_WAIT_MAX
            && self.reaped.is_empty()
            && self.backlog.is_empty()
            && !self.is_behind()
            && self.wake.park();
        let result = if park {
            let wait = self.parked_wait(limit);
            self.enter(Some(wait))
        } else {
            self.enter(Some(Wait::NONE))
        };
        self.fresh_sends = 0;
        self.wake.unpark();
        self.reap();
        if let Err(error) = result
            && is_shortage(&error)
            && self.reaped.is_empty()
        {
            // Nothing was taken: wait a little for memory, without submitting.
            std::thread::sleep(SHORTAGE_PAUSE);
        }
        let after = Instant::now();
        let waited_from = if park { before } else { after };
        self.load.record(waited_from, after, sys::thread_cpu_time);
        after
    }

    /// What a wait ends with: the first completion, or what has gathered. (To wait for the completions of the
    /// sends that it submits and one more, so that it does not end with those at once, was measured to gain
    /// nothing.)
    fn parked_wait(&self, limit: Duration) -> Wait {
        let gather = self.gather.min(limit);
        match gather.is_zero() || !self.features.min_wait {
            true => Wait {
                want: 1,
                min_wait_us: 0,
                limit,
            },
            false => Wait {
                want: self.config.completion_entries / 2,
                min_wait_us: gather.as_micros() as u32,
                limit,
            },
        }
    }

    /// Whether the kernel has put off work of which this thread does not know yet: something happened, and
    /// the next wait, which will not wait, tells what. One enter does no more than 20 or 40 pieces of it
    /// (`IO_LOCAL_TW_DEFAULT_MAX`, Linux 6.13).
    ///
    /// To answer these before the next are taken is what makes large crowds cheap: with thousands of
    /// receives at once their sends find the sockets gone from the cache.
    pub fn is_behind(&mut self) -> bool {
        self.kernel.submission().taskrun()
    }

    /// Takes the completion queue's entries, so that the kernel has room again before the caller
    /// works on them.
    pub(super) fn reap(&mut self) {
        if self.kernel.submission().cq_overflow() {
            self.stats.completion_overflows += 1;
        }
        let left = self.reaped.len();
        self.reaped.extend(self.kernel.completion());
        self.stats.completions += (self.reaped.len() - left) as u64;
    }

    fn start_again(&mut self, now: Instant) {
        if !self.starved.is_empty() {
            self.feed_starved();
        }
        if !self.resting.is_empty() {
            let mut index = 0;
            while let Some((due, what)) = self.resting.get(index).copied() {
                if due <= now {
                    self.resting.swap_remove(index);
                    self.wake_up(what);
                } else {
                    index += 1;
                }
            }
        }
    }

    fn wake_up(&mut self, what: Resting) {
        match what {
            Resting::Accept(id) => {
                if let Some(Operation::Accept { resting: true, .. }) = self.operations.get(id) {
                    self.arm_accept(id);
                }
            }
            Resting::Receive(id) => {
                if self.receiver_is(id, ReceiverState::Resting) {
                    self.arm_receive(id, false);
                }
            }
            Resting::Shutdown { slot, how } => self.shutdown_slot(slot, how),
        }
    }

    /// Starts as many starved receivers as there are buffers, those that starve longest first.
    fn feed_starved(&mut self) {
        // Either all are lent out, or a burst was much larger than what there is.
        let all_lent = self.pool.available() == 0;
        let burst = self.starved.len() > usize::from(self.pool.provided()) / 2
            && self.pool.provided() < BURST_BUFFERS_MAX;
        if (all_lent || burst) && self.pool.grow() {
            self.stats.buffer_growths += 1;
        }
        let mut buffers = self.pool.available();
        while buffers > 0 {
            let Some(id) = self.starved.pop_front() else {
                return;
            };
            if self.receiver_is(id, ReceiverState::Starved) {
                self.arm_receive(id, false);
                buffers -= 1;
            }
        }
    }

    fn receiver_is(&self, id: SlotId, state: ReceiverState) -> bool {
        self.receivers
            .get(id)
            .is_some_and(|receiver| receiver.state == state)
    }

    fn arm_wake(&mut self) {
        let word = (&raw mut *self.wake_word).cast::<u8>();
        let entry = opcode::Read::new(Fd(self.wake.descriptor()), word, 8)
            .build()
            .user_data(user_data(Kind::Wake, NO_SLOT));
        self.wake_armed = true;
        self.push(&entry);
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM)
    )
}
