//! Messages that wait for a session and whose bodies are on disk only: a few bytes each.

use std::collections::VecDeque;

use whimbrel_codec::QoS;

use crate::fields::{Reader, put_varint};
use crate::{Position, Stored, WallMs};

/// A message that waits for a session, or is in flight to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its body is.
    pub stored: Stored,
    /// Of the delivery, not of the message: at least once or exactly once.
    pub qos: QoS,
    /// RETAIN of the delivery.
    pub retain: bool,
    /// It may have been sent already: DUP is due.
    pub dup: bool,
    /// When it is no longer to be delivered; whole seconds.
    pub expires: Option<WallMs>,
    /// Key of the shared-subscription group through which it came.
    pub group: Option<u32>,
    /// Subscription identifiers.
    pub ids: Vec<u32>,
}

const RETAIN: u8 = 1;
const DUP: u8 = 2;
const EXACTLY_ONCE: u8 = 4;
const GROUP: u8 = 8;
const IDS: u8 = 16;
const EXPIRES: u8 = 32;

impl Entry {
    /// Appends the entry; its position counts from `previous`.
    pub(crate) fn encode(&self, previous: Position, out: &mut Vec<u8>) {
        let mut flags = 0;
        for (is, flag) in [
            (self.retain, RETAIN),
            (self.dup, DUP),
            (self.qos == QoS::ExactlyOnce, EXACTLY_ONCE),
            (self.group.is_some(), GROUP),
            (!self.ids.is_empty(), IDS),
            (self.expires.is_some(), EXPIRES),
        ] {
            flags |= if is { flag } else { 0 };
        }
        out.push(flags);
        let distance = self.stored.position.0.wrapping_sub(previous.0) as i64;
        // Zigzag: positions of a queue go up, but for those that were handed over.
        put_varint(out, (distance << 1 ^ distance >> 63) as u64);
        put_varint(out, self.stored.len.into());
        if let Some(expires) = self.expires {
            put_varint(out, expires.0.div_ceil(1000));
        }
        if let Some(group) = self.group {
            put_varint(out, group.into());
        }
        if !self.ids.is_empty() {
            put_varint(out, self.ids.len() as u64);
            self.ids.iter().for_each(|id| put_varint(out, (*id).into()));
        }
    }

    pub(crate) fn decode(previous: Position, reader: &mut Reader<'_>) -> Option<Entry> {
        let flags = reader.byte()?;
        if flags & !(RETAIN | DUP | EXACTLY_ONCE | GROUP | IDS | EXPIRES) != 0 {
            return None;
        }
        let zigzag = reader.varint()?;
        let distance = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let position = Position(previous.0.wrapping_add(distance as u64));
        if position.writer().is_some() {
            return None;
        }
        let len = reader.varint_u32()?;
        let expires = match flags & EXPIRES {
            0 => None,
            _ => Some(WallMs(reader.varint()?.checked_mul(1000)?)),
        };
        let group = if flags & GROUP != 0 { Some(reader.varint_u32()?) } else { None };
        let mut ids = Vec::new();
        if flags & IDS != 0 {
            for _ in 0..reader.varint_u32()? {
                ids.push(reader.varint_u32()?);
            }
        }
        let qos = if flags & EXACTLY_ONCE != 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        Some(Entry {
            stored: Stored { position, len },
            qos,
            retain: flags & RETAIN != 0,
            dup: flags & DUP != 0,
            expires,
            group,
            ids,
        })
    }
}

/// Bytes of a chunk before the next one begins.
const CHUNK_BYTES: usize = 4096;

/// Entries, first in, first out, packed: about six bytes each where messages follow each other.
#[derive(Clone, Debug, Default)]
pub struct EntryQueue {
    chunks: VecDeque<Chunk>,
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Those before were popped.
    read: usize,
    /// Position of the entry popped last.
    popped: Position,
    /// Position of the entry pushed last.
    pushed: Position,
}

impl EntryQueue {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends an entry.
    pub fn push(&mut self, entry: &Entry) {
        if self.chunks.back().is_none_or(|last| last.bytes.len() >= CHUNK_BYTES) {
            if let Some(last) = self.chunks.back_mut() {
                last.bytes.shrink_to_fit();
            }
            self.chunks.push_back(Chunk::default());
        }
        if let Some(last) = self.chunks.back_mut() {
            entry.encode(last.pushed, &mut last.bytes);
            last.pushed = entry.stored.position;
            self.len += 1;
        }
    }

    /// Takes the oldest entry.
    pub fn pop(&mut self) -> Option<Entry> {
        let first = self.chunks.front_mut()?;
        let mut reader = Reader::new(first.bytes.get(first.read..)?);
        let entry = Entry::decode(first.popped, &mut reader)?;
        first.read = first.bytes.len() - reader.rest().len();
        first.popped = entry.stored.position;
        self.len -= 1;
        if first.read == first.bytes.len() {
            self.chunks.pop_front();
        }
        if self.len == 0 {
            self.chunks = VecDeque::new();
        }
        Some(entry)
    }

    /// From the oldest on.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.chunks.iter().flat_map(|chunk| {
            let mut reader = Reader::new(chunk.bytes.get(chunk.read..).unwrap_or_default());
            let mut previous = chunk.popped;
            std::iter::from_fn(move || {
                let entry = Entry::decode(previous, &mut reader)?;
                previous = entry.stored.position;
                Some(entry)
            })
        })
    }

    /// Appends all entries to a record: their number, and each as in the queue, the first with its
    /// whole position.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len as u64);
        let mut previous = Position(0);
        for entry in self.iter() {
            entry.encode(previous, out);
            previous = entry.stored.position;
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<EntryQueue> {
        let mut queue = EntryQueue::default();
        let mut previous = Position(0);
        for _ in 0..reader.varint()? {
            let entry = Entry::decode(previous, reader)?;
            previous = entry.stored.position;
            queue.push(&entry);
        }
        Some(queue)
    }
}

impl PartialEq for EntryQueue {
    fn eq(&self, other: &EntryQueue) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for EntryQueue {}
