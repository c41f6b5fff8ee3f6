//! A message to one session: sent at once, or queued.

use whimbrel_codec::{PacketId, QoS};
use whimbrel_protocol::InFlight;
use whimbrel_store::{Record, SessionKey};

use super::Shard;
use super::shed::Pressure;
use crate::encode::{Envelope, MAX_IDS};
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
        let key = session.durable_key();
        let outbound = session.outbound.get_or_insert_default();
        if outbound.waiting() > 0
            || !outbound.in_flight.has_room(conn.receive_maximum)
            || conn.output.len() > self.config.max_output_bytes as usize
        {
            return self.enqueue(slot, qos, retain, ids, group, p);
        }
        if let Some(key) = key {
            self.deliver_durable(slot, key, qos, retain, ids, group, p);
            return true;
        }
        // Nothing is repeated to a session that ends with its connection, so its body is not kept;
        // unless another member of the group may have to get it.
        let keeps = session.expiry_s > 0 || group != NO_GROUP;
        let (durable, account) = (&mut self.durable, &self.shared.account);
        let body = &mut self.encoder.body;
        let message = keeps.then(|| durable.keep(self.id, p, account, body));
        let delivery = Delivery::new(message, qos, retain, ids, group);
        let packet_id = outbound.in_flight.begin(qos, delivery);
        let envelope = Envelope { qos, retain, dup: false, packet_id: Some(packet_id), ids };
        if !self.send(id, p, &envelope) {
            self.forget(slot, packet_id);
        }
        true
    }

    /// The same for a session whose messages are in the store.
    #[expect(clippy::too_many_arguments, reason = "what makes a delivery, as everywhere here")]
    fn deliver_durable(
        &mut self,
        slot: u32,
        key: SessionKey,
        qos: QoS,
        retain: bool,
        ids: &[u32],
        group: u32,
        p: &mut Publication<'_>,
    ) {
        let stored = self.store(p, None);
        let message = self.keep(p);
        let entry = self.entry(stored, p, qos, retain, ids, group);
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        let Some(id) = session.conn else { return };
        let delivery = Delivery::new(Some(message), qos, retain, ids, group);
        let packet_id = session.outbound().in_flight.begin(qos, delivery);
        self.durable.record(&Record::Delivered { key, packet_id, entry });
        if (qos == QoS::ExactlyOnce || p.waits) && self.waits() {
            self.send_when_durable(slot, packet_id, false);
            return;
        }
        let envelope = Envelope { qos, retain, dup: false, packet_id: Some(packet_id), ids };
        if !self.send(id, p, &envelope) {
            self.forget(slot, packet_id);
        }
    }

    fn send_qos0(&mut self, id: ConnId, retain: bool, ids: &[u32], p: &mut Publication<'_>) {
        let Some(conn) = self.conns.get(id.0 as usize) else { return };
        let most = if self.pressure >= Pressure::SlowReaders {
            64 * 1024
        } else {
            self.config.max_output_bytes
        };
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
    pub(super) fn forget(&mut self, slot: u32, packet_id: PacketId) {
        if let Some(session) = self.sessions.get_mut(slot as usize)
            && let Some(outbound) = &mut session.outbound
        {
            if outbound.in_flight.puback(packet_id).is_none() {
                outbound.in_flight.pubrec_error(packet_id);
            }
            self.record_acknowledged(slot, packet_id);
        }
    }

    /// A full queue drops the message: one session's neglect is no matter of the publisher's. Only
    /// where the whole broker is short of memory is that told, by false.
    pub(super) fn enqueue(
        &mut self,
        slot: u32,
        qos: QoS,
        retain: bool,
        ids: &[u32],
        group: u32,
        p: &mut Publication<'_>,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return true };
        let key = session.durable_key();
        let bounds = session.bounds(&self.config);
        let outbound = session.outbound.get_or_insert_default();
        // What is in the store needs no memory.
        let pressure = self.pressure >= Pressure::Queues && key.is_none();
        if pressure
            || outbound.waiting() >= bounds.max_queued_messages as usize
            || outbound.waiting_bytes() + p.payload.len() as u64 > bounds.max_queued_bytes
            || ids.len() > MAX_IDS
        {
            self.count(Count::Dropped, 1);
            return !pressure;
        }
        if let Some(key) = key {
            self.enqueue_durable(slot, key, qos, retain, ids, group, p);
            return true;
        }
        let (account, body) = (&self.shared.account, &mut self.encoder.body);
        let message = self.durable.keep(self.id, p, account, body);
        outbound.push(Delivery::new(Some(message), qos, retain, ids, group));
        self.count(Count::Queued, 1);
        true
    }

    /// The same for a session whose messages are in the store: beyond its share of memory they are
    /// there only.
    #[expect(clippy::too_many_arguments, reason = "what makes a delivery, as everywhere here")]
    fn enqueue_durable(
        &mut self,
        slot: u32,
        key: SessionKey,
        qos: QoS,
        retain: bool,
        ids: &[u32],
        group: u32,
        p: &mut Publication<'_>,
    ) {
        let stored = self.store(p, None);
        let entry = self.entry(stored, p, qos, retain, ids, group);
        self.count(Count::Queued, 1);
        if self.spills(slot) {
            self.durable.record(&Record::Queued { key, entry: entry.clone() });
            self.spill(slot, entry);
            return self.load(slot);
        }
        self.durable.record(&Record::Queued { key, entry });
        let message = self.keep(p);
        let mut delivery = Delivery::new(Some(message), qos, retain, ids, group);
        delivery.dup = p.dup;
        if let Some(session) = self.sessions.get_mut(slot as usize) {
            session.outbound().push(delivery);
        }
    }

    /// Sends what waits in the session's queue, as far as the client's receive maximum and the
    /// output allow.
    pub(super) fn pump(&mut self, slot: u32) {
        loop {
            let Some(session) = self.sessions.get_mut(slot as usize) else { return };
            let (Some(id), Some(outbound)) = (session.conn, &mut session.outbound) else { return };
            let Some(conn) = self.conns.get(id.0 as usize) else { return };
            if outbound.queue.is_empty() {
                return self.load(slot);
            }
            if !outbound.in_flight.has_room(conn.receive_maximum)
                || conn.output.len() > self.config.max_output_bytes as usize / 4
            {
                return;
            }
            let recheck = conn.recheck;
            let Some(delivery) = outbound.pop() else { return };
            let may = !recheck || self.may_get(id, &delivery);
            let Some(session) = self.sessions.get_mut(slot as usize) else { return };
            let outbound = session.outbound();
            // One that cannot be read any more has no message.
            let expires = delivery.message.as_ref().map_or(Millis(0), |m| m.expires());
            let (qos, dup) = (delivery.qos, delivery.dup);
            let begun = (may && expires > self.now)
                .then(|| outbound.in_flight.begin(delivery.qos, delivery));
            self.shared.stats.sub(self.id.0, Count::Queued, 1);
            if self.durable.on {
                self.record_popped(slot, begun);
            }
            match begun {
                Some(packet_id) if qos == QoS::ExactlyOnce => {
                    self.send_when_durable(slot, packet_id, dup);
                }
                Some(packet_id) => {
                    self.send_in_flight(slot, packet_id, dup);
                }
                // [MQTT-3.3.2-5]
                None => self.count(Count::Dropped, 1),
            }
        }
    }

    /// The oldest of the queue is in flight now, or gone.
    fn record_popped(&mut self, slot: u32, begun: Option<PacketId>) {
        let session = self.sessions.get(slot as usize);
        let Some(key) = session.and_then(|session| session.durable_key()) else { return };
        match begun {
            Some(packet_id) => self.durable.record(&Record::Sent { key, packet_id }),
            None => self.durable.record(&Record::Dropped { key }),
        }
        self.load(slot);
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
