//! SUBSCRIBE and SUBACK (sections 3.8 and 3.9).

use super::prelude::*;

/// Sends bytes on a connection of its own and awaits that it is closed as malformed.
fn refused(t: &Bench<'_>, bytes: &[u8]) -> Outcome {
    let mut c = t.connect()?;
    c.send_raw(bytes);
    c.expect_closed_with(&[MalformedPacket, ProtocolError, TopicFilterInvalid])
}

/// Subscribes to a filter that is none, which may also be refused in the SUBACK.
fn refused_filter(t: &Bench<'_>, filter: &str) -> Outcome {
    let mut c = t.connect()?;
    c.send_raw(&raw::subscribe(t.version, filter.as_bytes(), &[], 1));
    let outcome = match c.expect(PacketType::SubAck) {
        Ok(suback) => check(
            suback.codes.iter().all(|&code| code >= 0x80),
            &format!("granted: codes {:?}", suback.codes),
        ),
        Err(_) => c.expect_closed_with(&[TopicFilterInvalid, MalformedPacket, ProtocolError]),
    };
    outcome.map_err(|stop| stop.of(format!("filter {filter:?}")))
}

pub const TESTS: &[Test] = &[
    all(
        "subscribe_is_answered_with_suback",
        &["MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-2.2.1-6"],
        &["MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-2.3.1-7"],
        |t| {
            let mut c = t.connect()?;
            let topic = t.topic("a");
            for id in [1, 0x1234, 0xffff] {
                let filters = [Subscription::new(&topic, AtLeastOnce)];
                c.send(Packet::Subscribe(Subscribe {
                    packet_id: packet_id(id),
                    properties: Properties::NONE,
                    filters: Filters::new(&filters),
                }))?;
                c.expect_ack(PacketType::SubAck, packet_id(id))?;
            }
            Ok(())
        },
    ),
    all(
        "suback_has_a_code_for_each_filter_in_order",
        &["MQTT-3.8.4-5", "MQTT-3.8.4-6", "MQTT-3.8.4-7", "MQTT-3.9.3-1", "MQTT-3.9.3-2"],
        &["MQTT-3.8.4-4", "MQTT-3.8.4-5", "MQTT-3.9.3-1", "MQTT-3.9.3-2"],
        |t| {
            let mut c = t.connect()?;
            let topics = [t.topic("a"), t.topic("b"), t.topic("c"), t.topic("d")];
            let qos = [ExactlyOnce, AtMostOnce, AtLeastOnce, ExactlyOnce];
            let list: Vec<_> =
                topics.iter().zip(qos).map(|(topic, qos)| Subscription::new(topic, qos)).collect();
            let codes = c.subscribe_with(&list, &[])?;
            equal("codes", codes, vec![2, 0, 1, 2])?;
            let mut p = t.connect()?;
            for (topic, qos) in topics.iter().zip(qos) {
                p.publish(topic, topic, ExactlyOnce)?;
                equal("QoS", c.expect_payload(topic)?.qos, qos)?;
            }
            Ok(())
        },
    ),
    all("delivery_is_at_the_lower_qos", &["MQTT-3.8.4-8"], &["MQTT-3.8.4-6"], |t| {
        let levels = [AtMostOnce, AtLeastOnce, ExactlyOnce];
        let mut p = t.connect()?;
        for granted in levels {
            let topic = t.topic(&format!("{granted:?}"));
            let mut s = t.subscriber(&topic, granted)?;
            for published in levels {
                p.publish(&topic, "x", published)?;
                equal("QoS", s.expect_payload("x")?.qos, granted.min(published))?;
            }
        }
        Ok(())
    }),
    all("the_same_filter_replaces_the_subscription", &["MQTT-3.8.4-3"], &["MQTT-3.8.4-3"], |t| {
        let topic = t.topic("a/+");
        let mut s = t.subscriber(&topic, AtMostOnce)?;
        s.subscribe(&topic, ExactlyOnce)?;
        s.subscribe(&topic, AtLeastOnce)?;
        t.publish(&t.topic("a/b"), "once", ExactlyOnce)?;
        equal("QoS", s.expect_payload("once")?.qos, AtLeastOnce)?;
        s.expect_nothing()
    }),
    all("replacing_sends_retained_messages_again", &["MQTT-3.8.4-4"], &["MQTT-3.8.4-3"], |t| {
        let topic = t.topic("a");
        t.retain(&topic, "kept", AtLeastOnce)?;
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        s.expect_payload("kept")?;
        s.subscribe(&topic, AtLeastOnce)?;
        equal("RETAIN", s.expect_payload("kept")?.retain, true)?;
        t.publish(&topic, "live", AtLeastOnce)?;
        s.expect_payload("live").map(|_| ())
    }),
    both("replacing_loses_no_messages", &["MQTT-3.8.4-4"], &["MQTT-3.8.4-3"], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let mut p = t.connect()?;
        for number in 0..20 {
            p.publish(&topic, &number.to_string(), AtLeastOnce)?;
            s.subscribe(&topic, AtLeastOnce)?;
        }
        for number in 0..20 {
            s.expect_payload(&number.to_string())?;
        }
        s.expect_nothing()
    }),
    both(
        "overlapping_subscriptions_deliver_at_the_highest_qos",
        &["MQTT-3.3.4-2"],
        &["MQTT-3.3.5-1"],
        |t| {
            let mut s = t.connect()?;
            s.subscribe(&t.topic("a/#"), AtMostOnce)?;
            s.subscribe(&t.topic("a/b"), ExactlyOnce)?;
            s.subscribe(&t.topic("+/b"), AtLeastOnce)?;
            t.publish(&t.topic("a/b"), "x", ExactlyOnce)?;
            // One message, or one for each subscription.
            let messages = s.drain()?;
            check((1..=3).contains(&messages.len()), &format!("came {messages:?}"))?;
            let highest = messages.iter().map(|message| message.qos).max();
            equal("highest QoS", highest, Some(ExactlyOnce))
        },
    ),
    both("subscribe_has_a_filter_at_least", &["MQTT-3.8.3-2"], &["MQTT-3.8.3-3"], |t| {
        let props = raw::properties(t.version, &[]);
        refused(t, &raw::packet(0x82, &[&[0, 1], &props]))
    }),
    both("subscribe_flags_are_checked", &["MQTT-3.8.1-1"], &["MQTT-3.8.1-1"], |t| {
        for first in [0x80, 0x81, 0x83, 0x8a] {
            let mut bytes = raw::subscribe(t.version, b"a", &[], 0);
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            refused(t, &bytes)?;
        }
        Ok(())
    }),
    both("subscribe_has_a_packet_identifier", &["MQTT-4.13.1-1"], &["MQTT-2.3.1-1"], |t| {
        let props = raw::properties(t.version, &[]);
        refused(t, &raw::packet(0x82, &[&[0, 0], &props, &raw::field("a"), &[0]]))?;
        refused(t, &[0x82, 0])
    }),
    both("a_topic_filter_is_utf_8", &["MQTT-3.8.3-1"], &["MQTT-3.8.3-1"], |t| {
        refused(t, &raw::subscribe(t.version, b"a/\xff", &[], 0))?;
        refused(t, &raw::subscribe(t.version, b"a/\xed\xa0\x80", &[], 0))
    }),
    both(
        "a_topic_filter_has_no_nul",
        &["MQTT-4.7.3-2", "MQTT-1.5.4-2"],
        &["MQTT-4.7.3-2", "MQTT-1.5.3-2"],
        |t| refused(t, &raw::subscribe(t.version, b"a\0b", &[], 0)),
    ),
    both("a_topic_filter_is_not_empty", &["MQTT-4.7.3-1"], &["MQTT-4.7.3-1"], |t| {
        refused_filter(t, "")
    }),
    both("a_hash_is_a_whole_level_and_the_last", &["MQTT-4.7.1-1"], &["MQTT-4.7.1-2"], |t| {
        for filter in ["a/#/b", "a#", "#/a", "a/b#", "##", "a/#b", "#a"] {
            refused_filter(t, filter)?;
        }
        Ok(())
    }),
    both("a_plus_is_a_whole_level", &["MQTT-4.7.1-2"], &["MQTT-4.7.1-3"], |t| {
        for filter in ["a+", "+a", "a/b+", "a/+b/c", "++", "+#"] {
            refused_filter(t, filter)?;
        }
        Ok(())
    }),
    both(
        "reserved_subscription_option_bits_are_checked",
        &["MQTT-3.8.3-5"],
        &["MQTT-3.8.3-4"],
        |t| {
            refused(t, &raw::subscribe(t.version, b"a", &[], 0x40))?;
            refused(t, &raw::subscribe(t.version, b"a", &[], 0x80))?;
            if t.version.is_v5() {
                return Ok(());
            }
            // Where 5.0 has options, 3.1.1 has reserved bits.
            for options in [0x04, 0x08, 0x10, 0x20] {
                refused(t, &raw::subscribe(t.version, b"a", &[], options))?;
            }
            Ok(())
        },
    ),
    both("subscription_qos_3_closes", &["MQTT-4.13.1-1"], &["MQTT-3.8.3-4"], |t| {
        refused(t, &raw::subscribe(t.version, b"a", &[], 3))
    }),
    both("a_filter_has_its_options", &["MQTT-3.8.3-2"], &["MQTT-3.8.3-3"], |t| {
        let props = raw::properties(t.version, &[]);
        refused(t, &raw::packet(0x82, &[&[0, 1], &props, &raw::field("a")]))
    }),
    all("a_filter_may_stand_twice_in_a_subscribe", &["MQTT-3.8.4-5"], &["MQTT-3.8.4-4"], |t| {
        let topic = t.topic("a");
        let mut c = t.connect()?;
        let list = [Subscription::new(&topic, ExactlyOnce), Subscription::new(&topic, AtLeastOnce)];
        equal("codes", c.subscribe_with(&list, &[])?, vec![2, 1])?;
        t.publish(&topic, "once", ExactlyOnce)?;
        equal("QoS", c.expect_payload("once")?.qos, AtLeastOnce)?;
        c.expect_nothing()
    }),
    both(
        "each_filter_gets_its_retained_messages",
        &["MQTT-3.8.4-5", "MQTT-3.3.1-9"],
        &["MQTT-3.8.4-4", "MQTT-3.3.1-6"],
        |t| {
            let (a, both) = (t.topic("a"), t.topic("+"));
            t.retain(&a, "kept", AtLeastOnce)?;
            let mut c = t.connect()?;
            let list = [Subscription::new(&a, AtLeastOnce), Subscription::new(&both, AtLeastOnce)];
            c.subscribe_with(&list, &[])?;
            c.expect_payload("kept")?;
            c.expect_payload("kept")?;
            c.expect_nothing()
        },
    ),
    all("a_subscribe_may_have_many_filters", &["MQTT-3.8.4-6"], &["MQTT-3.8.4-5"], |t| {
        let topics: Vec<String> = (0..500).map(|number| t.topic(&number.to_string())).collect();
        let list: Vec<_> =
            topics.iter().map(|topic| Subscription::new(topic, AtMostOnce)).collect();
        let mut c = t.connect()?;
        equal("codes", c.subscribe_with(&list, &[])?, vec![0; 500])?;
        t.publish(&t.topic("499"), "last", AtMostOnce)?;
        c.expect_payload("last").map(|_| ())
    }),
];
