//! What a resumed session repeats (section 4.4).

use super::prelude::*;

/// A client with a lasting session that has subscribed to `filter` at QoS 2.
fn subscriber<'t>(t: &'t Bench<'t>, id: &str, filter: &str) -> Outcome<Client<'t>> {
    let mut s = t.connect_with(t.resume(id))?;
    s.subscribe(filter, ExactlyOnce)?;
    Ok(s)
}

/// Resumes a session that must be there.
fn resume<'t>(t: &'t Bench<'t>, id: &str) -> Outcome<Client<'t>> {
    let s = t.connect_with(t.resume(id))?;
    // 3.1 does not tell.
    let present = s.connack.session_present || s.version == Version::V3_1;
    check(present, "the session is not there")?;
    Ok(s)
}

pub const TESTS: &[Test] = &[
    all(
        "unacknowledged_qos_1_is_repeated_with_dup",
        &["MQTT-3.3.1-1", "MQTT-4.3.2-3", "MQTT-4.4.0-1"],
        &["MQTT-3.3.1-1", "MQTT-4.3.2-1", "MQTT-4.4.0-1"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            let mut s = subscriber(t, &id, &topic)?;
            t.publish(&topic, "x", AtLeastOnce)?;
            let first = s.expect_publish()?;
            equal("DUP", first.dup, false)?;
            s.lose();
            let mut s = resume(t, &id)?;
            let again = s.expect_payload("x")?;
            equal("DUP", again.dup, true)?;
            equal("packet identifier", again.packet_id, first.packet_id)?;
            s.ping()?;
            s.lose();
            resume(t, &id)?.expect_nothing()
        },
    ),
    all(
        "unacknowledged_qos_2_is_repeated_with_dup",
        &["MQTT-3.3.1-1", "MQTT-4.3.3-3", "MQTT-4.4.0-1"],
        &["MQTT-3.3.1-1", "MQTT-4.3.3-1", "MQTT-4.4.0-1"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            let mut s = subscriber(t, &id, &topic)?;
            t.publish(&topic, "x", ExactlyOnce)?;
            let first = s.expect_publish()?;
            s.lose();
            let mut s = resume(t, &id)?;
            let again = s.expect_payload("x")?;
            equal("DUP", again.dup, true)?;
            equal("packet identifier", again.packet_id, first.packet_id)?;
            s.expect_nothing()
        },
    ),
    all(
        "after_pubrec_pubrel_is_repeated_and_publish_is_not",
        &["MQTT-4.3.3-5", "MQTT-4.3.3-6", "MQTT-4.4.0-1"],
        &["MQTT-4.3.3-1", "MQTT-4.4.0-1"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            let mut s = subscriber(t, &id, &topic)?;
            t.publish(&topic, "x", ExactlyOnce)?;
            let packet_id = s.expect_publish()?.packet_id.unwrap_or(PacketId::MIN);
            s.send(Packet::PubRec(Ack::new(packet_id)))?;
            s.expect_ack(PacketType::PubRel, packet_id)?;
            for _ in 0..2 {
                s.lose();
                s = resume(t, &id)?;
                s.expect_ack(PacketType::PubRel, packet_id)?;
                s.expect_nothing()?;
            }
            s.send(Packet::PubComp(Ack::new(packet_id)))?;
            s.ping()?;
            s.lose();
            resume(t, &id)?.expect_nothing()
        },
    ),
    both(
        "messages_are_repeated_in_order_with_their_packet_identifiers",
        &["MQTT-4.4.0-1", "MQTT-4.6.0-5"],
        &["MQTT-4.4.0-1", "MQTT-4.6.0-6"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            let mut s = subscriber(t, &id, &topic)?;
            let mut p = t.connect()?;
            let mut first = Vec::new();
            for number in 0..6 {
                let qos = if number % 2 == 0 { AtLeastOnce } else { ExactlyOnce };
                p.publish(&topic, &number.to_string(), qos)?;
                first.push(s.expect_publish()?);
            }
            // The third is done; the others are not.
            if let Some(third) = first.get(2) {
                s.acknowledge(third)?;
                s.ping()?;
                first.remove(2);
            }
            s.lose();
            let mut s = resume(t, &id)?;
            for message in first {
                let again = s.expect_publish()?;
                equal("payload", again.text(), message.text())?;
                equal("packet identifier", again.packet_id, message.packet_id)?;
                equal("QoS", again.qos, message.qos)?;
                equal("DUP", again.dup, true)?;
                s.acknowledge(&again)?;
            }
            s.expect_nothing()
        },
    ),
    both(
        "new_messages_come_after_the_repeated_ones",
        &["MQTT-4.4.0-1", "MQTT-3.3.1-1"],
        &["MQTT-4.4.0-1", "MQTT-3.3.1-1"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            let mut s = subscriber(t, &id, &topic)?;
            t.publish(&topic, "sent", AtLeastOnce)?;
            s.expect_publish()?;
            s.lose();
            t.publish(&topic, "queued", AtLeastOnce)?;
            let mut s = resume(t, &id)?;
            let sent = s.expect_payload("sent")?;
            let queued = s.expect_payload("queued")?;
            equal("DUP of the first", sent.dup, true)?;
            equal("DUP of the second", queued.dup, false)?;
            check(sent.packet_id != queued.packet_id, "a packet identifier in use came again")
        },
    ),
    v5("a_qos_2_message_on_its_way_does_not_expire", &["MQTT-4.3.3-7"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = subscriber(t, &id, &topic)?;
        let properties = [Property::MessageExpiryIntervalS(1)];
        let properties = Properties::new(&properties);
        let message = Publish { properties, ..Publish::new(&topic, b"x") };
        t.connect()?.publish_with(Publish { qos: ExactlyOnce, ..message })?;
        s.expect_publish()?;
        s.lose();
        t.advance_s(3);
        let mut s = resume(t, &id)?;
        equal("DUP", s.expect_payload("x")?.dup, true)
    })
    .slow(),
    both(
        "a_repeated_retained_message_is_a_retained_message",
        &["MQTT-4.4.0-1"],
        &["MQTT-4.4.0-1", "MQTT-3.3.1-8"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            t.retain(&topic, "kept", AtLeastOnce)?;
            let mut s = subscriber(t, &id, &topic)?;
            let first = s.expect_publish()?;
            equal("RETAIN", first.retain, true)?;
            s.lose();
            let again = resume(t, &id)?.expect_payload("kept")?;
            equal("packet identifier", again.packet_id, first.packet_id)?;
            equal("DUP", again.dup, true)?;
            equal("RETAIN", again.retain, true)
        },
    ),
    v5("a_repeated_message_keeps_its_properties", &["MQTT-4.4.0-1", "MQTT-3.3.4-3"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        let number = [Property::SubscriptionIdentifier(300)];
        s.subscribe_with(&[Subscription::new(&topic, AtLeastOnce)], &number)?;
        let properties = [Property::ContentType("x/y"), Property::UserProperty("k", "v")];
        t.connect()?.publish_with(Publish {
            qos: AtLeastOnce,
            properties: Properties::new(&properties),
            ..Publish::new(&topic, b"x")
        })?;
        let first = s.expect_publish()?;
        s.lose();
        let again = resume(t, &id)?.expect_payload("x")?;
        equal("properties", again.properties(), first.properties())?;
        equal("subscription identifiers", again.subscription_ids(), vec![300])
    }),
];
