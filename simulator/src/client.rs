//! A client: what it keeps over a lost connection, as the specification demands of clients
//! (section 4.1), and what it has to do for each packet of the broker.

use std::collections::{BTreeMap, VecDeque};

use whimbrel_codec::{Ack, Frame, Packet, PacketId, Property, Publish, QoS, ReasonCode, Version};

use crate::real::{Real, Ways};

/// Number of a message: it stands in its payload.
pub type Serial = usize;

/// What a client is like.
#[derive(Clone, Debug)]
pub struct Habits {
    /// 3.1.1 or 5.0.
    pub version: Version,
    /// It wants no session that outlives its connection.
    pub clean: bool,
    /// Session expiry in seconds, if the version has it.
    pub expiry_s: u32,
    /// Deliveries that it takes at once.
    pub receive_maximum: u16,
    /// Of a hundred connections, so many have a will.
    pub will_percent: u64,
    /// Topics that it publishes to.
    pub topics: Vec<String>,
    /// Filters that it subscribes to now and then.
    pub filters: Vec<String>,
    /// How eager it is to publish.
    pub publish_weight: u64,
    /// It is one of `client-core`.
    pub ways: Option<Ways>,
}

/// A message that this client has begun to publish.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Packet identifier.
    pub id: u16,
    /// Which message.
    pub serial: Serial,
    /// PUBREC has come: PUBREL is what is repeated.
    pub released: bool,
    /// It was sent at least once.
    pub sent: bool,
}

/// What waits for the client to get round to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "names of packets")]
pub enum Todo {
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16, bool),
}

/// A network connection as the client sees it.
#[derive(Debug)]
pub struct Connection {
    pub link: usize,
    /// CONNACK has come.
    pub accepted: bool,
    pub expiry_s: u32,
    /// Bytes of a packet that is not complete.
    pub inbox: Vec<u8>,
    pub todo: VecDeque<Todo>,
    /// SUBSCRIBE or UNSUBSCRIBE that wait for their acknowledgement.
    pub requests: BTreeMap<u16, Request>,
    /// A PUBLISH that the mutation of the order holds back.
    pub held_back: Option<Delivered>,
    /// Identifier of the PUBLISH before.
    pub last_id: u16,
    /// PUBLISH packets since the start, for mutations.
    pub publishes: u64,
    /// Topic aliases of the broker.
    pub aliases: BTreeMap<u16, String>,
}

/// A SUBSCRIBE or UNSUBSCRIBE of one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Subscribe(String, QoS),
    Unsubscribe(String),
}

/// A client.
#[derive(Debug)]
pub struct Client {
    pub name: String,
    pub habits: Habits,
    pub connection: Option<Connection>,
    /// Its state must not be taken up again: Clean Start until it was granted.
    pub must_clean: bool,
    /// Not before this time does it connect again.
    pub away_until_ms: u64,
    /// In the order of publishing.
    pub outgoing: Vec<Outgoing>,
    /// QoS 2 messages that it has got and that are not released.
    pub received: BTreeMap<u16, Option<Serial>>,
    /// QoS 2 messages that its application has seen and not acknowledged.
    pub seen: BTreeMap<u16, Option<Serial>>,
    pub next_id: u16,
    /// The running process of a client of `client-core`.
    pub real: Option<Real>,
}

/// A PUBLISH of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub topic: String,
    /// None: an empty payload.
    pub serial: Option<Serial>,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    /// 0 with QoS 0.
    pub id: u16,
    pub expiry_s: Option<u32>,
    pub alias: Option<u16>,
}

impl Client {
    /// A client that was never connected.
    pub fn new(name: &str, habits: Habits) -> Client {
        Client {
            name: name.to_owned(),
            habits,
            connection: None,
            must_clean: false,
            away_until_ms: 0,
            outgoing: Vec::new(),
            received: BTreeMap::new(),
            seen: BTreeMap::new(),
            next_id: 0,
            real: None,
        }
    }

    /// An identifier that is not in use.
    pub fn fresh_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.wrapping_add(1).max(1);
            let id = self.next_id;
            let requests = self.connection.as_ref().map(|connection| &connection.requests);
            let requested = requests.is_some_and(|requests| requests.contains_key(&id));
            if !requested && self.outgoing.iter().all(|outgoing| outgoing.id != id) {
                return id;
            }
        }
    }

    /// It has an accepted connection.
    pub fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.accepted)
    }

    /// Nothing is left to be done for it.
    pub fn is_idle(&self) -> bool {
        self.outgoing.is_empty()
            && self.real.as_ref().is_none_or(Real::is_idle)
            && self.connection.as_ref().is_some_and(|connection| {
                connection.accepted && connection.todo.is_empty() && connection.requests.is_empty()
            })
    }

    /// Its state is gone; what it was about to publish is given back.
    pub fn forget(&mut self) -> Vec<Outgoing> {
        self.received.clear();
        self.seen.clear();
        std::mem::take(&mut self.outgoing)
    }
}

impl Connection {
    /// The next whole packet's bytes.
    pub fn next_packet(&mut self) -> Option<Vec<u8>> {
        let frame = Frame::parse(&self.inbox, u32::MAX).ok().flatten()?;
        if self.inbox.len() < frame.packet_len() {
            return None;
        }
        Some(self.inbox.drain(..frame.packet_len()).collect())
    }

    /// The topic that a topic alias stands for.
    pub fn resolve(&mut self, delivered: &mut Delivered) {
        let Some(alias) = delivered.alias else { return };
        if delivered.topic.is_empty() {
            delivered.topic = self.aliases.get(&alias).cloned().unwrap_or_default();
        } else {
            self.aliases.insert(alias, delivered.topic.clone());
        }
    }
}

/// A packet of the broker as the simulator needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    ConnAck {
        present: bool,
        reason: ReasonCode,
    },
    Publish(Delivered),
    PubAck(u16, ReasonCode),
    PubRec(u16, ReasonCode),
    PubRel(u16),
    PubComp(u16, ReasonCode),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16),
    Disconnect(ReasonCode),
    Other,
    /// What no client could read.
    Broken(String),
}

/// Reads a whole packet.
pub fn read(version: Version, bytes: &[u8]) -> Got {
    let broken = |error: &dyn std::fmt::Display| Got::Broken(error.to_string());
    let frame = match Frame::parse(bytes, u32::MAX) {
        Ok(Some(frame)) => frame,
        Ok(None) => return Got::Broken("cut short".into()),
        Err(error) => return broken(&error),
    };
    match Packet::decode(version, &frame, bytes) {
        Err(error) => broken(&error),
        Ok(Packet::ConnAck(p)) => Got::ConnAck { present: p.session_present, reason: p.reason },
        Ok(Packet::Publish(p)) => Got::Publish(delivered(&p)),
        Ok(Packet::PubAck(ack)) => Got::PubAck(ack.packet_id.get(), ack.reason),
        Ok(Packet::PubRec(ack)) => Got::PubRec(ack.packet_id.get(), ack.reason),
        Ok(Packet::PubRel(ack)) => Got::PubRel(ack.packet_id.get()),
        Ok(Packet::PubComp(ack)) => Got::PubComp(ack.packet_id.get(), ack.reason),
        Ok(Packet::SubAck(p)) => Got::SubAck(p.packet_id.get(), p.codes.bytes().to_vec()),
        Ok(Packet::UnsubAck(p)) => Got::UnsubAck(p.packet_id.get()),
        Ok(Packet::Disconnect(p)) => Got::Disconnect(p.reason),
        Ok(_) => Got::Other,
    }
}

/// A PUBLISH as the simulator needs it.
pub fn delivered(p: &Publish<'_>) -> Delivered {
    let expiry_s = p.properties.iter().find_map(|property| match property {
        Property::MessageExpiryIntervalS(s) => Some(s),
        _ => None,
    });
    let alias = p.properties.iter().find_map(|property| match property {
        Property::TopicAlias(alias) => Some(alias),
        _ => None,
    });
    Delivered {
        alias,
        topic: p.topic.to_owned(),
        serial: serial(p.payload),
        qos: p.qos,
        retain: p.retain,
        dup: p.dup,
        id: p.packet_id.map_or(0, PacketId::get),
        expiry_s,
    }
}

/// The payload of a message: its number, and as many bytes as it is to have.
pub fn payload(serial: Serial, len: usize) -> Vec<u8> {
    let mut bytes = format!("{serial} ").into_bytes();
    bytes.resize(bytes.len().max(len), b'.');
    bytes
}

/// The number in a payload.
pub fn serial(payload: &[u8]) -> Option<Serial> {
    let end = payload.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&payload[..end]).ok()?.parse().ok()
}

/// A packet's bytes, behind those of `out`.
pub fn write(version: Version, packet: &Packet<'_>, out: &mut Vec<u8>) {
    let before = out.len();
    if packet.encode(version, out).is_err() {
        // The simulator's own packets can be encoded.
        out.truncate(before);
    }
}

/// An acknowledgement.
pub fn ack(id: u16) -> Ack<'static> {
    Ack::new(packet_id(id))
}

/// Never 0.
pub fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).unwrap_or(PacketId::MIN)
}
