//! Redis deployments for tests, each of real processes: own ports (from the kernel), own directories, ended
//! by pid when dropped. Only tests depend on this crate.
//!
//! | what | file |
//! |---|---|
//! | one server, Redis or Valkey | `server` |
//! | a master, a replica and three sentinels | `sentinel` |
//! | a cluster of three masters and three replicas; slots that move | `cluster` |
//! | an authority and a certificate for TLS | `certificates` |
//! | asking a server something | `reply` |
//!
//! Everything waits until what it has started is ready, by asking it. Where a program is missing, `start`
//! prints why the test is skipped and gives `None`; anything else that does not work is a panic, as in the
//! test itself.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "this is a part of tests: they fail by a panic and say why they are skipped"
)]

mod certificates;
mod cluster;
mod reply;
mod sentinel;
mod server;

use std::time::{Duration, Instant};

pub use certificates::Certificates;
pub use cluster::Cluster;
pub use reply::Reply;
pub use sentinel::Sentinels;
pub use server::{Program, Server};

/// Longest wait for anything that should happen; a machine under load is slow, not wrong.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `is_so`, and panics with `what` when it never is.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
    since.elapsed()
}
