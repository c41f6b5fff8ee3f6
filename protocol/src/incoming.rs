//! The receiver's side of QoS 2 (section 4.3.3).

use alloc::collections::VecDeque;

use whimbrel_codec::PacketId;

/// Packet identifiers of QoS 2 messages that were received and not yet released.
///
/// Invariant: sorted. Senders count upwards, so new ones come at the back and old ones leave at the
/// front; both cost nothing there.
#[derive(Debug, Default)]
pub struct IncomingIds {
    ids: VecDeque<u16>,
}

impl IncomingIds {
    /// None received.
    pub const fn new() -> IncomingIds {
        IncomingIds { ids: VecDeque::new() }
    }

    /// True if `id` is new: the message is to be passed on. False for a repetition
    /// `[MQTT-4.3.3-10]`.
    pub fn receive(&mut self, id: PacketId) -> bool {
        let id = id.get();
        if self.ids.back().is_none_or(|&last| last < id) {
            self.ids.push_back(id);
            return true;
        }
        match self.ids.binary_search(&id) {
            Ok(_) => false,
            Err(at) => {
                self.ids.insert(at, id);
                true
            }
        }
    }

    /// True if `id` was there: PUBREL has come `[MQTT-4.3.3-11]`.
    pub fn release(&mut self, id: PacketId) -> bool {
        let id = id.get();
        if self.ids.front() == Some(&id) {
            self.ids.pop_front();
            return true;
        }
        match self.ids.binary_search(&id) {
            Ok(at) => {
                self.ids.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// True if `id` was received and not yet released.
    pub fn contains(&self, id: PacketId) -> bool {
        self.ids.binary_search(&id.get()).is_ok()
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
        self.ids.iter().filter_map(|&id| PacketId::new(id))
    }
}
