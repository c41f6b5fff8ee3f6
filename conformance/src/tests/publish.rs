//! PUBLISH (section 3.3): flags, topic names, packet identifiers and order.

use super::prelude::*;

/// Sends bytes on a connection of its own and awaits that it is closed as malformed.
fn refused(t: &Bench<'_>, bytes: &[u8]) -> Outcome {
    let mut c = t.connect()?;
    c.send_raw(bytes);
    c.expect_closed_with(&[MalformedPacket, ProtocolError, TopicNameInvalid])
}

pub const TESTS: &[Test] = &[
    all(
        "qos_0_has_neither_packet_identifier_nor_dup",
        &["MQTT-2.2.1-2", "MQTT-4.3.1-1", "MQTT-3.3.1-2", "MQTT-4.2.0-1"],
        &["MQTT-2.3.1-5", "MQTT-4.3.1-1", "MQTT-3.3.1-2", "MQTT-7.0.0-2"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            t.publish(&topic, "hello", AtMostOnce)?;
            let message = s.expect_payload("hello")?;
            equal("QoS", message.qos, AtMostOnce)?;
            equal("packet identifier", message.packet_id, None)?;
            equal("DUP", message.dup, false)
        },
    ),
    all("dup_with_qos_0_is_not_passed_on", &["MQTT-3.3.1-2"], &["MQTT-3.3.1-2"], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let mut c = t.connect()?;
        let props = raw::properties(t.version, &[]);
        c.send_raw(&raw::packet(0x38, &[&raw::field(&topic), &props, b"x"]));
        if t.strict {
            return c.expect_malformed();
        }
        // The standard forbids to send it, and leaves to the server what it makes of it.
        match c.ping() {
            Ok(()) => equal("DUP", s.receive()?.dup, false),
            Err(_) => s.expect_nothing(),
        }
    }),
    both("qos_3_closes", &["MQTT-3.3.1-4", "MQTT-4.13.1-1"], &["MQTT-3.3.1-4"], |t| {
        let props = raw::properties(t.version, &[]);
        refused(t, &raw::packet(0x36, &[&raw::field("a"), &[0, 1], &props, b"x"]))
    }),
    both(
        "a_topic_name_has_no_wildcards",
        &["MQTT-3.3.2-2", "MQTT-4.7.0-1"],
        &["MQTT-3.3.2-2", "MQTT-4.7.1-1"],
        |t| {
            for topic in ["a/+", "#", "a/b#", "+/b"] {
                refused(t, &raw::publish(t.version, topic.as_bytes(), &[], b"x"))?;
            }
            Ok(())
        },
    ),
    both("a_topic_name_is_utf_8", &["MQTT-3.3.2-1"], &["MQTT-3.3.2-1"], |t| {
        refused(t, &raw::publish(t.version, b"a/\xff", &[], b"x"))?;
        refused(t, &raw::publish(t.version, b"a/\xed\xa0\x80", &[], b"x"))
    }),
    both(
        "a_topic_name_has_no_nul",
        &["MQTT-4.7.3-2", "MQTT-1.5.4-2"],
        &["MQTT-4.7.3-2", "MQTT-1.5.3-2"],
        |t| refused(t, &raw::publish(t.version, b"a\0b", &[], b"x")),
    ),
    both("a_topic_name_is_not_empty", &["MQTT-4.7.3-1"], &["MQTT-4.7.3-1"], |t| {
        refused(t, &raw::publish(t.version, b"", &[], b"x"))
    }),
    both("a_publish_has_a_topic_name", &["MQTT-3.3.2-1"], &["MQTT-3.3.2-1"], |t| {
        refused(t, &[0x30, 0])?;
        // Its length goes beyond the packet.
        refused(t, &raw::packet(0x30, &[&[0, 9], b"abc"]))
    }),
    both("packet_identifier_0_closes", &["MQTT-4.13.1-1"], &["MQTT-2.3.1-1"], |t| {
        let props = raw::properties(t.version, &[]);
        for first in [0x32, 0x34] {
            refused(t, &raw::packet(first, &[&raw::field("a"), &[0, 0], &props, b"x"]))?;
        }
        Ok(())
    }),
    both("a_packet_identifier_must_be_there", &["MQTT-4.13.1-1"], &["MQTT-2.3.1-1"], |t| {
        refused(t, &raw::packet(0x32, &[&raw::field("a"), &[0]]))
    }),
    all("dup_is_not_passed_on", &["MQTT-3.3.1-3"], &["MQTT-3.3.1-3"], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, ExactlyOnce)?;
        let mut c = t.connect()?;
        for qos in [AtLeastOnce, ExactlyOnce] {
            c.publish_with(Publish { dup: true, qos, ..Publish::new(&topic, b"again") })?;
            equal("DUP", s.expect_payload("again")?.dup, false)?;
        }
        Ok(())
    }),
    both(
        "the_server_uses_free_packet_identifiers",
        &["MQTT-2.2.1-4", "MQTT-4.3.2-1", "MQTT-4.3.3-1"],
        &["MQTT-2.3.1-4", "MQTT-4.3.2-1", "MQTT-4.3.3-1"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            let mut p = t.connect()?;
            let mut ids = Vec::new();
            for number in 0..10 {
                let qos = if number % 2 == 0 { AtLeastOnce } else { ExactlyOnce };
                p.publish(&topic, "x", qos)?;
                let id = s.expect_publish()?.packet_id;
                check(!ids.contains(&id), "a packet identifier in use was given away again")?;
                ids.push(id);
            }
            Ok(())
        },
    ),
    all(
        "acknowledgements_carry_the_packet_identifier",
        &["MQTT-2.2.1-5"],
        &["MQTT-2.3.1-6"],
        |t| {
            let topic = t.topic("a");
            let mut c = t.connect()?;
            for id in [1, 0x1234, 0xffff] {
                for qos in [AtLeastOnce, ExactlyOnce] {
                    let packet_id = Some(packet_id(id));
                    c.publish_with(Publish { qos, packet_id, ..Publish::new(&topic, b"x") })?;
                }
            }
            Ok(())
        },
    ),
    both("delivered_topic_names_match_the_filter", &["MQTT-3.3.2-3"], &["MQTT-3.3.2-3"], |t| {
        let mut s = t.subscriber(&t.topic("+/b"), AtLeastOnce)?;
        for rest in ["a/b", "a/c", "b/b", "a/b/c"] {
            t.publish(&t.topic(rest), rest, AtLeastOnce)?;
        }
        equal("topic", s.expect_payload("a/b")?.topic, t.topic("a/b"))?;
        equal("topic", s.expect_payload("b/b")?.topic, t.topic("b/b"))?;
        s.expect_nothing()
    }),
    all(
        "messages_of_a_topic_stay_in_order",
        &["MQTT-4.6.0-5", "MQTT-4.6.0-6"],
        &["MQTT-4.6.0-5", "MQTT-4.6.0-6"],
        |t| {
            for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
                let topic = t.topic(&format!("{qos:?}"));
                let mut s = t.subscriber(&topic, qos)?;
                let mut p = t.connect()?;
                for number in 0..60 {
                    p.publish(&topic, &number.to_string(), qos)?;
                }
                for number in 0..60 {
                    s.expect_payload(&number.to_string())?;
                }
            }
            Ok(())
        },
    ),
    all("payloads_are_any_bytes_of_any_length", &[], &[], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let mut p = t.connect()?;
        let limit = p.server.maximum_packet_size_bytes.unwrap_or(u32::MAX) as usize;
        for len in [0, 1, 127, 128, 16_383, 16_384, 65_536, 200_000] {
            // Before 5.0 a limit cannot be told, so a length that any server takes must do.
            if len + 300 > limit || len > 65_536 && !t.version.is_v5() {
                continue;
            }
            let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            p.publish_with(Publish { qos: AtLeastOnce, ..Publish::new(&topic, &payload) })?;
            let message = s.receive()?;
            equal("payload length", message.payload.len(), len)?;
            check(message.payload == payload, "the payload was altered")?;
        }
        Ok(())
    }),
    both("the_byte_order_mark_is_kept", &["MQTT-1.5.4-3"], &["MQTT-1.5.3-3"], |t| {
        let (plain, marked) = (t.topic("a"), t.topic("\u{feff}a"));
        let mut s = t.subscriber(&t.topic("#"), AtLeastOnce)?;
        let mut other = t.subscriber(&plain, AtLeastOnce)?;
        t.publish(&marked, "marked", AtLeastOnce)?;
        equal("topic", s.expect_payload("marked")?.topic, marked)?;
        other.expect_nothing()
    }),
    both("topics_are_up_to_65535_bytes_long", &["MQTT-4.7.3-3"], &["MQTT-4.7.3-3"], |t| {
        let topic = format!("{:x<65535}", t.topic(""));
        let mut c = t.connect()?;
        let limit = c.server.maximum_packet_size_bytes.unwrap_or(u32::MAX);
        need(limit > 66_000, "packets of 66 kB")?;
        c.subscribe(&topic, AtLeastOnce)?;
        c.publish(&topic, "far", AtLeastOnce)?;
        equal("topic length", c.expect_payload("far")?.topic.len(), 65_535)
    }),
    v5("a_client_sends_no_subscription_identifier", &["MQTT-3.3.4-6"], |t| {
        refused(t, &raw::publish(t.version, b"a", &[0x0b, 1], b"x"))
    }),
];
