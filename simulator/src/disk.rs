//! The machine's disk: the store's [`SimDisk`], and a switch that turns the power off between any
//! two operations.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use whimbrel_store::sim_disk::SimDisk;
use whimbrel_store::{Disk, DiskFile};

use crate::Mutation;

/// A disk with a switch. Clones are the same disk.
#[derive(Clone)]
pub struct Machine(Arc<Inner>);

struct Inner {
    disk: SimDisk,
    /// Operations until the power goes.
    left: AtomicU64,
    off: AtomicBool,
    operations: AtomicU64,
    syncs: AtomicU64,
    mutation: Option<Mutation>,
}

impl Machine {
    /// An empty disk.
    pub fn new(mutation: Option<Mutation>) -> Machine {
        Machine(Arc::new(Inner {
            disk: SimDisk::new(),
            left: u64::MAX.into(),
            off: false.into(),
            operations: 0.into(),
            syncs: 0.into(),
            mutation,
        }))
    }

    /// The disk itself.
    pub fn disk(&self) -> &SimDisk {
        &self.0.disk
    }

    /// The power goes after so many operations.
    pub fn crash_after(&self, operations: u64) {
        self.0.left.store(operations, Relaxed);
    }

    /// The power has gone.
    pub fn is_off(&self) -> bool {
        self.0.off.load(Relaxed)
    }

    /// The power is there again.
    pub fn switch_on(&self) {
        self.0.left.store(u64::MAX, Relaxed);
        self.0.off.store(false, Relaxed);
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.0.operations.load(Relaxed)
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(MachineFile { file, machine: self.clone() })
    }

    /// Does an operation. One during which the power goes is done, or what is left of it, and
    /// nobody hears of it.
    fn step<T>(&self, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let off = || io::Error::other("the power is off");
        if self.is_off() {
            return Err(off());
        }
        self.0.operations.fetch_add(1, Relaxed);
        let result = operation();
        let left = self.0.left.load(Relaxed);
        if left == u64::MAX {
            return result;
        }
        self.0.left.store(left.saturating_sub(1), Relaxed);
        if left == 0 {
            self.0.off.store(true, Relaxed);
            return Err(off());
        }
        result
    }

    fn skips_sync(&self) -> bool {
        let number = self.0.syncs.fetch_add(1, Relaxed);
        self.0.mutation == Some(Mutation::SkipFsync) && number % 2 == 1
    }
}

impl Disk for Machine {
    fn list(&self) -> io::Result<Vec<String>> {
        self.step(|| self.0.disk.list())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.step(|| self.0.disk.create(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.step(|| self.0.disk.open(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(|| self.0.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.0.mutation == Some(Mutation::SweepTooEarly) && name.starts_with("log-") {
            let names = self.0.disk.list()?;
            let mut later = names.iter().filter(|other| other.starts_with("log-"));
            if let Some(next) = later.find(|other| other.as_str() > name) {
                let _ = self.0.disk.remove(next);
            }
        }
        self.step(|| self.0.disk.remove(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.step(|| self.0.disk.sync_dir())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.step(|| self.0.disk.lock(name))
    }
}

struct MachineFile {
    file: Arc<dyn DiskFile>,
    machine: Machine,
}

impl DiskFile for MachineFile {
    fn size(&self) -> io::Result<u64> {
        self.machine.step(|| self.file.size())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.machine.step(|| self.file.write_at(offset, bytes))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.machine.step(|| self.file.read_at(offset, into))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.machine.step(|| self.file.truncate(len))
    }

    fn sync(&self) -> io::Result<()> {
        if self.machine.skips_sync() {
            return self.machine.step(|| Ok(()));
        }
        self.machine.step(|| self.file.sync())
    }
}
