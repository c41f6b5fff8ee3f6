//! The sender's side of QoS 1 and 2 (sections 4.3.2 and 4.3.3), with its packet identifiers.

use alloc::collections::VecDeque;

use whimbrel_codec::{PacketId, QoS};

/// The most identifiers between the oldest unfinished delivery and the next one. A peer that
/// never finishes one delivery and all others would otherwise make the ring grow to 65,535.
const MAX_SPAN: usize = 16_384;

/// A delivery that has begun and not ended.
#[derive(Debug, PartialEq, Eq)]
pub enum InFlight<T> {
    /// QoS 1: sent, waits for PUBACK.
    Published(T),
    /// QoS 2: sent, waits for PUBREC.
    PublishedOnce(T),
    /// QoS 2: PUBREC has come, PUBREL is sent, waits for PUBCOMP.
    Released,
}

/// Deliveries in flight, in the order of sending.
///
/// Invariants: identifiers go up by one with each delivery, so the place of an identifier in the
/// ring is its distance from the front; the front is never empty; no identifier is used twice
/// while in flight `[MQTT-2.2.1-3]`, `[MQTT-2.2.1-4]`.
#[derive(Debug)]
pub struct Outgoing<T> {
    ring: VecDeque<Option<InFlight<T>>>,
    /// Identifier of the ring's front; of the next delivery when the ring is empty.
    front: PacketId,
    in_flight: u16,
}

impl<T> Default for Outgoing<T> {
    fn default() -> Self {
        Outgoing { ring: VecDeque::new(), front: PacketId::MIN, in_flight: 0 }
    }
}

impl<T> Outgoing<T> {
    /// How many deliveries are in flight.
    pub const fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Whether one more may begin under the peer's receive maximum `[MQTT-3.3.4-9]`.
    pub fn has_room(&self, receive_maximum: u16) -> bool {
        self.in_flight < receive_maximum && self.ring.len() < MAX_SPAN
    }

    /// Begins a delivery and gives its identifier. `qos` is 1 or 2. The caller has asked
    /// [`Outgoing::has_room`].
    pub fn begin(&mut self, qos: QoS, delivery: T) -> PacketId {
        debug_assert!(qos != QoS::AtMostOnce && self.ring.len() < usize::from(u16::MAX));
        let id = id_at(self.front, self.ring.len());
        self.ring.push_back(Some(if qos == QoS::ExactlyOnce {
            InFlight::PublishedOnce(delivery)
        } else {
            InFlight::Published(delivery)
        }));
        self.in_flight += 1;
        id
    }

    /// Puts a delivery in flight that was so before a restart, behind those that were put so
    /// already; called in the order of sending. False if that cannot be.
    pub fn restore(&mut self, id: PacketId, delivery: InFlight<T>) -> bool {
        if self.ring.is_empty() {
            self.front = id;
        }
        let place = self.place(id);
        if place < self.ring.len() {
            return false;
        }
        self.ring.resize_with(place, || None);
        self.ring.push_back(Some(delivery));
        self.in_flight += 1;
        true
    }

    /// PUBACK: ends a QoS 1 delivery. None if `id` is not one.
    pub fn puback(&mut self, id: PacketId) -> Option<T> {
        let slot = self.slot(id)?;
        match slot.take() {
            Some(InFlight::Published(delivery)) => {
                self.ended();
                Some(delivery)
            }
            other => {
                *slot = other;
                None
            }
        }
    }

    /// PUBREC with success: the body is no longer needed, PUBREL is due. None if `id` is not a
    /// QoS 2 delivery in flight; `Some(None)` if the PUBREC is a repetition.
    pub fn pubrec(&mut self, id: PacketId) -> Option<Option<T>> {
        let slot = self.slot(id)?;
        match slot.take() {
            Some(InFlight::PublishedOnce(delivery)) => {
                *slot = Some(InFlight::Released);
                Some(Some(delivery))
            }
            Some(InFlight::Released) => {
                *slot = Some(InFlight::Released);
                Some(None)
            }
            other => {
                *slot = other;
                None
            }
        }
    }

    /// PUBREC with an error: ends a QoS 2 delivery `[MQTT-4.3.3-4]`.
    pub fn pubrec_error(&mut self, id: PacketId) -> Option<T> {
        let slot = self.slot(id)?;
        match slot.take() {
            Some(InFlight::PublishedOnce(delivery)) => {
                self.ended();
                Some(delivery)
            }
            other => {
                *slot = other;
                None
            }
        }
    }

    /// PUBCOMP: ends a QoS 2 delivery. False if `id` is not one that was released.
    pub fn pubcomp(&mut self, id: PacketId) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        if !matches!(slot, Some(InFlight::Released)) {
            return false;
        }
        *slot = None;
        self.ended();
        true
    }

    /// The delivery with this identifier.
    pub fn get(&self, id: PacketId) -> Option<&InFlight<T>> {
        self.ring.get(self.place(id))?.as_ref()
    }

    /// What is in flight, oldest first: the order in which a resumed session repeats it
    /// `[MQTT-4.4.0-1]`, `[MQTT-4.6.0-1]`.
    pub fn iter(&self) -> impl Iterator<Item = (PacketId, &InFlight<T>)> {
        let front = self.front;
        self.ring
            .iter()
            .enumerate()
            .filter_map(move |(at, slot)| Some((id_at(front, at), slot.as_ref()?)))
    }

    /// Takes the deliveries for which `give_up` says so, oldest first.
    pub fn extract<'a>(
        &'a mut self,
        mut give_up: impl FnMut(&InFlight<T>) -> bool + 'a,
    ) -> alloc::vec::Vec<InFlight<T>> {
        let mut taken = alloc::vec::Vec::new();
        for slot in &mut self.ring {
            if slot.as_ref().is_some_and(&mut give_up) {
                taken.extend(slot.take());
                self.in_flight -= 1;
            }
        }
        self.trim();
        taken
    }

    /// Gives memory back that a burst has left.
    pub fn shrink(&mut self) {
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        }
    }

    /// Where in the ring the identifier would be.
    fn place(&self, id: PacketId) -> usize {
        let (id, front) = (usize::from(id.get()), usize::from(self.front.get()));
        if id >= front { id - front } else { id + 65_535 - front }
    }

    fn slot(&mut self, id: PacketId) -> Option<&mut Option<InFlight<T>>> {
        let place = self.place(id);
        self.ring.get_mut(place)
    }

    fn ended(&mut self) {
        self.in_flight -= 1;
        self.trim();
    }

    fn trim(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.front = self.front.next();
        }
    }
}

/// The identifier `distance` after `front`, going round past 0.
fn id_at(front: PacketId, distance: usize) -> PacketId {
    let number = (usize::from(front.get()) - 1 + distance) % 65_535 + 1;
    PacketId::new(number as u16).unwrap_or(PacketId::MIN)
}
