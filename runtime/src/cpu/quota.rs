//! The CFS quota of the cgroup, version 1 or 2.

use std::fs;
use std::path::{Path, PathBuf};

/// The smallest quota of this cgroup and those above it, in cpus. `root` is where cgroups are
/// mounted, `membership` the text of `/proc/self/cgroup`.
pub(super) fn read(root: &Path, membership: &str) -> Option<f64> {
    let mut smallest: Option<f64> = None;
    for line in membership.lines() {
        // hierarchy-id : controllers : path
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let found = if controllers.is_empty() {
            [root.to_path_buf(), root.join("unified")]
                .iter()
                .filter_map(|mount| along(mount, path, version_2))
                .reduce(f64::min)
        } else if controllers.split(',').any(|name| name == "cpu") {
            [
                root.join(controllers),
                root.join("cpu"),
                root.join("cpu,cpuacct"),
            ]
            .iter()
            .filter_map(|mount| along(mount, path, version_1))
            .reduce(f64::min)
        } else {
            None
        };
        if let Some(quota) = found {
            smallest = Some(smallest.map_or(quota, |other| other.min(quota)));
        }
    }
    smallest
}

/// The smallest quota from the group at `path` up to the mount's root. In a container the path may
/// be that of the host while the mount shows the container's group as its root: then only the
/// root's files exist, and they are the right ones.
fn along(mount: &Path, path: &str, quota_of: fn(&Path) -> Option<f64>) -> Option<f64> {
    let relative = Path::new(path.trim_start_matches('/'));
    relative
        .ancestors()
        .map(|ancestor| -> PathBuf { mount.join(ancestor) })
        .filter_map(|group| quota_of(&group))
        .reduce(f64::min)
}

/// `cpu.max`: "quota period" in us, or "max period".
fn version_2(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota, period)
}

/// `cpu.cfs_quota_us` (-1: none) and `cpu.cfs_period_us`.
fn version_1(group: &Path) -> Option<f64> {
    let quota = fs::read_to_string(group.join("cpu.cfs_quota_us")).ok()?;
    let period = fs::read_to_string(group.join("cpu.cfs_period_us")).ok()?;
    ratio(quota.trim(), period.trim())
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let quota: f64 = quota.parse().ok()?;
    let period: f64 = period.parse().ok()?;
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            fs::write(file, text).expect("a file");
        }
        root
    }

    #[test]
    fn version_2_takes_the_smallest_on_the_way_up() {
        let root = tree(&[
            ("a/cpu.max", "150000 100000\n"),
            ("a/b/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(read(root.path(), "0::/a/b\n"), Some(1.5));
        assert_eq!(read(root.path(), "0::/other\n"), None);
    }

    #[test]
    fn version_1_knows_its_controllers_in_any_mount() {
        let files = [
            ("cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n"),
            ("cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
            ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        let root = tree(&files);
        assert_eq!(
            read(root.path(), "4:cpu,cpuacct:/x\n2:memory:/x"),
            Some(0.5)
        );
        assert_eq!(read(root.path(), "4:cpu,cpuacct:/\n"), None);
    }

    #[test]
    fn a_container_sees_its_group_as_the_root() {
        let root = tree(&[("cpu.max", "200000 100000\n")]);
        assert_eq!(read(root.path(), "0::/docker/0123abcd\n"), Some(2.0));
    }

    #[test]
    fn garbage_is_no_quota() {
        let root = tree(&[("cpu.max", "lots\n"), ("a/cpu.max", "0 0\n")]);
        assert_eq!(read(root.path(), "0::/a\nnonsense\n::\n"), None);
    }
}
