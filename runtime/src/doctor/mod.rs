//! What this machine allows, examined before anything starts: each finding in one line, with the
//! remedy where something is missing, and what it means in connections.
//!
//! Run it before the first shard: glommio ends the process (or panics) where io_uring is refused,
//! without a word about the reason.

use std::fmt;

mod limits;
mod uring;

pub(crate) use limits::nofile;
pub use limits::{raise_nofile, sockets_max};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, but less well than it could.
    Warn,
    /// Nothing can start.
    Fail,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What that means.
    pub meaning: String,
    /// What to do about it; empty when nothing is.
    pub remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            found: found.into(),
            meaning: meaning.into(),
            remedy: String::new(),
        }
    }

    fn warn(
        name: &'static str,
        found: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            name,
            state: State::Warn,
            found: found.into(),
            meaning: meaning.into(),
            remedy: remedy.into(),
        }
    }

    fn fail(
        name: &'static str,
        found: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Fail,
            ..Self::warn(name, found, meaning, remedy)
        }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The findings, most basic first.
    pub checks: Vec<Check>,
    /// Connections that one process can hold here.
    pub connections_max: u64,
    /// The limit that binds first.
    pub binding: &'static str,
}

impl Report {
    /// The first failure as one line with its remedy; `None` when shards can start.
    pub fn fatal(&self) -> Option<String> {
        self.checks
            .iter()
            .find(|check| check.state == State::Fail)
            .map(|check| {
                format!(
                    "{}: {} ({}); {}",
                    check.name, check.found, check.meaning, check.remedy
                )
            })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&Check) -> usize| self.checks.iter().map(text).max().unwrap_or(0);
        let names = width(|check| check.name.len());
        let found = width(|check| check.found.len()).min(44);
        for check in &self.checks {
            let state = match check.state {
                State::Ok => "ok  ",
                State::Warn => "WARN",
                State::Fail => "FAIL",
            };
            writeln!(
                f,
                "{state}  {:names$}  {:found$}  {}",
                check.name, check.found, check.meaning
            )?;
            if !check.remedy.is_empty() {
                writeln!(f, "      {:names$}  remedy: {}", "", check.remedy)?;
            }
        }
        write!(
            f,
            "\nThis machine can hold about {} connections in one process; {} is the limit that binds.",
            self.connections_max, self.binding
        )
    }
}

/// Examines this machine as this process sees it. Changes nothing; call [`raise_nofile`] before to
/// count with the raised limit.
pub fn examine() -> Report {
    let (mut checks, direct_slots) = uring::checks();
    let (limits, capacity) = limits::checks(direct_slots);
    checks.extend(limits);
    Report {
        checks,
        connections_max: capacity.connections_max,
        binding: capacity.binding,
    }
}

#[cfg(test)]
mod tests;
