//! A disk in memory that does what real disks do when the power goes: it forgets what was not
//! synced, or a part of it. It fails and fills up when told to. For tests and the simulator.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use crate::disk::{Disk, DiskFile};
use crate::log::lock;

/// A disk writes so many bytes whole or not at all.
const SECTOR: usize = 512;

/// The disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Any of the others, and listing, opening, reading, and locking.
    Any,
    /// Writing to a file, or changing its length.
    Write,
    /// Making durable the content of a file.
    Sync,
    /// Making durable which files there are.
    SyncDir,
    /// Creating, renaming, and removing files.
    Names,
}

#[derive(Default)]
struct State {
    /// All files that ever were, by number.
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since the last sync of the directory.
    name_changes: Vec<NameChange>,
    locked: Vec<String>,
    /// Counts crashes: what was opened before one is of no use.
    generation: u64,
    capacity: Option<u64>,
    operations: u64,
    failing: Vec<Failing>,
    /// All syncs fail.
    syncs_fail: bool,
}

struct Failing {
    of: Operation,
    /// So many go well before.
    before: u64,
}

/// A file's content.
#[derive(Default)]
struct Node {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync.
    changes: Vec<Change>,
}

enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

enum NameChange {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String, usize),
}

impl SimDisk {
    /// An empty disk without limits.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// The power goes. `choose(n)` gives a number below n each time something may go one way or
    /// another. All files that were open are of no use after that.
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut state = lock(&self.0);
        let state = &mut *state;
        state.generation += 1;
        state.locked.clear();
        state.failing.clear();
        state.syncs_fail = false;
        for change in std::mem::take(&mut state.name_changes) {
            if choose(2) == 1 {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        for (number, node) in state.nodes.iter_mut().enumerate() {
            if !state.names.values().any(|named| *named == number) {
                *node = Node::default();
                continue;
            }
            for change in std::mem::take(&mut node.changes) {
                change.apply_partly(&mut node.durable, choose);
            }
            node.now = node.durable.clone();
        }
    }

    /// The process ends, the machine goes on: all files that were open are of no use.
    pub fn close(&self) {
        let mut state = lock(&self.0);
        state.generation += 1;
        state.locked.clear();
    }

    /// After so many operations of a kind that go well, one fails.
    pub fn fail(&self, of: Operation, before: u64) {
        lock(&self.0).failing.push(Failing { of, before });
    }

    /// Whether all syncs of files fail from now on.
    pub fn fail_syncs(&self, fail: bool) {
        lock(&self.0).syncs_fail = fail;
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut state = lock(&self.0);
        state.failing.clear();
        state.syncs_fail = false;
    }

    /// How many bytes fit in all files together.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.0).capacity = bytes;
    }

    /// Bytes in all files together.
    pub fn used(&self) -> u64 {
        lock(&self.0).used()
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        lock(&self.0).operations
    }

    /// The content of a file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = lock(&self.0);
        let node = state.names.get(name)?;
        Some(state.nodes.get(*node)?.now.clone())
    }

    /// Makes a file have this content, durably, as if somebody else had done so.
    pub fn set_content(&self, name: &str, content: Vec<u8>) {
        let mut state = lock(&self.0);
        let node = Node { now: content.clone(), durable: content, changes: Vec::new() };
        state.nodes.push(node);
        let number = state.nodes.len() - 1;
        state.names.insert(name.to_owned(), number);
        state.durable_names.insert(name.to_owned(), number);
    }

    /// Takes a file away, durably.
    pub fn take_away(&self, name: &str) {
        let mut state = lock(&self.0);
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    fn file(&self, state: &State, node: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.0.clone(), node, generation: state.generation })
    }

    fn begin(&self, of: Operation) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = lock(&self.0);
        state.begin(of)?;
        Ok(state)
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().filter_map(|node| self.nodes.get(*node)).map(Node::size).sum()
    }

    /// Counts an operation, which may be one that fails.
    fn begin(&mut self, of: Operation) -> io::Result<()> {
        self.operations += 1;
        let mut fails = of == Operation::Sync && self.syncs_fail;
        self.failing.retain_mut(|failing| {
            if failing.of != of && failing.of != Operation::Any {
                return true;
            }
            let now = failing.before == 0;
            failing.before = failing.before.saturating_sub(1);
            fails |= now;
            !now
        });
        if fails { Err(io::Error::other("the disk was told to fail")) } else { Ok(()) }
    }
}

impl Node {
    fn size(&self) -> u64 {
        self.now.len() as u64
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            change.apply(&mut self.durable);
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => write(content, *at, bytes),
            Change::Truncate(len) => content.resize(*len, 0),
        }
    }

    /// As if the power had gone while it was being written.
    fn apply_partly(&self, content: &mut Vec<u8>, choose: &mut dyn FnMut(usize) -> usize) {
        let Change::Write(at, bytes) = self else {
            if choose(2) == 1 {
                self.apply(content);
            }
            return;
        };
        // Sectors begin at multiples of their size in the file.
        let first = SECTOR - at % SECTOR;
        let (head, rest) = bytes.split_at(first.min(bytes.len()));
        let sectors = || std::iter::once(head).chain(rest.chunks(SECTOR));
        let count = sectors().count();
        let (way, most) = (choose(4), count + 1);
        let kept = match way {
            0 => 0,
            1 => count,
            _ => choose(most),
        };
        let mut place = *at;
        for (index, sector) in sectors().enumerate() {
            let keep = if way == 3 { choose(2) == 1 } else { index < kept };
            if keep {
                write(content, place, sector);
            }
            place += sector.len();
        }
    }
}

fn write(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(place) = content.get_mut(at..end) {
        place.copy_from_slice(bytes);
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create(name, node) => {
                names.insert(name, node);
            }
            NameChange::Rename(from, to, node) => {
                if names.get(&from) == Some(&node) {
                    names.remove(&from);
                }
                names.insert(to, node);
            }
            NameChange::Remove(name, node) => {
                if names.get(&name) == Some(&node) {
                    names.remove(&name);
                }
            }
        }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.begin(Operation::Any)?.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.begin(Operation::Names)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.nodes.push(Node::default());
        let node = state.nodes.len() - 1;
        state.names.insert(name.to_owned(), node);
        state.name_changes.push(NameChange::Create(name.to_owned(), node));
        Ok(self.file(&state, node))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.begin(Operation::Any)?;
        let node = *state.names.get(name).ok_or_else(not_found)?;
        Ok(self.file(&state, node))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.begin(Operation::Names)?;
        let node = state.names.remove(from).ok_or_else(not_found)?;
        state.names.insert(to.to_owned(), node);
        state.name_changes.push(NameChange::Rename(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.begin(Operation::Names)?;
        let node = state.names.remove(name).ok_or_else(not_found)?;
        state.name_changes.push(NameChange::Remove(name.to_owned(), node));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.begin(Operation::SyncDir)?;
        let state = &mut *state;
        for change in std::mem::take(&mut state.name_changes) {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut state = self.begin(Operation::Any)?;
        if state.locked.iter().any(|locked| locked == name) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked.push(name.to_owned());
        let generation = state.generation;
        Ok(Box::new(SimLock { disk: self.0.clone(), name: name.to_owned(), generation }))
    }
}

struct SimLock {
    disk: Arc<Mutex<State>>,
    name: String,
    generation: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = lock(&self.disk);
        if state.generation == self.generation {
            state.locked.retain(|name| *name != self.name);
        }
    }
}

struct SimFile {
    disk: Arc<Mutex<State>>,
    node: usize,
    generation: u64,
}

impl SimFile {
    fn with<T>(
        &self,
        of: Operation,
        then: impl FnOnce(&mut State, usize) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = lock(&self.disk);
        if state.generation != self.generation {
            return Err(io::Error::other("the machine was switched off"));
        }
        let begun = state.begin(of);
        if begun.is_err() && of == Operation::Sync {
            // What was not synced is forgotten, though it can still be read: so systems do it.
            if let Some(node) = state.nodes.get_mut(self.node) {
                node.changes.clear();
            }
        }
        begun?;
        then(&mut state, self.node)
    }

    fn write_some(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.disk);
        let used = state.used();
        let capacity = state.capacity.unwrap_or(u64::MAX);
        let node = node(&mut state, self.node)?;
        let room = node.size() + capacity.saturating_sub(used);
        let fits = room.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let written = bytes.get(..fits).unwrap_or_default();
        node.change(Change::Write(offset as usize, written.to_vec()));
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

fn node(state: &mut State, number: usize) -> io::Result<&mut Node> {
    state.nodes.get_mut(number).ok_or_else(not_found)
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.with(Operation::Any, |state, number| Ok(node(state, number)?.size()))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let failed = self.with(Operation::Write, |_, _| Ok(())).err();
        if failed.is_some() && lock(&self.disk).generation != self.generation {
            return failed.map_or(Ok(()), Err);
        }
        // A write that fails may have written a part.
        let written = if failed.is_some() { bytes.len() / 2 } else { bytes.len() };
        self.write_some(offset, bytes.get(..written).unwrap_or_default())?;
        failed.map_or(Ok(()), Err)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.with(Operation::Any, |state, number| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let content = &node(state, number)?.now;
            let bytes = content.get(from..from.saturating_add(into.len()));
            into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(Operation::Write, |state, number| {
            node(state, number)?.change(Change::Truncate(len as usize));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(Operation::Sync, |state, number| {
            node(state, number)?.sync();
            Ok(())
        })
    }
}
