//! Reading segments from front to end, trusting nothing.

use std::io;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::layout::{FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, u64_at};

/// Bytes that are read at once.
const READ_BYTES: u64 = 1 << 20;

/// A file of which a part is in memory.
pub(crate) struct Window {
    file: Arc<dyn DiskFile>,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn new(file: &Arc<dyn DiskFile>) -> io::Result<Window> {
        let file = file.clone();
        Ok(Window { size: file.size()?, file, start: 0, bytes: Vec::new() })
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes from `at` on; none: the file is shorter.
    pub(crate) fn get(&mut self, at: u64, len: u64) -> io::Result<Option<&[u8]>> {
        match at.checked_add(len) {
            Some(end) if end <= self.size => {}
            _ => return Ok(None),
        }
        let here = at >= self.start && at + len <= self.start + self.bytes.len() as u64;
        if !here {
            let take = len.max(READ_BYTES).min(self.size - at);
            self.bytes.resize(take as usize, 0);
            // Should it fail, what is in memory is nothing.
            self.start = u64::MAX >> 1;
            self.file.read_at(at, &mut self.bytes)?;
            self.start = at;
        }
        let from = (at - self.start) as usize;
        Ok(self.bytes.get(from..from + len as usize))
    }
}

/// A frame that is whole.
pub(crate) struct Frame<'a> {
    pub position: u64,
    pub synced: u64,
    /// Of the first record.
    pub base: u64,
    pub records: &'a [u8],
}

/// A segment of frames, read frame by frame.
pub(crate) struct Frames {
    window: Window,
    start: u64,
    /// Where the next segment begins, or the file ends.
    limit: u64,
    identity: u64,
    /// Of the next frame.
    at: u64,
}

/// How the frames of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the file, or with nothing but zeros, or where the next segment begins.
    Clean,
    /// With something that is no frame; there are this many bytes of it.
    Broken(u64),
}

impl Frames {
    /// From the frame at `from` on; `next` is where the next segment begins, if there is one.
    pub(crate) fn new(
        file: &Arc<dyn DiskFile>,
        (start, next): (u64, Option<u64>),
        from: u64,
        identity: u64,
    ) -> io::Result<Frames> {
        let window = Window::new(file)?;
        let end = start.saturating_add(window.size().saturating_sub(SEGMENT_HEADER_BYTES));
        let limit = end.min(next.unwrap_or(u64::MAX));
        Ok(Frames { window, start, limit, identity, at: from })
    }

    /// Where the frames that were read end.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The offset in the file of a position.
    fn offset(&self, position: u64) -> u64 {
        position - self.start + SEGMENT_HEADER_BYTES
    }

    /// The next frame; none: what follows is no frame.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        let at = self.at;
        let Some(total) = self.whole_at(at)? else { return Ok(None) };
        self.at = at + total;
        let offset = self.offset(at);
        let Some(bytes) = self.window.get(offset, total)? else { return Ok(None) };
        let records = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        Ok(Some(Frame {
            position: at,
            synced: FrameHeader::decode(bytes).synced,
            base: at + FRAME_HEADER_BYTES as u64,
            records,
        }))
    }

    /// The length of the frame at `at`, if there is a whole one.
    fn whole_at(&mut self, at: u64) -> io::Result<Option<u64>> {
        let (offset, limit, identity) = (self.offset(at), self.limit, self.identity);
        if at.checked_add(FRAME_HEADER_BYTES as u64).is_none_or(|end| end > limit) {
            return Ok(None);
        }
        let Some(header) = self.window.get(offset, FRAME_HEADER_BYTES as u64)? else {
            return Ok(None);
        };
        let header = FrameHeader::decode(header);
        if header.position != at || header.synced > at || at + header.total() > limit {
            return Ok(None);
        }
        let Some(frame) = self.window.get(offset, header.total())? else { return Ok(None) };
        Ok(header.verify(frame, identity).then_some(header.total()))
    }

    /// What stands behind the last frame, after [`Frames::next`] gave none.
    pub(crate) fn ending(&mut self) -> io::Result<Ending> {
        let from = self.offset(self.at);
        let end = self.offset(self.limit);
        let mut last = None;
        let mut at = from;
        while at < end {
            let take = READ_BYTES.min(end - at);
            let bytes = self.window.get(at, take)?.unwrap_or_default();
            if let Some(found) = bytes.iter().rposition(|byte| *byte != 0) {
                last = Some(at + found as u64);
            }
            at += take;
        }
        Ok(last.map_or(Ending::Clean, |last| Ending::Broken(last + 1 - from)))
    }

    /// The first whole frame at `from` or behind, wherever it stands; the next one read is that.
    pub(crate) fn seek(&mut self, from: u64) -> io::Result<bool> {
        let mut at = from;
        let header = FRAME_HEADER_BYTES as u64;
        while at.saturating_add(header) <= self.limit {
            let take = READ_BYTES.min(self.limit - at);
            let offset = self.offset(at);
            let bytes = self.window.get(offset, take)?.unwrap_or_default();
            // A frame says itself where it stands.
            let places = bytes.windows(FRAME_HEADER_BYTES).enumerate();
            let candidates: Vec<u64> = places
                .map(|(place, bytes)| (at + place as u64, bytes))
                .filter(|(place, bytes)| u64_at(bytes, 8) == *place)
                .map(|(place, _)| place)
                .collect();
            for place in candidates {
                if self.whole_at(place)?.is_some() {
                    self.at = place;
                    return Ok(true);
                }
            }
            // Windows overlap, so that no header is missed between two.
            at += take - (header - 1);
        }
        Ok(false)
    }

    /// Whether a whole frame behind `broken` says that more than `position` was durable.
    pub(crate) fn evidence_behind(&mut self, broken: u64, position: u64) -> io::Result<bool> {
        let mut from = broken;
        while self.seek(from)? {
            while let Some(frame) = self.next()? {
                if frame.synced > position {
                    return Ok(true);
                }
            }
            from = self.at.saturating_add(1);
        }
        Ok(false)
    }
}
