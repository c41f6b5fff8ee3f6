//! Properties of PUBLISH in 5.0 (section 3.3.2.3).

use super::prelude::*;

/// Sends a PUBLISH with raw properties and awaits that the connection is closed as malformed.
fn refused(t: &Bench<'_>, props: &[u8]) -> Outcome {
    let mut c = t.connect()?;
    c.send_raw(&raw::publish(t.version, t.topic("a").as_bytes(), props, b"x"));
    let reasons = [MalformedPacket, ProtocolError, TopicNameInvalid];
    c.expect_closed_with(&reasons).map_err(|stop| stop.of(format!("properties {props:02x?}")))
}

/// Publishes with these properties, and returns what comes back of them.
fn pass<'p>(t: &Bench<'_>, properties: &'p [Property<'p>]) -> Outcome<Message> {
    let topic = t.topic("a");
    let mut s = t.subscriber(&topic, AtLeastOnce)?;
    let properties = Properties::new(properties);
    let publish = Publish { qos: AtLeastOnce, properties, ..Publish::new(&topic, b"text") };
    t.connect()?.publish_with(publish)?;
    s.receive()
}

/// Fails unless the message has this property.
fn has(message: &Message, property: Property<'_>) -> Outcome {
    let there = message.properties().iter().any(|p| p == property);
    check(there, &format!("{property:?} is missing in {:?}", message.properties()))
}

/// Publishes at QoS 1 with a message expiry interval.
fn publish_expiring(t: &Bench<'_>, topic: &str, payload: &str, expiry_s: u32) -> Outcome {
    let properties = [Property::MessageExpiryIntervalS(expiry_s)];
    let properties = Properties::new(&properties);
    let message = Publish::new(topic, payload.as_bytes());
    t.connect()?.publish_with(Publish { qos: AtLeastOnce, properties, ..message }).map(|_| ())
}

/// The message expiry interval of a message.
fn expiry(message: &Message) -> Option<u32> {
    message.property(|p| match p {
        Property::MessageExpiryIntervalS(left) => Some(left),
        _ => None,
    })
}

pub const TESTS: &[Test] = &[
    v5("the_payload_format_indicator_is_passed_on", &["MQTT-3.3.2-4"], |t| {
        for format in [0, 1] {
            let message = pass(t, &[Property::PayloadFormatIndicator(format)])?;
            let came = message.property(|p| match p {
                Property::PayloadFormatIndicator(format) => Some(format),
                _ => None,
            });
            equal("payload format indicator", came.unwrap_or(0), format)?;
        }
        Ok(())
    }),
    v5("the_content_type_is_passed_on", &["MQTT-3.3.2-20"], |t| {
        let property = Property::ContentType("text/plain; charset=ütf");
        has(&pass(t, &[property])?, property)
    }),
    v5("the_response_topic_is_passed_on", &["MQTT-3.3.2-15"], |t| {
        let property = Property::ResponseTopic("answers/äöü");
        has(&pass(t, &[property])?, property)
    }),
    v5("correlation_data_is_passed_on", &["MQTT-3.3.2-16"], |t| {
        let property = Property::CorrelationData(b"\0\x01\xff\xfe");
        has(&pass(t, &[property])?, property)
    }),
    v5("user_properties_are_passed_on_in_order", &["MQTT-3.3.2-17", "MQTT-3.3.2-18"], |t| {
        let properties = [
            Property::UserProperty("z", "1"),
            Property::UserProperty("a", "2"),
            Property::UserProperty("z", "1"),
            Property::UserProperty("", ""),
            Property::UserProperty("a", "0"),
        ];
        let message = pass(t, &properties)?;
        let user = |p: &Property<'_>| matches!(p, Property::UserProperty(..));
        let came: Vec<_> = message.properties().iter().filter(user).collect();
        equal("user properties", &came[..], &properties[..])
    }),
    v5("a_retained_message_keeps_its_properties", &["MQTT-3.3.2-17"], |t| {
        let topic = t.topic("a");
        let properties = [Property::ContentType("x/y"), Property::UserProperty("k", "v")];
        t.connect()?.publish_with(Publish {
            qos: AtLeastOnce,
            retain: true,
            properties: Properties::new(&properties),
            ..Publish::new(&topic, b"kept")
        })?;
        let message = t.subscriber(&topic, AtLeastOnce)?.expect_payload("kept")?;
        properties.iter().try_for_each(|property| has(&message, *property))
    }),
    v5("a_queued_message_keeps_its_properties", &["MQTT-3.3.2-17"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        s.subscribe(&topic, AtLeastOnce)?;
        s.disconnect()?;
        let properties = [Property::CorrelationData(b"c"), Property::UserProperty("k", "v")];
        t.connect()?.publish_with(Publish {
            qos: AtLeastOnce,
            properties: Properties::new(&properties),
            ..Publish::new(&topic, b"kept")
        })?;
        let message = t.connect_with(t.resume(&id))?.expect_payload("kept")?;
        properties.iter().try_for_each(|property| has(&message, *property))
    }),
    v5("a_text_payload_that_is_not_utf_8_may_be_refused", &[], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let mut c = t.connect()?;
        let props = raw::properties(t.version, &[0x01, 1]);
        c.send_raw(&raw::packet(0x32, &[&raw::field(&topic), &[0, 1], &props, b"\xff\xfe"]));
        match c.expect_ack(PacketType::PubAck, packet_id(1)) {
            Ok(puback) if puback.reason == PayloadFormatInvalid => s.expect_nothing(),
            Ok(puback) => {
                let refusal = puback.reason.is_error() || t.strict;
                check(!refusal, &format!("expected 0x99, came {:?}", puback.reason))?;
                s.receive().map(|_| ())
            }
            Err(_) => {
                c.expect_closed_with(&[PayloadFormatInvalid])?;
                s.expect_nothing()
            }
        }
    }),
    v5("message_expiry_is_counted_down", &["MQTT-3.3.2-6"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        s.subscribe(&topic, AtLeastOnce)?;
        s.disconnect()?;
        publish_expiring(t, &topic, "ages", 60)?;
        t.advance_s(3);
        let message = t.connect_with(t.resume(&id))?.expect_payload("ages")?;
        let left = expiry(&message);
        check(left.is_some_and(|left| (40..=58).contains(&left)), &format!("came {left:?}"))
    })
    .slow(),
    v5("message_expiry_is_passed_on", &["MQTT-3.3.2-6"], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        publish_expiring(t, &topic, "fresh", 600)?;
        let message = s.expect_payload("fresh")?;
        let left = expiry(&message);
        check(left.is_some_and(|left| (590..=600).contains(&left)), &format!("came {left:?}"))
    }),
    v5("an_expired_message_is_not_delivered", &["MQTT-3.3.2-5"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        s.subscribe(&topic, AtLeastOnce)?;
        s.disconnect()?;
        publish_expiring(t, &topic, "old", 1)?;
        publish_expiring(t, &topic, "young", 600)?;
        t.advance_s(3);
        let mut s = t.connect_with(t.resume(&id))?;
        s.expect_payload("young")?;
        s.expect_nothing()
    })
    .slow(),
    v5("an_expired_retained_message_is_not_delivered", &["MQTT-3.3.2-5"], |t| {
        let topic = t.topic("a");
        let properties = [Property::MessageExpiryIntervalS(1)];
        t.connect()?.publish_with(Publish {
            qos: AtLeastOnce,
            retain: true,
            properties: Properties::new(&properties),
            ..Publish::new(&topic, b"old")
        })?;
        t.advance_s(3);
        t.subscriber(&topic, AtLeastOnce)?.expect_nothing()
    })
    .slow(),
    v5("a_response_topic_is_utf_8", &["MQTT-3.3.2-13"], |t| refused(t, &[0x08, 0, 2, b'a', 0xff])),
    v5("a_response_topic_has_no_wildcards", &["MQTT-3.3.2-14"], |t| {
        refused(t, &[0x08, 0, 3, b'a', b'/', b'+'])?;
        refused(t, &[0x08, 0, 3, b'a', b'/', b'#'])
    }),
    v5("a_content_type_is_utf_8", &["MQTT-3.3.2-19"], |t| refused(t, &[0x03, 0, 2, b'a', 0xff])),
    v5("user_properties_of_publish_are_utf_8", &["MQTT-1.5.7-1"], |t| {
        refused(t, &[0x26, 0, 1, 0xff, 0, 1, b'v'])?;
        refused(t, &[0x26, 0, 1, b'k', 0, 1, 0xff])
    }),
    v5("publish_properties_come_once", &["MQTT-4.13.1-1"], |t| {
        refused(t, &[0x01, 0, 0x01, 0])?;
        refused(t, &[0x02, 0, 0, 0, 9, 0x02, 0, 0, 0, 9])?;
        refused(t, &[0x03, 0, 1, b'a', 0x03, 0, 1, b'a'])?;
        refused(t, &[0x08, 0, 1, b'a', 0x08, 0, 1, b'a'])?;
        refused(t, &[0x09, 0, 1, b'a', 0x09, 0, 1, b'a'])
    }),
    v5("publish_has_no_properties_of_other_packets", &["MQTT-4.13.1-1"], |t| {
        // Session Expiry Interval, Receive Maximum, Reason String, and one that does not exist.
        refused(t, &[0x11, 0, 0, 0, 1])?;
        refused(t, &[0x21, 0, 9])?;
        refused(t, &[0x1f, 0, 1, b'a'])?;
        refused(t, &[0x7f, 0])
    }),
    v5("a_payload_format_indicator_is_0_or_1", &["MQTT-4.13.1-1"], |t| refused(t, &[0x01, 2])),
    v5("properties_end_with_their_length", &["MQTT-4.13.1-1"], |t| {
        // A content type that goes beyond the properties.
        refused(t, &[0x03, 0, 9, b'a'])?;
        refused(t, &[0x02, 0, 0])
    }),
    v5("message_expiry_of_a_retained_message_is_counted_down", &["MQTT-3.3.2-6"], |t| {
        let topic = t.topic("a");
        let properties = [Property::MessageExpiryIntervalS(60)];
        t.connect()?.publish_with(Publish {
            qos: AtLeastOnce,
            retain: true,
            properties: Properties::new(&properties),
            ..Publish::new(&topic, b"ages")
        })?;
        t.advance_s(3);
        let left = expiry(&t.subscriber(&topic, AtLeastOnce)?.expect_payload("ages")?);
        check(left.is_some_and(|left| (40..=58).contains(&left)), &format!("came {left:?}"))
    })
    .slow(),
];
