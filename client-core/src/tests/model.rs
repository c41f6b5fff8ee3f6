//! Random operations on a client and a small model of a server, over a network that tears packets
//! apart and loses connections: QoS 2 arrives exactly once and QoS 1 at least once, in order, both
//! ways, and neither side is ever sent more than its receive maximum.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use proptest::prelude::*;
use whimbrel_codec::*;

use crate::{Client, Event, Limits, Millis};

const NOW: Millis = Millis(0);

#[derive(Clone, Debug)]
enum Op {
    ClientPublishes(QoS),
    ServerPublishes(QoS),
    /// So many bytes arrive at the server.
    Up(usize),
    /// So many bytes arrive at the client.
    Down(usize),
    /// The server answers so many of the packets that it has read.
    ServerAnswers(usize),
    ConnectionLost,
}

/// Numbered messages as they arrive at one end.
#[derive(Default)]
struct Inbox(Vec<(QoS, u32)>);

impl Inbox {
    fn take(&mut self, publish: &Publish<'_>) {
        let number = u32::from_be_bytes(publish.payload.try_into().unwrap());
        self.0.push((publish.qos, number));
    }

    /// `sent` is in order; so must be what arrives for the first time.
    fn check(&self, sent: &[(QoS, u32)]) {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let sent: Vec<_> = sent.iter().filter(|m| m.0 == qos).collect();
            let mut arrived: Vec<_> = self.0.iter().filter(|m| m.0 == qos).collect();
            if qos == QoS::AtLeastOnce {
                let mut seen = BTreeSet::new();
                arrived.retain(|m| seen.insert(m.1));
            }
            assert_eq!(arrived, sent, "{qos:?}");
        }
    }
}

enum Unfinished {
    Publish(QoS, u32),
    Release,
}

#[derive(Default)]
struct Server {
    receive_maximum: usize,
    client_receive_maximum: usize,
    // The session.
    unreleased: BTreeSet<PacketId>,
    outgoing: VecDeque<(PacketId, Unfinished)>,
    inbox: Inbox,
    // The connection.
    input: Vec<u8>,
    output: Vec<u8>,
    answers: VecDeque<Packet<'static>>,
    quota_used: BTreeSet<PacketId>,
    sent: usize,
}

impl Server {
    fn accept(&mut self, session_present: bool) {
        self.input.clear();
        self.output.clear();
        self.answers.clear();
        self.quota_used.clear();
        self.sent = 0;
        let list = [Property::ReceiveMaximum(self.receive_maximum as u16)];
        let properties = Properties::new(&list);
        self.write(&Packet::ConnAck(ConnAck {
            session_present,
            reason: ReasonCode::Success,
            properties,
        }));
        self.transmit(true);
    }

    fn write(&mut self, packet: &Packet<'_>) {
        packet.encode(Version::V5, &mut self.output).unwrap();
    }

    fn publish(&mut self, qos: QoS, number: u32) {
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
            let payload;
            let packet = match unfinished {
                Unfinished::Release => Packet::PubRel(Ack::new(*id)),
                Unfinished::Publish(qos, number) => {
                    payload = number.to_be_bytes();
                    let publish = Publish::new("down", &payload);
                    Packet::Publish(Publish { dup, qos: *qos, packet_id: Some(*id), ..publish })
                }
            };
            packet.encode(Version::V5, &mut self.output).unwrap();
            self.sent += 1;
        }
    }

    fn handle_bytes(&mut self, bytes: &[u8]) {
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
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::PubRel(ack) => {
                self.unreleased.remove(&ack.packet_id);
                self.answers.push_back(Packet::PubComp(Ack::new(ack.packet_id)));
            }
            Packet::PubRec(ack) => {
                let found = self.outgoing.iter_mut().find(|o| o.0 == ack.packet_id);
                found.expect("PUBREC for something in flight").1 = Unfinished::Release;
                self.answers.push_back(Packet::PubRel(Ack::new(ack.packet_id)));
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                if let Some(index) = self.outgoing.iter().position(|o| o.0 == ack.packet_id) {
                    self.outgoing.remove(index);
                    self.sent -= 1;
                    self.transmit(false);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn handle_publish(&mut self, publish: Publish<'_>) {
        let id = publish.packet_id.unwrap();
        self.quota_used.insert(id);
        assert!(self.quota_used.len() <= self.receive_maximum, "[MQTT-3.3.4-7]");
        if publish.qos == QoS::AtLeastOnce {
            self.inbox.take(&publish);
            self.answers.push_back(Packet::PubAck(Ack::new(id)));
            return;
        }
        if self.unreleased.insert(id) {
            self.inbox.take(&publish);
        } else {
            assert!(publish.dup, "an identifier is used twice [MQTT-2.2.1-3]");
        }
        self.answers.push_back(Packet::PubRec(Ack::new(id)));
    }

    fn answer(&mut self) {
        let Some(packet) = self.answers.pop_front() else { return };
        if let Packet::PubAck(ack) | Packet::PubComp(ack) = packet {
            self.quota_used.remove(&ack.packet_id);
        }
        self.write(&packet);
    }
}

struct Pair {
    client: Client<'static>,
    server: Server,
    client_inbox: Inbox,
    sent_up: Vec<(QoS, u32)>,
    sent_down: Vec<(QoS, u32)>,
}

impl Pair {
    fn new(receive_maximum: u16, client_receive_maximum: u16) -> Pair {
        let mut pair = Pair {
            client: Client::new(Limits { max_in_flight: 8, ..Limits::default() }),
            server: Server {
                receive_maximum: receive_maximum.into(),
                client_receive_maximum: client_receive_maximum.into(),
                ..Server::default()
            },
            client_inbox: Inbox::default(),
            sent_up: Vec::new(),
            sent_down: Vec::new(),
        };
        pair.connect(false);
        pair
    }

    fn connect(&mut self, session_present: bool) {
        let list = [Property::ReceiveMaximum(self.server.client_receive_maximum as u16)];
        let properties = Properties::new(&list);
        let connect = Connect { clean_start: false, properties, ..Connect::new(Version::V5, "c") };
        self.client.connect(NOW, &connect).unwrap();
        let len = self.client.poll_transmit().unwrap().len();
        self.client.handle_transmitted(NOW, len);
        self.server.accept(session_present);
    }

    fn apply(&mut self, op: &Op, number: u32) {
        match *op {
            Op::ClientPublishes(qos) => {
                let payload = number.to_be_bytes();
                if self.client.publish(&Publish { qos, ..Publish::new("up", &payload) }).is_ok() {
                    self.sent_up.push((qos, number));
                }
            }
            Op::ServerPublishes(qos) => {
                self.server.publish(qos, number);
                self.sent_down.push((qos, number));
            }
            Op::Up(len) => {
                let Some(bytes) = self.client.poll_transmit() else { return };
                let len = len.min(bytes.len());
                self.server.handle_bytes(&bytes[..len]);
                self.client.handle_transmitted(NOW, len);
            }
            Op::Down(len) => {
                let len = len.min(self.server.output.len());
                let bytes: Vec<_> = self.server.output.drain(..len).collect();
                self.client.handle_bytes(NOW, &bytes);
                while let Some(event) = self.client.poll_event() {
                    match event {
                        Event::Message(publish) => self.client_inbox.take(&publish),
                        Event::Connected { discarded, .. } => assert_eq!(discarded, 0),
                        Event::Received(_) | Event::Released(_) => {}
                        Event::Published(ack) => assert_eq!(ack.reason, ReasonCode::Success),
                        other => panic!("{other:?}"),
                    }
                }
            }
            Op::ServerAnswers(count) => (0..count).for_each(|_| self.server.answer()),
            Op::ConnectionLost => {
                self.client.handle_connection_lost();
                self.connect(true);
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..1_000 {
            for op in [Op::Down(usize::MAX), Op::Up(usize::MAX), Op::ServerAnswers(100)] {
                self.apply(&op, 0);
            }
            if self.client.in_flight() == 0 && self.server.outgoing.is_empty() {
                return;
            }
        }
        panic!("messages stay in flight");
    }
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => qos().prop_map(Op::ClientPublishes),
        4 => qos().prop_map(Op::ServerPublishes),
        4 => (1..40usize).prop_map(Op::Up),
        4 => (1..40usize).prop_map(Op::Down),
        4 => (1..4usize).prop_map(Op::ServerAnswers),
        1 => Just(Op::ConnectionLost),
    ]
}

proptest! {
    #[test]
    fn every_message_arrives_as_its_qos_says(
        ops in prop::collection::vec(op(), 0..200),
        receive_maximum in 1..6u16,
        client_receive_maximum in 1..6u16,
    ) {
        let mut pair = Pair::new(receive_maximum, client_receive_maximum);
        for (number, op) in ops.iter().enumerate() {
            pair.apply(op, number as u32);
        }
        pair.settle();
        pair.server.inbox.check(&pair.sent_up);
        pair.client_inbox.check(&pair.sent_down);
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        connected: bool,
    ) {
        let mut client = Client::new(Limits { max_packet_size_bytes: 200, ..Limits::default() });
        client.connect(NOW, &Connect::new(Version::V5, "c")).unwrap();
        if connected {
            client.handle_bytes(NOW, &[0x20, 3, 0, 0, 0]);
        }
        client.handle_bytes(NOW, &bytes);
        let mut events = 0;
        while client.poll_event().is_some() {
            events += 1;
        }
        prop_assert!(events <= 1 + bytes.len());
    }
}
