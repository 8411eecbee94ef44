//! Sizes and features of a net ring.

use std::io;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};

/// Largest buffer ring of the kernel.
const BUFFERS_MAX: u16 = 1 << 15;

/// Sizes of a net ring. The default suits a gateway shard.
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// Submission queue entries (rounded up to a power of two). More operations than that in one
    /// turn cost one more enter each time the queue is full.
    pub submission_entries: u32,
    /// Completion queue entries (rounded up to a power of two). More completions than that between
    /// two turns wait in the kernel and are counted as overflow; none is lost.
    pub completion_entries: u32,
    /// Bytes of one receive buffer.
    pub buffer_len: u32,
    /// Receive buffers at the start, a power of two.
    pub buffer_count: u16,
    /// Receive buffers at most, a power of two: when the kernel runs out, their number doubles up
    /// to this, and then receivers wait for buffers to come back.
    pub buffer_count_max: u16,
    /// Slots for direct descriptors at most; the soft limit of open files bounds them too. Each costs
    /// 12 bytes whether it is used or not. Sockets beyond keep their descriptors.
    pub direct_slots: u32,
    /// How long an accept rests after the machine ran out of descriptors or memory.
    pub accept_pause: Duration,
    /// Features that may be used if the kernel has them. Tests take some away.
    pub allowed: Features,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            submission_entries: 1024,
            completion_entries: 8192,
            buffer_len: 4096,
            buffer_count: 256,
            buffer_count_max: 8192,
            direct_slots: 65_536,
            accept_pause: Duration::from_millis(100),
            allowed: Features::all(),
        }
    }
}

impl RingConfig {
    pub(super) fn check(&self) -> Result<(), RingError> {
        let count_ok = |count: u16| count.is_power_of_two() && count <= BUFFERS_MAX;
        if !count_ok(self.buffer_count) || !count_ok(self.buffer_count_max) {
            return Err(RingError::Config(
                "buffer counts must be powers of two up to 32768",
            ));
        }
        if self.buffer_count > self.buffer_count_max {
            return Err(RingError::Config("buffer_count is above buffer_count_max"));
        }
        if self.buffer_len == 0 || self.submission_entries == 0 || self.completion_entries == 0 {
            return Err(RingError::Config("sizes must not be zero"));
        }
        Ok(())
    }
}

/// What newer kernels can do. Everything has a fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// One accept yields many connections (Linux 5.19).
    pub multishot_accept: bool,
    /// One receive yields many buffers (Linux 6.0).
    pub multishot_recv: bool,
    /// Completions are worked off only when this thread asks (Linux 6.1).
    pub defer_taskrun: bool,
    /// A wait with two limits (Linux 6.12).
    pub min_wait: bool,
    /// The ring's descriptor can be registered (Linux 5.18).
    pub registered_ring: bool,
    /// Sockets need no descriptor of the process (Linux 6.8, for a way to shut them down).
    pub direct_descriptors: bool,
}

impl Features {
    /// Everything.
    pub const fn all() -> Self {
        Self {
            multishot_accept: true,
            multishot_recv: true,
            defer_taskrun: true,
            min_wait: true,
            registered_ring: true,
            direct_descriptors: true,
        }
    }

    /// Nothing: what every supported kernel (5.19) can do.
    pub const fn none() -> Self {
        Self {
            multishot_accept: false,
            multishot_recv: false,
            defer_taskrun: false,
            min_wait: false,
            registered_ring: false,
            direct_descriptors: false,
        }
    }
}

/// The net ring cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel refuses rings.
    #[error("io_uring cannot be set up: {source}{}", remedy(source))]
    Setup {
        /// What the kernel said.
        source: io::Error,
    },
    /// The buffer ring was refused.
    #[error(
        "receive buffers cannot be registered (Linux 5.19 or newer is needed): {source}{}",
        remedy(source)
    )]
    Buffers {
        /// What the kernel said.
        source: io::Error,
    },
    /// A configuration that cannot work.
    #[error("net ring configuration: {0}")]
    Config(&'static str),
}

/// What to do about an error of ring set-up, as the tail of its line.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; it is blocked: set `sysctl kernel.io_uring_disabled=0`, and in a container allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile"
        }
        Some(libc::ENOSYS) => {
            "; this kernel has no io_uring or a seccomp profile hides it: Linux 5.19 or newer, and allow io_uring in the seccomp profile"
        }
        Some(libc::ENOMEM) => {
            "; locked memory is used up: raise `LimitMEMLOCK` / `ulimit -l` / the container's memlock ulimit, or grant CAP_IPC_LOCK"
        }
        Some(libc::EMFILE | libc::ENFILE) => "; out of file descriptors: raise `ulimit -n`",
        _ => "",
    }
}

/// Makes the kernel's ring with the best set-up that it accepts, and says what it can do.
pub(super) fn build(config: &RingConfig) -> Result<(IoUring, Features), RingError> {
    let build = |defer: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_cqsize(config.completion_entries.next_power_of_two())
            .setup_clamp()
            .setup_taskrun_flag()
            .setup_submit_all()
            .dontfork();
        if defer {
            builder.setup_single_issuer().setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        builder.build(config.submission_entries)
    };
    let (ring, defer_taskrun) = match config.allowed.defer_taskrun.then(|| build(true)) {
        Some(Ok(ring)) => (ring, true),
        Some(Err(error)) if error.raw_os_error() != Some(libc::EINVAL) => {
            return Err(RingError::Setup { source: error });
        }
        _ => (
            build(false).map_err(|source| RingError::Setup { source })?,
            false,
        ),
    };
    let mut probe = Probe::new();
    // A kernel that cannot be probed is older than all of these.
    let probed = ring.submitter().register_probe(&mut probe).is_ok();
    let features = Features {
        // The multishot flags cannot be probed; these operations came in the same releases.
        multishot_accept: probed && probe.is_supported(opcode::Socket::CODE),
        multishot_recv: probed && probe.is_supported(opcode::SendZc::CODE),
        defer_taskrun,
        min_wait: ring.params().is_feature_min_timeout(),
        registered_ring: true,
        direct_descriptors: probed && probe.is_supported(opcode::FixedFdInstall::CODE),
    };
    let allowed = config.allowed;
    Ok((
        ring,
        Features {
            multishot_accept: features.multishot_accept && allowed.multishot_accept,
            multishot_recv: features.multishot_recv && allowed.multishot_recv,
            defer_taskrun,
            min_wait: features.min_wait && allowed.min_wait,
            registered_ring: allowed.registered_ring,
            direct_descriptors: features.direct_descriptors && allowed.direct_descriptors,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_cannot_work_are_refused_with_the_reason() {
        let wrong = |change: fn(&mut RingConfig)| {
            let mut config = RingConfig::default();
            change(&mut config);
            config.check().is_err()
        };
        assert!(RingConfig::default().check().is_ok());
        assert!(wrong(|config| config.buffer_count = 3));
        assert!(wrong(|config| config.buffer_count = 0));
        assert!(wrong(|config| config.buffer_count_max = 100));
        assert!(wrong(|config| config.buffer_count_max = 128));
        assert!(wrong(|config| config.buffer_len = 0));
    }

    #[test]
    fn a_refused_ring_names_the_remedy() {
        let text = |code| {
            RingError::Setup {
                source: io::Error::from_raw_os_error(code),
            }
            .to_string()
        };
        assert!(text(libc::EPERM).contains("seccomp"));
        assert!(text(libc::ENOSYS).contains("5.19"));
        assert!(text(libc::ENOMEM).contains("memlock"));
    }
}
