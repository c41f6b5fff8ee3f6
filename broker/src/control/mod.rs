//! The control socket: an operator asks the running broker, or has it do something.
//!
//! A connection brings one request, a line of JSON, and gets one answer, a line of JSON; an object
//! with `error` says that it could not be done. One connection is served at a time, within
//! [`TIME`], by a thread of its own that asks the shards through their mailboxes.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

mod ask;
mod request;

pub(crate) use ask::{Ask, Reply};

use crate::event_loop::Peers;
use crate::listen;

/// Longest request, with room for topics and names of 64 KiB whose characters are escaped.
const REQUEST_BYTES: u64 = 1024 * 1024;
/// How long a request may take to come, and an answer to be taken.
const TIME: Duration = Duration::from_secs(2);

/// The socket and its thread.
pub(crate) struct Control {
    path: PathBuf,
    stopped: Arc<AtomicBool>,
}

impl Control {
    /// Listens at `path`, for nobody but the broker's own user.
    ///
    /// # Errors
    /// If the path is in use, or the system refuses.
    pub(crate) fn start(path: &Path, peers: &Arc<Peers>) -> io::Result<Control> {
        let listener = listen::bind_private(path)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let control = Control { path: path.into(), stopped: stopped.clone() };
        let peers = peers.clone();
        let thread = std::thread::Builder::new().name("whimbrel-control".into());
        thread.spawn(move || serve(&listener, &peers, &stopped))?;
        Ok(control)
    }

    /// Ends it and removes the socket. Who is being served has the rest of its time.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // The thread waits for a connection.
        drop(UnixStream::connect(&self.path));
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(listener: &UnixListener, peers: &Peers, stopped: &AtomicBool) {
    for stream in listener.incoming() {
        if stopped.load(Ordering::SeqCst) {
            return;
        }
        match stream {
            // One who does not take its answer harms itself alone.
            Ok(stream) => drop(handle(stream, peers)),
            Err(error) => {
                tracing::warn!("the control socket cannot accept: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn handle(mut stream: UnixStream, peers: &Peers) -> io::Result<()> {
    let answer = match read_line(&mut stream) {
        Ok(line) => request::answer(&line, peers),
        Err(error) => Err(error.to_string()),
    };
    let answer = answer.unwrap_or_else(|error| json!({ "error": error }));
    write(&mut stream, &answer)
}

fn write(stream: &mut UnixStream, answer: &Value) -> io::Result<()> {
    stream.set_write_timeout(Some(TIME))?;
    stream.write_all(format!("{answer}\n").as_bytes())
}

/// Reads up to the end of a line, or of what is sent.
fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + TIME;
    let (mut line, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        stream.set_read_timeout(Some(left))?;
        let n = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            read => read?,
        };
        let new = buffer.get(..n).unwrap_or_default();
        let end = new.iter().position(|byte| *byte == b'\n');
        line.extend(new.iter().take(end.unwrap_or(n)));
        if line.len() as u64 > REQUEST_BYTES {
            return Err(io::Error::other(format!("a request has {REQUEST_BYTES} bytes at most")));
        }
        if end.is_some() || n == 0 {
            return Ok(line);
        }
    }
}

fn late() -> io::Error {
    io::Error::other(format!("no request came within {} s; send a line of JSON", TIME.as_secs()))
}
