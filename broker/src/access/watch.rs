//! Files that change are read again.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// How often it is looked whether a file has changed.
const EVERY: Duration = Duration::from_secs(2);

/// A thread that looks at files.
pub(crate) struct Watch {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

/// What tells that a file is another one: time of its last change, length.
type Look = Option<(SystemTime, u64)>;

impl Watch {
    /// Calls `changed` when one of the files that `paths` gives is not as it was.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub(crate) fn start(
        paths: impl Fn() -> Vec<PathBuf> + Send + 'static,
        changed: impl Fn() + Send + 'static,
    ) -> std::io::Result<Watch> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("whimbrel-watch".into());
        let thread = thread.spawn(move || watch(&paths, &changed, &stopped))?;
        Ok(Watch { thread, stop })
    }

    /// Ends the thread.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that watches files has panicked");
        }
    }
}

fn watch(paths: &dyn Fn() -> Vec<PathBuf>, changed: &dyn Fn(), stopped: &Receiver<()>) {
    let mut before = looks(&paths());
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
        let now = looks(&paths());
        // Files that a new configuration has named were read with it.
        let same = |(path, look): &(PathBuf, Look)| {
            before.iter().find(|(other, _)| other == path).is_none_or(|(_, was)| was == look)
        };
        if !now.iter().all(same) {
            changed();
        }
        before = now;
    }
}

fn looks(paths: &[PathBuf]) -> Vec<(PathBuf, Look)> {
    let look = |path: &PathBuf| {
        let meta = path.metadata().ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    paths.iter().map(|path| (path.clone(), look(path))).collect()
}
