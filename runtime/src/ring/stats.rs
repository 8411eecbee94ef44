//! Counters of a net ring and the share of time that its thread works.

use std::time::{Duration, Instant};

/// What a net ring did since it was made. Plain counters: only the shard's thread sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Submission entries pushed.
    pub submissions: u64,
    /// Completion entries taken.
    pub completions: u64,
    /// Enters that a full submission queue made necessary within a turn.
    pub submission_full: u64,
    /// Times the completion queue was found to have overflowed (the kernel kept the rest).
    pub completion_overflows: u64,
    /// Receives that found no buffer.
    pub no_buffers: u64,
    /// Times the receive buffers were doubled.
    pub buffer_growths: u64,
    /// Multishot operations that the kernel ended and the ring started again.
    pub rearmed: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Accepts that failed for a reason other than shortage.
    pub accept_errors: u64,
    /// Accepts that failed because descriptors or memory were short.
    pub accept_shortages: u64,
    /// Sockets that the kernel had no memory to take over; their operations fail.
    pub adopt_failures: u64,
    /// Sends given to the kernel.
    pub sends: u64,
    /// Sends of which the kernel took only a part.
    pub partial_sends: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Wakes from other threads that ended a wait.
    pub wakes: u64,
}

/// Share of the last tenths of a second in which the thread worked: its CPU time in what is left of the time
/// without that in which others kept it from its CPU (the time that it neither worked nor waited). Much of
/// what the kernel does for sockets it does within a wait, so that is no idleness by itself.
///
/// Windows of at least 50 ms; each new window counts half.
#[derive(Debug)]
pub(super) struct Load {
    window_start: Instant,
    waited: Duration,
    cpu_time: Duration,
    share: f32,
}

const WINDOW: Duration = Duration::from_millis(50);

impl Load {
    /// `cpu_time` is what the thread has taken so far.
    pub(super) fn new(now: Instant, cpu_time: Duration) -> Self {
        Self {
            window_start: now,
            waited: Duration::ZERO,
            cpu_time,
            share: 0.0,
        }
    }

    /// A wait is over; `cpu_time` is asked at the end of a window.
    pub(super) fn record(
        &mut self,
        before_wait: Instant,
        after_wait: Instant,
        cpu_time: impl FnOnce() -> Duration,
    ) {
        self.waited += after_wait.saturating_duration_since(before_wait);
        let window = after_wait.saturating_duration_since(self.window_start);
        if window >= WINDOW {
            let cpu_time = cpu_time();
            let worked = cpu_time.saturating_sub(self.cpu_time);
            let own = (worked + self.waited).clamp(Duration::from_micros(1), window);
            let busy = (worked.as_secs_f32() / own.as_secs_f32()).min(1.0);
            self.share = f32::midpoint(self.share, busy.clamp(0.0, 1.0));
            self.cpu_time = cpu_time;
            self.window_start = after_wait;
            self.waited = Duration::ZERO;
        }
    }

    pub(super) fn share(&self) -> f32 {
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share after turns of 10 ms of which `worked` ms are work and `waited` a wait.
    fn share(worked: u64, waited: u64) -> f32 {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut load = Load::new(start, Duration::ZERO);
        for turn in 1..=200 {
            load.record(at(turn * 10 - waited), at(turn * 10), || {
                Duration::from_millis(turn * worked)
            });
        }
        load.share()
    }

    #[test]
    fn share_is_the_cpu_time_also_that_within_a_wait() {
        assert!((share(5, 5) - 0.5).abs() < 0.01);
        assert!((share(3, 10) - 0.3).abs() < 0.01);
        assert!(share(0, 10) < 0.01);
        assert!((share(10, 0) - 1.0).abs() < 0.01);
    }

    #[test]
    fn time_in_which_others_had_the_cpu_is_neither_work_nor_idleness() {
        assert!((share(4, 4) - 0.5).abs() < 0.01);
        assert!((share(2, 0) - 1.0).abs() < 0.01);
    }
}
