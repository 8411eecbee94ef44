//! What a run prints: progress on a terminal only, then one report, for people or as JSON.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the report is this program's output"
)]

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Where a run prints to.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    terminal: bool,
    last: Cell<Option<Instant>>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            terminal: io::stderr().is_terminal(),
            last: Cell::new(None),
        }
    }

    /// Overwrites the progress line, a few times a second at most.
    pub(crate) fn progress(&self, now: Instant, line: impl FnOnce() -> String) {
        if self.terminal
            && self
                .last
                .get()
                .is_none_or(|last| now - last >= PROGRESS_EVERY)
        {
            self.last.set(Some(now));
            eprint!("\r\x1b[K{}", line());
        }
    }

    /// Something that the reader must know beside the figures.
    pub(crate) fn warn(&self, text: &str) {
        self.clear_progress();
        eprintln!("flux-bench: {text}");
    }

    /// One JSON line among others; nothing for people.
    pub(crate) fn event(&self, event: &impl Serialize) {
        if self.json {
            self.line(event);
        }
    }

    /// Something to know before the run: a JSON line, or a text for people.
    pub(crate) fn announce(&self, event: &impl Serialize, text: &str) {
        if self.json {
            self.line(event);
        } else {
            println!("{text}");
        }
    }

    /// The report, last thing printed.
    pub(crate) fn finish(&self, report: &(impl Serialize + Display)) {
        self.clear_progress();
        if self.json {
            self.line(report);
        } else {
            println!("{report}");
        }
    }

    fn line(&self, value: &impl Serialize) {
        let mut out = io::stdout().lock();
        // A reader that went away (a closed pipe) ends the output, not the run.
        if serde_json::to_writer(&mut out, value).is_ok() {
            let _ = out.write_all(b"\n").and_then(|()| out.flush());
        }
    }

    fn clear_progress(&self) {
        if self.last.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
