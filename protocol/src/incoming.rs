//! The receiver's side of QoS 2 (section 4.3.3).

use whimbrel_codec::PacketId;

use crate::Ring;

/// Packet identifiers of QoS 2 messages that were received and not yet released.
///
/// Invariant: sorted. Senders count upwards, so new ones come at the back and old ones leave at the
/// front; both cost nothing there.
#[derive(Debug, Default)]
pub struct IncomingIdsIn<R> {
    ids: R,
}

/// Identifiers in a queue that grows.
#[cfg(feature = "alloc")]
pub type IncomingIds = IncomingIdsIn<alloc::collections::VecDeque<u16>>;

impl<R> IncomingIdsIn<R> {
    /// None received. `ring` is empty.
    pub const fn new(ring: R) -> IncomingIdsIn<R> {
        IncomingIdsIn { ids: ring }
    }
}

impl<R: Ring<u16>> IncomingIdsIn<R> {
    /// True if `id` is new: the message is to be passed on. False for a repetition
    /// `[MQTT-4.3.3-10]`. The caller has asked [`IncomingIdsIn::has_room`].
    pub fn receive(&mut self, id: PacketId) -> bool {
        let id = id.get();
        let len = self.ids.len();
        if len == 0 || self.ids.get(len - 1).is_none_or(|&last| last < id) {
            return self.ids.push_back(id);
        }
        match self.search(id) {
            Ok(_) => false,
            Err(at) => self.ids.insert(at, id),
        }
    }

    /// True if `id` was there: PUBREL has come `[MQTT-4.3.3-11]`.
    pub fn release(&mut self, id: PacketId) -> bool {
        let id = id.get();
        if self.ids.get(0) == Some(&id) {
            self.ids.pop_front();
            return true;
        }
        match self.search(id) {
            Ok(at) => self.ids.remove(at).is_some(),
            Err(_) => false,
        }
    }

    /// Whether there is memory for one more.
    pub fn has_room(&self) -> bool {
        self.ids.has_room()
    }

    /// True if `id` was received and not yet released.
    pub fn contains(&self, id: PacketId) -> bool {
        let len = self.ids.len();
        len > 0
            && self.ids.get(len - 1).is_some_and(|&last| id.get() <= last)
            && self.search(id.get()).is_ok()
    }

    /// How many wait for their PUBREL.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PacketId> + '_ {
        (0..self.ids.len()).filter_map(|at| self.ids.get(at).copied().and_then(PacketId::new))
    }

    /// Releases all.
    pub fn clear(&mut self) {
        self.ids.clear();
    }

    /// Gives memory back that a burst has left.
    pub fn shrink(&mut self) {
        self.ids.shrink();
    }

    /// Where `id` is, or where it would be.
    fn search(&self, id: u16) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.ids.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.ids.get(middle) {
                Some(&at) if at == id => return Ok(middle),
                Some(&at) if at < id => low = middle + 1,
                _ => high = middle,
            }
        }
        Err(low)
    }
}
