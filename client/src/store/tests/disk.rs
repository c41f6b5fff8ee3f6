//! A disk in memory that crashes, fills up, and forgets what was not synced.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// Numbers that look like chance and are the same in every run.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to `end`, which is not among them.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// What was done since the last sync.
#[derive(Debug)]
enum Change {
    Len(u64),
    Bytes(u64, Vec<u8>),
}

#[derive(Debug, Default)]
struct Inner {
    /// What survives a crash for sure.
    synced: Vec<u8>,
    now: Vec<u8>,
    changes: Vec<Change>,
    /// Operations until the crash.
    fuse: Option<u64>,
    has_crashed: bool,
    is_full: bool,
    lies: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(super) fn backend(&self) -> Disk {
        self.clone()
    }

    pub(super) fn crash_after(&self, operations: u64) {
        self.lock().fuse = Some(operations);
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.lock().has_crashed
    }

    pub(super) fn fill_up(&self, full: bool) {
        self.lock().is_full = full;
    }

    pub(super) fn lie_about_syncs(&self) {
        self.lock().lies = true;
    }

    /// Of what was not synced, each change is there or not, or half of it.
    pub(super) fn reboot(&self, chance: &mut Chance) {
        let mut inner = self.lock();
        let mut image = std::mem::take(&mut inner.synced);
        for change in std::mem::take(&mut inner.changes) {
            match (change, chance.below(3)) {
                (_, 0) => {}
                (Change::Len(len), _) => image.resize(len as usize, 0),
                (Change::Bytes(offset, mut bytes), kept) => {
                    if kept == 1 {
                        bytes.truncate(chance.below(bytes.len() as u64 + 1) as usize);
                    }
                    write(&mut image, offset, &bytes);
                }
            }
        }
        *inner = Inner { now: image.clone(), synced: image, ..Inner::default() };
    }
}

fn write(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset as usize..end].copy_from_slice(bytes);
}

impl Inner {
    /// Counts an operation that changes something.
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => self.has_crashed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.has_crashed { Err(io::Error::other("crashed")) } else { Ok(()) }
    }

    fn take_room(&self) -> io::Result<()> {
        let full = || io::Error::new(io::ErrorKind::StorageFull, "no room");
        if self.is_full { Err(full()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.lock();
        let from = inner.now.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.burn()?;
        inner.take_room()?;
        inner.now.resize(len as usize, 0);
        inner.changes.push(Change::Len(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.burn()?;
        if !inner.lies {
            inner.synced = inner.now.clone();
            inner.changes.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        inner.burn()?;
        inner.take_room()?;
        write(&mut inner.now, offset, data);
        inner.changes.push(Change::Bytes(offset, data.to_vec()));
        Ok(())
    }
}
