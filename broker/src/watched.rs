//! Files that are read again when they change.

use std::path::Path;
use std::time::SystemTime;

/// What changes when a file does: time of the last change and length; none if there is no file.
type Stamp = Option<(SystemTime, u64)>;

/// How some files looked.
pub(crate) struct Watched {
    /// When they were read.
    loaded: Vec<Stamp>,
    /// When they were last looked at.
    seen: Vec<Stamp>,
}

impl Watched {
    /// To be made before the files are read: so no change in between is missed.
    pub(crate) fn new<'a>(files: impl Iterator<Item = &'a Path>) -> Watched {
        let loaded: Vec<Stamp> = files.map(stamp).collect();
        Watched { seen: loaded.clone(), loaded }
    }

    /// Whether the files have changed since they were read, and not since the last call: whoever
    /// replaces several files, or writes a long one, does not do it at once.
    pub(crate) fn have_changed<'a>(&mut self, files: impl Iterator<Item = &'a Path>) -> bool {
        let now: Vec<Stamp> = files.map(stamp).collect();
        let settled = now == self.seen;
        self.seen = now;
        settled && self.seen != self.loaded
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = path.metadata().ok()?;
    Some((meta.modified().ok()?, meta.len()))
}
