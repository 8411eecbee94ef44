//! Which cpus this process may use, and how much of them.
//!
//! glommio reads `/sys/devices/system/cpu/online`, which knows neither the affinity mask of a
//! container nor its CFS quota; both are read here.

use std::fs;
use std::path::Path;

mod quota;

/// What may be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Cpus {
    /// Numbers of the cpus in the affinity mask, ascending.
    pub allowed: Vec<usize>,
    /// Cpu time per time that the cgroup's quota gives; `None` without one.
    pub quota: Option<f64>,
}

impl Cpus {
    /// Shards that can run at full speed: as many as cpus, or as the quota feeds; at least 1.
    pub fn shards(&self) -> usize {
        let by_quota = self.quota.map_or(usize::MAX, |quota| quota as usize);
        self.allowed.len().min(by_quota).max(1)
    }

    /// The cpu of each shard. They are pinned when this process has every cpu to itself that it
    /// is allowed; with fewer shards than cpus, other processes share them (several nodes on one
    /// machine would otherwise all sit on the first cpu), and the scheduler places them better.
    pub fn placement(&self, shards: usize) -> Vec<Option<usize>> {
        if shards == self.allowed.len() {
            self.allowed.iter().copied().map(Some).collect()
        } else {
            vec![None; shards]
        }
    }
}

/// The cpus of this process.
pub fn available() -> Cpus {
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Cpus {
        allowed: allowed(),
        quota: quota::read(Path::new("/sys/fs/cgroup"), &cgroup),
    }
}

/// Number of shards when the user names none.
pub fn default_shards() -> usize {
    available().shards()
}

/// Cpus in the affinity mask of this thread.
#[allow(
    unsafe_code,
    reason = "sched_getaffinity(2) has no safe wrapper in std"
)]
fn allowed() -> Vec<usize> {
    // Room for 8192 cpus, the largest that kernels are built for.
    let mut mask = [0u64; 128];
    // SAFETY: the kernel writes at most the given number of bytes into `mask`.
    let written = unsafe {
        libc::syscall(
            libc::SYS_sched_getaffinity,
            0,
            size_of_val(&mask),
            mask.as_mut_ptr(),
        )
    };
    let words = usize::try_from(written).unwrap_or(0) / size_of::<u64>();
    let cpus: Vec<usize> = mask
        .iter()
        .take(words)
        .enumerate()
        .flat_map(|(word, bits)| {
            (0..64)
                .filter(move |bit| bits & (1 << bit) != 0)
                .map(move |bit| word * 64 + bit)
        })
        .collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_cpu() {
        let cpus = available();
        assert!(!cpus.allowed.is_empty());
        assert!(cpus.allowed.is_sorted());
        assert!((1..=cpus.allowed.len()).contains(&cpus.shards()));
        assert_eq!(default_shards(), cpus.shards());
    }

    #[test]
    fn shards_follow_mask_and_quota() {
        let cpus = |count, quota| Cpus {
            allowed: (0..count).collect(),
            quota,
        };
        assert_eq!(cpus(8, None).shards(), 8);
        assert_eq!(cpus(8, Some(2.5)).shards(), 2);
        assert_eq!(cpus(8, Some(0.5)).shards(), 1);
        assert_eq!(cpus(2, Some(16.0)).shards(), 2);
    }

    #[test]
    fn only_a_process_that_uses_all_its_cpus_is_pinned() {
        let cpus = Cpus {
            allowed: vec![2, 5],
            quota: None,
        };
        assert_eq!(cpus.placement(2), [Some(2), Some(5)]);
        assert_eq!(cpus.placement(1), [None]);
        assert_eq!(cpus.placement(3), [None, None, None]);
    }
}
