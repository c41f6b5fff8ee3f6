//! Where a bench ran: what a figure depends on, and nothing that names the machine or its user.

use serde::{Deserialize, Serialize};

/// Of the machine that ran the bench. Empty or 0: not known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    /// `whimbrel` and its version.
    pub tool: String,
    /// Whether the tool was built without optimisation, which makes its figures useless.
    pub debug_build: bool,
    pub os: String,
    pub kernel: String,
    pub architecture: String,
    pub cpu: String,
    /// Processors that the bench may use.
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Processes that ran or waited for a processor in the last minute, before the bench.
    pub load_average: f64,
}

impl Environment {
    /// Of this machine, now.
    pub fn read() -> Environment {
        let file = |path| std::fs::read_to_string(path).unwrap_or_default();
        let load = file("/proc/loadavg");
        Environment {
            tool: concat!("whimbrel ", env!("CARGO_PKG_VERSION")).into(),
            debug_build: cfg!(debug_assertions),
            os: std::env::consts::OS.into(),
            kernel: file("/proc/sys/kernel/osrelease").trim().into(),
            architecture: std::env::consts::ARCH.into(),
            cpu: field(&file("/proc/cpuinfo"), "model name").unwrap_or_default().into(),
            cpus: std::thread::available_parallelism().map_or(0, |count| count.get() as u32),
            memory_bytes: field(&file("/proc/meminfo"), "MemTotal").map_or(0, kib),
            load_average: load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
        }
    }
}

/// The value of a line `name : value`.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Bytes from `12 kB` as `/proc` writes it; 0 if it is something else.
pub fn kib(text: &str) -> u64 {
    text.trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: A: B\nMemTotal:       12 kB\n";
        assert_eq!(field(text, "model name"), Some("A: B"));
        assert_eq!(field(text, "MemTotal").map(kib), Some(12 * 1024));
        assert_eq!(field(text, "missing"), None);
        assert_eq!(kib("many"), 0);
    }

    #[test]
    fn the_machine_is_described() {
        let environment = Environment::read();
        assert!(environment.cpus > 0 && environment.tool.starts_with("whimbrel "));
    }
}
