//! SIGTERM and SIGINT as a stream. signal-hook writes a byte into a socket pair from inside the
//! signal handler, so that no signal is lost between two polls and repeated ones are counted.

use std::io;

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
    terminate: UnixStream,
    interrupt: UnixStream,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When no socket pair can be made or the handler cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: subscribe(SIGTERM)?,
            interrupt: subscribe(SIGINT)?,
        })
    }

    /// The next signal. Cancel-safe: an unfinished call takes nothing away.
    pub async fn next(&mut self) -> Signal {
        let (mut first, mut second) = ([0u8; 1], [0u8; 1]);
        tokio::select! {
            // The write ends live as long as the process: a read cannot end the stream.
            _ = self.terminate.read_exact(&mut first) => Signal::Terminate,
            _ = self.interrupt.read_exact(&mut second) => Signal::Interrupt,
        }
    }
}

fn subscribe(signal: i32) -> io::Result<UnixStream> {
    let (read, write) = std::os::unix::net::UnixStream::pair()?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, write)?;
    UnixStream::from_std(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_terminations_in_a_row_are_seen_as_two() {
        crate::control::run(async {
            let mut signals = Signals::new().expect("handlers can be installed");
            signal_hook::low_level::raise(SIGTERM).expect("raised");
            signal_hook::low_level::raise(SIGTERM).expect("raised");
            assert_eq!(signals.next().await, Signal::Terminate);
            assert_eq!(signals.next().await, Signal::Terminate);
        })
        .expect("a runtime can be built");
    }
}
