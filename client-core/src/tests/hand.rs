//! Acknowledgement by hand.

use whimbrel_codec::*;

use super::script::{QOS1, QOS2, Script, T0, connack, id, lasting, publish};
use crate::{Error, Event};

const OK: ReasonCode = ReasonCode::Success;

fn by_hand(version: Version, receive_maximum: u16) -> Script {
    let mut s = Script::new(version);
    s.client.set_manual_acknowledgement(true);
    let list = [Property::ReceiveMaximum(receive_maximum), Property::SessionExpiryIntervalS(600)];
    let properties = if version.is_v5() { Properties::new(&list) } else { Properties::NONE };
    let connect = Connect { properties, ..lasting(version) };
    s.connect(&connect, &connack(false, &[]));
    s
}

/// The message arrives as an event.
fn arrives(s: &mut Script, qos: QoS, n: u16) {
    s.recv(Packet::Publish(publish(qos, Some(n))));
    s.expect_event(Event::Message(publish(qos, Some(n))));
}

#[test]
fn acknowledgements_keep_the_order_of_the_messages() {
    for version in [Version::V3_1_1, Version::V5] {
        let mut s = by_hand(version, 10);
        for (n, qos) in [(5, QOS1), (6, QOS2), (9, QOS1), (1, QOS2)] {
            arrives(&mut s, qos, n);
        }
        assert_eq!(s.client.unacknowledged(), 4);
        s.expect_sent(&[]);
        s.client.acknowledge(id(1), OK).unwrap();
        s.client.acknowledge(id(6), OK).unwrap();
        s.expect_sent(&[]);
        s.client.acknowledge(id(5), OK).unwrap();
        // [MQTT-4.6.0-2] [MQTT-4.6.0-3]
        s.expect_sent(&[Packet::PubAck(Ack::new(id(5))), Packet::PubRec(Ack::new(id(6)))]);
        s.client.acknowledge(id(9), OK).unwrap();
        s.expect_sent(&[Packet::PubAck(Ack::new(id(9))), Packet::PubRec(Ack::new(id(1)))]);
        assert_eq!(s.client.unacknowledged(), 0);
    }
}

#[test]
fn only_what_waits_can_be_acknowledged() {
    let mut s = by_hand(Version::V5, 10);
    assert_eq!(s.client.acknowledge(id(1), OK), Err(Error::PacketIdUnknown));
    arrives(&mut s, QOS1, 1);
    let reason = ReasonCode::PacketIdNotFound;
    assert_eq!(s.client.acknowledge(id(1), reason), Err(Error::ReasonInvalid));
    s.client.acknowledge(id(1), OK).unwrap();
    assert_eq!(s.client.acknowledge(id(1), OK), Err(Error::PacketIdUnknown));
    arrives(&mut s, QOS1, 2);
    s.client.handle_connection_lost();
    assert_eq!(s.client.acknowledge(id(2), OK), Err(Error::NotConnected));
    // The server sends it again, so until then it does not wait.
    s.connect(&lasting(Version::V5), &connack(true, &[]));
    assert_eq!(s.client.acknowledge(id(2), OK), Err(Error::PacketIdUnknown));
}

#[test]
fn the_receive_maximum_counts_all_that_is_unacknowledged() {
    let mut s = by_hand(Version::V5, 2);
    arrives(&mut s, QOS1, 1);
    arrives(&mut s, QOS2, 2);
    s.client.acknowledge(id(1), OK).unwrap();
    s.client.acknowledge(id(2), OK).unwrap();
    s.sent();
    // Acknowledged, but not released: it counts on.
    arrives(&mut s, QOS1, 3);
    s.recv(Packet::Publish(publish(QOS1, Some(4))));
    s.expect_fault(ReasonCode::ReceiveMaximumExceeded); // [MQTT-3.3.4-9]
    let mut s = by_hand(Version::V5, 1);
    arrives(&mut s, QOS2, 1);
    s.client.acknowledge(id(1), OK).unwrap();
    s.recv(Packet::PubRel(Ack::new(id(1))));
    s.expect_event(Event::Released(id(1)));
    arrives(&mut s, QOS2, 1);
}

#[test]
fn a_refusal_is_told_with_5_0_and_needs_no_release() {
    let mut s = by_hand(Version::V5, 1);
    let refused = Ack { reason: ReasonCode::QuotaExceeded, ..Ack::new(id(1)) };
    arrives(&mut s, QOS2, 1);
    s.client.acknowledge(id(1), refused.reason).unwrap();
    s.expect_sent(&[Packet::PubRec(refused)]);
    arrives(&mut s, QOS2, 1);
    let mut s = by_hand(Version::V3_1_1, 1);
    arrives(&mut s, QOS2, 1);
    s.client.acknowledge(id(1), refused.reason).unwrap();
    s.expect_sent(&[Packet::PubRec(Ack::new(id(1)))]);
}

#[test]
fn qos_2_counts_as_received_once_acknowledged() {
    let mut s = by_hand(Version::V5, 10);
    arrives(&mut s, QOS1, 1);
    arrives(&mut s, QOS2, 2);
    arrives(&mut s, QOS2, 3);
    // Its PUBREC waits for message 1 and is lost with the connection.
    s.client.acknowledge(id(3), OK).unwrap();
    s.expect_sent(&[]);
    s.client.handle_connection_lost();
    s.connect(&lasting(Version::V5), &connack(true, &[]));
    let again = |n| Publish { dup: true, ..publish(QOS2, Some(n)) };
    s.recv(Packet::Publish(again(2)));
    s.expect_event(Event::Message(again(2)));
    s.recv(Packet::Publish(again(3)));
    assert_eq!(s.client.poll_event(), None); // [MQTT-4.3.3-10]
    s.expect_sent(&[]);
    s.client.acknowledge(id(2), OK).unwrap();
    s.expect_sent(&[Packet::PubRec(Ack::new(id(2))), Packet::PubRec(Ack::new(id(3)))]);
}

#[test]
fn a_repetition_while_a_message_waits_is_no_event() {
    let mut s = by_hand(Version::V3_1_1, 10);
    arrives(&mut s, QOS2, 1);
    s.recv(Packet::Publish(Publish { dup: true, ..publish(QOS2, Some(1)) }));
    assert_eq!(s.client.poll_event(), None);
    s.client.acknowledge(id(1), OK).unwrap();
    s.expect_sent(&[Packet::PubRec(Ack::new(id(1)))]);
}

#[test]
fn back_to_acknowledging_by_itself_in_order() {
    let mut s = by_hand(Version::V5, 10);
    arrives(&mut s, QOS1, 1);
    s.client.set_manual_acknowledgement(false);
    arrives(&mut s, QOS2, 2);
    s.expect_sent(&[]);
    s.client.acknowledge(id(1), OK).unwrap();
    s.expect_sent(&[Packet::PubAck(Ack::new(id(1))), Packet::PubRec(Ack::new(id(2)))]);
    s.client.handle_transmitted(T0, 0);
    s.recv(Packet::PubRel(Ack::new(id(2))));
    s.expect_event(Event::Released(id(2)));
}
