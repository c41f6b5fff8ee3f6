//! Packing: a segment of which little is alive is written anew with that alone, under its name.
//! Positions stay, so nobody but the segment's index knows.

use std::io;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::event::Event;
use crate::layout::{
    INDEX_ENTRY_BYTES, IndexEntry, Kind, SEGMENT_HEADER_BYTES, SegmentHeader, TMP_SUFFIX,
};
use crate::log::Log;
use crate::message::Stored;
use crate::scan::Window;
use crate::segments::{PackedIndex, Segment};
use crate::{Position, ReadError};

/// Bytes that are copied in one step.
const STEP_BYTES: usize = 1 << 20;

/// A segment that is being packed.
pub(crate) struct Packing {
    old: Arc<Segment>,
    before: u64,
    file: Arc<dyn DiskFile>,
    messages: Vec<(u64, u32)>,
    /// The next message to copy.
    next: usize,
    /// Where it goes.
    at: u64,
}

impl Packing {
    fn tmp_name(&self) -> String {
        self.old.name() + TMP_SUFFIX
    }
}

/// Header and index of a packed segment with these messages.
pub(crate) fn packed_front(header: &SegmentHeader, messages: &[(u64, u32)]) -> Vec<u8> {
    let mut out = header.encode().to_vec();
    out.extend_from_slice(&(messages.len() as u64).to_le_bytes());
    let mut place = (out.len() + messages.len() * INDEX_ENTRY_BYTES + 4) as u64;
    for (position, len) in messages {
        IndexEntry { position: *position, place, len: *len }.encode(&mut out);
        place += u64::from(*len);
    }
    let index = out.get(SEGMENT_HEADER_BYTES as usize..).unwrap_or_default();
    let crc = crc32fast::hash(index);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

impl Log {
    /// Begins with the new file, if the segment is still there and it is worth the while.
    pub(crate) fn begin_packing(&self, start: u64, messages: Vec<(u64, u32)>) -> Option<Packing> {
        let old = self.segments.find(start).filter(|segment| segment.start == start)?;
        let before = old.file.size().ok()?;
        let header =
            SegmentHeader { kind: Kind::Packed, start, end: old.end(), identity: self.identity };
        let front = packed_front(&header, &messages);
        let after =
            front.len() as u64 + messages.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
        if after >= before / 2 {
            return None;
        }
        let tmp = old.name() + TMP_SUFFIX;
        let made = self.disk.create(&tmp).and_then(|file| {
            file.write_at(0, &front)?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                let at = front.len() as u64;
                Some(Packing { old, before, file, messages, next: 0, at })
            }
            Err(error) => {
                let _ = self.disk.remove(&tmp);
                self.tell(Event::Kept { file: old.name(), error });
                None
            }
        }
    }

    /// Copies some of it; says whether it has come to an end.
    pub(crate) fn pack_on(&self, packing: &mut Packing) -> bool {
        let failed = match self.pack_step(packing) {
            Ok(false) => return false,
            Ok(true) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = failed {
            let _ = self.disk.remove(&packing.tmp_name());
            let file = packing.old.name();
            match error {
                ReadError::Damaged { file, offset, what } => {
                    self.tell(Event::Damaged { file, offset, what });
                }
                ReadError::Io { error, .. } => self.tell(Event::Kept { file, error }),
                error => {
                    let error = io::Error::other(error.to_string());
                    self.tell(Event::Kept { file, error });
                }
            }
        }
        true
    }

    fn pack_step(&self, packing: &mut Packing) -> Result<bool, ReadError> {
        let failed = |error| packing.old.failed(error);
        let mut step = Vec::new();
        let mut next = packing.next;
        while let Some((position, len)) = packing.messages.get(next) {
            if step.len() >= STEP_BYTES {
                break;
            }
            let body = packing.old.read(Stored { position: Position(*position), len: *len })?;
            step.extend_from_slice(body.bytes());
            next += 1;
        }
        if !step.is_empty() {
            packing.file.write_at(packing.at, &step).map_err(failed)?;
            packing.next = next;
            packing.at += step.len() as u64;
            return Ok(false);
        }
        self.finish_packing(packing).map_err(|error| packing.old.failed(error))?;
        Ok(true)
    }

    fn finish_packing(&self, packing: &Packing) -> io::Result<()> {
        packing.file.sync()?;
        let mut window = Window::new(&packing.file)?;
        let bounds = (packing.old.start, packing.old.end());
        let index = PackedIndex::load(&mut window, bounds, &mut |_| {})?;
        let index = index.map_err(|(_, what)| io::Error::new(io::ErrorKind::InvalidData, what))?;
        // Swept while it was being packed.
        if !self.segments.find(bounds.0).is_some_and(|now| Arc::ptr_eq(&now, &packing.old)) {
            return self.disk.remove(&packing.tmp_name());
        }
        self.disk.rename(&packing.tmp_name(), &packing.old.name())?;
        let after = window.size();
        let segment = Segment::packed(bounds, packing.file.clone(), index);
        self.segments.insert(Arc::new(segment));
        self.disk.sync_dir()?;
        let (file, before) = (packing.old.name(), packing.before);
        self.tell(Event::Packed { file, before, after });
        Ok(())
    }
}
