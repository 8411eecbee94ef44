//! Is io_uring to be had, and which of its features?

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode};

use super::Check;
use crate::mailbox::wake_pair;
use crate::ring::{Features, NetRing, RingConfig, RingError};

const SECCOMP: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile (Docker 25 and later block them: `--security-opt seccomp=FILE`)";

/// Operations that the net ring or glommio cannot do without. glommio ends the process when one of
/// its own is missing.
const OPERATIONS: &[(&str, u8)] = &[
    ("NOP", opcode::Nop::CODE),
    ("READV", opcode::Readv::CODE),
    ("WRITEV", opcode::Writev::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("READ_FIXED", opcode::ReadFixed::CODE),
    ("WRITE_FIXED", opcode::WriteFixed::CODE),
    ("POLL_ADD", opcode::PollAdd::CODE),
    ("POLL_REMOVE", opcode::PollRemove::CODE),
    ("SENDMSG", opcode::SendMsg::CODE),
    ("RECVMSG", opcode::RecvMsg::CODE),
    ("TIMEOUT", opcode::Timeout::CODE),
    ("TIMEOUT_REMOVE", opcode::TimeoutRemove::CODE),
    ("ACCEPT", opcode::Accept::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ("LINK_TIMEOUT", opcode::LinkTimeout::CODE),
    ("CONNECT", opcode::Connect::CODE),
    ("FALLOCATE", opcode::Fallocate::CODE),
    ("OPENAT", opcode::OpenAt::CODE),
    ("CLOSE", opcode::Close::CODE),
    ("STATX", opcode::Statx::CODE),
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("SEND", opcode::Send::CODE),
    ("RECV", opcode::Recv::CODE),
];

/// The findings, and the slots for direct descriptors that a shard's ring has.
pub(super) fn checks() -> (Vec<Check>, u32) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim();
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(error) => return (vec![refused(kernel, disabled.trim(), &error)], 0),
    };
    let mut checks = vec![Check::ok(
        "io_uring",
        format!("allowed, Linux {kernel}"),
        "sockets can be served",
    )];
    let mut probe = Probe::new();
    let missing: Vec<&str> = match ring.submitter().register_probe(&mut probe) {
        Ok(()) => OPERATIONS
            .iter()
            .filter(|(_, code)| !probe.is_supported(*code))
            .map(|(name, _)| *name)
            .collect(),
        Err(_) => vec!["probing itself"],
    };
    drop(ring);
    if !missing.is_empty() {
        checks.push(Check::fail(
            "io_uring operations",
            format!("missing: {}", missing.join(", ")),
            "the kernel is too old or restricts rings",
            "use Linux 5.19 or newer, better 6.1",
        ));
        return (checks, 0);
    }
    checks.push(Check::ok(
        "io_uring operations",
        format!("all {} present", OPERATIONS.len()),
        "what net ring and glommio need",
    ));
    let (ring, direct_slots) = net_ring();
    checks.extend(ring);
    (checks, direct_slots)
}

/// Why no ring could be made, told apart by the kernel's answer and its sysctl.
fn refused(kernel: &str, disabled: &str, error: &io::Error) -> Check {
    let (meaning, remedy) = match error.raw_os_error() {
        Some(libc::EPERM) if disabled == "2" => (
            "switched off for every process by sysctl",
            "set `sysctl kernel.io_uring_disabled=0` on the host".to_owned(),
        ),
        Some(libc::EPERM) if disabled == "1" => (
            "only for privileged processes, by sysctl",
            "set `sysctl kernel.io_uring_disabled=0` on the host, or add this user's group to kernel.io_uring_group".to_owned(),
        ),
        Some(libc::EPERM | libc::EACCES) => ("a seccomp profile or security module blocks it", SECCOMP.to_owned()),
        Some(libc::ENOSYS) => (
            "the kernel has none, or a seccomp profile hides it",
            format!("use Linux 5.19 or newer, and {SECCOMP}"),
        ),
        Some(libc::ENOMEM) => (
            "locked memory is used up",
            "raise `LimitMEMLOCK=` (systemd), `ulimit -l`, or the container's memlock ulimit; or grant CAP_IPC_LOCK".to_owned(),
        ),
        Some(libc::EMFILE | libc::ENFILE) => (
            "out of file descriptors",
            "raise `ulimit -n`".to_owned(),
        ),
        _ => ("the kernel refuses it", "use Linux 5.19 or newer".to_owned()),
    };
    Check::fail(
        "io_uring",
        format!("refused, Linux {kernel}: {error}"),
        meaning,
        remedy,
    )
}

/// A net ring as a shard makes it: shows that memory suffices and which features are used.
fn net_ring() -> (Vec<Check>, u32) {
    let made = wake_pair()
        .map_err(|source| RingError::Setup { source })
        .and_then(|(_waker, source)| NetRing::new(&RingConfig::default(), source));
    let (features, direct_slots) = match made {
        Ok(ring) => (ring.features(), ring.direct_slots()),
        Err(error) => {
            let refused = Check::fail(
                "net ring",
                "a ring of working size cannot be made",
                error.to_string(),
                "see the line itself; on Linux before 5.19 there are no buffer rings",
            );
            return (vec![refused], 0);
        }
    };
    let Features {
        multishot_accept,
        multishot_recv,
        defer_taskrun,
        min_wait,
        registered_ring: _,
        direct_descriptors,
    } = features;
    let mut checks = vec![Check::ok(
        "provided buffer ring",
        "registered",
        "an idle connection holds no buffer",
    )];
    let mut feature = |present: bool, name: &'static str, good: &'static str, since: &str| {
        checks.push(if present {
            Check::ok(name, "used", good)
        } else {
            Check::warn(
                name,
                "not there",
                "works without, at more system calls",
                format!("Linux {since} or newer has it"),
            )
        });
    };
    feature(
        multishot_accept,
        "multishot accept",
        "one request accepts many connections",
        "5.19",
    );
    feature(
        multishot_recv,
        "multishot receive",
        "one request receives many messages",
        "6.0",
    );
    feature(
        defer_taskrun,
        "deferred task work",
        "no interrupts between turns",
        "6.1",
    );
    feature(
        min_wait,
        "two-stage waits",
        "a shard may settle its sends together with the next event",
        "6.12",
    );
    checks.push(if direct_descriptors {
        Check::ok(
            "direct descriptors",
            format!("{direct_slots} a shard"),
            "connections that take no open file of the process",
        )
    } else {
        Check::warn(
            "direct descriptors",
            "not there",
            "each connection takes an open file of the process",
            "Linux 6.8 or newer has them",
        )
    });
    (checks, direct_slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_remedy() {
        let remedy = |code, disabled| {
            let check = refused("6.8.0", disabled, &io::Error::from_raw_os_error(code));
            assert_eq!(check.state, super::super::State::Fail);
            check.remedy
        };
        assert!(remedy(libc::EPERM, "2").contains("io_uring_disabled=0"));
        assert!(remedy(libc::EPERM, "1").contains("io_uring_group"));
        assert!(remedy(libc::EPERM, "0").contains("seccomp"));
        assert!(remedy(libc::ENOSYS, "").contains("5.19"));
        assert!(remedy(libc::ENOMEM, "0").contains("LimitMEMLOCK"));
        assert!(remedy(libc::EMFILE, "0").contains("ulimit -n"));
    }
}
