//! UNSUBSCRIBE and UNSUBACK (sections 3.10 and 3.11).

use super::prelude::*;

/// Sends bytes on a connection of its own and awaits that it is closed as malformed.
fn refused(t: &Bench<'_>, bytes: &[u8]) -> Outcome {
    let mut c = t.connect()?;
    c.send_raw(bytes);
    c.expect_closed_with(&[MalformedPacket, ProtocolError, TopicFilterInvalid])
}

pub const TESTS: &[Test] = &[
    all(
        "unsubscribe_ends_new_messages",
        &["MQTT-3.10.4-1", "MQTT-3.10.4-2", "MQTT-3.10.4-4", "MQTT-2.2.1-6"],
        &["MQTT-3.10.4-1", "MQTT-3.10.4-2", "MQTT-3.10.4-4", "MQTT-2.3.1-7"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, AtLeastOnce)?;
            t.publish(&topic, "before", AtLeastOnce)?;
            s.expect_payload("before")?;
            s.unsubscribe(&[&topic])?;
            t.publish(&topic, "after", AtLeastOnce)?;
            s.expect_nothing()
        },
    ),
    all("unsubscribe_is_answered_even_for_nothing", &["MQTT-3.10.4-5"], &["MQTT-3.10.4-5"], |t| {
        t.connect()?.unsubscribe(&[&t.topic("never")]).map(|_| ())
    }),
    v5("unsuback_has_a_code_for_each_filter_in_order", &["MQTT-3.11.3-1", "MQTT-3.11.3-2"], |t| {
        let (a, b, c) = (t.topic("a"), t.topic("b"), t.topic("c"));
        let mut s = t.connect()?;
        s.subscribe(&a, AtLeastOnce)?;
        s.subscribe(&c, AtLeastOnce)?;
        let codes = s.unsubscribe(&[&a, &b, &c, &a])?;
        equal("codes", codes, vec![0x00, 0x11, 0x00, 0x11])
    }),
    both("unsubscribe_compares_filters_exactly", &["MQTT-3.10.4-1"], &["MQTT-3.10.4-1"], |t| {
        let topic = t.topic("a/b");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        for other in ["a/+", "a/#", "#", "a/B", "a/b/", "a"] {
            s.unsubscribe(&[&t.topic(other)])?;
        }
        t.publish(&topic, "x", AtLeastOnce)?;
        s.expect_payload("x")?;
        s.subscribe(&t.topic("a/+"), AtLeastOnce)?;
        s.unsubscribe(&[&topic])?;
        t.publish(&topic, "y", AtLeastOnce)?;
        s.expect_payload("y").map(|_| ())
    }),
    both(
        "several_filters_are_unsubscribed_with_one_unsuback",
        &["MQTT-3.10.4-6"],
        &["MQTT-3.10.4-6"],
        |t| {
            let (a, b, c) = (t.topic("a"), t.topic("b"), t.topic("c"));
            let mut s = t.connect()?;
            for topic in [&a, &b, &c] {
                s.subscribe(topic, AtLeastOnce)?;
            }
            s.unsubscribe(&[&a, &c])?;
            for topic in [&a, &b, &c] {
                t.publish(topic, topic, AtLeastOnce)?;
            }
            s.expect_payload(&b)?;
            s.expect_nothing()
        },
    ),
    both("unsubscribe_lets_begun_deliveries_finish", &["MQTT-3.10.4-3"], &["MQTT-3.10.4-3"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        s.subscribe(&topic, ExactlyOnce)?;
        t.publish(&topic, "one", ExactlyOnce)?;
        t.publish(&topic, "two", AtLeastOnce)?;
        let one = s.expect_publish()?;
        let two = s.expect_publish()?;
        s.unsubscribe(&[&topic])?;
        s.acknowledge(&one)?;
        s.lose();
        let mut s = t.connect_with(t.resume(&id))?;
        let again = s.expect_payload("two")?;
        equal("packet identifier", again.packet_id, two.packet_id)?;
        s.expect_nothing()
    }),
    both("unsubscribe_flags_are_checked", &["MQTT-3.10.1-1"], &["MQTT-3.10.1-1"], |t| {
        for first in [0xa0, 0xa1, 0xa3, 0xaa] {
            let mut bytes = raw::unsubscribe(t.version, b"a");
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            refused(t, &bytes)?;
        }
        Ok(())
    }),
    both("unsubscribe_filters_are_utf_8", &["MQTT-3.10.3-1"], &["MQTT-3.10.3-1"], |t| {
        refused(t, &raw::unsubscribe(t.version, b"a/\xff"))?;
        refused(t, &raw::unsubscribe(t.version, b"a\0b"))
    }),
    both("unsubscribe_has_a_filter_at_least", &["MQTT-3.10.3-2"], &["MQTT-3.10.3-2"], |t| {
        let props = raw::properties(t.version, &[]);
        refused(t, &raw::packet(0xa2, &[&[0, 1], &props]))
    }),
    both("unsubscribe_has_a_packet_identifier", &["MQTT-4.13.1-1"], &["MQTT-2.3.1-1"], |t| {
        let props = raw::properties(t.version, &[]);
        refused(t, &raw::packet(0xa2, &[&[0, 0], &props, &raw::field("a")]))
    }),
];
