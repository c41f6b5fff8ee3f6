//! What clients do with what comes.

use whimbrel_codec::{QoS, ReasonCode};

use super::World;
use super::habits::READER;
use crate::client::{Connection, Delivered, Got, Request, Todo, read};
use crate::{Mutation, note};

/// What is known of the connection that a packet came on.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) c: usize,
    pub(super) link: usize,
}

impl World {
    /// The client reads some of what has come.
    pub(super) fn receive(&mut self, c: usize) {
        let Some(connection) = &mut self.clients[c].connection else { return };
        let id = connection.link;
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.down_stalled_until_ms > self.now_ms {
            return;
        }
        let n = if self.calm || self.rng.percent(70) {
            link.down.len()
        } else {
            self.rng.index(link.down.len() + 1)
        };
        connection.inbox.extend(link.down.drain(..n));
        let ended = link.down.is_empty() && !link.broker_open;
        loop {
            let version = self.clients[c].habits.version;
            let Some(connection) = &mut self.clients[c].connection else { return };
            let Some(bytes) = connection.next_packet() else { break };
            self.operations += 1;
            let got = read(version, &bytes);
            let place = Place { c, link: id };
            match self.is_real(c) {
                true => self.real_got(place, got, &bytes),
                false => self.got(place, got),
            }
            if self.is_over() {
                return;
            }
        }
        if ended {
            self.connection_lost(c, "the broker has closed the connection");
        }
    }

    /// The client's connection is gone.
    pub(super) fn connection_lost(&mut self, c: usize, why: &str) {
        let Some(connection) = self.clients[c].connection.take() else { return };
        if let Some(real) = &mut self.clients[c].real {
            real.client.handle_connection_lost();
        }
        if connection.expiry_s == 0 {
            // The session ends with the connection, for both sides.
            self.clients[c].forget();
        }
        let name = &self.clients[c].name;
        note!(self.trace, self.now_ms, "{name} #{}: {why}", connection.link);
        if let Some(link) = self.links.get_mut(&connection.link) {
            link.client_open = false;
            link.up_ends = true;
        }
        self.links.retain(|_, link| !link.is_gone());
    }

    /// What the client knows by a packet.
    pub(super) fn got(&mut self, place: Place, got: Got) {
        let Place { c, link } = place;
        let name = &self.clients[c].name;
        if !matches!(got, Got::Publish(_)) {
            note!(self.trace, self.now_ms, "{name} #{link} gets {got:?}");
        }
        match got {
            Got::ConnAck { present, reason } => self.connack(place, present, reason),
            Got::Publish(delivered) => self.mutated_publish(place, delivered),
            Got::PubAck(id, reason) | Got::PubRec(id, reason) => {
                let exactly_once = matches!(got, Got::PubRec(..));
                self.publish_answered(place, id, reason, exactly_once);
            }
            Got::PubRel(id) => {
                let known = self.clients[c].received.remove(&id).is_some();
                self.todo(c, Todo::PubComp(id, known));
            }
            Got::PubComp(id, _) => {
                let outgoing = &mut self.clients[c].outgoing;
                outgoing.retain(|outgoing| outgoing.id != id || !outgoing.released);
            }
            Got::SubAck(id, codes) => {
                if let Some(Request::Subscribe(filter, qos)) = self.answered(c, id) {
                    self.check.suback(c, &filter, qos, codes.first().copied().unwrap_or(0x80));
                }
            }
            Got::UnsubAck(id) => {
                if let Some(Request::Unsubscribe(filter)) = self.answered(c, id) {
                    self.check.unsuback(c, &filter);
                }
            }
            Got::Disconnect(reason) => {
                let fault = !matches!(
                    reason,
                    ReasonCode::SessionTakenOver
                        | ReasonCode::ServerShuttingDown
                        | ReasonCode::KeepAliveTimeout
                        | ReasonCode::QuotaExceeded
                );
                if fault {
                    let what = format!("{name} was disconnected for {reason}");
                    self.check.fail(4, what);
                }
            }
            Got::Broken(what) => {
                let what = format!("{name} got what is no packet: {what}");
                self.check.fail(2, what);
            }
            Got::Other => {}
        }
    }

    fn answered(&mut self, c: usize, id: u16) -> Option<Request> {
        self.clients[c].connection.as_mut()?.requests.remove(&id)
    }

    /// What a client that the simulator makes up has to do.
    fn todo(&mut self, c: usize, todo: Todo) {
        if self.is_real(c) {
            return;
        }
        if let Some(connection) = &mut self.clients[c].connection {
            connection.todo.push_back(todo);
        }
    }

    fn connack(&mut self, Place { c, link }: Place, present: bool, reason: ReasonCode) {
        if reason.is_error() {
            let full = matches!(reason, ReasonCode::QuotaExceeded | ReasonCode::ServerUnavailable);
            if !full && reason != ReasonCode::ServerShuttingDown {
                let what = format!("{} was refused for {reason}", self.clients[c].name);
                self.check.fail(4, what);
            }
            return;
        }
        self.check.connack(c, link, present);
        self.check.will_armed(c, link);
        let client = &mut self.clients[c];
        client.must_clean = false;
        if let Some(connection) = &mut client.connection {
            connection.accepted = true;
        }
        if present {
            if !self.is_real(c) {
                self.resume(c);
            }
        } else {
            let lost = self.clients[c].forget();
            // What was not acknowledged is published anew, or given up.
            for outgoing in lost.into_iter().filter(|outgoing| !outgoing.released) {
                if self.calm || self.rng.percent(70) {
                    self.publish_again(c, outgoing.serial);
                }
            }
        }
    }

    fn publish_answered(&mut self, at: Place, id: u16, reason: ReasonCode, exactly_once: bool) {
        let client = &mut self.clients[at.c];
        let found = client.outgoing.iter().position(|outgoing| outgoing.id == id);
        let Some(index) = found else {
            if exactly_once && !reason.is_error() {
                self.todo(at.c, Todo::PubRel(id));
            }
            return;
        };
        let serial = client.outgoing[index].serial;
        let done = !exactly_once || reason.is_error();
        if !client.outgoing[index].released {
            self.check.acked(serial, reason);
        }
        let client = &mut self.clients[at.c];
        if done {
            client.outgoing.remove(index);
        } else {
            client.outgoing[index].released = true;
            self.todo(at.c, Todo::PubRel(id));
        }
    }

    // ---- deliveries

    /// The mutations that concern what comes to clients.
    fn mutated_publish(&mut self, at: Place, mut delivered: Delivered) {
        if self.is_real(at.c) {
            return self.publish_came(at, delivered);
        }
        let mutation = self.options.mutation;
        let Some(connection) = &mut self.clients[at.c].connection else { return };
        connection.publishes += 1;
        let n = connection.publishes;
        let last_id = std::mem::replace(&mut connection.last_id, delivered.id);
        match mutation {
            Some(Mutation::ForgetDup) => delivered.dup = false,
            Some(Mutation::ReusePacketId) if n % 10 == 0 && last_id > 0 && delivered.id > 0 => {
                delivered.id = last_id;
            }
            Some(Mutation::LoseOrder) => match connection.held_back.take() {
                Some(before) => {
                    self.publish_came(at, delivered);
                    return self.publish_came(at, before);
                }
                None if n % 10 == 0 => {
                    connection.held_back = Some(delivered);
                    return;
                }
                None => {}
            },
            Some(Mutation::RepeatPublish) if n % 20 == 0 => {
                self.publish_came(at, delivered.clone());
            }
            _ => {}
        }
        self.publish_came(at, delivered);
    }

    fn publish_came(&mut self, Place { c, link }: Place, delivered: Delivered) {
        let client = &mut self.clients[c];
        let d = &delivered;
        let by_hand = client.habits.ways.is_some_and(|ways| ways.manual);
        let again = client.received.contains_key(&d.id)
            // Told again, as it was not acknowledged.
            || client.seen.get(&d.id).is_some_and(|serial| *serial == d.serial);
        let known = d.qos == QoS::ExactlyOnce && again;
        let suppressed = if known { ", known" } else { "" };
        note!(self.trace, self.now_ms, "{} #{link} gets {}{suppressed}", client.name, say(d));
        let most =
            if client.habits.version.is_v5() { client.habits.receive_maximum } else { 65_535 };
        if let (READER, true, Some(seen), Some(serial)) =
            (c, d.retain, &mut self.seen_retained, d.serial)
        {
            seen.insert(d.topic.clone(), serial);
        }
        match d.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.todo(c, Todo::PubAck(d.id)),
            QoS::ExactlyOnce if by_hand => {}
            QoS::ExactlyOnce => {
                self.clients[c].received.insert(d.id, d.serial);
                self.todo(c, Todo::PubRec(d.id));
            }
        }
        if by_hand && d.qos != QoS::AtMostOnce {
            self.wait_for_hand(c, d);
        }
        self.check.received(c, link, d, known, most.into());
    }
}

impl World {
    /// The application has it, and will acknowledge it.
    fn wait_for_hand(&mut self, c: usize, d: &Delivered) {
        let client = &mut self.clients[c];
        let received = d.qos == QoS::ExactlyOnce && client.received.contains_key(&d.id);
        if received {
            return;
        }
        if d.qos == QoS::ExactlyOnce {
            client.seen.insert(d.id, d.serial);
        }
        if let Some(real) = &mut client.real {
            real.waiting.push(d.clone());
        }
    }
}

fn say(d: &Delivered) -> String {
    let serial = d.serial.map_or("an empty message".to_owned(), |n| format!("message {n}"));
    let flags = match (d.dup, d.retain) {
        (true, true) => ", DUP, retain",
        (true, false) => ", DUP",
        (false, true) => ", retain",
        _ => "",
    };
    format!("PUBLISH {}: {serial} to {}, QoS {}{flags}", d.id, d.topic, d.qos as u8)
}

impl Connection {
    /// One that was just begun.
    pub fn new(link: usize, expiry_s: u32) -> Connection {
        Connection {
            link,
            accepted: false,
            expiry_s,
            inbox: Vec::new(),
            todo: Default::default(),
            requests: Default::default(),
            held_back: None,
            last_id: 0,
            publishes: 0,
            aliases: Default::default(),
        }
    }
}
