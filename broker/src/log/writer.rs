//! Lines of the log, written by a thread of their own: whoever logs only copies into a buffer.
//! What no longer fits there is dropped and counted, so a reader of the log who stalls stalls
//! nobody else.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait, in bytes.
const BUFFER_BYTES: usize = 1024 * 1024;
/// How long lines are collected before they are written together.
const COLLECT: Duration = Duration::from_millis(5);
/// How long a flush waits.
const FLUSH: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    dropped: usize,
    /// The thread has taken lines that are not written yet.
    writing: bool,
    /// Somebody waits for all to be written.
    flush: bool,
}

#[derive(Default)]
struct Inner {
    buffer: Mutex<Buffer>,
    changed: Condvar,
}

/// The buffer's end for those who log.
#[derive(Clone)]
pub struct Writer(Arc<Inner>);

/// One line.
pub struct Flush<'a>(&'a Inner);

impl Writer {
    /// Starts the thread that writes to `out`.
    pub fn start(out: impl Write + Send + 'static) -> Writer {
        let inner = Arc::new(Inner::default());
        let writer = Writer(inner.clone());
        // Without the thread the log is lost, but the broker is not.
        let _ = std::thread::Builder::new()
            .name("whimbrel-log".into())
            .spawn(move || inner.write_all(out));
        writer
    }

    /// Waits, for a short time, until all lines are written.
    pub fn flush(&self) {
        let mut buffer = self.0.lock();
        buffer.flush = true;
        self.0.changed.notify_all();
        let is_busy = |buffer: &mut Buffer| !buffer.lines.is_empty() || buffer.writing;
        let (mut buffer, _) = self
            .0
            .changed
            .wait_timeout_while(buffer, FLUSH, is_busy)
            .unwrap_or_else(PoisonError::into_inner);
        buffer.flush = false;
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Flush<'a>;

    fn make_writer(&'a self) -> Flush<'a> {
        Flush(&self.0)
    }
}

impl Write for Flush<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut buffer = self.0.lock();
        if buffer.lines.len() + line.len() > BUFFER_BYTES {
            buffer.dropped += 1;
            return Ok(line.len());
        }
        let was_empty = buffer.lines.is_empty();
        buffer.lines.extend_from_slice(line);
        if was_empty && !buffer.writing {
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let (dropped, flush) = self.take(&mut lines);
            if dropped > 0 {
                lines.extend_from_slice(format!("... {dropped} lines dropped\n").as_bytes());
            }
            // Nobody is left to be told of a failure.
            let _ = out.write_all(&lines);
            lines.clear();
            let mut buffer = self.lock();
            buffer.writing = false;
            self.changed.notify_all();
            drop(buffer);
            if !flush {
                std::thread::sleep(COLLECT);
            }
        }
    }

    /// Waits for lines and takes them.
    fn take(&self, lines: &mut Vec<u8>) -> (usize, bool) {
        let mut buffer = self
            .changed
            .wait_while(self.lock(), |buffer| buffer.lines.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut buffer.lines, lines);
        buffer.writing = true;
        (std::mem::take(&mut buffer.dropped), buffer.flush)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use super::*;

    /// Writes nothing until it is allowed to.
    struct Stalled(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_stalls_nobody_and_costs_bounded_memory() {
        let ((allow, allowed), (sender, written)) = (channel(), channel());
        let writer = Writer::start(Stalled(allowed, sender));
        let line = [b'x'; 1000];
        let begin = Instant::now();
        for _ in 0..5000 {
            writer.make_writer().write_all(&line).expect("never fails");
        }
        assert!(begin.elapsed() < Duration::from_secs(2));
        assert!(writer.0.lock().lines.capacity() <= 2 * BUFFER_BYTES);
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains("lines dropped") {
            let _ = allow.send(());
            all.extend(written.recv_timeout(Duration::from_secs(5)).expect("another batch"));
        }
        assert!(all.len() < 3 * BUFFER_BYTES);
    }

    #[test]
    fn flush_waits_for_what_was_logged() {
        let ((allow, allowed), (sender, written)) = (channel(), channel());
        let writer = Writer::start(Stalled(allowed, sender));
        writer.make_writer().write_all(b"a line\n").expect("never fails");
        allow.send(()).expect("it listens");
        writer.flush();
        assert_eq!(written.try_recv().expect("it was written"), b"a line\n");
    }
}
