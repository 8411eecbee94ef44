//! The system calls of io_uring that are made without the crate's wrappers: `io_uring_enter` with
//! a registered ring descriptor (no descriptor look-up per turn) and with the flags of newer
//! kernels, and the registration itself.
#![allow(unsafe_code, reason = "raw io_uring system calls")]

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::Timespec;

pub(super) const ENTER_GETEVENTS: u32 = 1;
pub(super) const ENTER_EXT_ARG: u32 = 1 << 3;
pub(super) const ENTER_REGISTERED_RING: u32 = 1 << 4;
pub(super) const ENTER_NO_IOWAIT: u32 = 1 << 7;

/// `IORING_RECVSEND_POLL_FIRST`: wait for readiness before the first attempt.
pub(super) const RECV_POLL_FIRST: u16 = 1;
/// `IORING_RECV_MULTISHOT`.
pub(super) const RECV_MULTISHOT: u16 = 1 << 1;

const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_usec: u32,
    timespec: u64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// How long an enter may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    /// Completions to wait for.
    pub(super) want: u32,
    /// After this long one completion is enough (0: not used; needs Linux 6.12).
    pub(super) min_wait_us: u32,
    /// After this long the enter returns with `ETIME`.
    pub(super) limit: Duration,
}

impl Wait {
    /// Runs deferred work and waits for nothing.
    pub(super) const NONE: Self = Self {
        want: 0,
        min_wait_us: 0,
        limit: Duration::ZERO,
    };
}

/// Submits `to_submit` entries and, with `wait`, runs deferred work and waits.
///
/// # Errors
/// Whatever the kernel says; `ETIME` and `EINTR` are normal ends of a wait.
pub(super) fn enter(fd: RawFd, to_submit: u32, flags: u32, wait: Option<Wait>) -> io::Result<u32> {
    let timespec;
    let arg;
    let (want, flags, arg_pointer, arg_size) = match wait {
        None => (0, flags, std::ptr::null(), 0),
        Some(wait) => {
            timespec = Timespec::from(wait.limit);
            arg = GetEventsArg {
                sigmask: 0,
                sigmask_size: 0,
                min_wait_usec: wait.min_wait_us,
                timespec: (&raw const timespec) as u64,
            };
            (
                wait.want,
                flags | ENTER_GETEVENTS | ENTER_EXT_ARG,
                &raw const arg,
                size_of::<GetEventsArg>(),
            )
        }
    };
    // SAFETY: `arg` and the timespec it points to live until the call returns; the kernel only
    // reads them. The submission entries that this makes the kernel read were pushed under the
    // contract written in `submit.rs`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            fd,
            to_submit,
            want,
            flags,
            arg_pointer,
            arg_size,
        )
    };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Registers the ring's own descriptor with the calling thread; the index replaces the descriptor
/// in [`enter`] together with [`ENTER_REGISTERED_RING`].
pub(super) fn register_ring_fd(fd: RawFd) -> io::Result<u32> {
    let mut update = ResourceUpdate {
        offset: u32::MAX,
        reserved: 0,
        data: fd as u64,
    };
    register(fd, REGISTER_RING_FDS, &raw mut update)?;
    Ok(update.offset)
}

/// Undoes [`register_ring_fd`]; only the thread that registered may do so.
pub(super) fn unregister_ring_fd(fd: RawFd, index: u32) -> io::Result<()> {
    let mut update = ResourceUpdate {
        offset: index,
        reserved: 0,
        data: 0,
    };
    register(fd, UNREGISTER_RING_FDS, &raw mut update)
}

fn register(fd: RawFd, operation: libc::c_uint, update: *mut ResourceUpdate) -> io::Result<()> {
    // SAFETY: `update` points to one live `ResourceUpdate`, which is what both operations read
    // and write.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, operation, update, 1u32) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// CPU time that the calling thread has taken, in the kernel too.
pub(super) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec, which lives until the call returns. It cannot fail for
    // this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
