//! Two views of a data directory: one that is never written to, and one that no broker opens
//! before it is finished.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use whimbrel_store::{Directory, Disk, DiskFile};

/// The file that makes a directory a store.
pub const STORE: &str = "STORE";

/// Its name for as long as an import goes on.
pub const UNFINISHED: &str = "STORE.unfinished";

/// A directory whose changes stay in memory: opening a store cuts off a torn end and may begin a
/// file, and here only the reader sees that.
pub struct ReadOnly {
    path: PathBuf,
    /// Files that are others than on disk; none: removed.
    changed: Mutex<BTreeMap<String, Option<Arc<dyn DiskFile>>>>,
}

impl ReadOnly {
    /// A view of this directory.
    pub fn new(path: &Path) -> ReadOnly {
        ReadOnly { path: path.to_owned(), changed: Mutex::default() }
    }
}

impl Disk for ReadOnly {
    fn list(&self) -> io::Result<Vec<String>> {
        let changed = lock(&self.changed);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string()
                && !changed.contains_key(&name)
            {
                names.push(name);
            }
        }
        let made = changed.iter().filter(|(_, file)| file.is_some());
        names.extend(made.map(|(name, _)| name.clone()));
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file: Arc<dyn DiskFile> = Arc::new(InMemory::default());
        lock(&self.changed).insert(name.to_owned(), Some(file.clone()));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(changed) = lock(&self.changed).get(name) {
            return changed.clone().ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        let file = File::open(self.path.join(name))?;
        let size = Mutex::new(file.metadata()?.len());
        Ok(Arc::new(Uncut { file, size }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.open(from)?;
        let mut changed = lock(&self.changed);
        changed.insert(from.to_owned(), None);
        changed.insert(to.to_owned(), Some(file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.changed).insert(name.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    /// A directory without this file has no broker.
    fn lock(&self, name: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = match File::open(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Box::new(())),
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A file that is on disk, and that is cut off for the reader only.
struct Uncut {
    file: File,
    size: Mutex<u64>,
}

impl DiskFile for Uncut {
    fn size(&self) -> io::Result<u64> {
        Ok(*lock(&self.size))
    }

    /// What was read may be written again, which changes nothing.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut there = vec![0; bytes.len()];
        self.read_at(offset, &mut there)?;
        if there == bytes { Ok(()) } else { Err(io::ErrorKind::ReadOnlyFilesystem.into()) }
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if offset.saturating_add(into.len() as u64) > *lock(&self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(into, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut size = lock(&self.size);
        if len > *size {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        *size = len;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _from: u64, _to: u64) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct InMemory(Mutex<Vec<u8>>);

impl DiskFile for InMemory {
    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = lock(&self.0);
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        if content.len() < to {
            content.resize(to, 0);
        }
        if let Some(place) = content.get_mut(from..to) {
            place.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let content = lock(&self.0);
        let from = offset as usize;
        match content.get(from..from.saturating_add(into.len())) {
            Some(bytes) => into.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        lock(&self.0).resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _from: u64, _to: u64) -> io::Result<()> {
        Ok(())
    }
}

/// A directory in which a store is being made: its file `STORE` has another name, so that a broker
/// refuses it.
pub struct Unfinished {
    directory: Directory,
}

impl Unfinished {
    /// Opens the directory, and makes it if it is not there.
    pub fn open(path: &Path) -> io::Result<Unfinished> {
        Ok(Unfinished { directory: Directory::open(path)? })
    }

    /// From now on it is a store.
    pub fn finish(&self) -> io::Result<()> {
        self.directory.rename(UNFINISHED, STORE)?;
        self.directory.sync_dir()
    }
}

/// On disk.
fn real(name: &str) -> &str {
    if name == STORE { UNFINISHED } else { name }
}

impl Disk for Unfinished {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.directory.list()?;
        names.iter_mut().filter(|name| *name == UNFINISHED).for_each(|name| *name = STORE.into());
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.directory.create(real(name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.directory.open(real(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename(real(from), real(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory.remove(real(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_dir()
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.directory.lock(name)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
