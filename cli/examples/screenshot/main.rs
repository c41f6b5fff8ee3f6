//! Takes the picture of `whimbrel shell` for the README: a broker, a small plant that publishes,
//! the shell in a terminal, and what its screen shows as SVG.
//!
//!     screenshot WHIMBREL FILE.svg

mod plant;
mod svg;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroU16;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use vt100::Parser;

const COLUMNS: NonZeroU16 = NonZeroU16::new(112).expect("not 0");
const ROWS: NonZeroU16 = NonZeroU16::new(31).expect("not 0");

/// Enough for a curve as wide as its pane.
const WATCHED: Duration = Duration::from_secs(26);

/// What is pressed: everything open, and on the way to the health of the second pump.
const KEYS: &str = "E/pump/2/health\rjjj\x1b";

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [whimbrel, file] = &words[..] else { return Err("usage: screenshot WHIMBREL FILE".into()) };
    let broker = Broker::start(whimbrel)?;
    let port = broker.port.clone();
    std::thread::spawn(move || plant::run(&port));
    let picture = watch(whimbrel, &broker.port)?;
    std::fs::write(file, picture)?;
    Ok(())
}

/// A broker on any free port, ended when dropped.
struct Broker {
    child: Child,
    port: String,
}

impl Broker {
    fn start(whimbrel: &str) -> Result<Broker, Box<dyn Error>> {
        let mut child = Command::new(whimbrel)
            .args(["broker", "--port", "0", "--no-websocket"])
            .env("RUST_LOG", "off")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let line =
            lines.find_map(|line| line.ok()?.strip_prefix("listening tcp ").map(str::to_owned));
        let address = line.ok_or("the broker does not listen")?;
        let port = address.rsplit(':').next().ok_or("no port")?.to_owned();
        Ok(Broker { child, port })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the shell run for a while, and draws what is on its screen then.
fn watch(whimbrel: &str, port: &str) -> Result<String, Box<dyn Error>> {
    let (rows, cols) = (ROWS.get(), COLUMNS.get());
    let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
    let pty = native_pty_system().openpty(size)?;
    let mut command = CommandBuilder::new(whimbrel);
    command.args(["shell", "-p", port]);
    command.env("TERM", "xterm-256color");
    command.env("TZ", "UTC");
    let mut shell = pty.slave.spawn_command(command)?;
    let mut output = pty.master.try_clone_reader()?;
    let screen = Arc::new(Mutex::new(Parser::new(ROWS, COLUMNS, 0)));
    let seen = screen.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = output.read(&mut buffer) {
            seen.lock().unwrap_or_else(PoisonError::into_inner).process(&buffer[..len]);
        }
    });
    let mut keys = pty.master.take_writer()?;
    for key in std::iter::once("").chain(KEYS.split("")) {
        // What a key refers to is to be there.
        std::thread::sleep(Duration::from_millis(100));
        keys.write_all(key.as_bytes())?;
    }
    std::thread::sleep(WATCHED);
    let screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
    let picture = svg::draw(screen.screen(), "whimbrel shell");
    drop(screen);
    keys.write_all(b"q")?;
    shell.wait()?;
    Ok(picture)
}
