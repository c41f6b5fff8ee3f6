//! What clients do of their own accord.

use whimbrel_client_core::{Client, Error};
use whimbrel_codec::{
    Connect, Disconnect, Filters, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode,
    Subscribe, Subscription, Topics, Unsubscribe, Will,
};

use super::World;
use super::habits::READER;
use crate::check::Message;
use crate::client::{Connection, Outgoing, Request, Serial, Todo, ack, packet_id, payload, write};
use crate::net::Link;
use crate::note;
use crate::real::with_publish;

/// Messages that a client has begun to publish and not finished, at most.
const MAX_OUTGOING: usize = 8;

impl World {
    /// The client does something, or nothing.
    pub(super) fn act(&mut self, c: usize) {
        let Some(connection) = &self.clients[c].connection else {
            if self.clients[c].away_until_ms <= self.now_ms && self.rng.one_in(4) {
                let unwilling = !self.clients[c].habits.clean && self.rng.one_in(12);
                self.connect(c, unwilling);
            }
            return;
        };
        if !connection.accepted {
            // It does not wait for ever.
            if self.rng.one_in(60) {
                self.cut(c);
            }
            return;
        }
        self.answer(c);
        if self.rng.percent(self.clients[c].habits.publish_weight) {
            self.publish(c);
        }
        match self.rng.below(100) {
            0..12 => self.subscribe(c),
            12..13 => self.unsubscribe(c),
            13..15 if self.rng.one_in(3) => self.disconnect(c),
            15 if self.rng.one_in(3) => self.take_over(c),
            16 if c == READER => self.disconnect(c),
            _ => {}
        }
    }

    /// Sends bytes, unless the broker is gone.
    fn put(&mut self, c: usize, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        write(self.clients[c].habits.version, packet, &mut bytes);
        self.put_bytes(c, &bytes);
    }

    fn put_bytes(&mut self, c: usize, bytes: &[u8]) {
        let Some(connection) = &self.clients[c].connection else { return };
        let Some(link) = self.links.get_mut(&connection.link) else { return };
        link.up.extend(bytes);
        self.operations += 1;
    }

    // ---- connections

    /// CONNECT. `clean`: although it need not.
    pub(super) fn connect(&mut self, c: usize, clean: bool) {
        if self.broker.is_none() {
            return;
        }
        let habits = self.clients[c].habits.clone();
        let clean = clean || habits.clean || self.clients[c].must_clean;
        let v5 = habits.version.is_v5();
        // Without properties a session with Clean Session ends with its connection.
        let expiry_s = match (v5, clean) {
            (true, _) if habits.clean => 0,
            (true, _) => habits.expiry_s,
            (false, true) => 0,
            (false, false) => u32::MAX,
        };
        let wants_will = !self.calm && self.rng.percent(habits.will_percent);
        let will = wants_will.then(|| self.will_of(c));
        // A CONNECT that the broker has not seen is not to overtake this one.
        let stale = self.links.values_mut().filter(|link| link.client == c && !link.was_opened);
        for link in stale {
            link.up.clear();
            if let Some(bytes) = &mut link.moved {
                bytes.clear();
            }
        }
        self.last_link += 1;
        let id = self.last_link;
        let shards = self.broker.as_ref().map_or(1, |broker| broker.shards.len());
        self.links.insert(id, Link::new(c, self.rng.index(shards) as u16));
        let client = &mut self.clients[c];
        if clean {
            client.must_clean = true;
            // What it was about to publish is given up.
            client.forget();
        }
        client.connection = Some(Connection::new(id, expiry_s));
        note!(
            self.trace,
            self.now_ms,
            "{} #{id} sends CONNECT, clean {clean}, expiry {expiry_s}, will {will:?}",
            client.name
        );
        self.check.connect_sent(c, id, clean, expiry_s);
        self.check.connect_replaces_will(c, clean);
        let mut list = vec![Property::ReceiveMaximum(habits.receive_maximum)];
        if expiry_s > 0 {
            list.push(Property::SessionExpiryIntervalS(expiry_s));
        }
        if self.is_real(c) {
            list.push(Property::TopicAliasMaximum(8));
        }
        let topic = format!("w/{c}");
        let text = will.map(|(serial, _)| payload(serial, 0)).unwrap_or_default();
        let delay = [Property::WillDelayIntervalS(will.map_or(0, |(_, delay_s)| delay_s))];
        let will_packet = will.map(|(serial, delay_s)| {
            self.check.will_sent(c, id, serial, delay_s);
            let m = self.check.message(serial);
            Will {
                topic: &topic,
                payload: &text,
                qos: m.qos,
                retain: m.retain,
                properties: if v5 { Properties::new(&delay) } else { Properties::NONE },
            }
        });
        let name = self.clients[c].name.clone();
        let connect = Connect {
            clean_start: clean,
            keep_alive_s: 0,
            properties: if v5 { Properties::new(&list) } else { Properties::NONE },
            will: will_packet,
            ..Connect::new(habits.version, &name)
        };
        match self.is_real(c) {
            true => self.real_connect(c, &connect),
            false => self.put(c, &Packet::Connect(connect)),
        }
    }

    fn will_of(&mut self, c: usize) -> (Serial, u32) {
        let v5 = self.clients[c].habits.version.is_v5();
        let qos = *self.rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let mut message = Message::new(c, &format!("w/{c}"), qos);
        message.will = true;
        message.retain = self.rng.one_in(4);
        let delay_s = if v5 { *self.rng.pick(&[0, 0, 1, 5]) } else { 0 };
        (self.check.add(message), delay_s)
    }

    /// A connection whose session ends with it.
    pub(super) fn connect_to_end(&mut self, c: usize) {
        self.clients[c].habits.clean = true;
        self.connect(c, true);
    }

    /// A plain DISCONNECT.
    pub(super) fn say_goodbye(&mut self, c: usize) {
        self.put_disconnect(c, &Disconnect::new(ReasonCode::Success));
        self.connection_lost(c, "says goodbye");
    }

    /// DISCONNECT, of one kind or another, then away for a while.
    fn disconnect(&mut self, c: usize) {
        let v5 = self.clients[c].habits.version.is_v5();
        let Some(connection) = &self.clients[c].connection else { return };
        let (id, expiry_s) = (connection.link, connection.expiry_s);
        let with_will = v5 && self.rng.one_in(4);
        let changed = v5 && expiry_s > 0 && self.rng.one_in(4);
        let new_expiry_s = changed.then(|| *self.rng.pick(&[0, 0, 2, 600]));
        let list: Vec<Property<'_>> =
            new_expiry_s.into_iter().map(Property::SessionExpiryIntervalS).collect();
        let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        let properties = Properties::new(&list);
        let name = &self.clients[c].name;
        note!(
            self.trace,
            self.now_ms,
            "{name} #{id} sends DISCONNECT {reason:?}, expiry {new_expiry_s:?}"
        );
        if !with_will {
            self.check.will_withdrawing(c, id);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.disconnect_expiry_s = new_expiry_s;
        }
        self.put_disconnect(c, &Disconnect { reason, properties });
        if new_expiry_s == Some(0) {
            self.clients[c].forget();
            self.clients[c].must_clean = true;
        }
        self.connection_lost(c, "closes the connection");
        self.go_away(c);
    }

    fn put_disconnect(&mut self, c: usize, disconnect: &Disconnect<'_>) {
        match self.is_real(c) {
            true => self.real_disconnect(c, disconnect),
            false => self.put(c, &Packet::Disconnect(*disconnect)),
        }
    }

    fn go_away(&mut self, c: usize) {
        let ms = match self.rng.below(6) {
            0 => self.rng.between(5_000, 20_000),
            1 => self.rng.between(1000, 5000),
            _ => self.rng.between(0, 300),
        };
        self.clients[c].away_until_ms = self.now_ms + ms;
    }

    /// A second connection while the first one is open; the first is forgotten by the client.
    fn take_over(&mut self, c: usize) {
        let old = self.clients[c].connection.as_ref().map(|connection| connection.link);
        self.connection_lost(c, "is left for another");
        if let Some(link) = old.and_then(|old| self.links.get_mut(&old)) {
            // The broker sees it late or never.
            link.up_ends_after_ms = self.now_ms + self.rng.between(0, 5000);
        }
        self.connect(c, false);
    }

    /// The network connection fails, at any byte in both directions.
    pub(super) fn cut(&mut self, c: usize) {
        let Some(connection) = &mut self.clients[c].connection else { return };
        let id = connection.link;
        let Some(link) = self.links.get_mut(&id) else { return };
        let arrives = self.rng.index(link.up.len() + 1);
        link.up.truncate(arrives);
        if self.rng.one_in(3) {
            link.up_ends_after_ms = self.now_ms + self.rng.between(0, 8000);
        }
        if self.rng.one_in(2) {
            let arrives = self.rng.index(link.down.len() + 1);
            link.down.truncate(arrives);
            connection.inbox.extend(link.down.drain(..));
            self.read_rest(c);
        }
        self.connection_lost(c, "loses the connection");
        self.go_away(c);
    }

    /// What came before the connection failed.
    fn read_rest(&mut self, c: usize) {
        if let Some(connection) = &self.clients[c].connection
            && let Some(link) = self.links.get_mut(&connection.link)
        {
            link.down_stalled_until_ms = 0;
            self.receive(c);
        }
    }

    // ---- publishing

    fn publish(&mut self, c: usize) {
        if self.clients[c].outgoing.len() >= MAX_OUTGOING {
            return;
        }
        let topic = self.rng.pick(&self.clients[c].habits.topics).clone();
        let qos = *self.rng.pick(&[
            QoS::AtMostOnce,
            QoS::AtLeastOnce,
            QoS::AtLeastOnce,
            QoS::ExactlyOnce,
            QoS::ExactlyOnce,
        ]);
        let mut message = Message::new(c, &topic, qos);
        message.retain = topic.starts_with("r/");
        message.empty = message.retain && self.rng.one_in(5);
        let v5 = self.clients[c].habits.version.is_v5();
        if v5 && !message.retain && self.rng.one_in(8) {
            message.expiry_s = Some(*self.rng.pick(&[1, 5, 10_000]));
        }
        let serial = self.check.add(message);
        self.publish_again(c, serial);
    }

    /// Publishes a message, for the first time or with a new identifier.
    pub(super) fn publish_again(&mut self, c: usize, serial: Serial) {
        if self.is_real(c) {
            return self.real_publish(c, serial);
        }
        let id = match self.check.message(serial).qos {
            QoS::AtMostOnce => 0,
            _ => self.clients[c].fresh_id(),
        };
        if id > 0 {
            let (released, sent) = (false, true);
            self.clients[c].outgoing.push(Outgoing { id, serial, released, sent });
        }
        self.put_publish(c, id, serial, false);
    }

    fn put_publish(&mut self, c: usize, id: u16, serial: Serial, dup: bool) {
        self.check.publish_sent(serial, dup);
        let what = self.check.say(serial);
        let name = &self.clients[c].name;
        note!(self.trace, self.now_ms, "{name} sends PUBLISH {id}: {what}, DUP {dup}");
        let (version, mut bytes) = (self.clients[c].habits.version, Vec::new());
        with_publish(&self.check, serial, self.plan.max_payload_bytes, |publish| {
            let packet_id = (publish.qos != QoS::AtMostOnce).then(|| packet_id(id));
            write(version, &Packet::Publish(Publish { dup, packet_id, ..*publish }), &mut bytes);
        });
        self.put_bytes(c, &bytes);
    }

    /// The session goes on: what was not finished is sent again, in order [MQTT-4.4.0-1].
    pub(super) fn resume(&mut self, c: usize) {
        for Outgoing { id, serial, released, .. } in self.clients[c].outgoing.clone() {
            if released {
                self.put(c, &Packet::PubRel(ack(id)));
            } else {
                self.put_publish(c, id, serial, true);
            }
        }
    }

    /// Acknowledges some of what has come, in order.
    pub(super) fn answer(&mut self, c: usize) {
        if self.is_real(c) {
            return self.real_answer(c);
        }
        loop {
            if !self.calm && self.rng.one_in(3) {
                return;
            }
            let Some(connection) = &mut self.clients[c].connection else { return };
            let Some(todo) = connection.todo.pop_front() else { return };
            let name = &self.clients[c].name;
            note!(self.trace, self.now_ms, "{name} sends {todo:?}");
            match todo {
                Todo::PubAck(id) => {
                    self.check.finished(c, id);
                    self.put(c, &Packet::PubAck(ack(id)));
                }
                Todo::PubRec(id) => self.put(c, &Packet::PubRec(ack(id))),
                Todo::PubRel(id) => self.put(c, &Packet::PubRel(ack(id))),
                Todo::PubComp(id, known) => {
                    self.check.finished(c, id);
                    let mut ack = ack(id);
                    if !known && self.clients[c].habits.version.is_v5() {
                        ack.reason = ReasonCode::PacketIdNotFound;
                    }
                    self.put(c, &Packet::PubComp(ack));
                }
            }
        }
    }

    // ---- subscribing

    fn subscribe(&mut self, c: usize) {
        if self.clients[c].habits.filters.is_empty() {
            return;
        }
        let filter = self.rng.pick(&self.clients[c].habits.filters).clone();
        if self.is_requested(c, &filter) {
            return;
        }
        let qos = *self.rng.pick(&[
            QoS::AtMostOnce,
            QoS::AtLeastOnce,
            QoS::ExactlyOnce,
            QoS::ExactlyOnce,
        ]);
        let lossy = self.plan.lossy_groups || !filter.starts_with("$share/");
        let qos = if lossy { qos } else { qos.max(QoS::AtLeastOnce) };
        self.subscribe_to(c, &filter, qos);
    }

    /// An answer about this filter has still to come.
    fn is_requested(&self, c: usize, filter: &str) -> bool {
        let requests = self.clients[c].connection.iter().flat_map(|conn| conn.requests.values());
        requests.into_iter().any(|request| match request {
            Request::Subscribe(of, _) | Request::Unsubscribe(of) => of == filter,
        })
    }

    pub(super) fn subscribe_to(&mut self, c: usize, filter: &str, qos: QoS) {
        let v5 = self.clients[c].habits.version.is_v5();
        let no_local = v5 && filter == "q/+";
        let filters = [Subscription { no_local, ..Subscription::new(filter, qos) }];
        let Some(id) = self.request_id(c, |client| client.subscribe(&filters, Properties::NONE))
        else {
            return;
        };
        let name = &self.clients[c].name;
        note!(self.trace, self.now_ms, "{name} sends SUBSCRIBE {id}: {filter}, {qos:?}");
        self.check.subscribe_sent(c, filter, qos, no_local);
        if let Some(connection) = &mut self.clients[c].connection {
            connection.requests.insert(id, Request::Subscribe(filter.to_owned(), qos));
        }
        if self.is_real(c) {
            return self.pump(c);
        }
        self.put(
            c,
            &Packet::Subscribe(Subscribe {
                packet_id: packet_id(id),
                properties: Properties::NONE,
                filters: Filters::new(&filters),
            }),
        );
    }

    /// The identifier of a request: that of the client of `client-core`, which has sent it, or a
    /// fresh one.
    fn request_id(
        &mut self,
        c: usize,
        send: impl FnOnce(&mut Client<'static>) -> Result<PacketId, Error>,
    ) -> Option<u16> {
        match &mut self.clients[c].real {
            Some(real) => send(&mut real.client).ok().map(PacketId::get),
            None => Some(self.clients[c].fresh_id()),
        }
    }

    fn unsubscribe(&mut self, c: usize) {
        if self.clients[c].habits.filters.is_empty() {
            return;
        }
        let filter = self.rng.pick(&self.clients[c].habits.filters).clone();
        if self.is_requested(c, &filter) {
            return;
        }
        let filters = [filter.as_str()];
        let Some(id) = self.request_id(c, |client| client.unsubscribe(&filters, Properties::NONE))
        else {
            return;
        };
        let name = &self.clients[c].name;
        note!(self.trace, self.now_ms, "{name} sends UNSUBSCRIBE {id}: {filter}");
        self.check.unsubscribe_sent(c, &filter);
        if let Some(connection) = &mut self.clients[c].connection {
            connection.requests.insert(id, Request::Unsubscribe(filter.clone()));
        }
        if self.is_real(c) {
            return self.pump(c);
        }
        self.put(
            c,
            &Packet::Unsubscribe(Unsubscribe {
                packet_id: packet_id(id),
                properties: Properties::NONE,
                filters: Topics::new(&filters),
            }),
        );
    }
}
