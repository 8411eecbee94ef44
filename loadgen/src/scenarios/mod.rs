//! One file or folder a command, with its options, its run and its report. What they share: `driver` is the loop of a
//! run, `open` opens connections at a set pace, `crowd` has publishers and subscribers, `window` is what is measured,
//! `head` how a flow over plain TCP begins.

pub(crate) mod bulk;
pub(crate) mod channels;
pub(crate) mod connect;
pub(crate) mod crowd;
pub(crate) mod driver;
pub(crate) mod echo;
pub(crate) mod fanout;
pub(crate) mod head;
pub(crate) mod hop;
pub(crate) mod http;
pub(crate) mod idle;
pub(crate) mod million;
pub(crate) mod open;
pub(crate) mod pairs;
pub(crate) mod redis_publish;
pub(crate) mod serve_echo;
pub(crate) mod slow;
pub(crate) mod watch;
pub(crate) mod window;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use serde::Serialize;

use self::driver::Driver;
use crate::net::Net;
use crate::options::Engine;

/// A command that drives connections over one event loop.
pub(crate) trait Scenario {
    type Report: Report;

    /// Which event loop; `None`: the ring, and epoll where there is no io_uring.
    fn engine(&self) -> Option<Engine>;

    /// # Errors
    /// When it could not run, or the server did what ends a run.
    fn run(&self, driver: Driver<'_, impl Net>) -> Result<Self::Report>;
}

/// What a command found, for people and as JSON.
pub(crate) trait Report: Serialize + Display {
    /// Whether all is as it should be: the exit code.
    fn complete(&self) -> bool;
}

/// Set by SIGINT or SIGTERM: a run ends early, with its report.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn on_signals() -> std::io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The second signal ends the program at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// Asked for by the test itself.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(Arc::default())
    }

    #[cfg(test)]
    pub(crate) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
