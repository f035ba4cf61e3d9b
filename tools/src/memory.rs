//! How much memory this process may still take: what the machine has free, within the limits of its control groups and
//! of its address space. Linux only; elsewhere nothing is known and nothing is refused.

use std::fs;
use std::path::Path;

/// Bytes that can be taken without swapping or meeting a limit; none where the system does not say.
pub fn available() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let free = machine(&read("/proc/meminfo"));
    let space = address_space(&read("/proc/self/limits"));
    let group = read("/proc/self/cgroup").lines().find_map(|l| Some(l.strip_prefix("0::")?.to_string()));
    let groups = group.and_then(|path| groups(Path::new("/sys/fs/cgroup"), &path));
    [free, space, groups].into_iter().flatten().min()
}

/// The line `MemAvailable:    20971520 kB` of `/proc/meminfo`.
fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The line `Max address space    2147483648   unlimited   bytes` of `/proc/self/limits`.
fn address_space(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The least that a control group (version 2) or one above it still allows. Cached files do not count as taken: the
/// system gives them up.
fn groups(root: &Path, group: &str) -> Option<u64> {
    let number = |path: &Path, name: &str| fs::read_to_string(path.join(name)).ok()?.trim().parse::<u64>().ok();
    let cached = |path: &Path| {
        let stat = fs::read_to_string(path.join("memory.stat")).ok()?;
        stat.lines().find_map(|l| l.strip_prefix("inactive_file ")?.parse::<u64>().ok())
    };
    let left = |path: &Path| {
        let taken = number(path, "memory.current")?.saturating_sub(cached(path).unwrap_or(0));
        Some(number(path, "memory.max")?.saturating_sub(taken))
    };
    let lowest = root.join(group.trim_start_matches('/'));
    lowest.ancestors().take_while(|p| p.starts_with(root)).filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system() {
        let meminfo = "MemTotal:       24690000 kB\nMemAvailable:   20971520 kB\n";
        assert_eq!(machine(meminfo), Some(20 << 30));
        assert_eq!(machine(""), None);
        let limits =
            "Max cpu time   unlimited   unlimited   seconds\nMax address space   2147483648   unlimited   bytes\n";
        assert_eq!(address_space(limits), Some(2 << 30));
        assert_eq!(address_space("Max address space   unlimited   unlimited   bytes"), None);
    }

    #[test]
    fn control_groups() {
        let root = tempfile::tempdir().unwrap();
        let put = |group: &str, max: &str, current: u64, cached: u64| {
            let folder = root.path().join(group);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("memory.max"), format!("{max}\n")).unwrap();
            fs::write(folder.join("memory.current"), format!("{current}\n")).unwrap();
            fs::write(folder.join("memory.stat"), format!("anon 1\ninactive_file {cached}\n")).unwrap();
        };
        put("a", "1000", 600, 100);
        put("a/b", "max", 50, 0);
        assert_eq!(groups(root.path(), "/a/b"), Some(500));
        put("a/b", "400", 50, 0);
        assert_eq!(groups(root.path(), "/a/b"), Some(350));
        assert_eq!(groups(root.path(), "/a"), Some(500));
        assert_eq!(groups(root.path(), "/elsewhere"), None);
    }
}
