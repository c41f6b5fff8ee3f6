//! What the process asks of the system.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::Ordering;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use whimbrel_broker_core::Shared;

/// Allows as many open files, that is connections, as the system grants.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.current.is_none() != limit.maximum.is_none() {
        let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!("cannot raise the limit on open files: {error}");
        }
    }
}

/// The system's table of open files is made for this many at once, if as many are allowed.
const FILES: u64 = 128 * 1024;

/// Has the system's table of open files grow now: each time that it grows in a process with several
/// threads, Linux holds the thread that opens a file for 10 ms and more, and with it all its
/// clients.
pub(crate) fn reserve_files() {
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(FILES);
    let last = i32::try_from(allowed.min(FILES).saturating_sub(1)).unwrap_or(i32::MAX);
    // Without it the broker only stutters while its first clients come.
    if let Ok(file) = std::fs::File::open("/") {
        drop(rustix::io::fcntl_dupfd_cloexec(&file, last));
    }
}

/// Memory of the machine, or of the container where that is less; none if the system does not say.
pub(crate) fn memory_limit_bytes() -> Option<u64> {
    let read = |path| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| total_bytes(&text));
    let container = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok());
    [machine, container].into_iter().flatten().min()
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Tells the core how much memory the process has resident.
pub(crate) fn publish_memory(shared: &Shared) {
    // Fields in pages: total, resident, ...
    let resident = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    if let Some(pages) = resident {
        let bytes = pages * rustix::param::page_size() as u64;
        shared.memory_bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// A number that nobody outside can foresee.
pub(crate) fn unpredictable() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let text = "MemTotal:       24680000 kB\nMemFree:  1 kB\n";
        assert_eq!(total_bytes(text), Some(24_680_000 * 1024));
        assert_eq!(total_bytes("MemFree: 1 kB"), None);
        assert_eq!(total_bytes("MemTotal: many kB"), None);
    }
}
