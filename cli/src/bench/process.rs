//! Processor time and memory of a process, from `/proc`.

use std::time::Duration;

use super::environment::{field, kib};

/// A process that is watched.
#[derive(Clone, Copy, Debug)]
pub struct Process(u32);

impl Process {
    /// None if there is no such process.
    pub fn new(pid: u32) -> Option<Process> {
        let process = Process(pid);
        process.cpu().map(|_| process)
    }

    /// The one that this runs in.
    pub fn own() -> Process {
        Process(std::process::id())
    }

    /// Bytes that are resident.
    pub fn memory_bytes(self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        field(&status, "VmRSS").map(kib)
    }

    /// User and system time of all its threads so far.
    pub fn cpu(self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        let ticks = ticks(&stat)?;
        Some(Duration::from_secs_f64(
            ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64,
        ))
    }
}

/// `utime` and `stime` together, in ticks of the clock: proc_pid_stat(5).
fn ticks(stat: &str) -> Option<u64> {
    // The name before may contain anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 1 0 5 1 2 3";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn this_process_has_time_and_memory() {
        let own = Process::new(std::process::id()).unwrap();
        assert!(own.memory_bytes().unwrap() > 100_000);
        assert!(Process::new(u32::MAX).is_none());
    }
}
