//! What the specification demands of a client, one test each.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use whimbrel_codec::*;

use super::script::{QOS1, QOS2, Script, T0, connack, id, lasting, publish};
use crate::{Error, Event, Failure, Limits};

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
fn what_belongs_to_a_session_ends_with_it() {
    type Connected = fn(&mut Script);
    let ended: [(Version, Connected); 4] = [
        // With its connection.
        (Version::V3_1_1, |s| drop(s.connect(&Connect::new(s.version, "c"), &connack(false, &[])))),
        (Version::V5, |s| drop(s.connect(&Connect::new(s.version, "c"), &connack(false, &[])))),
        (Version::V5, |s| {
            let never = [Property::SessionExpiryIntervalS(0)];
            s.connect(&lasting(s.version), &connack(false, &never));
        }),
        (Version::V5, |s| {
            s.connect(&lasting(s.version), &connack(false, &[]));
        }),
    ];
    for (at, (version, connect)) in ended.into_iter().enumerate() {
        let mut s = Script::new(version);
        connect(&mut s);
        s.client.publish(&publish(QOS2, None)).unwrap();
        s.sent();
        s.client.handle_connection_lost();
        // By a clean start, though its CONNACK is lost.
        if at == 3 {
            s.client.connect(T0, &Connect::new(version, "c")).unwrap();
            s.client.handle_connection_lost();
        }
        // The server has begun another session, and its first CONNACK was lost.
        s.client.connect(T0, &lasting(version)).unwrap();
        s.sent();
        s.recv(Packet::ConnAck(connack(true, &[])));
        s.expect_event(Event::Connected { ack: connack(true, &[]), discarded: 1 });
        s.expect_sent(&[]);
    }
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
    // Of a version that there is not, which DISCONNECT has no reason code for.
    let mut s = Script::connected(Version::V5);
    s.client.handle_bytes(T0, &[0x10, 7, 0, 4, b'M', b'Q', b'T', b'T', 9]);
    s.expect_fault(ReasonCode::ProtocolError); // [MQTT-3.14.2-1]
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

#[test]
fn topics_that_come_again_are_sent_as_aliases() {
    let mut s = Script::new(Version::V5);
    s.client.set_automatic_topic_aliases(8);
    let connect = lasting(s.version);
    s.connect(&connect, &connack(false, &[Property::TopicAliasMaximum(1)]));
    let named = Publish { qos: QOS1, ..Publish::new("a/b/c", b"x") };
    s.client.publish(&Publish { qos: QoS::AtMostOnce, ..named }).unwrap();
    s.client.publish(&named).unwrap();
    let list = [Property::TopicAlias(1)];
    let aliased = Publish { properties: Properties::new(&list), ..Publish::new("a/b/c", b"x") };
    let known = Publish { topic: "", qos: QOS1, packet_id: Some(id(1)), ..aliased };
    s.expect_sent(&[Packet::Publish(aliased), Packet::Publish(known)]);
    // An application that gives its own would overwrite them.
    assert_eq!(s.client.publish(&aliased), Err(Error::TopicAliasInvalid));
    // They end with the connection: what is sent again has its topic [MQTT-3.3.2-7].
    s.client.handle_connection_lost();
    let sent = s.connect(&connect, &connack(true, &[]));
    s.expect(&sent, &[Packet::Publish(Publish { dup: true, packet_id: Some(id(1)), ..named })]);
    s.client.publish(&Publish { qos: QoS::AtMostOnce, ..named }).unwrap();
    s.expect_sent(&[Packet::Publish(Publish { qos: QoS::AtMostOnce, ..named })]);
}

#[test]
fn an_alias_of_the_application_is_not_sent_again() {
    let mut s = Script::new(Version::V5);
    let connect = lasting(s.version);
    s.connect(&connect, &connack(false, &[Property::TopicAliasMaximum(4)]));
    let list = [Property::ContentType("t"), Property::TopicAlias(3)];
    let aliased = Publish { properties: Properties::new(&list), ..publish(QOS1, Some(1)) };
    s.client.publish(&aliased).unwrap();
    s.expect_sent(&[Packet::Publish(aliased)]);
    s.client.handle_connection_lost();
    let sent = s.connect(&connect, &connack(true, &[]));
    let properties = Properties::new(&list[..1]);
    s.expect(&sent, &[Packet::Publish(Publish { dup: true, properties, ..aliased })]);
}

#[test]
fn output_waits_for_the_driver_when_a_session_goes_on() {
    let limits = Limits { max_output_bytes: 40, ..Limits::default() };
    let mut s = Script::with(limits, Version::V3_1_1);
    let connect = lasting(s.version);
    s.connect(&connect, &connack(false, &[]));
    for _ in 0..5 {
        s.client.publish(&publish(QOS1, None)).unwrap();
        s.sent();
    }
    s.client.handle_connection_lost();
    let sent = s.connect(&connect, &connack(true, &[]));
    assert_eq!(sent.len(), 3); // Of eight bytes each.
    assert_eq!(s.sent().len(), 2);
}

fn auth(reason: ReasonCode, list: &'static [Property<'static>]) -> Auth<'static> {
    Auth { reason, properties: Properties::new(list) }
}

const SCRAM: &[Property<'static>] = &[Property::AuthenticationMethod("SCRAM")];
const OTHER: &[Property<'static>] = &[Property::AuthenticationMethod("OTHER")];
const CONTINUE: ReasonCode = ReasonCode::ContinueAuthentication;
const AGAIN: ReasonCode = ReasonCode::Reauthenticate;

fn authenticating() -> Script {
    let mut s = Script::new(Version::V5);
    let properties = Properties::new(SCRAM);
    s.client.connect(T0, &Connect { properties, ..Connect::new(s.version, "c") }).unwrap();
    s.sent();
    s
}

#[test]
fn authentication_goes_back_and_forth_and_again() {
    let mut s = authenticating();
    // It is the server's turn.
    let step = auth(CONTINUE, SCRAM);
    assert_eq!(s.client.authenticate(&step), Err(Error::AuthenticationOrder));
    s.recv(Packet::Auth(step));
    s.expect_event(Event::Auth(step));
    // [MQTT-4.12.0-3] [MQTT-4.12.0-5]
    assert_eq!(s.client.authenticate(&auth(CONTINUE, OTHER)), Err(Error::AuthenticationMethod));
    assert_eq!(s.client.authenticate(&auth(AGAIN, SCRAM)), Err(Error::AuthenticationOrder));
    s.client.authenticate(&step).unwrap();
    s.expect_sent(&[Packet::Auth(step)]);
    s.recv(Packet::ConnAck(connack(false, SCRAM)));
    s.expect_event(Event::Auth(auth(ReasonCode::Success, SCRAM)));
    assert!(!s.client.is_connected());
    s.expect_event(Event::Connected { ack: connack(false, SCRAM), discarded: 0 });
    // [MQTT-4.12.1-1]
    assert_eq!(s.client.authenticate(&step), Err(Error::AuthenticationOrder));
    s.client.authenticate(&auth(AGAIN, SCRAM)).unwrap();
    assert_eq!(s.client.authenticate(&auth(AGAIN, SCRAM)), Err(Error::AuthenticationOrder));
    s.recv(Packet::Auth(auth(ReasonCode::Success, SCRAM)));
    s.expect_event(Event::Auth(auth(ReasonCode::Success, SCRAM)));
    s.client.authenticate(&auth(AGAIN, SCRAM)).unwrap();
}

#[test]
fn a_server_that_proves_nothing_changes_nothing() {
    // Of sessions that outlive their connection.
    let mut s = Script::new(Version::V5);
    s.connect(&lasting(Version::V5), &connack(false, &[]));
    s.client.publish(&publish(QOS1, None)).unwrap();
    s.client.handle_connection_lost();
    let list: Vec<_> =
        SCRAM.iter().copied().chain([Property::SessionExpiryIntervalS(600)]).collect();
    let properties = Properties::new(&list);
    let connect = Connect { properties, clean_start: false, ..Connect::new(s.version, "c") };
    s.client.connect(T0, &connect).unwrap();
    s.sent();
    s.recv(Packet::ConnAck(connack(false, SCRAM)));
    s.expect_event(Event::Auth(auth(ReasonCode::Success, SCRAM)));
    s.client.handle_connection_lost();
    assert_eq!(s.client.in_flight(), 1);
    s.client.connect(T0, &connect).unwrap();
    s.sent();
    s.recv(Packet::ConnAck(connack(true, SCRAM)));
    s.expect_event(Event::Auth(auth(ReasonCode::Success, SCRAM)));
    s.expect_event(Event::Connected { ack: connack(true, SCRAM), discarded: 0 });
    assert_eq!(s.sent().len(), 1, "it is sent again");
}

#[test]
fn authentication_out_of_order_is_a_fault() {
    // [MQTT-4.12.0-6] [MQTT-4.12.0-7]
    let mut s = Script::connected(Version::V5);
    assert_eq!(s.client.authenticate(&auth(AGAIN, SCRAM)), Err(Error::AuthenticationMethod));
    s.recv(Packet::Auth(auth(CONTINUE, SCRAM)));
    s.expect_fault(ReasonCode::ProtocolError);
    let is_fault = |packet: Packet<'_>| {
        let mut s = authenticating();
        s.recv(packet);
        let event = s.client.poll_event();
        assert!(matches!(event, Some(Event::Failed(Failure::ServerMisbehaved(_)))), "{event:?}");
    };
    // [MQTT-4.12.0-5]
    is_fault(Packet::Auth(auth(CONTINUE, OTHER)));
    is_fault(Packet::ConnAck(connack(false, OTHER)));
    is_fault(Packet::ConnAck(connack(false, &[])));
    // Only CONNACK ends the exchange, and only clients begin another.
    is_fault(Packet::Auth(auth(ReasonCode::Success, SCRAM)));
    is_fault(Packet::Auth(auth(AGAIN, SCRAM)));
    // Nothing was asked.
    let mut s = authenticating();
    s.recv(Packet::ConnAck(connack(false, SCRAM)));
    s.expect_event(Event::Auth(auth(ReasonCode::Success, SCRAM)));
    assert!(matches!(s.client.poll_event(), Some(Event::Connected { .. })));
    s.recv(Packet::Auth(auth(CONTINUE, SCRAM)));
    s.expect_fault(ReasonCode::ProtocolError);
    let mut s = Script::connected(Version::V3_1_1);
    assert_eq!(s.client.authenticate(&auth(AGAIN, SCRAM)), Err(Error::AuthenticationMethod));
}

#[test]
fn filters_keep_to_the_rules_and_to_what_the_server_supports() {
    let subscribe = |s: &mut Script, filter| {
        let no_local = filter == "$share/g/no-local";
        let subscription = Subscription { no_local, ..Subscription::new(filter, QOS1) };
        s.client.subscribe(&[subscription], Properties::NONE)
    };
    // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-3.8.3-4]
    let invalid =
        ["", "#/a", "a#", "a+/b", "\0", "$share/g", "$share//a", "$share/g/", "$share/+/a"];
    for filter in invalid.into_iter().chain(["$share/g/no-local"]) {
        let mut s = Script::connected(Version::V5);
        assert_eq!(subscribe(&mut s, filter), Err(Error::TopicFilterInvalid), "{filter}");
    }
    for filter in ["#", "+", "a/+/#", "/", "$share/g/+/a", "$SYS/#"] {
        subscribe(&mut Script::connected(Version::V5), filter).unwrap();
    }
    subscribe(&mut Script::connected(Version::V3_1_1), "$share/g").unwrap();
    let mut s = Script::new(Version::V5);
    let none = [
        Property::WildcardSubscriptionAvailable(0),
        Property::SubscriptionIdentifierAvailable(0),
        Property::SharedSubscriptionAvailable(0),
    ];
    s.connect(&Connect::new(s.version, "c"), &connack(false, &none));
    assert_eq!(subscribe(&mut s, "a/#"), Err(Error::SubscriptionNotSupported));
    assert_eq!(subscribe(&mut s, "$share/g/a"), Err(Error::SubscriptionNotSupported));
    let list = [Property::SubscriptionIdentifier(1)];
    let subscriptions = [Subscription::new("a", QOS1)];
    let with_id = s.client.subscribe(&subscriptions, Properties::new(&list));
    assert_eq!(with_id, Err(Error::SubscriptionNotSupported));
    s.client.subscribe(&subscriptions, Properties::NONE).unwrap();
}

#[test]
fn a_session_without_expiry_cannot_be_given_one_at_the_end() {
    let list = [Property::SessionExpiryIntervalS(5)];
    let with = Disconnect { reason: ReasonCode::Success, properties: Properties::new(&list) };
    let mut s = Script::connected(Version::V5);
    assert_eq!(s.client.disconnect(&with), Err(Error::SessionExpiryInvalid));
    let mut s = Script::new(Version::V5);
    let connect = Connect { properties: Properties::new(&list), ..Connect::new(s.version, "c") };
    s.connect(&connect, &connack(false, &[]));
    s.client.disconnect(&with).unwrap();
    // [MQTT-3.14.2-2] The server has no say in it.
    let mut s = Script::connected(Version::V5);
    s.recv(Packet::Disconnect(with));
    s.expect_fault(ReasonCode::ProtocolError);
}

#[test]
fn requests_share_the_identifiers_and_end_with_the_connection() {
    let mut s = Script::new(Version::V5);
    let connect = lasting(s.version);
    s.connect(&connect, &connack(false, &[Property::ReceiveMaximum(1)]));
    let filter = [Subscription::new("a/#", QOS1)];
    s.client.publish(&publish(QOS1, None)).unwrap();
    s.client.publish(&publish(QOS1, None)).unwrap();
    assert_eq!(s.client.subscribe(&filter, Properties::NONE), Ok(id(3)));
    s.client.publish(&publish(QOS1, None)).unwrap();
    // A SUBSCRIBE does not wait for the receive maximum, and no PUBACK answers it.
    assert_eq!(s.sent().len(), 2);
    let codes = Codes::new(&[1]);
    let ack = SubAck { packet_id: id(3), properties: Properties::NONE, codes };
    s.recv(Packet::SubAck(ack));
    s.expect_event(Event::Subscribed(ack));
    s.recv(Packet::PubAck(Ack::new(id(1))));
    s.expect_event(Event::Published(Ack::new(id(1))));
    s.expect_sent(&[Packet::Publish(publish(QOS1, Some(2)))]);
    s.client.subscribe(&filter, Properties::NONE).unwrap();
    assert_eq!(s.client.in_flight(), 2);
    s.client.handle_connection_lost();
    let sent = s.connect(&connect, &connack(true, &[]));
    let again = |n| Packet::Publish(Publish { dup: true, ..publish(QOS1, Some(n)) });
    // 4 was never sent, but after a lost connection who knows.
    s.expect(&sent, &[again(2), Packet::Publish(publish(QOS1, Some(4)))]);
    s.recv(Packet::PubAck(Ack::new(id(2))));
    s.expect_event(Event::Published(Ack::new(id(2))));
    s.recv(Packet::SubAck(SubAck { packet_id: id(5), ..ack }));
    s.expect_fault(ReasonCode::ProtocolError);
}
