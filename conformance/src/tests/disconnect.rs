//! PINGREQ, DISCONNECT and AUTH (sections 3.12, 3.14, 3.15, 4.12).

use super::prelude::*;

/// Sends bytes on a connection of its own and awaits that it is closed as malformed.
fn refused(t: &Bench<'_>, bytes: &[u8]) -> Outcome {
    let mut c = t.connect()?;
    c.send_raw(bytes);
    c.expect_malformed().map_err(|stop| stop.of(format!("bytes {bytes:02x?}")))
}

pub const TESTS: &[Test] = &[
    all("pingreq_is_answered_with_pingresp", &["MQTT-3.12.4-1"], &["MQTT-3.12.4-1"], |t| {
        let mut c = t.connect()?;
        for _ in 0..3 {
            c.ping()?;
        }
        c.expect_nothing()
    }),
    all("the_server_closes_after_disconnect", &["MQTT-3.14.4-2"], &[], |t| {
        let mut c = t.connect()?;
        c.send(Packet::Disconnect(Disconnect::new(Success)))?;
        c.expect_closed()?;
        check(!c.has(PacketType::Disconnect), "a DISCONNECT was answered with a DISCONNECT")
    }),
    all("nothing_after_disconnect_is_processed", &["MQTT-3.14.4-1"], &[], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let mut bytes = Vec::new();
        let _ = Packet::Disconnect(Disconnect::new(Success)).encode(t.version, &mut bytes);
        bytes.extend(raw::publish(t.version, topic.as_bytes(), &[], b"late"));
        let mut c = t.connect()?;
        c.send_raw(&bytes);
        c.expect_closed()?;
        s.expect_nothing()
    }),
    both("disconnect_flags_are_checked", &["MQTT-3.14.1-1"], &["MQTT-3.14.1-1"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let will = Will {
            topic: &topic,
            payload: b"gone",
            qos: AtLeastOnce,
            retain: false,
            properties: Properties::NONE,
        };
        let mut c = t.connect_with(Connect { will: Some(will), ..t.hello(&t.id("a")) })?;
        c.send_raw(&[0xe1, 0]);
        c.expect_closed_with(&[MalformedPacket, ProtocolError])?;
        // It was no DISCONNECT, so the will stands.
        s.expect_payload("gone").map(|_| ())
    }),
    v5(
        "a_server_ends_a_connection_with_one_disconnect",
        &["MQTT-3.14.4-1", "MQTT-3.14.4-2", "MQTT-3.14.2-1", "MQTT-3.14.2-2", "MQTT-4.13.2-1"],
        |t| {
            let mut c = t.connect()?;
            c.send(Packet::Connect(t.hello("again")))?;
            c.send(Packet::PingReq)?;
            c.expect_closed_with(&[ProtocolError])?;
            check(!c.has(PacketType::PingResp), "the connection went on")
        },
    ),
    v5("an_error_in_disconnect_closes_and_publishes_the_will", &["MQTT-4.13.2-1"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let will = Will {
            topic: &topic,
            payload: b"gone",
            qos: AtLeastOnce,
            retain: false,
            properties: Properties::NONE,
        };
        let mut c = t.connect_with(Connect { will: Some(will), ..t.hello(&t.id("a")) })?;
        c.send(Packet::Disconnect(Disconnect::new(UnspecifiedError)))?;
        c.expect_closed()?;
        s.expect_payload("gone").map(|_| ())
    }),
    v5("disconnect_has_a_code_of_its_table", &["MQTT-3.14.2-1"], |t| {
        refused(t, &[0xe0, 1, 0x7f])?;
        refused(t, &[0xe0, 1, 0x01])
    }),
    v5("disconnect_has_no_properties_of_other_packets", &["MQTT-4.13.1-1"], |t| {
        refused(t, &[0xe0, 5, 0, 3, 0x23, 0, 1])?;
        refused(t, &[0xe0, 12, 0, 10, 0x11, 0, 0, 0, 0, 0x11, 0, 0, 0, 0])
    }),
    v3("disconnect_has_no_body", &["MQTT-4.8.0-1"], |t| {
        let mut c = t.connect()?;
        c.send_raw(&[0xe0, 1, 0]);
        c.expect_closed()
    }),
    v5("auth_needs_a_method_in_connect", &["MQTT-4.12.0-7", "MQTT-4.13.1-1"], |t| {
        let mut c = t.connect()?;
        let properties = [Property::AuthenticationMethod("method")];
        let properties = Properties::new(&properties);
        c.send(Packet::Auth(Auth { reason: Reauthenticate, properties }))?;
        c.expect_closed_with(&[ProtocolError, BadAuthenticationMethod, NotAuthorized])
    }),
    v5("auth_flags_are_checked", &["MQTT-3.15.1-1"], |t| refused(t, &[0xf1, 0])),
    v5("auth_has_a_code_of_its_table", &["MQTT-3.15.2-1"], |t| refused(t, &[0xf0, 2, 0x7f, 0])),
    both("packets_of_a_server_close", &["MQTT-4.13.1-1"], &["MQTT-4.8.0-1"], |t| {
        let props = raw::properties(t.version, &[]);
        let codes: &[u8] = if t.version.is_v5() { &[0] } else { &[] };
        refused(t, &raw::packet(0x20, &[&[0, 0], &props]))?;
        refused(t, &raw::packet(0x90, &[&[0, 1], &props, &[0]]))?;
        refused(t, &raw::packet(0xb0, &[&[0, 1], &props, codes]))?;
        refused(t, &[0xd0, 0])
    }),
];
