//! Receive Maximum and Maximum Packet Size in both directions (sections 3.1.2.11, 3.2.2.3, 4.9).

use super::prelude::*;

/// A client that announces one property, and has subscribed to `filter`.
fn limited<'t>(t: &'t Bench<'t>, property: Property<'_>, filter: &str) -> Outcome<Client<'t>> {
    let properties = [property];
    let properties = Properties::new(&properties);
    let mut s = t.connect_with(Connect { properties, ..t.hello(&t.id("slow")) })?;
    s.subscribe(filter, ExactlyOnce)?;
    Ok(s)
}

/// The packet identifier of a message that has one.
fn id_of(message: &Message) -> PacketId {
    message.packet_id.unwrap_or(PacketId::MIN)
}

pub const TESTS: &[Test] = &[
    v5("the_server_keeps_to_the_clients_receive_maximum", &["MQTT-3.3.4-9", "MQTT-4.9.0-2"], |t| {
        let topic = t.topic("a");
        let mut s = limited(t, Property::ReceiveMaximum(2), &topic)?;
        let mut p = t.connect()?;
        for number in 0..5 {
            p.publish(&topic, &number.to_string(), AtLeastOnce)?;
        }
        let first = s.expect_publish()?;
        let second = s.expect_publish()?;
        s.expect_nothing()?;
        s.acknowledge(&first)?;
        let third = s.expect_publish()?;
        equal("payload", third.text(), "2".to_owned())?;
        s.expect_nothing()?;
        s.acknowledge(&second)?;
        s.acknowledge(&third)?;
        s.expect_payload("3")?;
        s.expect_payload("4")?;
        s.expect_nothing()
    }),
    v5("the_quota_of_qos_2_returns_with_pubcomp", &["MQTT-3.3.4-9", "MQTT-4.9.0-2"], |t| {
        let topic = t.topic("a");
        let mut s = limited(t, Property::ReceiveMaximum(1), &topic)?;
        let mut p = t.connect()?;
        for number in 0..2 {
            p.publish(&topic, &number.to_string(), ExactlyOnce)?;
        }
        let id = id_of(&s.expect_publish()?);
        s.expect_nothing()?;
        s.send(Packet::PubRec(Ack::new(id)))?;
        s.expect_ack(PacketType::PubRel, id)?;
        s.expect_nothing()?;
        s.send(Packet::PubComp(Ack::new(id)))?;
        s.expect_payload("1").map(|_| ())
    }),
    v5("the_quota_returns_with_a_refusing_pubrec", &["MQTT-3.3.4-9", "MQTT-4.4.0-2"], |t| {
        let topic = t.topic("a");
        let mut s = limited(t, Property::ReceiveMaximum(1), &topic)?;
        let mut p = t.connect()?;
        for number in 0..2 {
            p.publish(&topic, &number.to_string(), ExactlyOnce)?;
        }
        let id = id_of(&s.expect_publish()?);
        s.send(Packet::PubRec(Ack { reason: QuotaExceeded, ..Ack::new(id) }))?;
        s.expect_payload("1").map(|_| ())
    }),
    v5("at_a_quota_of_zero_all_else_flows", &["MQTT-3.3.4-10", "MQTT-4.9.0-3"], |t| {
        let topic = t.topic("a");
        let mut s = limited(t, Property::ReceiveMaximum(1), &topic)?;
        let mut p = t.connect()?;
        p.publish(&topic, "one", AtLeastOnce)?;
        p.publish(&topic, "two", AtLeastOnce)?;
        let one = s.expect_publish()?;
        equal("payload", one.text(), "one".to_owned())?;
        s.ping()?;
        s.subscribe(&t.topic("b"), AtLeastOnce)?;
        s.unsubscribe(&[&t.topic("b")])?;
        s.publish(&t.topic("c"), "mine", ExactlyOnce)?;
        s.acknowledge(&one)?;
        s.expect_payload("two").map(|_| ())
    }),
    v5("receive_maximum_holds_for_a_resumed_session", &["MQTT-3.3.4-9"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        s.subscribe(&topic, AtLeastOnce)?;
        s.disconnect()?;
        let mut p = t.connect()?;
        for number in 0..4 {
            p.publish(&topic, &number.to_string(), AtLeastOnce)?;
        }
        let properties = [Property::SessionExpiryIntervalS(600), Property::ReceiveMaximum(1)];
        let connect = Connect { properties: Properties::new(&properties), ..t.resume(&id) };
        let mut s = t.connect_with(connect)?;
        for number in 0..4 {
            let message = s.expect_publish()?;
            equal("payload", message.text(), number.to_string())?;
            s.expect_nothing()?;
            s.acknowledge(&message)?;
        }
        Ok(())
    }),
    v5("exceeding_the_servers_receive_maximum_closes", &["MQTT-3.3.4-7"], |t| {
        let mut c = t.connect()?;
        let maximum = c.server.receive_maximum;
        need(maximum <= 5000, "receive maximum that a test can exceed")?;
        let topic = t.topic("a");
        for id in 1..=maximum + 1 {
            let packet_id = Some(packet_id(id));
            let message = Publish { packet_id, ..Publish::new(&topic, b"x") };
            c.send(Packet::Publish(Publish { qos: ExactlyOnce, ..message }))?;
        }
        c.expect_closed_with(&[ReceiveMaximumExceeded])
    }),
    v5("a_message_too_large_for_the_client_is_dropped", &["MQTT-3.1.2-24", "MQTT-3.1.2-25"], |t| {
        let topic = t.topic("a");
        let id = t.id("a");
        let properties =
            [Property::SessionExpiryIntervalS(600), Property::MaximumPacketSizeBytes(200)];
        let connect = Connect { properties: Properties::new(&properties), ..t.resume(&id) };
        let mut s = t.connect_with(connect)?;
        s.subscribe(&topic, ExactlyOnce)?;
        let mut other = t.subscriber(&topic, ExactlyOnce)?;
        let large = "x".repeat(300);
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            t.publish(&topic, &large, qos)?;
            t.publish(&topic, "small", qos)?;
            s.expect_payload("small")?;
            other.expect_payload(&large)?;
            other.expect_payload("small")?;
        }
        s.expect_nothing()?;
        s.disconnect()?;
        // It counts as delivered, so that a client with room for it does not get it either.
        t.connect_with(t.resume(&id))?.expect_nothing()
    }),
    v5("messages_too_large_use_no_quota", &["MQTT-3.1.2-25", "MQTT-3.3.4-9"], |t| {
        let topic = t.topic("a");
        let properties = [Property::ReceiveMaximum(1), Property::MaximumPacketSizeBytes(200)];
        let properties = Properties::new(&properties);
        let mut s = t.connect_with(Connect { properties, ..t.hello(&t.id("a")) })?;
        s.subscribe(&topic, AtLeastOnce)?;
        for _ in 0..3 {
            t.publish(&topic, &"x".repeat(300), AtLeastOnce)?;
        }
        t.publish(&topic, "small", AtLeastOnce)?;
        s.expect_payload("small").map(|_| ())
    }),
    v5("a_queued_message_too_large_is_dropped", &["MQTT-3.1.2-24", "MQTT-3.1.2-25"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        s.subscribe(&topic, AtLeastOnce)?;
        s.disconnect()?;
        t.publish(&topic, &"x".repeat(300), AtLeastOnce)?;
        t.publish(&topic, "small", AtLeastOnce)?;
        let properties =
            [Property::SessionExpiryIntervalS(600), Property::MaximumPacketSizeBytes(200)];
        let connect = Connect { properties: Properties::new(&properties), ..t.resume(&id) };
        let mut s = t.connect_with(connect)?;
        s.expect_payload("small")?;
        s.expect_nothing()
    }),
    v5("a_retained_message_too_large_is_dropped", &["MQTT-3.1.2-24"], |t| {
        let topic = t.topic("a");
        t.retain(&topic, &"x".repeat(300), AtLeastOnce)?;
        limited(t, Property::MaximumPacketSizeBytes(200), &topic)?.expect_nothing()
    }),
    v5(
        "answers_keep_to_the_maximum_packet_size",
        &[
            "MQTT-3.1.2-24",
            "MQTT-3.2.2-19",
            "MQTT-3.2.2-20",
            "MQTT-3.4.2-2",
            "MQTT-3.4.2-3",
            "MQTT-3.5.2-2",
            "MQTT-3.5.2-3",
            "MQTT-3.6.2-2",
            "MQTT-3.6.2-3",
            "MQTT-3.7.2-2",
            "MQTT-3.7.2-3",
            "MQTT-3.9.2-1",
            "MQTT-3.9.2-2",
            "MQTT-3.11.2-1",
            "MQTT-3.11.2-2",
            "MQTT-3.14.2-3",
            "MQTT-3.14.2-4",
        ],
        |t| {
            // The client fails the test at any packet above its Maximum Packet Size. Each answer
            // is asked for in a way that invites a reason string.
            let (id, topic) = (t.id("a"), t.topic("a"));
            let properties = [Property::MaximumPacketSizeBytes(30)];
            let small = Connect { properties: Properties::new(&properties), ..t.hello(&id) };
            let method =
                [Property::MaximumPacketSizeBytes(30), Property::AuthenticationMethod("none")];
            let unknown = Connect { properties: Properties::new(&method), ..small };
            t.send_connect(unknown)?.expect_closed()?;
            let mut c = t.connect_with(small)?;
            c.publish(&topic, "x", AtLeastOnce)?;
            c.publish(&topic, "x", ExactlyOnce)?;
            c.send(Packet::PubRel(Ack::new(packet_id(99))))?;
            c.expect_ack(PacketType::PubComp, packet_id(99))?;
            c.subscribe(&topic, AtLeastOnce)?;
            c.unsubscribe(&["never/subscribed"])?;
            let props = raw::properties(t.version, &[0x01, 1]);
            c.send_raw(&raw::packet(0x34, &[&raw::field(&topic), &[0, 77], &props, b"\xff"]));
            if c.expect_ack(PacketType::PubRec, packet_id(77)).is_err() {
                return c.expect_closed_with(&[PayloadFormatInvalid]);
            }
            c.send_raw(&raw::subscribe(t.version, b"not/a#filter", &[], 0));
            if c.expect(PacketType::SubAck).is_err() {
                return c.expect_closed_with(&[TopicFilterInvalid, MalformedPacket, ProtocolError]);
            }
            c.send(Packet::Connect(small))?;
            c.expect_closed_with(&[ProtocolError])
        },
    ),
    v5("a_packet_too_large_for_the_server_closes", &["MQTT-3.2.2-15"], |t| {
        let mut c = t.connect()?;
        let maximum = c.server.maximum_packet_size_bytes.unwrap_or(u32::MAX);
        need(maximum < 268_000_000, "limit on the size of packets")?;
        // The header alone says how long the packet would be.
        let mut rest = maximum + 1;
        let mut bytes = vec![0x30];
        while rest > 0 {
            bytes.push((rest % 128) as u8 | if rest > 127 { 0x80 } else { 0 });
            rest /= 128;
        }
        bytes.extend(raw::field(t.topic("a")));
        bytes.resize(bytes.len() + 5000, 0);
        c.send_raw(&bytes);
        c.expect_closed_with(&[PacketTooLarge])
    }),
    v5("a_smaller_receive_maximum_holds_for_what_is_repeated", &["MQTT-3.3.4-9"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        s.subscribe(&topic, AtLeastOnce)?;
        for number in 0..4 {
            t.publish(&topic, &number.to_string(), AtLeastOnce)?;
            s.expect_publish()?;
        }
        s.lose();
        let properties = [Property::SessionExpiryIntervalS(600), Property::ReceiveMaximum(2)];
        let connect = Connect { properties: Properties::new(&properties), ..t.resume(&id) };
        let mut s = t.connect_with(connect)?;
        let first = s.expect_publish()?;
        let second = s.expect_publish()?;
        s.expect_nothing()?;
        s.acknowledge(&first)?;
        s.acknowledge(&second)?;
        s.expect_payload("2")?;
        s.expect_payload("3")?;
        s.expect_nothing()
    }),
    v5("what_is_repeated_keeps_to_the_maximum_packet_size", &["MQTT-3.1.2-24"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        s.subscribe(&topic, ExactlyOnce)?;
        for qos in [AtLeastOnce, ExactlyOnce] {
            t.publish(&topic, &"x".repeat(300), qos)?;
            s.expect_publish()?;
        }
        t.publish(&topic, "small", AtLeastOnce)?;
        s.expect_publish()?;
        s.lose();
        let properties =
            [Property::SessionExpiryIntervalS(600), Property::MaximumPacketSizeBytes(200)];
        let connect = Connect { properties: Properties::new(&properties), ..t.resume(&id) };
        let mut s = t.connect_with(connect)?;
        s.expect_payload("small")?;
        s.expect_nothing()
    }),
];
