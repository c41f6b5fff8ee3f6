//! Packets that are kept until they are acknowledged, one behind the other in one piece of memory.

use crate::storage::Storage;

/// Where a packet stands in the arena, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    start: u32,
    len: u32,
}

/// What stands before each packet: its length, with [`FREED`] once it is no longer needed.
const HEADER: usize = 4;
const FREED: u32 = 1 << 31;

/// A ring of packets. In the order of their coming they are usually freed too, and then nothing is
/// ever moved; what is freed out of order is regained when the ring is compacted.
pub(crate) struct Arena<'m> {
    bytes: Storage<'m, u8>,
    /// Start of the oldest packet's header.
    head: usize,
    /// End of the newest packet.
    tail: usize,
    /// End of the packets behind `head`, where the ring goes on at 0. Only while `tail <= head`.
    wrap: usize,
    /// Bytes of packets that are needed, with their headers.
    live: usize,
}

impl<'m> Arena<'m> {
    pub(crate) const fn new(bytes: Storage<'m, u8>) -> Arena<'m> {
        Arena { bytes, head: 0, tail: 0, wrap: 0, live: 0 }
    }

    /// Whether a packet of `len` bytes fits when nothing else is there.
    pub(crate) fn is_large_enough(&self, len: usize) -> bool {
        len < FREED as usize && len + HEADER <= self.bytes.max()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub(crate) fn clear(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.live = 0;
    }

    /// Gives the memory back if it holds nothing.
    pub(crate) fn shrink(&mut self) {
        if self.live == 0 {
            self.bytes.release();
        }
    }

    /// How much of the memory can be used: a place must fit its number.
    fn size(&self) -> usize {
        self.bytes.len().min(FREED as usize)
    }

    fn is_wrapped(&self) -> bool {
        self.live > 0 && self.tail <= self.head
    }

    /// A place for `len` bytes, if there is one without moving anything.
    #[inline]
    pub(crate) fn place(&mut self, len: usize) -> Option<Block> {
        let need = len + HEADER;
        let start = if self.is_wrapped() {
            (self.tail + need <= self.head).then_some(self.tail)
        } else if self.tail + need <= self.size() {
            Some(self.tail)
        } else if need <= self.head {
            self.wrap = self.tail;
            Some(0)
        } else {
            None
        }?;
        self.tail = start + need;
        self.live += need;
        self.set_header(start, len as u32);
        Some(Block { start: (start + HEADER) as u32, len: len as u32 })
    }

    /// Makes room for `len` bytes more by moving packets together, and by growing. Goes through
    /// all that are kept, `at` by `at`, oldest first, and tells them their new place. False if
    /// there is not so much memory.
    pub(crate) fn make_room<'b>(
        &mut self,
        len: usize,
        blocks: impl Iterator<Item = &'b mut Block>,
    ) -> bool {
        let wanted = self.live.saturating_add(len + HEADER);
        if wanted > self.bytes.max() || wanted > FREED as usize {
            return false;
        }
        self.compact(blocks);
        // Half of it free: then moving things together pays off.
        let roomy = wanted.saturating_add(self.live);
        if self.bytes.len() >= roomy {
            return true;
        }
        self.bytes.grow_to(roomy) || self.bytes.grow_to(wanted)
    }

    fn compact<'b>(&mut self, blocks: impl Iterator<Item = &'b mut Block>) {
        let size = self.bytes.len();
        let turn = if self.is_wrapped() { self.head } else { 0 };
        let bytes = self.bytes.items_mut();
        bytes.rotate_left(turn);
        let mut end = 0;
        for block in blocks {
            let from = (block.start as usize - HEADER + size - turn) % size.max(1);
            let len = block.len as usize + HEADER;
            bytes.copy_within(from..from + len, end);
            block.start = (end + HEADER) as u32;
            end += len;
        }
        self.head = 0;
        self.tail = end;
        debug_assert_eq!(end, self.live);
    }

    #[inline]
    pub(crate) fn get(&self, block: Block) -> &[u8] {
        let start = block.start as usize;
        self.bytes.items().get(start..start + block.len as usize).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, block: Block) -> &mut [u8] {
        let start = block.start as usize;
        self.bytes.items_mut().get_mut(start..start + block.len as usize).unwrap_or_default()
    }

    /// The packet is no longer needed.
    #[inline]
    pub(crate) fn free(&mut self, block: Block) {
        self.live -= block.len as usize + HEADER;
        if self.live == 0 {
            return self.clear();
        }
        let start = block.start as usize - HEADER;
        self.set_header(start, block.len | FREED);
        if start == self.head {
            self.advance();
        }
    }

    /// Moves the head to the oldest packet that is still needed.
    fn advance(&mut self) {
        loop {
            if self.tail <= self.head && self.head == self.wrap {
                self.head = 0;
            }
            let header = self.header(self.head);
            if header & FREED == 0 {
                return;
            }
            self.head += (header & !FREED) as usize + HEADER;
        }
    }

    fn header(&self, at: usize) -> u32 {
        let header = self.bytes.items().get(at..).and_then(|bytes| bytes.first_chunk());
        header.map_or(0, |header| u32::from_le_bytes(*header))
    }

    #[inline]
    fn set_header(&mut self, at: usize, value: u32) {
        let bytes = self.bytes.items_mut();
        if let Some(header) = bytes.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
            *header = value.to_le_bytes();
        }
    }
}
