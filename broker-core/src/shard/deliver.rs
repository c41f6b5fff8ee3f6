//! A message to one session: sent at once, or queued.

use whimbrel_codec::{PacketId, QoS};
use whimbrel_protocol::InFlight;

use super::Shard;
use crate::encode::Envelope;
use crate::message::Publication;
use crate::session::{Delivery, NO_GROUP};
use crate::stats::Count;
use crate::{ConnId, Millis};

impl Shard {
    /// Delivers a message to a session, with the QoS that results. False if it was refused for
    /// want of room and the publisher should know.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        slot: u32,
        qos: QoS,
        retain: bool,
        ids: &[u32],
        group: u32,
        p: &mut Publication<'_>,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return true };
        let Some(id) = session.conn else {
            return qos == QoS::AtMostOnce || self.enqueue(slot, qos, retain, ids, group, p);
        };
        if qos == QoS::AtMostOnce {
            self.send_qos0(id, retain, ids, p);
            return true;
        }
        let Some(conn) = self.conns.get(id.0 as usize) else { return true };
        let outbound = session.outbound.get_or_insert_default();
        if !outbound.queue.is_empty()
            || !outbound.in_flight.has_room(conn.receive_maximum)
            || conn.output.len() > self.config.max_output_bytes as usize
        {
            return self.enqueue(slot, qos, retain, ids, group, p);
        }
        // Nothing is repeated to a session that ends with its connection, so its body is not kept;
        // unless another member of the group may have to get it.
        let keeps = session.expiry_s > 0 || group != NO_GROUP;
        let message = keeps.then(|| p.keep(&self.shared.account, &mut self.encoder.body));
        let delivery = Delivery::new(message, qos, retain, ids, group);
        let packet_id = outbound.in_flight.begin(qos, delivery);
        let envelope = Envelope { qos, retain, dup: false, packet_id: Some(packet_id), ids };
        if !self.send(id, p, &envelope) {
            self.forget(slot, packet_id);
        }
        true
    }

    fn send_qos0(&mut self, id: ConnId, retain: bool, ids: &[u32], p: &mut Publication<'_>) {
        let Some(conn) = self.conns.get(id.0 as usize) else { return };
        let most = if self.pressure { 64 * 1024 } else { self.config.max_output_bytes };
        if conn.output.len() > most as usize {
            self.count(Count::Dropped, 1);
            return;
        }
        let qos = QoS::AtMostOnce;
        self.send(id, p, &Envelope { qos, retain, dup: false, packet_id: None, ids });
    }

    /// False if the packet is larger than the client accepts: the message is dropped as if it had
    /// been delivered `[MQTT-3.1.2-25]`.
    fn send(&mut self, id: ConnId, p: &Publication<'_>, envelope: &Envelope<'_>) -> bool {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return true };
        let held = conn.output.held();
        match self.encoder.send(self.now, conn, &mut self.pool, p, envelope) {
            Ok(()) => {
                self.buffered += conn.output.held() - held;
                if !std::mem::replace(&mut conn.dirty, true) {
                    self.dirty.push(id);
                }
                self.count(Count::PublishesSent, 1);
                true
            }
            Err(_) => {
                self.count(Count::Dropped, 1);
                false
            }
        }
    }

    /// A delivery that was begun and could not be sent.
    fn forget(&mut self, slot: u32, packet_id: PacketId) {
        if let Some(session) = self.sessions.get_mut(slot as usize)
            && let Some(outbound) = &mut session.outbound
            && outbound.in_flight.puback(packet_id).is_none()
        {
            outbound.in_flight.pubrec_error(packet_id);
        }
    }

    /// A full queue drops the message: one session's neglect is no matter of the publisher's. Only
    /// where the whole broker is short of memory is that told, by false.
    fn enqueue(
        &mut self,
        slot: u32,
        qos: QoS,
        retain: bool,
        ids: &[u32],
        group: u32,
        p: &mut Publication<'_>,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return true };
        let outbound = session.outbound.get_or_insert_default();
        if self.pressure
            || outbound.queue.len() >= self.config.max_queued_messages as usize
            || outbound.queued_bytes + p.payload.len() as u64 > self.config.max_queued_bytes
        {
            self.count(Count::Dropped, 1);
            return !self.pressure;
        }
        let message = p.keep(&self.shared.account, &mut self.encoder.body);
        outbound.push(Delivery::new(Some(message), qos, retain, ids, group));
        self.count(Count::Queued, 1);
        true
    }

    /// Sends what waits in the session's queue, as far as the client's receive maximum and the
    /// output allow.
    pub(super) fn pump(&mut self, slot: u32) {
        loop {
            let Some(session) = self.sessions.get_mut(slot as usize) else { return };
            let (Some(id), Some(outbound)) = (session.conn, &mut session.outbound) else { return };
            let Some(conn) = self.conns.get(id.0 as usize) else { return };
            if outbound.queue.is_empty()
                || !outbound.in_flight.has_room(conn.receive_maximum)
                || conn.output.len() > self.config.max_output_bytes as usize / 4
            {
                return;
            }
            let Some(delivery) = outbound.pop() else { return };
            let expires = delivery.message.as_ref().map_or(Millis::NEVER, |m| m.expires());
            let begun =
                (expires > self.now).then(|| outbound.in_flight.begin(delivery.qos, delivery));
            self.shared.stats.sub(self.id.0, Count::Queued, 1);
            match begun {
                Some(packet_id) => {
                    self.send_in_flight(slot, packet_id, false);
                }
                // [MQTT-3.3.2-5]
                None => self.count(Count::Dropped, 1),
            }
        }
    }

    /// Sends a delivery that is in flight, for the first time or again. False if there is nothing
    /// to send, or the packet is larger than the client accepts: that delivery is over.
    pub(super) fn send_in_flight(&mut self, slot: u32, packet_id: PacketId, dup: bool) -> bool {
        let Some(session) = self.sessions.get(slot as usize) else { return false };
        let (Some(id), Some(outbound)) = (session.conn, &session.outbound) else { return false };
        let Some(InFlight::Published(delivery) | InFlight::PublishedOnce(delivery)) =
            outbound.in_flight.get(packet_id)
        else {
            return false;
        };
        let Some(message) = &delivery.message else { return false };
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return false };
        self.encoder.next_publication(1);
        let envelope = Envelope {
            qos: delivery.qos,
            retain: delivery.retain,
            dup,
            packet_id: Some(packet_id),
            ids: delivery.ids(),
        };
        let p = message.publication();
        let held = conn.output.held();
        match self.encoder.send(self.now, conn, &mut self.pool, &p, &envelope) {
            Ok(()) => {
                self.buffered += conn.output.held() - held;
                self.count(Count::PublishesSent, 1);
                self.mark_dirty(id);
                true
            }
            Err(_) => {
                drop(p);
                self.count(Count::Dropped, 1);
                self.forget(slot, packet_id);
                false
            }
        }
    }
}
