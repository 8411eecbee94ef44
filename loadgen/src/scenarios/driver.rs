//! The loop of a run: what has come is handed to the workload, what is due is sent, until a measured window is over or
//! something has happened.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Stop;
use super::window::Window;
use crate::net::{Event, Key, Net};
use crate::process::CpuUse;
use crate::report::Output;

/// What a run does to a server.
pub(crate) trait Workload {
    /// Sends what is due at `now`; returns when more will be. `None`: never, as in a closed loop.
    fn send_due(&mut self, net: &mut impl Net, now: Instant) -> Option<Instant>;

    /// # Errors
    /// What ends the run, of this connection.
    fn on_event(&mut self, net: &mut impl Net, key: Key, event: Event<'_>) -> Result<(), String>;

    /// The warm-up is over: what was counted until here is forgotten.
    fn begin_window(&mut self);

    /// How far it is, in a line.
    fn progress(&self) -> String;
}

/// What it means for most workloads that a server closes a connection.
pub(crate) fn closed(error: Option<&std::io::Error>) -> String {
    format!("closed by the server: {error:?}")
}

/// An event loop with its connections, and who is told how it goes.
#[derive(Debug)]
pub(crate) struct Driver<'a, N> {
    pub(crate) net: N,
    pub(crate) output: &'a Output,
    pub(crate) stop: &'a Stop,
}

impl<N: Net> Driver<'_, N> {
    /// Runs through the warm-up and the measured window; a signal ends it early.
    ///
    /// # Errors
    /// What the workload names, or when the warm-up was not over or the CPU time cannot be read.
    pub(crate) fn measure(
        &mut self,
        workload: &mut impl Workload,
        mut window: Window,
    ) -> Result<CpuUse> {
        loop {
            let now = Instant::now();
            if window.begins(now)? {
                workload.begin_window();
            }
            if window.is_over(now) || self.stop.requested() {
                return window.finish(now);
            }
            self.turn(workload, now, window.next_at())?;
        }
    }

    /// Goes on until `done`, `most` has passed or a signal came; false: it is not done. Sending goes on.
    ///
    /// # Errors
    /// What the workload names.
    pub(crate) fn run_until<W: Workload>(
        &mut self,
        workload: &mut W,
        most: Duration,
        done: impl Fn(&W) -> bool,
    ) -> Result<bool> {
        self.until(workload, most, done, Self::turn)
    }

    /// The same without sending anything more of its own accord.
    pub(crate) fn wait_until<W: Workload>(
        &mut self,
        workload: &mut W,
        most: Duration,
        done: impl Fn(&W) -> bool,
    ) -> Result<bool> {
        self.until(workload, most, done, Self::wait)
    }

    fn until<W: Workload>(
        &mut self,
        workload: &mut W,
        most: Duration,
        done: impl Fn(&W) -> bool,
        turn: impl Fn(&mut Self, &mut W, Instant, Instant) -> Result<()>,
    ) -> Result<bool> {
        let until = Instant::now() + most;
        while !done(workload) {
            let now = Instant::now();
            if now >= until || self.stop.requested() {
                return Ok(false);
            }
            turn(self, workload, now, until)?;
        }
        Ok(true)
    }

    /// Sends what is due, and takes what comes until more is or `until`.
    fn turn(&mut self, workload: &mut impl Workload, now: Instant, until: Instant) -> Result<()> {
        let next = workload.send_due(&mut self.net, now);
        self.wait(workload, now, next.map_or(until, |next| next.min(until)))
    }

    fn wait(&mut self, workload: &mut impl Workload, now: Instant, until: Instant) -> Result<()> {
        self.output.progress(now, || workload.progress());
        let mut first = None;
        self.net.turn(Some(until), &mut |net, key, event| {
            if first.is_none()
                && let Err(what) = workload.on_event(net, key, event)
            {
                first = Some(format!("connection {}: {what}", key.tag));
            }
        })?;
        match first {
            Some(error) => bail!("{error}"),
            None => Ok(()),
        }
    }
}
