//! Clients of `client-core`: their driver, and what they must do, seen from both sides of them.

use whimbrel_client_core as core;
use whimbrel_codec::{Connect, Disconnect, Frame, Packet, QoS, ReasonCode, Version};

use super::World;
use super::receive::Place;
use crate::client::{Got, Outgoing, Serial, packet_id};
use crate::real::{Real, Told, with_publish};
use crate::{Mutation, note};

impl World {
    pub(super) fn is_real(&self, c: usize) -> bool {
        self.clients[c].habits.ways.is_some()
    }

    fn millis(&self) -> core::Millis {
        core::Millis(self.now_ms)
    }

    /// The process runs, from the beginning or on.
    pub(super) fn real_connect(&mut self, c: usize, connect: &Connect<'_>) {
        let Some(ways) = self.clients[c].habits.ways else { return };
        let now = self.millis();
        if self.clients[c].real.is_none() {
            let (bytes, mutation) = (self.plan.max_payload_bytes, self.options.mutation);
            match Real::start(&self.clients[c], ways, &self.check, bytes, mutation) {
                Ok(real) => self.clients[c].real = Some(real),
                Err(error) => return self.real_fails(c, &format!("cannot go on: {error}")),
            }
        }
        let Some(real) = &mut self.clients[c].real else { return };
        real.waiting.clear();
        if let Err(error) = real.client.connect(now, connect) {
            return self.real_fails(c, &format!("cannot connect: {error}"));
        }
        self.pump(c);
    }

    fn real_fails(&mut self, c: usize, what: &str) {
        let what = format!("{} {what}", self.clients[c].name);
        self.check.fail(2, what);
    }

    /// The process ends without a word.
    pub(super) fn crash_client(&mut self, c: usize) {
        note!(self.trace, self.now_ms, "{} crashes", self.clients[c].name);
        self.cut(c);
        let client = &mut self.clients[c];
        client.real = None;
        client.must_clean |= client.habits.ways.is_some_and(|ways| !ways.keeps_record);
    }

    /// What the client wants to send is on its way. Everything before it is written down, as all
    /// events are drained.
    pub(super) fn pump(&mut self, c: usize) {
        let now = self.millis();
        while let Some(real) = &mut self.clients[c].real
            && let Some(bytes) = real.client.poll_transmit()
        {
            let mut bytes = bytes.to_vec();
            real.client.handle_transmitted(now, bytes.len());
            if self.options.mutation == Some(Mutation::SendWithoutDup) && bytes[0] >> 4 == 3 {
                bytes[0] &= !8;
            }
            self.look_at_sent(c, &bytes);
            let link = self.clients[c].connection.as_ref().map(|connection| connection.link);
            if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
                link.up.extend(bytes);
                self.operations += 1;
            }
        }
    }

    /// What a client sends as a server must see it.
    fn look_at_sent(&mut self, c: usize, bytes: &[u8]) {
        let (version, mut rest) = (self.clients[c].habits.version, bytes);
        while let Ok(Some(frame)) = Frame::parse(rest, u32::MAX) {
            match Packet::decode(version, &frame, rest) {
                Ok(packet) => self.sent(c, &packet),
                Err(error) => return self.real_fails(c, &format!("sends no packet: {error}")),
            }
            rest = rest.get(frame.packet_len()..).unwrap_or_default();
        }
    }

    fn sent(&mut self, c: usize, packet: &Packet<'_>) {
        let name = &self.clients[c].name;
        note!(self.trace, self.now_ms, "{name} sends {packet:?}");
        match packet {
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                self.check.finished(c, ack.packet_id.get());
            }
            Packet::Publish(publish) => {
                let Some(id) = publish.packet_id else { return };
                let mut flights = self.clients[c].outgoing.iter_mut();
                let found = flights.find(|outgoing| outgoing.id == id.get());
                let Some(outgoing) = found.filter(|outgoing| !outgoing.released) else {
                    let what = format!("sends {id:?}, which is not to be sent (again)");
                    return self.real_fails(c, &what);
                };
                let before = std::mem::replace(&mut outgoing.sent, true);
                let serial = outgoing.serial;
                // [MQTT-3.3.1-1]
                if before && !publish.dup {
                    return self.real_fails(c, &format!("repeats {id:?} without DUP"));
                }
                if publish.dup {
                    self.check.publish_sent(serial, true);
                }
            }
            _ => {}
        }
    }

    /// Publishes; nothing happens if the client has no room.
    pub(super) fn real_publish(&mut self, c: usize, serial: Serial) {
        let bytes = self.plan.max_payload_bytes;
        let Some(real) = &mut self.clients[c].real else { return };
        let published = with_publish(&self.check, serial, bytes, |p| real.client.publish(p));
        let Ok(id) = published else { return };
        if let Some(id) = id {
            let (id, released, sent) = (id.get(), false, false);
            self.clients[c].outgoing.push(Outgoing { id, serial, released, sent });
        }
        self.check.publish_sent(serial, false);
        let (name, what) = (&self.clients[c].name, self.check.say(serial));
        note!(self.trace, self.now_ms, "{name} publishes {id:?}: {what}");
        if self.check.message(serial).qos == QoS::AtMostOnce {
            self.pump(c);
        }
    }

    /// A packet of the broker comes to the client, perhaps in two pieces.
    pub(super) fn real_got(&mut self, place: Place, mut got: Got, bytes: &[u8]) {
        let (c, now) = (place.c, self.millis());
        if let (Got::Publish(d), Some(connection)) = (&mut got, &mut self.clients[c].connection) {
            connection.resolve(d);
        }
        let expected = Told::by(&self.clients[c], &got);
        if self.clients[c].real.as_ref().is_some_and(|real| !real.client.wants_bytes()) {
            self.pump(c);
        }
        let torn = self.rng.index(bytes.len() + 1);
        let Some(real) = &mut self.clients[c].real else { return };
        let mut told = Vec::new();
        for piece in [&bytes[..torn], &bytes[torn..]] {
            real.client.handle_bytes(now, piece);
            while let Some(event) = real.client.poll_event() {
                told.push(Told::of(&event));
            }
        }
        if expected == Told::Nothing && told.is_empty() {
            told.push(Told::Nothing);
        }
        if told != [expected] {
            let what = format!("got {got:?} and told {told:?}");
            return self.real_fails(c, &what);
        }
        self.got(place, got);
        let client = &self.clients[c];
        let (kept, known) = (client.outgoing.len(), client.real.as_ref());
        let known = known.filter(|real| real.client.is_connected());
        if let Some(in_flight) = known.map(|real| real.client.in_flight())
            && in_flight != kept
        {
            let what = format!("{} has {in_flight} in flight, of {kept}", self.clients[c].name);
            self.check.fail(1, what);
        }
    }

    /// The application acknowledges, and what waits is sent, or not yet.
    pub(super) fn real_answer(&mut self, c: usize) {
        while self.calm || !self.rng.one_in(3) {
            let Some(real) = &mut self.clients[c].real else { return };
            if real.waiting.is_empty() {
                break;
            }
            let delivered = real.waiting.swap_remove(self.rng.index(real.waiting.len()));
            let acked = real.client.acknowledge(packet_id(delivered.id), ReasonCode::Success);
            if let Err(error) = acked {
                return self.real_fails(c, &format!("cannot acknowledge {delivered:?}: {error}"));
            }
            if delivered.qos == QoS::ExactlyOnce {
                let client = &mut self.clients[c];
                client.seen.remove(&delivered.id);
                client.received.insert(delivered.id, delivered.serial);
            }
        }
        if self.calm || !self.rng.one_in(3) {
            self.pump(c);
        }
    }

    pub(super) fn real_disconnect(&mut self, c: usize, disconnect: &Disconnect<'_>) {
        self.pump(c);
        let Some(real) = &mut self.clients[c].real else { return };
        if real.client.is_connected()
            && let Err(error) = real.client.disconnect(disconnect)
        {
            return self.real_fails(c, &format!("cannot disconnect: {error}"));
        }
        self.pump(c);
    }

    /// Whether memory may be lent: an older broker cannot be told how much there is.
    pub(super) fn may_lend(version: Version) -> bool {
        version.is_v5()
    }
}
