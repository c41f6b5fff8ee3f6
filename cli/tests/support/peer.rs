//! A client that is written in whole packets, for tests of what a session keeps.

use std::collections::VecDeque;
use std::net::TcpStream;

use whimbrel_codec::{
    Ack, Connect, Filters, Frame, Packet, PacketId, Properties, Property, Publish, QoS, Subscribe,
    Subscription, Version, Will,
};

use crate::support::{Broker, Client};

/// A client of MQTT 5.0.
pub struct Peer {
    client: Client<TcpStream>,
    /// Of CONNACK.
    pub session_present: bool,
    next_id: u16,
    inbox: VecDeque<Vec<u8>>,
}

/// A message as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: Option<PacketId>,
    /// As `Debug` shows them.
    pub properties: Vec<String>,
}

/// How to connect.
#[derive(Clone, Default)]
pub struct Opening<'a> {
    pub clean: bool,
    pub expiry_s: u32,
    pub will: Option<(&'a str, &'a [u8])>,
    pub will_delay_s: u32,
}

/// A session that is kept for an hour, and taken up if it is there.
pub const KEPT: Opening<'_> = Opening { clean: false, expiry_s: 3600, will: None, will_delay_s: 0 };

impl Peer {
    pub fn kept(broker: &Broker, client_id: &str) -> Peer {
        Peer::connect(broker, client_id, &KEPT)
    }

    pub fn connect(broker: &Broker, client_id: &str, opening: &Opening<'_>) -> Peer {
        let mut peer = Peer {
            client: broker.tcp(),
            session_present: false,
            next_id: 0,
            inbox: VecDeque::new(),
        };
        let properties = [Property::SessionExpiryIntervalS(opening.expiry_s)];
        let delay = [Property::WillDelayIntervalS(opening.will_delay_s)];
        peer.send(Packet::Connect(Connect {
            version: Version::V5,
            clean_start: opening.clean,
            keep_alive_s: 0,
            properties: Properties::new(&properties),
            client_id,
            will: opening.will.map(|(topic, payload)| Will {
                topic,
                payload,
                qos: QoS::AtLeastOnce,
                retain: false,
                properties: Properties::new(&delay),
            }),
            user_name: None,
            password: None,
        }));
        let bytes = peer.client.packet();
        assert_eq!((bytes[0], bytes[3]), (0x20, 0), "CONNACK with success");
        peer.session_present = bytes[2] == 1;
        peer
    }

    pub fn send(&mut self, packet: Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        self.client.send(&bytes);
    }

    /// The next packet of this kind. Those of other kinds wait: the standard leaves the order
    /// between most kinds to the server.
    fn expect<T>(&mut self, what: &str, take: impl Fn(Packet<'_>) -> Option<T>) -> T {
        for (index, bytes) in self.inbox.iter().enumerate() {
            if let Some(taken) = take(decode(bytes)) {
                self.inbox.remove(index);
                return taken;
            }
        }
        loop {
            let bytes = self.client.packet();
            let packet = decode(&bytes);
            assert!(!matches!(packet, Packet::Disconnect(_)), "{what} was to come, not {packet:?}");
            if let Some(taken) = take(packet) {
                return taken;
            }
            self.inbox.push_back(bytes);
        }
    }

    fn packet_id(&mut self) -> PacketId {
        self.next_id += 1;
        PacketId::new(self.next_id).unwrap()
    }

    /// Subscribes, with a subscription identifier if it is not 0.
    pub fn subscribe(&mut self, filter: &str, qos: QoS, id: u32) {
        let packet_id = self.packet_id();
        let properties = [Property::SubscriptionIdentifier(id)];
        self.send(Packet::Subscribe(Subscribe {
            packet_id,
            properties: if id > 0 { Properties::new(&properties) } else { Properties::NONE },
            filters: Filters::new(&[Subscription::new(filter, qos)]),
        }));
        self.expect("SUBACK", |packet| matches!(packet, Packet::SubAck(_)).then_some(()));
    }

    /// Publishes, and waits until the broker has taken it over.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS) {
        self.publish_with(Publish { qos, ..Publish::new(topic, payload) });
    }

    pub fn publish_with(&mut self, publish: Publish<'_>) {
        let packet_id = (publish.qos != QoS::AtMostOnce).then(|| self.packet_id());
        self.send(Packet::Publish(Publish { packet_id, ..publish }));
        let Some(packet_id) = packet_id else { return };
        if publish.qos == QoS::AtLeastOnce {
            self.expect("PUBACK", |packet| matches!(packet, Packet::PubAck(_)).then_some(()));
        } else {
            self.expect("PUBREC", |packet| matches!(packet, Packet::PubRec(_)).then_some(()));
            self.send(Packet::PubRel(Ack::new(packet_id)));
            self.expect("PUBCOMP", |packet| matches!(packet, Packet::PubComp(_)).then_some(()));
        }
    }

    /// Publishes at QoS 2 and does not release the message.
    pub fn begin_exactly_once(&mut self, topic: &str, payload: &[u8]) {
        let packet_id = Some(self.packet_id());
        let qos = QoS::ExactlyOnce;
        self.send(Packet::Publish(Publish { packet_id, qos, ..Publish::new(topic, payload) }));
        self.expect("PUBREC", |packet| matches!(packet, Packet::PubRec(_)).then_some(()));
    }

    /// The next message, not acknowledged.
    pub fn message(&mut self) -> Got {
        self.expect("PUBLISH", |packet| match packet {
            Packet::Publish(publish) => Some(got(&publish)),
            _ => None,
        })
    }

    /// So many messages, not acknowledged.
    pub fn burst(&mut self, messages: usize) -> Vec<Got> {
        (0..messages).map(|_| self.message()).collect()
    }

    /// Acknowledges a burst.
    pub fn acknowledge_all(&mut self, messages: &[Got]) {
        messages.iter().for_each(|got| self.acknowledge(got));
    }

    /// The next message must be this one; it is acknowledged.
    pub fn takes(&mut self, topic: &str, payload: &[u8]) -> Got {
        let got = self.message();
        assert_eq!((&*got.topic, &*got.payload), (topic, payload), "{got:?}");
        self.acknowledge(&got);
        got
    }

    pub fn acknowledge(&mut self, got: &Got) {
        let Some(packet_id) = got.packet_id else { return };
        match got.qos {
            QoS::ExactlyOnce => {
                self.receive(got);
                self.complete(packet_id);
            }
            _ => self.send(Packet::PubAck(Ack::new(packet_id))),
        }
    }

    /// The first half of QoS 2: PUBREC, and PUBREL comes.
    pub fn receive(&mut self, got: &Got) {
        self.send(Packet::PubRec(Ack::new(got.packet_id.unwrap())));
        assert_eq!(Some(self.pubrel()), got.packet_id);
    }

    /// The next PUBREL, not answered.
    pub fn pubrel(&mut self) -> PacketId {
        self.expect("PUBREL", |packet| match packet {
            Packet::PubRel(ack) => Some(ack.packet_id),
            _ => None,
        })
    }

    /// Ends a delivery of QoS 2.
    pub fn complete(&mut self, packet_id: PacketId) {
        self.send(Packet::PubComp(Ack::new(packet_id)));
    }

    /// Nothing more was on its way.
    pub fn has_all(&mut self) {
        self.send(Packet::PingReq);
        self.expect("PINGRESP", |packet| matches!(packet, Packet::PingResp).then_some(()));
        assert!(self.inbox.is_empty(), "{:?}", decode(&self.inbox[0]));
    }
}

fn decode(bytes: &[u8]) -> Packet<'_> {
    let frame = Frame::parse(bytes, u32::MAX).unwrap().unwrap();
    Packet::decode(Version::V5, &frame, bytes).unwrap()
}

fn got(publish: &Publish<'_>) -> Got {
    Got {
        topic: publish.topic.into(),
        payload: publish.payload.into(),
        qos: publish.qos,
        retain: publish.retain,
        dup: publish.dup,
        packet_id: publish.packet_id,
        properties: publish.properties.iter().map(|p| format!("{p:?}")).collect(),
    }
}
