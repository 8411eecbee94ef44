//! CPU time of processes by their CPU clocks, memory from `/proc/PID`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::sys;

/// Share of a core above which the load generator itself may be what was measured.
pub(crate) const OWN_CPU_MAX: f64 = 0.9;

/// CPU time (user and system, all threads) of a process so far: the same as `/proc/PID/stat` has, which counts it in
/// ticks of 10 ms, a few hundredths of what a server uses in a short window.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    sys::process_cpu_time(pid).with_context(|| format!("no process {pid}"))
}

/// CPU time that all cores together were busy since the machine started.
fn machine_cpu_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("no /proc/stat")?;
    let ticks = parse_machine_stat(&stat).context("/proc/stat is not as expected")?;
    Ok(Duration::from_secs_f64(ticks as f64 / sys::clock_ticks()))
}

/// user + nice + system + irq + softirq + steal; idle and iowait are what is left out.
fn parse_machine_stat(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    Some(
        [0, 1, 2, 5, 6, 7]
            .iter()
            .map(|index| fields.get(*index).copied().unwrap_or(0))
            .sum(),
    )
}

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// All resident pages, files and shared memory included.
    pub(crate) resident: u64,
    /// Resident pages without files: what the process has for itself.
    pub(crate) anonymous: u64,
}

/// Resident user memory of a process now.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))
        .with_context(|| format!("no process {pid}"))?;
    let mut pages = statm
        .split_ascii_whitespace()
        .skip(1)
        .map_while(|field| field.parse::<u64>().ok());
    match (pages.next(), pages.next()) {
        (Some(resident), Some(shared)) => {
            let page = sys::page_size();
            Ok(Memory {
                resident: resident * page,
                anonymous: resident.saturating_sub(shared) * page,
            })
        }
        _ => anyhow::bail!("/proc/{pid}/statm is not as expected"),
    }
}

/// CPU use over a window: of the server's processes and of this one.
#[derive(Debug)]
pub(crate) struct CpuWindow {
    servers: Vec<u32>,
    started: Instant,
    server_before: Duration,
    own_before: Duration,
    machine_before: Duration,
}

/// What a window found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CpuUse {
    /// CPU seconds of the server's processes; absent when no `--server-pid` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_s: Option<f64>,
    /// CPU seconds of this program.
    pub(crate) own_cpu_s: f64,
    /// Share of one core that this program used.
    pub(crate) own_share: f64,
    /// The load generator was above 90 % of a core: it may be the limit, not the server.
    pub(crate) load_limited: bool,
    /// Cores that neither the server's processes nor this program kept busy: above a few
    /// hundredths the machine was not quiet, and the figures are not to be trusted.
    pub(crate) other_cores: f64,
    /// Length of the window.
    pub(crate) window_s: f64,
}

impl CpuWindow {
    pub(crate) fn start(servers: &[u32], now: Instant) -> Result<Self> {
        Ok(Self {
            servers: servers.to_vec(),
            started: now,
            server_before: total(servers)?,
            own_before: cpu_time(std::process::id())?,
            machine_before: machine_cpu_time()?,
        })
    }

    pub(crate) fn finish(&self, now: Instant) -> Result<CpuUse> {
        let window_s = (now - self.started).as_secs_f64().max(1e-9);
        let own = (cpu_time(std::process::id())?.saturating_sub(self.own_before)).as_secs_f64();
        let server = total(&self.servers)?
            .saturating_sub(self.server_before)
            .as_secs_f64();
        let machine = machine_cpu_time()?
            .saturating_sub(self.machine_before)
            .as_secs_f64();
        Ok(CpuUse {
            other_cores: ((machine - own - server) / window_s).max(0.0),
            server_cpu_s: (!self.servers.is_empty()).then_some(server),
            own_cpu_s: own,
            own_share: own / window_s,
            load_limited: own / window_s > OWN_CPU_MAX,
            window_s,
        })
    }
}

impl CpuUse {
    /// `count` per second of server CPU time, if that was measured and is long enough to divide by.
    pub(crate) fn per_server_cpu_s(&self, count: u64) -> Option<f64> {
        self.server_cpu_s
            .filter(|seconds| *seconds >= 0.01)
            .map(|seconds| count as f64 / seconds)
    }
}

impl std::fmt::Display for CpuUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(server) = self.server_cpu_s {
            write!(f, "server CPU {:.0} %, ", 100.0 * server / self.window_s)?;
        }
        write!(
            f,
            "load generator CPU {:.0} %, other programs {:.0} %",
            100.0 * self.own_share,
            100.0 * self.other_cores
        )?;
        if self.load_limited {
            f.write_str(" (above 90 %: the load generator may be the limit, not the server)")?;
        }
        Ok(())
    }
}

fn total(pids: &[u32]) -> Result<Duration> {
    pids.iter().map(|pid| cpu_time(*pid)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_did_is_all_but_idling() {
        assert_eq!(
            parse_machine_stat("cpu  10 20 30 1000 500 1 2 3 9 9\ncpu0 1\n"),
            Some(66)
        );
        assert_eq!(parse_machine_stat("intr 5"), None);
    }

    #[test]
    fn cpu_time_grows_with_work_by_all_threads() {
        let before = cpu_time(std::process::id()).expect("own time");
        std::thread::spawn(move || {
            let mut sum = 0u64;
            while cpu_time(std::process::id()).expect("own time")
                < before + Duration::from_millis(20)
            {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
        })
        .join()
        .expect("the thread has worked");
        // What a thread used that has ended still counts.
        assert!(
            cpu_time(std::process::id()).expect("own time") >= before + Duration::from_millis(20)
        );
        let own = memory(std::process::id()).expect("own statm");
        assert!(own.resident >= own.anonymous && own.anonymous > 0);
    }

    #[test]
    fn a_missing_process_is_an_error_with_its_number() {
        let error = cpu_time(u32::MAX).expect_err("no such process");
        assert!(error.to_string().contains("4294967295"));
    }
}
