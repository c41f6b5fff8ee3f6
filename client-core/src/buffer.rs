//! Bytes on their way: written at the back, taken from the front.

use crate::storage::Storage;

/// An emptied buffer that is larger than this is given back at once, in bytes; twice what the
/// usual limits let wait, so that a busy client keeps its own. Others go when the client is idle.
const KEPT_BYTES: usize = 512 * 1024;

pub(crate) struct Buffer<'m> {
    bytes: Storage<'m, u8>,
    start: usize,
    end: usize,
}

impl<'m> Buffer<'m> {
    pub(crate) const fn new(bytes: Storage<'m, u8>) -> Buffer<'m> {
        Buffer { bytes, start: 0, end: 0 }
    }

    /// The most bytes that there can be.
    pub(crate) const fn max(&self) -> usize {
        self.bytes.max()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.items().get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
        if self.bytes.len() > KEPT_BYTES {
            self.bytes.release();
        }
    }

    /// Gives the memory back if it holds nothing.
    pub(crate) fn shrink(&mut self) {
        if self.len() == 0 {
            self.start = 0;
            self.end = 0;
            self.bytes.release();
        }
    }

    /// Takes bytes from the front.
    #[inline]
    pub(crate) fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
    }

    /// The bytes, and how many bytes before them are taken, to be counted up.
    #[inline]
    pub(crate) fn split(&mut self) -> (&[u8], &mut usize) {
        (self.bytes.items().get(self.start..self.end).unwrap_or_default(), &mut self.start)
    }

    /// Begins at the front again if nothing is left.
    #[inline]
    pub(crate) fn reset(&mut self) {
        if self.start == self.end {
            self.clear();
        }
    }

    /// Room for `len` bytes at the back, as far as the limit allows; true if there is as much.
    #[inline]
    pub(crate) fn reserve(&mut self, len: usize) -> bool {
        self.bytes.len() - self.end >= len || self.make_room(len)
    }

    fn make_room(&mut self, len: usize) -> bool {
        let used = self.len();
        let wanted = used.saturating_add(len);
        // Moving what waits is cheap while most of the buffer is free.
        if wanted <= self.bytes.len() && used <= self.start {
            self.compact();
            return true;
        }
        if self.bytes.grow_to(self.end.saturating_add(len)) {
            return true;
        }
        self.compact();
        self.bytes.grow_to(wanted)
    }

    fn compact(&mut self) {
        self.bytes.items_mut().copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    /// The room at the back.
    #[inline]
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let end = self.end;
        self.bytes.items_mut().get_mut(end..).unwrap_or_default()
    }

    /// So many bytes of [`Buffer::space`] were written.
    #[inline]
    pub(crate) fn advance(&mut self, len: usize) {
        self.end = (self.end + len).min(self.bytes.len());
    }

    /// Appends as many bytes as there is room for, and gives their number.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        self.reserve(bytes.len());
        let space = self.space();
        let len = bytes.len().min(space.len());
        if let (Some(space), Some(bytes)) = (space.get_mut(..len), bytes.get(..len)) {
            space.copy_from_slice(bytes);
        }
        self.advance(len);
        len
    }
}
