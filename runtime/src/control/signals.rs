//! SIGTERM and SIGINT as a stream. signal-hook writes a byte into a socket pair from inside the
//! signal handler, so that no signal is lost between two polls and repeated ones are counted.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// What somebody asked this process to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: drain, then exit.
    Terminate,
    /// SIGINT: a person at the terminal.
    Interrupt,
}

/// The signals of this process from the moment it was made.
pub struct Signals {
    terminate: Pipe,
    interrupt: Pipe,
}

/// The reading end of a signal's socket pair; tokio takes it over when it is first waited for, so
/// that signals can be taken over before there is a runtime.
enum Pipe {
    Installed(StdUnixStream),
    Awaited(UnixStream),
    /// tokio would not take it; nothing more can be heard.
    Deaf,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT. From then on none ends the process by itself, and none is
    /// lost: those that come before the first [`Signals::next`] wait for it.
    ///
    /// # Errors
    /// When no socket pair can be made or the handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: Pipe::install(SIGTERM)?,
            interrupt: Pipe::install(SIGINT)?,
        })
    }

    /// The next signal. Cancel-safe: an unfinished call takes nothing away. Must be called inside a
    /// tokio runtime.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            () = self.terminate.read() => Signal::Terminate,
            () = self.interrupt.read() => Signal::Interrupt,
        }
    }
}

impl Pipe {
    fn install(signal: i32) -> io::Result<Self> {
        let (read, write) = StdUnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(signal, write)?;
        Ok(Self::Installed(read))
    }

    /// One byte: one signal. The writing end lives as long as the process, so that the stream does
    /// not end.
    async fn read(&mut self) {
        if matches!(self, Self::Installed(_))
            && let Self::Installed(read) = std::mem::replace(self, Self::Deaf)
        {
            match UnixStream::from_std(read) {
                Ok(read) => *self = Self::Awaited(read),
                Err(error) => tracing::error!(%error, "signals cannot be waited for"),
            }
        }
        let mut byte = [0u8; 1];
        if let Self::Awaited(read) = self
            && read.read_exact(&mut byte).await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_terminations_are_seen_as_two_even_when_one_came_before_the_runtime() {
        let mut signals = Signals::install().expect("handlers can be installed");
        signal_hook::low_level::raise(SIGTERM).expect("raised");
        crate::control::run(async {
            signal_hook::low_level::raise(SIGTERM).expect("raised");
            assert_eq!(signals.next().await, Signal::Terminate);
            assert_eq!(signals.next().await, Signal::Terminate);
        })
        .expect("a runtime can be built");
    }
}
