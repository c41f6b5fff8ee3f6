//! Bytes that are no packets, and packets that come torn or in heaps (sections 2.1 and 4.13).

use super::prelude::*;

/// Sends bytes on a connection of its own and awaits that it is closed as malformed.
fn refused(t: &Bench<'_>, bytes: &[u8]) -> Outcome {
    let mut c = t.connect()?;
    c.send_raw(bytes);
    c.expect_malformed().map_err(|stop| stop.of(format!("bytes {bytes:02x?}")))
}

pub const TESTS: &[Test] = &[
    both(
        "reserved_flags_close",
        &["MQTT-2.1.3-1", "MQTT-4.13.1-1"],
        &["MQTT-2.2.2-1", "MQTT-2.2.2-2"],
        |t| {
            refused(t, &[0xc1, 0])?;
            refused(t, &[0xc8, 0])?;
            for first in [0x41, 0x51, 0x71] {
                refused(t, &[first, 2, 0, 1])?;
            }
            Ok(())
        },
    ),
    both("pubrel_flags_are_checked", &["MQTT-3.6.1-1"], &["MQTT-3.6.1-1"], |t| {
        for first in [0x60, 0x61, 0x63, 0x6a] {
            refused(t, &[first, 2, 0, 1])?;
        }
        Ok(())
    }),
    both("connect_flags_are_checked", &["MQTT-2.1.3-1"], &["MQTT-2.2.2-2"], |t| {
        let mut bytes = raw::connect(t.version, 2, &[&raw::field(t.id("a"))]);
        if let Some(first) = bytes.first_mut() {
            *first = 0x11;
        }
        let mut c = t.open()?;
        c.send_raw(&bytes);
        c.expect_malformed_connect()
    }),
    all("packet_type_0_closes", &["MQTT-4.13.1-1"], &["MQTT-4.8.0-1"], |t| refused(t, &[0x00, 0])),
    v3("packet_type_15_closes", &["MQTT-4.8.0-1"], |t| refused(t, &[0xf0, 0])),
    all("a_remaining_length_has_four_bytes", &["MQTT-4.13.1-1"], &["MQTT-4.8.0-1"], |t| {
        refused(t, &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01])
    }),
    all("a_remaining_length_before_connect_has_four_bytes", &[], &[], |t| {
        // Nobody knows yet which version the client speaks, so the server may say nothing.
        let mut c = t.open()?;
        c.send_raw(&[0x10, 0xff, 0xff, 0xff, 0xff, 0x01]);
        c.expect_closed()
    }),
    v5("variable_byte_integers_use_the_fewest_bytes", &["MQTT-1.5.5-1"], |t| {
        // A remaining length, a property length and a subscription identifier with a byte too
        // many: the standard forbids to send them, and does not say what a receiver does.
        let topic = raw::field(t.topic("a"));
        let all: [&[u8]; 3] = [
            &[0xc0, 0x80, 0x00],
            &raw::packet(0x30, &[&topic, &[0x80, 0x00], b"x"]),
            &raw::packet(0x82, &[&[0, 1], &[3, 0x0b, 0x81, 0x00], &topic, &[0]]),
        ];
        for bytes in all {
            if t.strict {
                refused(t, bytes)?;
                continue;
            }
            let mut c = t.connect()?;
            c.send_raw(bytes);
            if c.ping().is_err() {
                c.expect_malformed()?;
            }
        }
        Ok(())
    }),
    both("acknowledgements_have_a_packet_identifier", &["MQTT-4.13.1-1"], &["MQTT-4.8.0-1"], |t| {
        for first in [0x40, 0x50, 0x62, 0x70] {
            refused(t, &[first, 0])?;
            refused(t, &[first, 1, 0])?;
            refused(t, &[first, 2, 0, 0])?;
        }
        Ok(())
    }),
    v5("acknowledgements_have_codes_of_their_tables", &["MQTT-4.13.1-1"], |t| {
        for first in [0x40, 0x50, 0x62, 0x70] {
            refused(t, &[first, 3, 0, 1, 0x7f])?;
        }
        Ok(())
    }),
    both("pingreq_has_no_body", &["MQTT-4.13.1-1"], &["MQTT-4.8.0-1"], |t| {
        refused(t, &[0xc0, 1, 0])
    }),
    all("packets_may_come_byte_by_byte", &["MQTT-4.2-1"], &["MQTT-7.1.1-1"], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, AtMostOnce)?;
        let mut c = t.connect()?;
        for number in 0..2 {
            let payload = number.to_string();
            for byte in raw::publish(t.version, topic.as_bytes(), &[], payload.as_bytes()) {
                c.send_raw(&[byte]);
            }
        }
        s.expect_payload("0")?;
        s.expect_payload("1").map(|_| ())
    }),
    all("packets_may_come_in_heaps", &["MQTT-4.2.0-1"], &["MQTT-7.1.1-1"], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, AtMostOnce)?;
        let mut bytes = Vec::new();
        for number in 0..50 {
            let payload = number.to_string();
            bytes.extend(raw::publish(t.version, topic.as_bytes(), &[], payload.as_bytes()));
            bytes.extend([0xc0, 0]);
        }
        let mut c = t.connect()?;
        c.send_raw(&bytes);
        for number in 0..50 {
            c.expect(PacketType::PingResp)?;
            s.expect_payload(&number.to_string())?;
        }
        s.expect_nothing()
    }),
    all("a_bad_client_disturbs_nobody", &["MQTT-4.13.1-1"], &["MQTT-4.8.0-1"], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let mut p = t.connect()?;
        for bytes in [&[0x00, 0x00][..], &[0x30, 0x01, 0x00], &[0xff; 64]] {
            let mut bad = t.connect()?;
            bad.subscribe(&topic, AtLeastOnce)?;
            bad.send_raw(bytes);
            bad.expect_closed()?;
            p.publish(&topic, "still here", AtLeastOnce)?;
            s.expect_payload("still here")?;
        }
        p.ping()?;
        s.expect_nothing()
    }),
];
