//! The part of a run that is measured: after the warm-up, for as long as was asked for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::options::{DURATION_S_MAX, positive};
use crate::process::{CpuUse, CpuWindow};

/// How long is measured, as the command line says it.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Times {
    /// Seconds to measure
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    duration: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    warmup: f64,
}

/// How long is measured, and whose CPU time counts.
#[derive(Debug, Clone, Args)]
pub(crate) struct Measured {
    #[command(flatten)]
    times: Times,
    /// Process whose CPU time counts; may be given several times
    #[arg(long = "server-pid", value_name = "PID")]
    server_pids: Vec<u32>,
}

impl Measured {
    #[cfg(test)]
    pub(crate) fn new(warmup: Duration, duration: Duration) -> Self {
        Self {
            times: Times::new(warmup, duration),
            server_pids: Vec::new(),
        }
    }

    /// The window of a run that begins at `started`.
    pub(crate) fn window(&self, started: Instant) -> Window {
        self.times.window(started, &self.server_pids)
    }
}

impl Times {
    #[cfg(test)]
    pub(crate) fn new(warmup: Duration, duration: Duration) -> Self {
        Self {
            duration: duration.as_secs_f64(),
            warmup: warmup.as_secs_f64(),
        }
    }

    /// The window of a run that begins at `started`, and whose CPU time counts.
    pub(crate) fn window(&self, started: Instant, server_pids: &[u32]) -> Window {
        let seconds = |given: f64| Duration::from_secs_f64(given.min(DURATION_S_MAX as f64));
        Window::new(
            started,
            seconds(self.warmup),
            seconds(self.duration),
            server_pids,
        )
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Window {
    from: Instant,
    until: Instant,
    server_pids: Vec<u32>,
    cpu: Option<CpuWindow>,
}

impl Window {
    /// Of a run that begins at `started`.
    fn new(started: Instant, warmup: Duration, duration: Duration, server_pids: &[u32]) -> Self {
        let from = started + warmup;
        Self {
            from,
            until: from + duration,
            server_pids: server_pids.to_vec(),
            cpu: None,
        }
    }

    /// True once, when the warm-up is over: what was counted until then is to be forgotten.
    ///
    /// # Errors
    /// When the CPU time of a server's process cannot be read.
    pub(crate) fn begins(&mut self, now: Instant) -> Result<bool> {
        if self.cpu.is_some() || now < self.from {
            return Ok(false);
        }
        self.cpu = Some(CpuWindow::start(&self.server_pids, now)?);
        Ok(true)
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// When a run has to look at it again.
    pub(crate) fn next_at(&self) -> Instant {
        match self.cpu {
            None => self.from,
            Some(_) => self.until,
        }
    }

    /// What the measured part took.
    ///
    /// # Errors
    /// When the warm-up was not over, or the CPU time cannot be read.
    pub(crate) fn finish(self, now: Instant) -> Result<CpuUse> {
        let cpu = self.cpu.context("ended before the warm-up was over")?;
        cpu.finish(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measuring_begins_once_behind_the_warm_up_and_ends_after_its_time() {
        let second = Duration::from_secs(1);
        let started = Instant::now();
        let mut window = Window::new(started, second, 2 * second, &[]);
        assert!(!window.begins(started).expect("readable"));
        assert_eq!(window.next_at(), started + second);
        assert!(window.begins(started + second).expect("readable"));
        assert!(!window.begins(started + second).expect("readable"));
        assert_eq!(window.next_at(), started + 3 * second);
        assert!(!window.is_over(started + 2 * second));
        assert!(window.is_over(started + 3 * second));
        let cpu = window.finish(started + 3 * second).expect("measured");
        assert!((cpu.window_s - 2.0).abs() < 1e-6);
        let early = Window::new(started, second, second, &[]);
        assert!(early.finish(started).is_err());
    }
}
