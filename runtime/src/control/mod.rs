//! The control plane: one thread with a small tokio runtime. It never touches a client socket.

mod admin;
mod readiness;
mod signals;

pub use admin::{Admin, serve};
pub use readiness::Readiness;
pub use signals::{Signal, Signals};

/// Runs `future` to its end on a current-thread tokio runtime on the calling thread.
///
/// # Errors
/// When the kernel gives no epoll instance or timer to build the runtime from.
pub fn run<F: Future>(future: F) -> std::io::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future))
}
