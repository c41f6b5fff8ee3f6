//! Topic aliases (section 3.3.2.3.4), in memory that is bounded.

use crate::storage::Storage;

/// A topic that an alias stands for: for [`Memory`](crate::Memory).
#[derive(Clone, Copy, Debug, Default)]
pub struct AliasSlot {
    /// Where the topic's bytes begin.
    start: u32,
    /// 0: none.
    len: u16,
    hash: u32,
    last_used: u32,
}

impl AliasSlot {
    /// Without a topic.
    pub const EMPTY: AliasSlot = AliasSlot { start: 0, len: 0, hash: 0, last_used: 0 };
}

/// What stands before each topic: the number of its slot, and its length.
const HEADER: usize = 4;

/// Topics by number, and their bytes one behind the other; each block of bytes says whose it is.
pub(crate) struct Topics<'m> {
    slots: Storage<'m, AliasSlot>,
    bytes: Storage<'m, u8>,
    used: usize,
    end: usize,
}

impl<'m> Topics<'m> {
    pub(crate) const fn new(slots: Storage<'m, AliasSlot>, bytes: Storage<'m, u8>) -> Topics<'m> {
        Topics { slots, bytes, used: 0, end: 0 }
    }

    /// The most topics that there can be.
    pub(crate) fn max(&self) -> u16 {
        self.slots.max().try_into().unwrap_or(u16::MAX)
    }

    /// Forgets all topics and gives the memory back.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.end = 0;
        self.slots.release();
        self.bytes.release();
        self.slots.items_mut().fill(AliasSlot::EMPTY);
    }

    fn slot(&self, at: usize) -> Option<&AliasSlot> {
        self.slots.items().get(at).filter(|slot| slot.len > 0)
    }

    fn text(&self, slot: &AliasSlot) -> &[u8] {
        let start = slot.start as usize;
        self.bytes.items().get(start..start + usize::from(slot.len)).unwrap_or_default()
    }

    /// The topic with this number.
    pub(crate) fn get(&self, at: usize) -> Option<&str> {
        core::str::from_utf8(self.text(self.slot(at)?)).ok()
    }

    /// Sets the topic with this number; false if there is not so much memory.
    pub(crate) fn set(&mut self, at: usize, topic: &str) -> bool {
        if self.slot(at).is_some_and(|slot| self.text(slot) == topic.as_bytes()) {
            return true;
        }
        let (Ok(len), Ok(owner)) = (u16::try_from(topic.len()), u16::try_from(at)) else {
            return false;
        };
        if !self.slots.grow_to(at + 1) {
            return false;
        }
        if let Some(slot) = self.slots.items_mut().get_mut(at) {
            slot.len = 0;
        }
        let need = HEADER + topic.len();
        if self.end + need > self.bytes.len() && !self.make_room(need) {
            return false;
        }
        let start = self.end + HEADER;
        let header = u32::from(owner) << 16 | u32::from(len);
        self.write(self.end, &header.to_le_bytes());
        self.write(start, topic.as_bytes());
        self.end += need;
        self.used = self.used.max(at + 1);
        if let Some(slot) = self.slots.items_mut().get_mut(at) {
            *slot = AliasSlot { start: start as u32, len, ..*slot };
        }
        true
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.items_mut().get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn make_room(&mut self, need: usize) -> bool {
        self.compact();
        let wanted = self.end + need;
        // Half of it free: then moving things together pays off.
        let roomy = wanted + self.end;
        self.bytes.len() >= roomy || self.bytes.grow_to(roomy) || self.bytes.grow_to(wanted)
    }

    /// Moves the blocks together whose slots still point at them.
    fn compact(&mut self) {
        let (slots, bytes) = (self.slots.items_mut(), self.bytes.items_mut());
        let (mut from, mut to) = (0, 0);
        while from < self.end {
            let Some(header) = bytes.get(from..).and_then(|bytes| bytes.first_chunk()) else {
                break;
            };
            let header = u32::from_le_bytes(*header);
            let block = HEADER + (header & 0xffff) as usize;
            let slot = slots.get_mut((header >> 16) as usize);
            if let Some(slot) = slot
                && slot.len > 0
                && slot.start as usize == from + HEADER
            {
                bytes.copy_within(from..from + block, to);
                slot.start = (to + HEADER) as u32;
                to += block;
            }
            from += block;
        }
        self.end = to;
    }
}

/// An alias costs three bytes, so shorter topics gain nothing.
const SHORTEST: usize = 4;
/// More aliases than this are not used, so that finding one stays cheap.
pub(crate) const MOST: u16 = 64;

/// How to send a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alias {
    /// As it is.
    None,
    /// The topic and this new alias for it.
    New(u16),
    /// This alias alone.
    Known(u16),
}

/// Aliases given by use: a topic gets a free alias at once; when all are taken, one that comes a
/// second time replaces the one unused for longest.
pub(crate) struct OutgoingAliases<'m> {
    pub(crate) topics: Topics<'m>,
    /// What the application and the server allow.
    pub(crate) maximum: u16,
    clock: u32,
    /// Hashes of topics that came once since all aliases were taken.
    seen_once: [u32; 8],
}

impl<'m> OutgoingAliases<'m> {
    pub(crate) const fn new(topics: Topics<'m>) -> OutgoingAliases<'m> {
        OutgoingAliases { topics, maximum: 0, clock: 0, seen_once: [0; 8] }
    }

    /// Begins anew, with as many aliases.
    pub(crate) fn restart(&mut self, maximum: u16) {
        if self.topics.used > 0 {
            self.topics.clear();
        }
        self.maximum = maximum.min(MOST).min(self.topics.max());
        self.seen_once = [0; 8];
    }

    /// The answer counts as sent.
    pub(crate) fn choose(&mut self, topic: &str) -> Alias {
        if self.maximum == 0 || topic.len() < SHORTEST {
            return Alias::None;
        }
        self.clock = self.clock.wrapping_add(1);
        let hash = hash(topic);
        if let Some(at) = self.find(topic, hash) {
            self.touch(at, hash);
            return Alias::Known(at as u16 + 1);
        }
        let at = if self.topics.used < usize::from(self.maximum) {
            self.topics.used
        } else {
            let Some(seen) = self.seen_once.get_mut(hash as usize % 8) else { return Alias::None };
            if core::mem::replace(seen, hash) != hash {
                return Alias::None;
            }
            self.oldest()
        };
        if !self.topics.set(at, topic) {
            return Alias::None;
        }
        self.touch(at, hash);
        Alias::New(at as u16 + 1)
    }

    fn find(&self, topic: &str, hash: u32) -> Option<usize> {
        let slots = self.topics.slots.items().iter().take(self.topics.used);
        let is = |slot: &AliasSlot| {
            slot.hash == hash && slot.len > 0 && self.topics.text(slot) == topic.as_bytes()
        };
        slots.enumerate().find(|(_, slot)| is(slot)).map(|(at, _)| at)
    }

    fn oldest(&self) -> usize {
        let slots = self.topics.slots.items().iter().take(self.topics.used).enumerate();
        let age = |slot: &AliasSlot| (slot.len == 0, self.clock.wrapping_sub(slot.last_used));
        slots.max_by_key(|(_, slot)| age(slot)).map_or(0, |(at, _)| at)
    }

    fn touch(&mut self, at: usize, hash: u32) {
        if let Some(slot) = self.topics.slots.items_mut().get_mut(at) {
            *slot = AliasSlot { hash, last_used: self.clock, ..*slot };
        }
    }
}

/// FNV-1a. A collision costs nothing but a comparison.
fn hash(topic: &str) -> u32 {
    topic.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
