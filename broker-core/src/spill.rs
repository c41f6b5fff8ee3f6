//! Messages of a queue that are in the store only: what waits beyond a session's share of memory.
//!
//! Behind the queue in memory come, in this order, those that are being read back, those that are
//! packed, and those of this tick, whose place in the store is known at its end.

use std::collections::VecDeque;

use whimbrel_store::{Entry, EntryQueue, Position, Stored};

/// Messages that are read back at once.
const BATCH: usize = 256;
/// Bytes that are read back at once, unless one message is longer.
const BATCH_BYTES: u64 = 512 * 1024;

/// The part of a session's queue that is not in memory.
#[derive(Default)]
pub(crate) struct Spilled {
    /// Being read back.
    pub(crate) loading: VecDeque<Entry>,
    /// By what the answer is recognized; 0 while nothing is read.
    pub(crate) token: u64,
    packed: EntryQueue,
    fresh: Vec<Entry>,
    bytes: u64,
    /// So many of the first may have been sent before the broker was stopped.
    maybe_sent: usize,
}

impl Spilled {
    /// What a store has kept. `maybe_sent`: the broker was not stopped in good order.
    pub(crate) fn restored(queue: EntryQueue, maybe_sent: bool) -> Spilled {
        let bytes = queue.iter().map(|entry| u64::from(entry.stored.len)).sum();
        let maybe_sent = if maybe_sent { queue.len() } else { 0 };
        Spilled { packed: queue, bytes, maybe_sent, ..Spilled::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.loading.len() + self.packed.len() + self.fresh.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a message; true if its place is known only when the batch is committed, for which
    /// [`Spilled::settle`] is due.
    pub(crate) fn push(&mut self, entry: Entry) -> bool {
        self.bytes += u64::from(entry.stored.len);
        let fresh = entry.stored.position.writer().is_some();
        if fresh || !self.fresh.is_empty() {
            self.fresh.push(entry);
            return true;
        }
        self.packed.push(&entry);
        false
    }

    /// The batch of this tick is at `base`.
    pub(crate) fn settle(&mut self, base: Position) {
        for mut entry in self.fresh.drain(..) {
            entry.stored.position = entry.stored.position.settled(base);
            self.packed.push(&entry);
        }
    }

    /// Which messages are to be read back next; `token` names them. None if some are being read
    /// or there are none.
    pub(crate) fn load(&mut self, token: u64) -> Option<Vec<Stored>> {
        if !self.loading.is_empty() || self.packed.is_empty() {
            return None;
        }
        let mut wanted = Vec::new();
        let mut bytes = 0;
        while wanted.len() < BATCH && bytes < BATCH_BYTES {
            let Some(mut entry) = self.packed.pop() else { break };
            if self.maybe_sent > 0 {
                self.maybe_sent -= 1;
                entry.dup = true;
            }
            bytes += u64::from(entry.stored.len);
            wanted.push(entry.stored);
            self.loading.push_back(entry);
        }
        self.token = token;
        Some(wanted)
    }

    /// The oldest of those that were read back.
    pub(crate) fn loaded(&mut self) -> Option<Entry> {
        let entry = self.loading.pop_front()?;
        self.bytes -= u64::from(entry.stored.len);
        Some(entry)
    }

    /// Those that wait, oldest first; the place of those of this tick is still in its batch.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        let maybe_sent = self.maybe_sent;
        let packed = self.packed.iter().enumerate();
        let packed = packed.map(move |(at, mut entry)| {
            entry.dup |= at < maybe_sent;
            entry
        });
        self.loading.iter().cloned().chain(packed).chain(self.fresh.iter().cloned())
    }

    /// Whether some came through a shared subscription.
    pub(crate) fn has_groups(&self) -> bool {
        self.iter().any(|entry| entry.group.is_some())
    }

    /// Forgets what is not to be kept of what is packed; gives how many that are.
    pub(crate) fn repack(&mut self, keep: impl Fn(&Entry) -> bool) -> usize {
        let before = self.packed.len();
        if self.packed.iter().all(|entry| keep(&entry)) {
            return 0;
        }
        let mut packed = EntryQueue::default();
        let mut maybe_sent = 0;
        for (at, entry) in self.packed.iter().enumerate() {
            if keep(&entry) {
                maybe_sent += usize::from(at < self.maybe_sent);
                packed.push(&entry);
            } else {
                self.bytes -= u64::from(entry.stored.len);
            }
        }
        self.packed = packed;
        self.maybe_sent = maybe_sent;
        before - self.packed.len()
    }
}
