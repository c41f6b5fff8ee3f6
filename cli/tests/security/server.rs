//! A broker with files of its own, whose log can be read.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::{Broker, PATIENCE, new_folder, whimbrel};

/// A running broker and its folder.
pub struct Server {
    pub broker: Broker,
    folder: PathBuf,
}

impl Server {
    /// Starts with this configuration and these other files; `{folder}` stands for their folder.
    pub fn start(config: &str, files: &[(&str, &str)]) -> Server {
        let folder = new_folder();
        for (name, text) in files {
            write(&folder, name, text);
        }
        write(&folder, "whimbrel.toml", config);
        let log = File::create(folder.join("log")).unwrap();
        let config = folder.join("whimbrel.toml").display().to_string();
        let mut command = whimbrel(&["--config", &config]);
        command.env("RUST_LOG", "debug").stderr(log);
        let broker = Broker::start(folder.clone(), &mut command);
        Server { broker, folder }
    }

    /// Everything that was logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// Waits until the log has a line with this text.
    pub fn wait_for_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < PATIENCE, "no {text:?} in the log:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    pub fn write(&self, name: &str, text: &str) {
        write(&self.folder, name, text);
    }

    /// Processor time that it has taken so far, in the system's ticks.
    pub fn cpu_ticks(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.broker.child.id());
        let stat = std::fs::read_to_string(path).expect("it runs");
        // Behind the name, which may hold anything, from the state on.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Has the broker read its configuration again, and waits until it has.
    pub fn reload(&self) {
        let before = self.log().matches("configuration reloaded").count();
        self.broker.signal("HUP");
        let start = Instant::now();
        while self.log().matches("configuration reloaded").count() == before {
            assert!(start.elapsed() < PATIENCE, "not reloaded:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// A file that takes its place at once.
fn write(folder: &Path, name: &str, text: &str) {
    let text = text.replace("{folder}", &folder.display().to_string());
    let new = folder.join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, folder.join(name)).unwrap();
}

/// A listener on any free port of loopback.
pub const LISTENER: &str = "[[listener]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n";
