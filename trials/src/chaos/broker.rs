//! The broker as a process, with a data directory that outlives it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Failed;

pub(super) struct Broker {
    pub(super) address: SocketAddr,
    program: PathBuf,
    /// Goes with it.
    pub(super) folder: PathBuf,
    child: Child,
}

impl Broker {
    pub(super) fn start(program: &Path) -> Result<Broker, Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("whimbrel-chaos-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)?;
        let (child, address) = launch(program, &folder, 0)?;
        Ok(Broker { address, program: program.to_owned(), folder, child })
    }

    /// Kills it without warning; the next one has the same port and the same data.
    pub(super) fn kill_and_restart(&mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        (self.child, self.address) = launch(&self.program, &self.folder, self.address.port())?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts it on this port, 0 for any.
fn launch(program: &Path, folder: &Path, port: u16) -> Result<(Child, SocketAddr), Failed> {
    let data_dir = folder.join("data");
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WHIMBREL_")) {
        command.env_remove(name);
    }
    command.args(["broker", "--no-websocket", "--port", &port.to_string(), "--data-dir"]);
    // Processes end here, not the machine.
    command.arg(&data_dir).args(["--durability", "os", "--max-reconnects", "0"]);
    let command = command.env("RUST_LOG", "off").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
    let mut address = None;
    for line in BufReader::new(child.stdout.take().ok_or("no stdout")?).lines() {
        let line = line?;
        if let Some(found) = line.strip_prefix("listening tcp ") {
            address = Some(found.parse()?);
        }
        if let ("ready", Some(address)) = (line.as_str(), address) {
            return Ok((child, address));
        }
    }
    Err(format!("the broker did not start: {}", child.wait()?).into())
}
