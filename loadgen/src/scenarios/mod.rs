//! One file a command. `open` is what most start with: many connections at a set pace; `window` is what they
//! measure.

pub(crate) mod bulk;
pub(crate) mod channels;
pub(crate) mod connect;
pub(crate) mod crowd;
pub(crate) mod echo;
pub(crate) mod fanout;
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

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
