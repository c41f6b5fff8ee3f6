//! A small model of a server: one session, and what it may demand of a client.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

use whimbrel_codec::*;

/// Numbered messages as they arrive at one end.
#[derive(Default)]
pub struct Inbox(pub Vec<(QoS, u32)>);

impl Inbox {
    /// `sent` is in order; so must be what arrives for the first time.
    pub fn check(&self, sent: &[(QoS, u32)], ordered: bool) {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let sent: Vec<_> = sent.iter().filter(|m| m.0 == qos).collect();
            let mut arrived: Vec<_> = self.0.iter().filter(|m| m.0 == qos).collect();
            if qos == QoS::AtLeastOnce {
                let mut seen = BTreeSet::new();
                arrived.retain(|m| seen.insert(m.1));
            }
            if !ordered {
                arrived.sort();
            }
            assert_eq!(arrived, sent, "{qos:?}");
        }
    }
}

/// The payload of a message: its number, and a tail by which lengths differ.
pub fn payload(number: u32) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(4 + number as usize % 13, b'.');
    payload
}

pub fn number(publish: &Publish<'_>) -> u32 {
    let number = u32::from_be_bytes(publish.payload[..4].try_into().unwrap());
    assert_eq!(publish.payload, payload(number));
    assert!(publish.topic.ends_with(&topic("", number)), "{publish:?}");
    number
}

/// One of a few topics.
pub fn topic(direction: &str, number: u32) -> String {
    format!("{direction}/topic/{}", number % 4)
}

enum Unfinished {
    Publish(QoS, u32),
    Release,
}

#[derive(Default)]
pub struct Server {
    receive_maximum: usize,
    topic_alias_maximum: u16,
    most_in_flight: usize,
    // The session.
    unreleased: BTreeSet<PacketId>,
    outgoing: VecDeque<(PacketId, Unfinished)>,
    pub inbox: Inbox,
    // The connection.
    client_receive_maximum: usize,
    client_alias_maximum: u16,
    client_packet_maximum: usize,
    input: Vec<u8>,
    pub output: Vec<u8>,
    answers: VecDeque<Packet<'static>>,
    quota_used: BTreeSet<PacketId>,
    sent: usize,
    /// PUBLISH in the order in which PUBACK and PUBREC must come.
    unacknowledged: VecDeque<PacketId>,
    aliases: BTreeMap<u16, String>,
    given: Vec<String>,
}

impl Server {
    /// One that takes and sends so many messages at a time.
    pub fn new(receive_maximum: u16, most_in_flight: usize) -> Server {
        let receive_maximum = receive_maximum.into();
        Server { receive_maximum, most_in_flight, topic_alias_maximum: 3, ..Server::default() }
    }

    pub fn is_done(&self) -> bool {
        self.outgoing.is_empty()
    }

    fn accept(&mut self, connect: &Connect<'_>) {
        let session_present = !connect.clean_start;
        self.client_receive_maximum = self.most_in_flight;
        self.client_alias_maximum = 0;
        self.client_packet_maximum = usize::MAX;
        for property in connect.properties {
            match property {
                Property::ReceiveMaximum(max) => {
                    self.client_receive_maximum = self.most_in_flight.min(max.into());
                }
                Property::TopicAliasMaximum(max) => self.client_alias_maximum = max,
                Property::MaximumPacketSizeBytes(max) => self.client_packet_maximum = max as usize,
                _ => {}
            }
        }
        let list = [
            Property::ReceiveMaximum(self.receive_maximum as u16),
            Property::TopicAliasMaximum(self.topic_alias_maximum),
        ];
        let properties = Properties::new(&list);
        self.write(&Packet::ConnAck(ConnAck {
            session_present,
            reason: ReasonCode::Success,
            properties,
        }));
        self.transmit(true);
    }

    pub fn connection_lost(&mut self) {
        self.input.clear();
        self.output.clear();
        self.answers.clear();
        self.quota_used.clear();
        self.sent = 0;
        self.unacknowledged.clear();
        self.aliases.clear();
        self.given.clear();
    }

    fn write(&mut self, packet: &Packet<'_>) {
        packet.encode(Version::V5, &mut self.output).unwrap();
    }

    pub fn publish(&mut self, qos: QoS, number: u32) {
        let mut id = PacketId::MIN;
        while self.outgoing.iter().any(|o| o.0 == id) {
            id = id.next();
        }
        self.outgoing.push_back((id, Unfinished::Publish(qos, number)));
        self.transmit(false);
    }

    fn transmit(&mut self, dup: bool) {
        while self.sent < self.client_receive_maximum {
            let Some((id, unfinished)) = self.outgoing.get(self.sent) else { return };
            let id = *id;
            match *unfinished {
                Unfinished::Release => self.write(&Packet::PubRel(Ack::new(id))),
                Unfinished::Publish(qos, number) => self.write_publish(dup, qos, id, number),
            }
            self.sent += 1;
        }
    }

    fn write_publish(&mut self, dup: bool, qos: QoS, id: PacketId, number: u32) {
        let (payload, topic) = (payload(number), topic("down", number));
        let known = self.given.iter().position(|given| *given == topic);
        let mut list = vec![];
        if known.is_some() || self.given.len() < self.client_alias_maximum.into() {
            let at = known.unwrap_or(self.given.len());
            list.push(Property::TopicAlias(at as u16 + 1));
            if known.is_none() {
                self.given.push(topic.clone());
            }
        }
        let topic = if known.is_some() { "" } else { &topic };
        let packet = Packet::Publish(Publish {
            dup,
            qos,
            packet_id: Some(id),
            properties: Properties::new(&list),
            ..Publish::new(topic, &payload)
        });
        assert!(packet.encoded_len(Version::V5).unwrap() <= self.client_packet_maximum);
        self.write(&packet);
        self.unacknowledged.push_back(id);
    }

    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some(frame) = Frame::parse(&self.input, u32::MAX).unwrap() {
            if self.input.len() < frame.packet_len() {
                return;
            }
            let bytes: Vec<_> = self.input.drain(..frame.packet_len()).collect();
            self.handle_packet(Packet::decode(Version::V5, &frame, &bytes).unwrap());
        }
    }

    fn handle_packet(&mut self, packet: Packet<'_>) {
        match packet {
            Packet::Connect(connect) => self.accept(&connect),
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::PubRel(ack) => {
                self.unreleased.remove(&ack.packet_id);
                self.answers.push_back(Packet::PubComp(Ack::new(ack.packet_id)));
            }
            Packet::PubRec(ack) => {
                self.is_in_order(ack.packet_id);
                let found = self.outgoing.iter_mut().find(|o| o.0 == ack.packet_id);
                found.expect("PUBREC for something in flight").1 = Unfinished::Release;
                self.answers.push_back(Packet::PubRel(Ack::new(ack.packet_id)));
            }
            Packet::PubAck(ack) => {
                self.is_in_order(ack.packet_id);
                self.finish(ack.packet_id);
            }
            Packet::PubComp(ack) => self.finish(ack.packet_id),
            other => panic!("{other:?}"),
        }
    }

    fn is_in_order(&mut self, id: PacketId) {
        assert_eq!(self.unacknowledged.pop_front(), Some(id), "[MQTT-4.6.0-2] [MQTT-4.6.0-3]");
    }

    fn finish(&mut self, id: PacketId) {
        if let Some(index) = self.outgoing.iter().position(|o| o.0 == id) {
            self.outgoing.remove(index);
            self.sent -= 1;
            self.transmit(false);
        }
    }

    fn handle_publish(&mut self, publish: Publish<'_>) {
        let number = number(&Publish { topic: &self.resolve(&publish), ..publish });
        let id = publish.packet_id.unwrap();
        self.quota_used.insert(id);
        assert!(self.quota_used.len() <= self.receive_maximum, "[MQTT-3.3.4-7]");
        if publish.qos == QoS::AtLeastOnce {
            self.inbox.0.push((publish.qos, number));
            self.answers.push_back(Packet::PubAck(Ack::new(id)));
            return;
        }
        if self.unreleased.insert(id) {
            self.inbox.0.push((publish.qos, number));
        } else {
            assert!(publish.dup, "an identifier is used twice [MQTT-2.2.1-3]");
        }
        self.answers.push_back(Packet::PubRec(Ack::new(id)));
    }

    /// [MQTT-3.3.2-10] [MQTT-3.3.2-12]
    fn resolve(&mut self, publish: &Publish<'_>) -> String {
        let Some(alias) = crate::machine::topic_alias(publish) else { return publish.topic.into() };
        assert!(alias > 0 && alias <= self.topic_alias_maximum);
        if !publish.topic.is_empty() {
            self.aliases.insert(alias, publish.topic.into());
        }
        self.aliases.get(&alias).expect("a known alias").clone()
    }

    pub fn answer(&mut self) {
        let Some(packet) = self.answers.pop_front() else { return };
        if let Packet::PubAck(ack) | Packet::PubComp(ack) = packet {
            self.quota_used.remove(&ack.packet_id);
        }
        self.write(&packet);
    }
}
