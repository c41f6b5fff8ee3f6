//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7, flows of section 4.3).

use whimbrel_codec::{Ack, Packet, PacketId, ReasonCode};
use whimbrel_store::Record;

use super::Shard;
use crate::ConnId;

impl Shard {
    pub(super) fn puback(&mut self, id: ConnId, ack: &Ack<'_>) {
        let Some((slot, session)) = self.session_of(id) else { return };
        let Some(outbound) = &mut session.outbound else { return };
        if outbound.in_flight.puback(ack.packet_id).is_some() {
            self.record_acknowledged(slot, ack.packet_id);
            self.delivered(slot, ack.packet_id);
        }
    }

    pub(super) fn pubrec(&mut self, id: ConnId, ack: &Ack<'_>) {
        let Some((slot, session)) = self.session_of(id) else { return };
        let in_flight = session.outbound.as_mut().map(|outbound| &mut outbound.in_flight);
        if ack.reason.is_error() {
            // [MQTT-4.3.3-4] The client has refused the message: the flow ends here.
            if in_flight.is_some_and(|f| f.pubrec_error(ack.packet_id).is_some()) {
                self.record_acknowledged(slot, ack.packet_id);
                self.delivered(slot, ack.packet_id);
            }
            return;
        }
        let pubrec = in_flight.and_then(|f| f.pubrec(ack.packet_id));
        let known = pubrec.is_some();
        if self.durable.on && matches!(pubrec, Some(Some(_))) {
            self.record_of(slot, |key| Record::Released { key, packet_id: ack.packet_id });
        }
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdNotFound };
        self.answer(id, ack.packet_id, reason, Packet::PubRel);
    }

    pub(super) fn pubrel(&mut self, id: ConnId, ack: &Ack<'_>) {
        let Some((slot, session)) = self.session_of(id) else { return };
        let known =
            session.incoming.as_mut().is_some_and(|incoming| incoming.release(ack.packet_id));
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdNotFound };
        if self.durable.on && known {
            self.record_of(slot, |key| Record::ReceivedReleased { key, packet_id: ack.packet_id });
        }
        // [MQTT-4.3.3-11]
        self.answer(id, ack.packet_id, reason, Packet::PubComp);
    }

    pub(super) fn pubcomp(&mut self, id: ConnId, ack: &Ack<'_>) {
        let Some((slot, session)) = self.session_of(id) else { return };
        let Some(outbound) = &mut session.outbound else { return };
        if outbound.in_flight.pubcomp(ack.packet_id) {
            self.record_acknowledged(slot, ack.packet_id);
            self.delivered(slot, ack.packet_id);
        }
    }

    #[inline]
    pub(super) fn record_acknowledged(&mut self, slot: u32, packet_id: PacketId) {
        if self.durable.on && self.sessions.get(slot as usize).is_some_and(|s| s.durable) {
            self.record_of(slot, |key| Record::Acknowledged { key, packet_id });
        }
    }

    /// A delivery has ended: there is room for another.
    #[inline]
    fn delivered(&mut self, slot: u32, packet_id: PacketId) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        let Some(outbound) = &mut session.outbound else { return };
        if !outbound.to_repeat.is_empty() {
            // One that was acknowledged before it was repeated was not in flight on this
            // connection, so it makes no room.
            match outbound.to_repeat.iter().position(|&id| id == packet_id) {
                Some(at) => drop(outbound.to_repeat.remove(at)),
                None => self.repeat(slot, 1),
            }
            self.pump(slot);
        } else if outbound.waiting() > 0 {
            self.pump(slot);
        }
        // Retained messages wait for room in the queue.
        if let Some(id) = self.sessions.get(slot as usize).and_then(|session| session.conn)
            && self.conn(id).is_some_and(|conn| conn.extra.is_some())
        {
            self.send_retained(id);
        }
    }

    fn answer<'a>(
        &mut self,
        id: ConnId,
        packet_id: PacketId,
        reason: ReasonCode,
        packet: impl Fn(Ack<'a>) -> Packet<'a>,
    ) {
        self.reply_when_durable(id, &packet(Ack { reason, ..Ack::new(packet_id) }));
    }

    /// An acknowledgement without properties, which fits any client, is written straight away.
    #[inline]
    pub(super) fn reply_ack(&mut self, id: ConnId, packet: &Packet<'_>) {
        let Some((first, ack)) = plain(packet) else { return self.reply(id, packet) };
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        let buf = conn.output.buf(&mut self.pool);
        let [high, low] = ack.packet_id.get().to_be_bytes();
        let n = if ack.reason == ReasonCode::Success || !conn.version.is_v5() {
            buf.extend_from_slice(&[first, 2, high, low]);
            4
        } else {
            buf.extend_from_slice(&[first, 3, high, low, ack.reason as u8]);
            5
        };
        conn.output.appended(n);
        self.buffered += n;
        if !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push(id);
        }
    }
}

/// An acknowledgement without properties, and its first byte.
#[inline]
pub(super) fn plain<'a, 'p>(packet: &'a Packet<'p>) -> Option<(u8, &'a Ack<'p>)> {
    let (first, ack) = match packet {
        Packet::PubAck(ack) => (0x40, ack),
        Packet::PubRec(ack) => (0x50, ack),
        Packet::PubRel(ack) => (0x62, ack),
        Packet::PubComp(ack) => (0x70, ack),
        _ => return None,
    };
    ack.properties.is_empty().then_some((first, ack))
}

/// Its bytes, and how many they are.
#[inline]
pub(super) fn bytes(first: u8, ack: &Ack<'_>, v5: bool) -> (u8, [u8; 5]) {
    let [high, low] = ack.packet_id.get().to_be_bytes();
    match ack.reason {
        ReasonCode::Success => (4, [first, 2, high, low, 0]),
        _ if !v5 => (4, [first, 2, high, low, 0]),
        reason => (5, [first, 3, high, low, reason as u8]),
    }
}
