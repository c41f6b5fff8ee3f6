//! The sender's side of QoS 1 and 2 (sections 4.3.2 and 4.3.3), with its packet identifiers.

use core::marker::PhantomData;

use whimbrel_codec::{PacketId, QoS};

use crate::Ring;

/// The most identifiers between the oldest unfinished delivery and the next one. A peer that
/// never finishes one delivery and all others would otherwise make the ring grow to 65,535.
pub const MAX_SPAN: usize = 16_384;

/// A delivery that has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub struct OutgoingIn<T, R> {
    ring: R,
    /// Identifier of the ring's front; of the next delivery when the ring is empty.
    front: PacketId,
    in_flight: u16,
    of: PhantomData<T>,
}

/// Deliveries in flight in a queue that grows.
#[cfg(feature = "alloc")]
pub type Outgoing<T> = OutgoingIn<T, alloc::collections::VecDeque<Option<InFlight<T>>>>;

impl<T, R: Default> Default for OutgoingIn<T, R> {
    fn default() -> Self {
        OutgoingIn::new(R::default())
    }
}

impl<T, R> OutgoingIn<T, R> {
    /// Nothing in flight, and the first identifier comes next. `ring` is empty.
    pub const fn new(ring: R) -> OutgoingIn<T, R> {
        OutgoingIn { ring, front: PacketId::MIN, in_flight: 0, of: PhantomData }
    }
}

impl<T, R: Ring<Option<InFlight<T>>>> OutgoingIn<T, R> {
    /// How many deliveries are in flight.
    pub const fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Identifiers from the oldest delivery in flight to the newest, both included.
    pub fn span(&self) -> usize {
        self.ring.len()
    }

    /// Whether one more may begin under the peer's receive maximum `[MQTT-3.3.4-9]`.
    pub fn has_room(&self, receive_maximum: u16) -> bool {
        self.in_flight < receive_maximum && self.ring.len() < MAX_SPAN && self.ring.has_room()
    }

    /// The identifier that [`OutgoingIn::begin`] will give.
    pub fn next_id(&self) -> PacketId {
        id_at(self.front, self.ring.len())
    }

    /// Begins a delivery and gives its identifier. `qos` is 1 or 2. The caller has asked
    /// [`OutgoingIn::has_room`].
    pub fn begin(&mut self, qos: QoS, delivery: T) -> PacketId {
        debug_assert!(qos != QoS::AtMostOnce && self.ring.len() < usize::from(u16::MAX));
        let id = self.next_id();
        let begun = self.ring.push_back(Some(if qos == QoS::ExactlyOnce {
            InFlight::PublishedOnce(delivery)
        } else {
            InFlight::Published(delivery)
        }));
        debug_assert!(begun);
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
        if place < self.ring.len() || place >= usize::from(u16::MAX) {
            return false;
        }
        let before = self.ring.len();
        let gap = (before..place).all(|_| self.ring.push_back(None));
        if gap && self.ring.push_back(Some(delivery)) {
            self.in_flight += 1;
            return true;
        }
        while self.ring.len() > before {
            self.ring.remove(self.ring.len() - 1);
        }
        false
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
        (0..self.ring.len()).filter_map(|at| self.at(at))
    }

    /// The delivery that is `place` identifiers behind the oldest one, if it is in flight.
    pub fn at(&self, place: usize) -> Option<(PacketId, &InFlight<T>)> {
        Some((id_at(self.front, place), self.ring.get(place)?.as_ref()?))
    }

    /// As [`OutgoingIn::iter`], to change what is kept of them.
    pub fn iter_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut InFlight<T>>
    where
        T: 'a,
    {
        self.ring.iter_mut().flatten()
    }

    /// Ends all deliveries. Identifiers go on where they were.
    pub fn clear(&mut self) {
        self.front = self.next_id();
        self.ring.clear();
        self.in_flight = 0;
    }

    /// Ends the deliveries for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&InFlight<T>) -> bool) {
        for slot in self.ring.iter_mut() {
            if slot.as_ref().is_some_and(|delivery| !keep(delivery)) {
                *slot = None;
                self.in_flight -= 1;
            }
        }
        self.trim();
    }

    /// Takes the deliveries for which `give_up` says so, oldest first.
    #[cfg(feature = "alloc")]
    pub fn extract<'a>(
        &'a mut self,
        mut give_up: impl FnMut(&InFlight<T>) -> bool + 'a,
    ) -> alloc::vec::Vec<InFlight<T>> {
        let mut taken = alloc::vec::Vec::new();
        for slot in self.ring.iter_mut() {
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
        self.ring.shrink();
    }

    /// How many identifiers `id` is behind the oldest one in flight.
    pub fn place(&self, id: PacketId) -> usize {
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
        while let Some(None) = self.ring.get(0) {
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
