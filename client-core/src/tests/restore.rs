//! Going on after a restart.

use whimbrel_codec::*;

use super::script::{QOS1, QOS2, Script, T0, connack, id, lasting as connect, publish};
use crate::{Error, Event};

#[test]
fn what_was_in_flight_is_sent_again_in_order() {
    for version in [Version::V3_1_1, Version::V5] {
        let mut s = Script::new(version);
        s.client.restore_published(version, &publish(QOS1, Some(65_534))).unwrap();
        s.client.restore_released(id(65_535)).unwrap();
        s.client.restore_published(version, &publish(QOS2, Some(2))).unwrap();
        assert_eq!(s.client.in_flight(), 3);
        let sent = s.connect(&connect(version), &connack(true, &[]));
        let again = |qos, n| Packet::Publish(Publish { dup: true, ..publish(qos, Some(n)) });
        // [MQTT-3.3.1-1] [MQTT-4.4.0-1]
        s.expect(
            &sent,
            &[again(QOS1, 65_534), Packet::PubRel(Ack::new(id(65_535))), again(QOS2, 2)],
        );
        assert_eq!(s.client.publish(&publish(QOS1, None)), Ok(Some(id(3))));
        s.sent();
        s.recv(Packet::PubComp(Ack::new(id(65_535))));
        s.expect_event(Event::Published(Ack::new(id(65_535))));
        s.recv(Packet::PubRec(Ack::new(id(2))));
        s.expect_event(Event::Received(id(2)));
    }
}

#[test]
fn a_release_is_of_any_version() {
    let mut s = Script::new(Version::V3_1_1);
    s.client.restore_released(id(1)).unwrap();
    s.client.restore_published(s.version, &publish(QOS2, Some(2))).unwrap();
    let sent = s.connect(&connect(s.version), &connack(true, &[]));
    assert_eq!(sent.len(), 2);
}

#[test]
fn what_was_received_is_no_event_again() {
    let mut s = Script::new(Version::V5);
    s.client.restore_received(id(7)).unwrap();
    assert_eq!(s.client.restore_received(id(7)), Err(Error::RestoreInvalid));
    s.connect(&connect(Version::V5), &connack(true, &[]));
    s.recv(Packet::Publish(Publish { dup: true, ..publish(QOS2, Some(7)) }));
    assert_eq!(s.client.poll_event(), None); // [MQTT-4.3.3-10]
    s.expect_sent(&[Packet::PubRec(Ack::new(id(7)))]);
}

#[test]
fn a_server_without_the_session_ends_it() {
    let mut s = Script::new(Version::V5);
    s.client.restore_published(Version::V5, &publish(QOS1, Some(1))).unwrap();
    s.client.connect(T0, &connect(Version::V5)).unwrap();
    s.sent();
    s.recv(Packet::ConnAck(connack(false, &[])));
    s.expect_event(Event::Connected { ack: connack(false, &[]), discarded: 1 });
    s.expect_sent(&[]);
}

#[test]
fn what_cannot_be_is_not_restored() {
    let version = Version::V5;
    let mut s = Script::new(version);
    let restore = |s: &mut Script, qos, n| s.client.restore_published(version, &publish(qos, n));
    assert_eq!(restore(&mut s, QOS1, None), Err(Error::RestoreInvalid));
    assert_eq!(restore(&mut s, QoS::AtMostOnce, Some(1)), Err(Error::RestoreInvalid));
    restore(&mut s, QOS1, Some(5)).unwrap();
    assert_eq!(restore(&mut s, QOS1, Some(5)), Err(Error::RestoreInvalid));
    assert_eq!(restore(&mut s, QOS1, Some(4)), Err(Error::RestoreInvalid));
    assert_eq!(s.client.in_flight(), 1);
    let other = s.client.restore_published(Version::V3_1_1, &publish(QOS1, Some(6)));
    assert_eq!(other, Err(Error::SessionVersion));
    s.client.connect(T0, &connect(version)).unwrap();
    assert_eq!(s.client.restore_released(id(9)), Err(Error::AlreadyConnected));
}

#[test]
fn a_session_keeps_its_version() {
    let mut s = Script::new(Version::V5);
    s.connect(&connect(s.version), &connack(false, &[]));
    s.client.publish(&publish(QOS1, None)).unwrap();
    s.client.handle_connection_lost();
    let older = connect(Version::V3_1_1);
    assert_eq!(s.client.connect(T0, &older), Err(Error::SessionVersion));
    s.client.connect(T0, &Connect { clean_start: true, ..older }).unwrap();
}
