//! What several of these tests need.

/// Sets how many open files this process may have.
#[allow(unsafe_code, reason = "setrlimit(2) has no safe wrapper in std")]
pub(crate) fn set_limit(descriptors: u64) {
    let limit = libc::rlimit {
        rlim_cur: descriptors,
        rlim_max: 4096,
    };
    // SAFETY: the kernel reads one `rlimit`.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(result, 0);
}
