//! The segments of a log that is open, and finding a message's place in them.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::disk::DiskFile;
use crate::layout::{
    INDEX_ENTRY_BYTES, IndexEntry, SEGMENT_HEADER_BYTES, segment_name, u32_at, u64_at,
};
use crate::message::{MessageBody, Stored};
use crate::scan::Window;
use crate::{MessageRecord, ReadError};

/// Entries of a packed segment's index that are read and verified together.
const BLOCK_ENTRIES: u64 = 128;

/// Where in a packed segment the entries of its index begin.
const INDEX_START: u64 = SEGMENT_HEADER_BYTES + 8;

/// A part of the log in one file.
pub(crate) struct Segment {
    pub start: u64,
    /// `u64::MAX` while it grows.
    end: AtomicU64,
    pub file: Arc<dyn DiskFile>,
    /// None: it holds frames.
    pub packed: Option<PackedIndex>,
}

impl Segment {
    pub(crate) fn frames(start: u64, end: u64, file: Arc<dyn DiskFile>) -> Segment {
        Segment { start, end: end.into(), file, packed: None }
    }

    pub(crate) fn packed(
        (start, end): (u64, u64),
        file: Arc<dyn DiskFile>,
        index: PackedIndex,
    ) -> Segment {
        Segment { start, end: end.into(), file, packed: Some(index) }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    pub(crate) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Relaxed);
    }

    pub(crate) fn name(&self) -> String {
        segment_name(self.start)
    }

    /// Where in the file a message stands.
    pub(crate) fn place(&self, stored: Stored) -> Result<u64, ReadError> {
        let position = stored.position.0;
        if position < self.start || position >= self.end() {
            return Err(ReadError::Missing);
        }
        let Some(index) = &self.packed else {
            return Ok(position - self.start + SEGMENT_HEADER_BYTES);
        };
        match index.find(&*self.file, position) {
            Ok(Some(entry)) if entry.len == stored.len => Ok(entry.place),
            Ok(Some(entry)) => Err(self.damaged(entry.place, "the message has another length")),
            Ok(None) => Err(ReadError::Missing),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Reads a message.
    pub(crate) fn read(&self, stored: Stored) -> Result<MessageBody, ReadError> {
        let place = self.place(stored)?;
        let size = self.file.size().map_err(|error| self.failed(error))?;
        if place.saturating_add(stored.len.into()) > size {
            return Err(self.damaged(place, "the message is longer than its file"));
        }
        let mut bytes = vec![0; stored.len as usize].into_boxed_slice();
        self.file.read_at(place, &mut bytes).map_err(|error| self.failed(error))?;
        MessageBody::new(bytes).map_err(|what| self.damaged(place, what))
    }

    pub(crate) fn damaged(&self, offset: u64, what: &'static str) -> ReadError {
        ReadError::Damaged { file: self.name(), offset, what }
    }

    pub(crate) fn failed(&self, error: io::Error) -> ReadError {
        ReadError::Io { file: self.name(), error }
    }
}

/// All segments, by where they begin.
#[derive(Default)]
pub(crate) struct Segments(RwLock<BTreeMap<u64, Arc<Segment>>>);

impl Segments {
    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(segment.start, segment);
    }

    pub(crate) fn remove(&self, start: u64) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&start);
    }

    /// The one that holds this position, if one does.
    pub(crate) fn find(&self, position: u64) -> Option<Arc<Segment>> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (_, segment) = map.range(..=position).next_back()?;
        (position < segment.end()).then(|| segment.clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn read(&self, stored: Stored) -> Result<MessageBody, ReadError> {
        self.find(stored.position.0).ok_or(ReadError::Missing)?.read(stored)
    }
}

/// What is kept in memory of a packed segment's index: a little for each block of entries.
pub(crate) struct PackedIndex {
    count: u64,
    blocks: Vec<Block>,
}

struct Block {
    /// Position of its first message.
    first: u64,
    /// Of its entries as they were when the whole index was verified.
    crc: u32,
}

/// What is wrong with a packed segment, and where in the file.
pub(crate) type PackedError = (u64, &'static str);

impl PackedIndex {
    /// Reads and verifies the index of a packed segment; `each` is given every entry.
    pub(crate) fn load(
        window: &mut Window,
        (start, end): (u64, u64),
        each: &mut dyn FnMut(IndexEntry),
    ) -> io::Result<Result<PackedIndex, PackedError>> {
        let size = window.size();
        let Some(bytes) = window.get(SEGMENT_HEADER_BYTES, 8)? else {
            return Ok(Err((SEGMENT_HEADER_BYTES, "the index is cut short")));
        };
        let count = u64_at(bytes, 0);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(bytes);
        let data = count
            .checked_mul(INDEX_ENTRY_BYTES as u64)
            .and_then(|bytes| bytes.checked_add(INDEX_START + 4))
            .filter(|data| *data <= size);
        let Some(data) = data else {
            return Ok(Err((SEGMENT_HEADER_BYTES, "the index is cut short")));
        };
        let mut blocks = Vec::new();
        let (mut position, mut place, mut at) = (start, data, 0);
        while at < count {
            let entries = BLOCK_ENTRIES.min(count - at);
            let offset = INDEX_START + at * INDEX_ENTRY_BYTES as u64;
            let bytes = window.get(offset, entries * INDEX_ENTRY_BYTES as u64)?;
            let bytes = bytes.unwrap_or_default();
            hasher.update(bytes);
            blocks.push(Block { first: u64_at(bytes, 0), crc: crc32fast::hash(bytes) });
            for entry in bytes.chunks_exact(INDEX_ENTRY_BYTES).map(IndexEntry::decode) {
                if entry.position < position || entry.position >= end || entry.place != place {
                    return Ok(Err((offset, "the index is out of order")));
                }
                position = entry.position.saturating_add(entry.len.max(1).into());
                place = place.saturating_add(entry.len.into());
                each(entry);
            }
            at += entries;
        }
        let crc = window.get(data - 4, 4)?.map_or(0, |bytes| u32_at(bytes, 0));
        if crc != hasher.finalize() {
            return Ok(Err((data - 4, "the checksum of the index is wrong")));
        }
        if place != size {
            return Ok(Err((place.min(size), "the file has another length than its index says")));
        }
        Ok(Ok(PackedIndex { count, blocks }))
    }

    /// Verifies every message.
    pub(crate) fn verify(&self, file: &Arc<dyn DiskFile>) -> io::Result<Result<(), PackedError>> {
        let (mut index, mut window) = (Window::new(file)?, Window::new(file)?);
        for at in 0..self.count {
            let offset = INDEX_START + at * INDEX_ENTRY_BYTES as u64;
            let Some(entry) = entry_at(&mut index, offset)? else {
                return Ok(Err((offset, "the index is cut short")));
            };
            let bytes = window.get(entry.place, entry.len.into())?.unwrap_or_default();
            match MessageRecord::decode(bytes) {
                Ok((_, len)) if len == bytes.len() => {}
                Ok(_) => return Ok(Err((entry.place, "the message has another length"))),
                Err(what) => return Ok(Err((entry.place, what))),
            }
        }
        Ok(Ok(()))
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The entry of the message at `position`.
    fn find(&self, file: &dyn DiskFile, position: u64) -> io::Result<Option<IndexEntry>> {
        let behind = self.blocks.partition_point(|block| block.first <= position);
        let Some(index) = behind.checked_sub(1) else { return Ok(None) };
        let Some(block) = self.blocks.get(index) else { return Ok(None) };
        let from = index as u64 * BLOCK_ENTRIES;
        let entries = BLOCK_ENTRIES.min(self.count - from) as usize;
        let mut bytes = vec![0; entries * INDEX_ENTRY_BYTES];
        file.read_at(INDEX_START + from * INDEX_ENTRY_BYTES as u64, &mut bytes)?;
        // It was right when the store was opened; a message carries no position of its own.
        if crc32fast::hash(&bytes) != block.crc {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the index is damaged"));
        }
        let mut all = bytes.chunks_exact(INDEX_ENTRY_BYTES).map(IndexEntry::decode);
        Ok(all.find(|entry| entry.position == position))
    }
}

fn entry_at(window: &mut Window, offset: u64) -> io::Result<Option<IndexEntry>> {
    Ok(window.get(offset, INDEX_ENTRY_BYTES as u64)?.map(IndexEntry::decode))
}
