//! Limits of the process and the machine, and how many connections fit into them.

use std::fs;
use std::io;

use super::Check;
use crate::cpu;

/// Descriptors that a process needs beside its connections: rings, eventfds, listeners, Redis,
/// admin, logs.
const DESCRIPTORS_RESERVED: u64 = 128;
/// Descriptors that a shard needs beside its connections: its net ring and its wake, its listener, and
/// those of its executor.
const DESCRIPTORS_PER_SHARD: u64 = 12;
/// Kernel memory of an idle TCP socket (slab, both queues empty), measured with room to spare.
const KERNEL_BYTES_PER_CONNECTION: u64 = 4_608;
/// User memory of an idle connection: the promise of the gateway.
const USER_BYTES_PER_CONNECTION: u64 = 2_048;
/// Locked memory that the kernel charges for one shard where it does: net ring, buffer ring and
/// glommio's three rings.
const LOCKED_BYTES_PER_SHARD: u64 = 512 << 10;
/// glommio refuses to start below this.
const MEMLOCK_MIN: u64 = 512 << 10;
/// Fewer descriptors than this are most often a forgotten limit.
const DESCRIPTORS_LOW: u64 = 4_096;
const SOMAXCONN_LOW: u64 = 1_024;
const PORTS_LOW: u64 = 20_000;

/// How many connections fit, and why not more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) connections_max: u64,
    pub(super) binding: &'static str,
}

/// Sockets that a process with so many shards can have open: descriptors of its own but `reserved`, and
/// the slots of its rings ([`NetRing::direct_slots`]), which are no open files.
///
/// [`NetRing::direct_slots`]: crate::ring::NetRing::direct_slots
pub fn sockets_max(nofile: u64, reserved: u64, shards: u64, direct_slots: u32) -> u64 {
    nofile.saturating_sub(reserved + DESCRIPTORS_PER_SHARD * shards)
        + shards * u64::from(direct_slots)
}

/// The least of the limits that exist.
fn capacity(
    sockets: u64,
    memory: Option<u64>,
    conntrack: Option<u64>,
    file_max: Option<u64>,
) -> Capacity {
    let per_connection = KERNEL_BYTES_PER_CONNECTION + USER_BYTES_PER_CONNECTION;
    let candidates = [
        Some((sockets, "nofile (ulimit -n)")),
        memory.map(|bytes| (bytes / per_connection, "memory")),
        conntrack.map(|entries| (entries, "nf_conntrack_max")),
        file_max.map(|files| (files, "fs.file-max")),
    ];
    candidates
        .into_iter()
        .flatten()
        .min_by_key(|(count, _)| *count)
        .map_or(
            Capacity {
                connections_max: 0,
                binding: "nofile (ulimit -n)",
            },
            |(connections_max, binding)| Capacity {
                connections_max,
                binding,
            },
        )
}

/// A soft and a hard resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    soft: u64,
    hard: u64,
}

#[allow(unsafe_code, reason = "getrlimit(2) has no safe wrapper in std")]
fn limit(resource: libc::__rlimit_resource_t) -> io::Result<Limit> {
    let mut value = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one `rlimit`.
    if unsafe { libc::getrlimit(resource, &raw mut value) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Limit {
        soft: value.rlim_cur,
        hard: value.rlim_max,
    })
}

/// The soft limit of descriptors.
pub(crate) fn nofile() -> io::Result<u64> {
    limit(libc::RLIMIT_NOFILE).map(|limit| limit.soft)
}

/// Raises the soft limit of descriptors to the hard one and returns what holds then.
///
/// # Errors
/// When the kernel refuses; the old limit holds.
#[allow(unsafe_code, reason = "setrlimit(2) has no safe wrapper in std")]
pub fn raise_nofile() -> io::Result<u64> {
    let Limit { soft, hard } = limit(libc::RLIMIT_NOFILE)?;
    if soft == hard {
        return Ok(soft);
    }
    let value = libc::rlimit {
        rlim_cur: hard,
        rlim_max: hard,
    };
    // SAFETY: the kernel reads one `rlimit`.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const value) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(hard)
}

pub(super) fn checks(direct_slots: u32) -> (Vec<Check>, Capacity) {
    let nofile = limit(libc::RLIMIT_NOFILE).unwrap_or(Limit { soft: 0, hard: 0 });
    let memlock = limit(libc::RLIMIT_MEMLOCK).unwrap_or(Limit { soft: 0, hard: 0 });
    let memory = memory_available();
    let conntrack = number("/proc/sys/net/netfilter/nf_conntrack_max");
    let cpus = cpu::available();
    let shards = cpus.shards() as u64;
    let sockets = sockets_max(nofile.soft, DESCRIPTORS_RESERVED, shards, direct_slots);
    let capacity = capacity(sockets, memory, conntrack, number("/proc/sys/fs/file-max"));
    let mut checks = vec![
        memlock_check(memlock, has_ipc_lock(), shards),
        nofile_check(nofile, shards, sockets),
        cpu_check(&cpus),
    ];
    checks.extend(memory.map(|bytes| {
        let room = bytes / (KERNEL_BYTES_PER_CONNECTION + USER_BYTES_PER_CONNECTION);
        Check::ok(
            "memory",
            format!("{} MiB available", bytes >> 20),
            format!("room for about {room} idle connections"),
        )
    }));
    checks.extend(network_checks(conntrack));
    (checks, capacity)
}

fn memlock_check(memlock: Limit, privileged: bool, shards: u64) -> Check {
    let name = "memlock";
    let remedy = "raise `LimitMEMLOCK=` (systemd), `ulimit -l`, or the container's memlock ulimit; or grant CAP_IPC_LOCK (Linux 6.14 and later charge rings to it again)";
    let found = if memlock.soft == u64::MAX {
        "unlimited".to_owned()
    } else {
        format!("{} KiB", memlock.soft >> 10)
    };
    if memlock.soft < MEMLOCK_MIN {
        // glommio looks at the number only, whatever the capabilities.
        return Check::fail(name, found, "executors need at least 512 KiB", remedy);
    }
    let room = memlock.soft / LOCKED_BYTES_PER_SHARD;
    if privileged || memlock.soft == u64::MAX {
        Check::ok(name, found, "rings are not limited by it")
    } else if room < shards {
        Check::warn(
            name,
            found,
            format!("enough for about {room} shards of this user, {shards} are the default"),
            remedy,
        )
    } else {
        Check::ok(
            name,
            found,
            format!("enough for about {room} shards of this user"),
        )
    }
}

fn nofile_check(nofile: Limit, shards: u64, sockets: u64) -> Check {
    let name = "nofile";
    let found = if nofile.soft == nofile.hard {
        format!("{}", nofile.soft)
    } else {
        format!("{} (hard limit {})", nofile.soft, nofile.hard)
    };
    let meaning = format!("room for {sockets} connections with {shards} shard(s)");
    let remedy = "raise `LimitNOFILE=` (systemd), `ulimit -Hn`, or the container's nofile ulimit";
    if nofile.soft <= DESCRIPTORS_RESERVED + DESCRIPTORS_PER_SHARD * shards {
        Check::fail(name, found, "no room for connections", remedy)
    } else if nofile.soft < DESCRIPTORS_LOW {
        Check::warn(name, found, meaning, remedy)
    } else {
        Check::ok(name, found, meaning)
    }
}

fn cpu_check(cpus: &cpu::Cpus) -> Check {
    let found = match cpus.quota {
        Some(quota) => format!("{} allowed, quota {quota:.2}", cpus.allowed.len()),
        None => format!("{} allowed, no quota", cpus.allowed.len()),
    };
    let meaning = format!("{} shard(s) by default", cpus.shards());
    match cpus.quota {
        Some(quota) if quota < 1.0 => Check::warn(
            "cpus",
            found,
            format!("{meaning}; it is stopped for a part of each period, which shows as latency"),
            "give the container at least one cpu",
        ),
        _ => Check::ok("cpus", found, meaning),
    }
}

fn network_checks(conntrack: Option<u64>) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(backlog) = number("/proc/sys/net/core/somaxconn") {
        let found = format!("somaxconn {backlog}");
        checks.push(if backlog < SOMAXCONN_LOW {
            Check::warn(
                "backlog",
                found,
                "bursts of new connections are dropped and retried a second later",
                "set `sysctl net.core.somaxconn=4096`",
            )
        } else {
            Check::ok("backlog", found, "bursts of new connections wait in line")
        });
    }
    if let Some(ports) = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| port_count(&text))
    {
        let found = format!("{ports} ephemeral");
        let meaning = "connections from one address here to one address and port";
        checks.push(if ports < PORTS_LOW {
            Check::warn(
                "ports",
                found,
                meaning,
                "for a balancer set `sysctl net.ipv4.ip_local_port_range=\"1024 65535\"`",
            )
        } else {
            Check::ok("ports", found, meaning)
        });
    }
    if let Some(entries) = conntrack {
        checks.push(Check::ok(
            "conntrack",
            format!("{entries} entries"),
            "each connection through the host's firewall takes one",
        ));
    }
    checks
}

/// Both bounds count.
fn port_count(range: &str) -> Option<u64> {
    let mut bounds = range.split_whitespace().map(str::parse::<u64>);
    let low = bounds.next()?.ok()?;
    let high = bounds.next()?.ok()?;
    Some(high.checked_sub(low)? + 1)
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What is free in the machine, or in the cgroup if that is less.
fn memory_available() -> Option<u64> {
    let free = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo_available(&text));
    let pairs = [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ];
    let in_group = pairs
        .iter()
        .filter_map(|(limit, used)| Some(number(limit)?.saturating_sub(number(used)?)))
        .min();
    [free, in_group].into_iter().flatten().min()
}

fn meminfo_available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// CAP_IPC_LOCK (14) among the effective capabilities.
fn has_ipc_lock() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .is_some_and(|capabilities| capabilities & (1 << CAP_IPC_LOCK) != 0)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn the_smallest_limit_binds() {
        let gib = 1u64 << 30;
        let sockets = sockets_max(20_000, 128, 2, 20_000);
        let found = capacity(sockets, Some(64 * gib), Some(262_144), Some(1 << 30));
        assert_eq!(found.connections_max, 59_848);
        assert_eq!(found.binding, "nofile (ulimit -n)");
        let found = capacity(1 << 20, Some(gib), None, None);
        assert_eq!(
            (found.connections_max, found.binding),
            (gib / 6_656, "memory")
        );
        let found = capacity(1 << 20, Some(64 * gib), Some(65_536), None);
        assert_eq!(
            (found.connections_max, found.binding),
            (65_536, "nf_conntrack_max")
        );
        assert_eq!(sockets_max(20_000, 128, 2, 0), 19_848);
        assert_eq!(sockets_max(10, 128, 2, 0), 0);
    }

    #[test]
    fn limits_are_judged_with_a_remedy() {
        let both = |limit| Limit {
            soft: limit,
            hard: limit,
        };
        let check = memlock_check(both(64 << 10), true, 1);
        assert_eq!(check.state, State::Fail);
        assert!(check.remedy.contains("LimitMEMLOCK"));
        assert_eq!(memlock_check(both(1 << 20), false, 8).state, State::Warn);
        assert_eq!(memlock_check(both(8 << 20), false, 2).state, State::Ok);
        assert_eq!(memlock_check(both(u64::MAX), false, 999).state, State::Ok);
        assert_eq!(nofile_check(both(100), 2, 0).state, State::Fail);
        assert_eq!(nofile_check(both(1024), 2, 1024).state, State::Warn);
        let check = nofile_check(both(20_000), 2, 59_848);
        assert_eq!(check.state, State::Ok);
        assert!(check.meaning.contains("59848"), "{}", check.meaning);
        let starved = cpu::Cpus {
            allowed: vec![0, 1],
            quota: Some(0.25),
        };
        assert_eq!(cpu_check(&starved).state, State::Warn);
    }

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(port_count("32768\t60999\n"), Some(28_232));
        assert_eq!(port_count("5 4"), None);
        assert_eq!(port_count("x"), None);
        let text = "MemTotal:  100 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(meminfo_available(text), Some(2 << 20));
        assert_eq!(meminfo_available("MemTotal: 1 kB"), None);
    }

    #[test]
    fn descriptors_are_raised_to_the_hard_limit() {
        let raised = raise_nofile().expect("to one's own hard limit");
        let now = limit(libc::RLIMIT_NOFILE).expect("a limit");
        assert_eq!((now.soft, now.hard), (raised, raised));
    }
}
