use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use whimbrel_codec::*;

use crate::{Client, Error, Event, Failure, Limits, Millis};

const T0: Millis = Millis(1_000);

/// A client and the other end of its connection, spoken to in packets.
struct Script {
    client: Client<'static>,
    version: Version,
}

impl Script {
    fn new(version: Version) -> Script {
        Script::with(Limits::default(), version)
    }

    fn with(limits: Limits, version: Version) -> Script {
        Script { client: Client::new(limits), version }
    }

    fn connected(version: Version) -> Script {
        let mut script = Script::new(version);
        script.connect(&Connect::new(version, "c"), &connack(false, &[]));
        script
    }

    /// Connects, and returns what follows CONNECT.
    fn connect(&mut self, connect: &Connect<'_>, ack: &ConnAck<'_>) -> Vec<String> {
        self.client.connect(T0, connect).unwrap();
        assert!(self.sent()[0].starts_with("Connect("));
        self.recv(Packet::ConnAck(*ack));
        assert!(matches!(self.client.poll_event(), Some(Event::Connected { .. })));
        self.sent()
    }

    /// What the client sends, in debug form.
    fn sent(&mut self) -> Vec<String> {
        let Some(mut bytes) = self.client.poll_transmit() else { return vec![] };
        let len = bytes.len();
        let mut sent = vec![];
        while let Some(frame) = Frame::parse(bytes, u32::MAX).unwrap() {
            sent.push(format!("{:?}", Packet::decode(self.version, &frame, bytes).unwrap()));
            bytes = &bytes[frame.packet_len()..];
        }
        self.client.handle_transmitted(T0, len);
        sent
    }

    fn expect_sent(&mut self, packets: &[Packet<'_>]) {
        let expected: Vec<_> = packets.iter().map(|packet| format!("{packet:?}")).collect();
        assert_eq!(self.sent(), expected);
    }

    fn recv(&mut self, packet: Packet<'_>) {
        let mut bytes = vec![];
        packet.encode(self.version, &mut bytes).unwrap();
        self.client.handle_bytes(T0, &bytes);
    }

    fn expect_event(&mut self, event: Event<'_>) {
        assert_eq!(self.client.poll_event(), Some(event));
    }

    /// The client must find fault with the server, and say so if it can.
    fn expect_fault(&mut self, reason: ReasonCode) {
        match self.client.poll_event() {
            Some(Event::Failed(Failure::ServerMisbehaved(error))) => {
                assert_eq!(error.reason, reason)
            }
            other => panic!("{other:?}"),
        }
        if self.version.is_v5() {
            self.expect_sent(&[Packet::Disconnect(Disconnect::new(reason))]);
        }
        assert!(self.client.is_closed());
        assert_eq!(self.client.poll_event(), None);
    }
}

fn connack<'a>(session_present: bool, list: &'a [Property<'a>]) -> ConnAck<'a> {
    let properties = Properties::new(list);
    ConnAck { session_present, reason: ReasonCode::Success, properties }
}

fn id(n: u16) -> PacketId {
    PacketId::new(n).unwrap()
}

fn publish(qos: QoS, n: Option<u16>) -> Publish<'static> {
    Publish { qos, packet_id: n.and_then(PacketId::new), ..Publish::new("a", b"x") }
}

const QOS1: QoS = QoS::AtLeastOnce;
const QOS2: QoS = QoS::ExactlyOnce;

#[test]
fn qos_2_out_is_four_packets() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        let mut s = Script::connected(version);
        assert_eq!(s.client.publish(&publish(QOS2, None)), Ok(Some(id(1))));
        s.expect_sent(&[Packet::Publish(publish(QOS2, Some(1)))]);
        s.recv(Packet::PubRec(Ack::new(id(1))));
        s.expect_event(Event::Received(id(1)));
        s.expect_sent(&[Packet::PubRel(Ack::new(id(1)))]);
        s.recv(Packet::PubComp(Ack::new(id(1))));
        s.expect_event(Event::Published(Ack::new(id(1))));
        assert_eq!(s.client.in_flight(), 0);
    }
}

#[test]
fn qos_2_in_is_delivered_once() {
    let mut s = Script::connected(Version::V5);
    s.recv(Packet::Publish(publish(QOS2, Some(7))));
    s.expect_event(Event::Message(publish(QOS2, Some(7))));
    s.recv(Packet::Publish(Publish { dup: true, ..publish(QOS2, Some(7)) }));
    assert_eq!(s.client.poll_event(), None); // [MQTT-4.3.3-10]
    s.expect_sent(&[Packet::PubRec(Ack::new(id(7))), Packet::PubRec(Ack::new(id(7)))]);
    s.recv(Packet::PubRel(Ack::new(id(7))));
    s.recv(Packet::Publish(publish(QOS2, Some(7))));
    s.expect_event(Event::Released(id(7)));
    s.expect_event(Event::Message(publish(QOS2, Some(7)))); // [MQTT-4.3.3-12]
    s.expect_sent(&[Packet::PubComp(Ack::new(id(7))), Packet::PubRec(Ack::new(id(7)))]);
}

#[test]
fn unknown_identifiers_are_answered() {
    let mut s = Script::connected(Version::V5);
    s.recv(Packet::PubRel(Ack::new(id(9))));
    s.recv(Packet::PubRec(Ack::new(id(9))));
    s.recv(Packet::PubAck(Ack::new(id(9))));
    assert_eq!(s.client.poll_event(), None);
    let unknown = Ack { reason: ReasonCode::PacketIdNotFound, ..Ack::new(id(9)) };
    s.expect_sent(&[Packet::PubComp(unknown), Packet::PubRel(unknown)]);
}

#[test]
fn the_servers_receive_maximum_holds_messages_back() {
    let mut s = Script::new(Version::V5);
    let connect = Connect::new(Version::V5, "c");
    s.connect(&connect, &connack(false, &[Property::ReceiveMaximum(2)]));
    for _ in 0..3 {
        s.client.publish(&publish(QOS1, None)).unwrap();
    }
    assert_eq!(s.sent().len(), 2); // [MQTT-3.3.4-7]
    s.recv(Packet::PubAck(Ack::new(id(2))));
    s.expect_event(Event::Published(Ack::new(id(2))));
    s.expect_sent(&[Packet::Publish(publish(QOS1, Some(3)))]);
}

#[test]
fn the_window_is_bounded() {
    let mut s = Script::with(Limits { max_in_flight: 1, ..Limits::default() }, Version::V3_1_1);
    s.connect(&Connect::new(Version::V3_1_1, "c"), &connack(false, &[]));
    s.client.publish(&publish(QOS1, None)).unwrap();
    assert_eq!(s.client.publish(&publish(QOS1, None)), Err(Error::Full));
    s.client.publish(&publish(QoS::AtMostOnce, None)).unwrap();
}

#[test]
fn output_is_bounded_for_commands_and_for_answers() {
    let limits = Limits { max_output_bytes: 12, ..Limits::default() };
    let mut s = Script::with(limits, Version::V3_1_1);
    s.connect(&Connect::new(Version::V3_1_1, "c"), &connack(false, &[]));
    for n in 1..=9 {
        let mut bytes = vec![];
        Packet::Publish(publish(QOS1, Some(n))).encode(s.version, &mut bytes).unwrap();
        s.client.handle_bytes(T0, &bytes);
    }
    let mut delivered = 0;
    while s.client.poll_event().is_some() {
        delivered += 1;
    }
    assert_eq!(delivered, 3); // Three PUBACKs of four bytes.
    assert!(!s.client.wants_bytes());
    assert_eq!(s.client.publish(&Publish::new("a", b"")), Err(Error::Full));
    assert_eq!(s.sent().len(), 3);
    assert!(matches!(s.client.poll_event(), Some(Event::Message(_))));
}

#[test]
fn a_resumed_session_goes_on_with_dup_and_in_order() {
    let mut s = Script::new(Version::V3_1_1);
    let connect = Connect { clean_start: false, ..Connect::new(Version::V3_1_1, "c") };
    s.connect(&connect, &connack(false, &[]));
    for qos in [QOS2, QOS1, QOS2] {
        s.client.publish(&publish(qos, None)).unwrap();
    }
    s.sent();
    s.recv(Packet::PubRec(Ack::new(id(1))));
    s.expect_event(Event::Received(id(1)));
    s.client.handle_connection_lost(); // PUBREL is lost.
    s.client.connect(T0, &connect).unwrap();
    s.sent();
    s.recv(Packet::ConnAck(connack(true, &[])));
    s.expect_event(Event::Connected { ack: connack(true, &[]), discarded: 0 });
    // [MQTT-3.3.1-1] [MQTT-4.4.0-1] [MQTT-4.6.0-1]
    s.expect_sent(&[
        Packet::PubRel(Ack::new(id(1))),
        Packet::Publish(Publish { dup: true, ..publish(QOS1, Some(2)) }),
        Packet::Publish(Publish { dup: true, ..publish(QOS2, Some(3)) }),
    ]);
    // A first sending after that has a fresh identifier and no DUP.
    s.client.publish(&publish(QOS1, None)).unwrap();
    s.expect_sent(&[Packet::Publish(publish(QOS1, Some(4)))]);
}

#[test]
fn a_session_that_the_server_lost_is_forgotten_and_counted() {
    let mut s = Script::connected(Version::V5);
    s.client.publish(&publish(QOS1, None)).unwrap();
    s.client.handle_connection_lost();
    let connect = Connect { clean_start: false, ..Connect::new(Version::V5, "c") };
    s.client.connect(T0, &connect).unwrap();
    s.sent();
    s.recv(Packet::ConnAck(connack(false, &[])));
    s.expect_event(Event::Connected { ack: connack(false, &[]), discarded: 1 }); // [MQTT-3.2.2-5]
    assert_eq!(s.sent(), Vec::<String>::new());
}

#[test]
fn a_refusal_names_its_reason() {
    let mut s = Script::new(Version::V3_1_1);
    s.client.connect(T0, &Connect::new(Version::V3_1_1, "c")).unwrap();
    s.client.handle_bytes(T0, &[0x20, 2, 0, 5]);
    let ack = ConnAck { reason: ReasonCode::NotAuthorized, ..connack(false, &[]) };
    s.expect_event(Event::Refused(ack));
    assert!(s.client.is_closed());
}

#[test]
fn nothing_is_sent_before_connack() {
    let mut s = Script::new(Version::V5);
    assert_eq!(s.client.publish(&publish(QOS1, None)), Err(Error::NotConnected));
    s.client.connect(T0, &Connect::new(Version::V5, "c")).unwrap();
    assert_eq!(s.client.publish(&publish(QOS1, None)), Err(Error::NotConnected));
    let connect = Connect::new(Version::V5, "c");
    assert_eq!(s.client.connect(T0, &connect), Err(Error::AlreadyConnected));
}

#[test]
fn silence_leads_to_a_ping_and_then_to_failure() {
    let mut s = Script::new(Version::V3_1_1);
    let connect = Connect { keep_alive_s: 10, ..Connect::new(Version::V3_1_1, "c") };
    s.connect(&connect, &connack(false, &[]));
    assert_eq!(s.client.poll_timeout(), Some(T0.plus(10_000)));
    s.client.handle_timeout(T0.plus(9_999));
    assert_eq!(s.client.poll_transmit(), None);
    s.client.handle_timeout(T0.plus(10_000));
    assert_eq!(s.client.poll_transmit(), Some(&[0xc0, 0][..])); // [MQTT-3.1.2-20]
    s.client.handle_transmitted(T0.plus(10_000), 2);
    s.client.handle_bytes(T0.plus(11_000), &[0xd0, 0]);
    assert_eq!(s.client.poll_event(), None);
    assert_eq!(s.client.poll_timeout(), Some(T0.plus(20_000)));
    s.client.handle_timeout(T0.plus(20_000));
    assert_eq!(s.client.poll_timeout(), Some(T0.plus(30_000)));
    s.client.handle_timeout(T0.plus(30_000));
    s.expect_event(Event::Failed(Failure::KeepAliveTimeout));
    assert!(s.client.is_closed());
}

#[test]
fn the_servers_keep_alive_wins() {
    let mut s = Script::new(Version::V5);
    let connect = Connect { keep_alive_s: 60, ..Connect::new(Version::V5, "c") };
    s.connect(&connect, &connack(false, &[Property::ServerKeepAliveS(5)]));
    assert_eq!(s.client.poll_timeout(), Some(T0.plus(5_000))); // [MQTT-3.2.2-21]
}

#[test]
fn a_silent_server_times_connect_out() {
    let mut s = Script::new(Version::V5);
    s.client.connect(T0, &Connect::new(Version::V5, "c")).unwrap();
    let deadline = s.client.poll_timeout().unwrap();
    s.client.handle_timeout(deadline);
    s.expect_event(Event::Failed(Failure::ConnectTimeout));
}

#[test]
fn topic_aliases_of_the_server_are_resolved() {
    let mut s = Script::new(Version::V5);
    let list = [Property::TopicAliasMaximum(1)];
    let connect = Connect { properties: Properties::new(&list), ..Connect::new(s.version, "c") };
    s.connect(&connect, &connack(false, &[]));
    let alias = [Property::TopicAlias(1)];
    let first = Publish { properties: Properties::new(&alias), ..Publish::new("a/b", b"1") };
    s.recv(Packet::Publish(first));
    s.expect_event(Event::Message(first));
    s.recv(Packet::Publish(Publish { topic: "", ..first }));
    s.expect_event(Event::Message(first));
    let high = [Property::TopicAlias(2)];
    s.recv(Packet::Publish(Publish { properties: Properties::new(&high), ..first }));
    s.expect_fault(ReasonCode::TopicAliasInvalid);
}

#[test]
fn an_unknown_topic_alias_is_a_fault() {
    let mut s = Script::new(Version::V5);
    let list = [Property::TopicAliasMaximum(1)];
    let connect = Connect { properties: Properties::new(&list), ..Connect::new(s.version, "c") };
    s.connect(&connect, &connack(false, &[]));
    let alias = [Property::TopicAlias(1)];
    s.recv(Packet::Publish(Publish {
        properties: Properties::new(&alias),
        ..Publish::new("", b"")
    }));
    s.expect_fault(ReasonCode::TopicAliasInvalid);
}

#[test]
fn our_receive_maximum_is_enforced() {
    let mut s = Script::new(Version::V5);
    let list = [Property::ReceiveMaximum(1)];
    let connect = Connect { properties: Properties::new(&list), ..Connect::new(s.version, "c") };
    s.connect(&connect, &connack(false, &[]));
    s.recv(Packet::Publish(publish(QOS2, Some(1))));
    s.expect_event(Event::Message(publish(QOS2, Some(1))));
    s.sent();
    s.recv(Packet::Publish(publish(QOS2, Some(2))));
    s.expect_fault(ReasonCode::ReceiveMaximumExceeded); // [MQTT-3.3.4-9]
}

#[test]
fn our_maximum_packet_size_is_enforced() {
    let mut s = Script::new(Version::V5);
    let list = [Property::MaximumPacketSizeBytes(20)];
    let connect = Connect { properties: Properties::new(&list), ..Connect::new(s.version, "c") };
    s.connect(&connect, &connack(false, &[]));
    s.client.handle_bytes(T0, &[0x30, 19]);
    s.expect_fault(ReasonCode::PacketTooLarge);
}

#[test]
fn the_servers_limits_bind_commands() {
    let mut s = Script::new(Version::V5);
    let list = [
        Property::MaximumQos(1),
        Property::RetainAvailable(0),
        Property::MaximumPacketSizeBytes(12),
        Property::TopicAliasMaximum(1),
    ];
    s.connect(&Connect::new(s.version, "c"), &connack(false, &list));
    assert_eq!(s.client.publish(&publish(QOS2, None)), Err(Error::QosNotSupported));
    let retained = Publish { retain: true, ..Publish::new("a", b"") };
    assert_eq!(s.client.publish(&retained), Err(Error::RetainNotSupported));
    let large = Publish::new("a", b"1234567");
    assert_eq!(s.client.publish(&large), Err(Error::PacketTooLarge)); // [MQTT-3.2.2-15]
    let alias = [Property::TopicAlias(2)];
    let aliased = Publish { properties: Properties::new(&alias), ..Publish::new("a", b"") };
    assert_eq!(s.client.publish(&aliased), Err(Error::TopicAliasInvalid));
    assert_eq!(s.client.publish(&Publish::new("a/+", b"")), Err(Error::TopicNameInvalid));
    assert_eq!(s.client.subscribe(&[], Properties::NONE), Err(Error::TopicFilterInvalid));
    assert_eq!(s.client.poll_transmit(), None);
}

#[test]
fn subscriptions_are_answered_by_identifier() {
    for version in [Version::V3_1_1, Version::V5] {
        let mut s = Script::connected(version);
        let filter = [Subscription::new("a/#", QOS1)];
        let packet_id = s.client.subscribe(&filter, Properties::NONE).unwrap();
        assert!(s.client.awaits_answers());
        let codes = Codes::new(&[1]);
        let ack = SubAck { packet_id, properties: Properties::NONE, codes };
        s.recv(Packet::SubAck(ack));
        s.expect_event(Event::Subscribed(ack));
        let packet_id = s.client.unsubscribe(&["a/#"], Properties::NONE).unwrap();
        let codes = Codes::new(if version.is_v5() { &[0] } else { &[] });
        let ack = UnsubAck { packet_id, properties: Properties::NONE, codes };
        s.recv(Packet::UnsubAck(ack));
        s.expect_event(Event::Unsubscribed(ack));
        assert!(!s.client.awaits_answers());
        s.recv(Packet::UnsubAck(ack));
        s.sent();
        s.expect_fault(ReasonCode::ProtocolError);
    }
}

#[test]
fn what_no_server_sends_is_a_fault() {
    for packet in [
        Packet::PingReq,
        Packet::ConnAck(connack(false, &[])),
        Packet::Connect(Connect::new(Version::V5, "c")),
    ] {
        let mut s = Script::connected(Version::V5);
        s.recv(packet);
        s.expect_fault(ReasonCode::ProtocolError);
    }
    let mut s = Script::connected(Version::V3_1_1);
    s.recv(Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    s.expect_fault(ReasonCode::ProtocolError);
}

#[test]
fn acknowledgements_of_the_wrong_kind_are_faults() {
    let of = |qos, packet: fn(Ack<'static>) -> Packet<'static>| {
        let mut s = Script::connected(Version::V5);
        s.client.publish(&publish(qos, None)).unwrap();
        s.sent();
        s.recv(packet(Ack::new(id(1))));
        s.expect_fault(ReasonCode::ProtocolError);
    };
    of(QOS1, Packet::PubRec);
    of(QOS1, Packet::PubComp);
    of(QOS2, Packet::PubAck);
    of(QOS2, Packet::PubComp);
}

#[test]
fn a_refused_message_is_finished() {
    let mut s = Script::connected(Version::V5);
    s.client.publish(&publish(QOS2, None)).unwrap();
    s.sent();
    let refusal = Ack { reason: ReasonCode::QuotaExceeded, ..Ack::new(id(1)) };
    s.recv(Packet::PubRec(refusal));
    s.expect_event(Event::Published(refusal));
    assert_eq!((s.sent().len(), s.client.in_flight()), (0, 0)); // [MQTT-4.3.3-4]
}

#[test]
fn disconnect_is_the_last_packet() {
    let mut s = Script::connected(Version::V5);
    let disconnect = Disconnect::new(ReasonCode::DisconnectWithWill);
    s.client.disconnect(&disconnect).unwrap();
    assert_eq!(s.client.publish(&publish(QOS1, None)), Err(Error::NotConnected));
    assert!(!s.client.is_closed());
    s.expect_sent(&[Packet::Disconnect(disconnect)]); // [MQTT-3.14.4-1]
    assert!(s.client.is_closed());
}

#[test]
fn the_servers_disconnect_is_an_event() {
    let mut s = Script::connected(Version::V5);
    let disconnect = Disconnect::new(ReasonCode::SessionTakenOver);
    s.recv(Packet::Disconnect(disconnect));
    s.expect_event(Event::Disconnected(disconnect));
    assert!(s.client.is_closed());
}
