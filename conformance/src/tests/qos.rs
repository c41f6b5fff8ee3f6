//! The flows of QoS 1 and 2 with the broker as receiver (section 4.3), and delivery on one
//! connection.

use super::prelude::*;

/// Sends a PUBLISH of QoS 2 and awaits its PUBREC.
fn begin(c: &mut Client<'_>, topic: &str, payload: &str, id: u16, dup: bool) -> Outcome {
    let message = Publish::new(topic, payload.as_bytes());
    let packet_id = Some(packet_id(id));
    c.send(Packet::Publish(Publish { dup, qos: ExactlyOnce, packet_id, ..message }))?;
    let pubrec = c.expect_ack(PacketType::PubRec, super::prelude::packet_id(id))?;
    check(!pubrec.reason.is_error(), "a message was refused")
}

/// Sends PUBREL and awaits its PUBCOMP.
fn complete(c: &mut Client<'_>, id: u16) -> Outcome {
    c.send(Packet::PubRel(Ack::new(packet_id(id))))?;
    c.expect_ack(PacketType::PubComp, packet_id(id)).map(|_| ())
}

pub const TESTS: &[Test] = &[
    all(
        "qos_1_is_answered_with_puback",
        &["MQTT-3.3.4-1", "MQTT-4.3.2-4", "MQTT-3.4.2-1"],
        &["MQTT-3.3.4-1", "MQTT-4.3.2-2"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            t.publish(&topic, "x", AtLeastOnce)?;
            equal("QoS", s.expect_payload("x")?.qos, AtLeastOnce)?;
            s.expect_nothing()
        },
    ),
    all("after_puback_the_packet_identifier_is_free", &["MQTT-4.3.2-5"], &["MQTT-4.3.2-2"], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, ExactlyOnce)?;
        let mut c = t.connect()?;
        for dup in [false, true, false] {
            let packet_id = Some(packet_id(5));
            let message = Publish { dup, packet_id, ..Publish::new(&topic, b"x") };
            c.publish_with(Publish { qos: AtLeastOnce, ..message })?;
        }
        for _ in 0..3 {
            s.expect_payload("x")?;
        }
        s.expect_nothing()
    }),
    all(
        "qos_2_is_answered_with_pubrec_and_pubcomp",
        &["MQTT-3.3.4-1", "MQTT-4.3.3-8", "MQTT-4.3.3-11", "MQTT-3.5.2-1", "MQTT-3.7.2-1"],
        &["MQTT-3.3.4-1", "MQTT-4.3.3-2"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            t.publish(&topic, "x", ExactlyOnce)?;
            equal("QoS", s.expect_payload("x")?.qos, ExactlyOnce)?;
            s.expect_nothing()
        },
    ),
    all(
        "until_pubrel_a_repetition_is_no_new_message",
        &["MQTT-4.3.3-10"],
        &["MQTT-4.3.3-2"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            let mut c = t.connect()?;
            begin(&mut c, &topic, "x", 5, false)?;
            begin(&mut c, &topic, "x", 5, true)?;
            complete(&mut c, 5)?;
            s.expect_payload("x")?;
            s.expect_nothing()
        },
    ),
    all(
        "after_pubcomp_the_packet_identifier_is_free",
        &["MQTT-4.3.3-12"],
        &["MQTT-4.3.3-2"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            let mut c = t.connect()?;
            for dup in [false, true, false] {
                begin(&mut c, &topic, "x", 5, dup)?;
                complete(&mut c, 5)?;
                s.expect_payload("x")?;
            }
            s.expect_nothing()
        },
    ),
    all("pubrel_is_always_answered", &["MQTT-4.3.3-11"], &["MQTT-4.3.3-2"], |t| {
        let mut c = t.connect()?;
        begin(&mut c, &t.topic("a"), "x", 5, false)?;
        complete(&mut c, 5)?;
        complete(&mut c, 5)?;
        complete(&mut c, 99)?;
        c.ping()
    }),
    v5("a_pubrel_for_nothing_is_told_so", &["MQTT-3.7.2-1"], |t| {
        let mut c = t.connect()?;
        c.send(Packet::PubRel(Ack::new(packet_id(99))))?;
        let pubcomp = c.expect_ack(PacketType::PubComp, packet_id(99))?;
        // Success is wrong by table 3-7, but common, since it lets the client go on.
        let reasons = if t.strict { &[PacketIdNotFound][..] } else { &[PacketIdNotFound, Success] };
        one_of("reason of PUBCOMP", pubcomp.reason, reasons)
    }),
    v5("a_pubrec_for_nothing_is_told_so", &["MQTT-3.6.2-1"], |t| {
        let mut c = t.connect()?;
        c.send(Packet::PubRec(Ack::new(packet_id(99))))?;
        match c.expect_ack(PacketType::PubRel, packet_id(99)) {
            Ok(pubrel) => {
                let strict = &[PacketIdNotFound][..];
                let reasons = if t.strict { strict } else { &[PacketIdNotFound, Success] };
                one_of("reason of PUBREL", pubrel.reason, reasons)
            }
            Err(stop) if t.strict => Err(stop),
            Err(_) => c.expect_closed_with(&[ProtocolError]),
        }
    }),
    both(
        "qos_2_goes_on_after_a_lost_connection",
        &["MQTT-4.3.3-10", "MQTT-4.3.3-11"],
        &["MQTT-4.3.3-2"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            let mut c = t.connect_with(t.resume(&id))?;
            begin(&mut c, &topic, "x", 5, false)?;
            c.lose();
            let mut c = t.connect_with(t.resume(&id))?;
            equal("session present", c.connack.session_present, true)?;
            begin(&mut c, &topic, "x", 5, true)?;
            c.lose();
            let mut c = t.connect_with(t.resume(&id))?;
            complete(&mut c, 5)?;
            s.expect_payload("x")?;
            s.expect_nothing()
        },
    ),
    both("several_qos_2_flows_run_at_once", &["MQTT-4.3.3-8"], &["MQTT-4.3.3-2"], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, ExactlyOnce)?;
        let mut c = t.connect()?;
        need(c.server.receive_maximum >= 5, "receive maximum of 5")?;
        for id in 1..=5 {
            begin(&mut c, &topic, &id.to_string(), id, false)?;
        }
        for id in 1..=5 {
            complete(&mut c, id)?;
        }
        for id in 1..=5 {
            s.expect_payload(&id.to_string())?;
        }
        s.expect_nothing()
    }),
    v5("after_a_refusal_the_packet_identifier_is_free", &["MQTT-4.3.3-9"], |t| {
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, ExactlyOnce)?;
        let mut c = t.connect()?;
        let props = raw::properties(t.version, &[0x01, 1]);
        c.send_raw(&raw::packet(0x34, &[&raw::field(&topic), &[0, 5], &props, b"\xff\xfe"]));
        let pubrec = c.expect_ack(PacketType::PubRec, packet_id(5));
        let refused = pubrec.is_ok_and(|pubrec| pubrec.reason.is_error());
        need(refused, "check of the payload format")?;
        begin(&mut c, &topic, "fine", 5, true)?;
        complete(&mut c, 5)?;
        s.expect_payload("fine")?;
        s.expect_nothing()
    }),
    v5("qos_2_completes_though_the_message_expires", &["MQTT-4.3.3-13"], |t| {
        let topic = t.topic("a");
        let mut c = t.connect()?;
        let props = raw::properties(t.version, &[0x02, 0, 0, 0, 1]);
        c.send_raw(&raw::packet(0x34, &[&raw::field(&topic), &[0, 5], &props, b"x"]));
        c.expect_ack(PacketType::PubRec, packet_id(5))?;
        t.advance_s(3);
        c.send(Packet::PubRel(Ack::new(packet_id(5))))?;
        let pubcomp = c.expect_ack(PacketType::PubComp, packet_id(5))?;
        equal("reason of PUBCOMP", pubcomp.reason, Success)
    })
    .slow(),
    all(
        "qos_1_and_2_are_first_sent_without_dup",
        &["MQTT-4.3.2-2", "MQTT-4.3.3-2"],
        &["MQTT-4.3.2-1", "MQTT-4.3.3-1"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            for qos in [AtLeastOnce, ExactlyOnce] {
                t.publish(&topic, "x", qos)?;
                let message = s.receive()?;
                equal("QoS", message.qos, qos)?;
                equal("DUP", message.dup, false)?;
                check(message.packet_id.is_some(), "no packet identifier")?;
            }
            Ok(())
        },
    ),
    all(
        "pubrec_is_answered_with_pubrel",
        &["MQTT-4.3.3-4", "MQTT-3.6.2-1"],
        &["MQTT-4.3.3-1"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            t.publish(&topic, "x", ExactlyOnce)?;
            let message = s.expect_publish()?;
            let id = message.packet_id.unwrap_or(PacketId::MIN);
            s.send(Packet::PubRec(Ack::new(id)))?;
            equal("reason of PUBREL", s.expect_ack(PacketType::PubRel, id)?.reason, Success)?;
            s.send(Packet::PubComp(Ack::new(id)))?;
            s.expect_nothing()
        },
    ),
    all("nothing_is_repeated_on_a_living_connection", &["MQTT-4.4.0-1"], &["MQTT-4.4.0-1"], |t| {
        // 3.1 allows a server to repeat after a time, though later than this.
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, ExactlyOnce)?;
        t.publish(&topic, "x", AtLeastOnce)?;
        t.publish(&topic, "y", ExactlyOnce)?;
        s.expect_publish()?;
        s.expect_publish()?;
        t.advance_s(4);
        s.expect_nothing()
    })
    .slow(),
    v5("a_refusing_puback_ends_the_delivery", &["MQTT-4.4.0-2"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        s.subscribe(&topic, ExactlyOnce)?;
        t.publish(&topic, "x", AtLeastOnce)?;
        let packet_id = s.expect_publish()?.packet_id.unwrap_or(PacketId::MIN);
        s.send(Packet::PubAck(Ack { reason: NotAuthorized, ..Ack::new(packet_id) }))?;
        s.ping()?;
        s.disconnect()?;
        t.connect_with(t.resume(&id))?.expect_nothing()
    }),
    v5("a_refusing_pubrec_ends_the_delivery", &["MQTT-4.4.0-2"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        s.subscribe(&topic, ExactlyOnce)?;
        t.publish(&topic, "x", ExactlyOnce)?;
        let packet_id = s.expect_publish()?.packet_id.unwrap_or(PacketId::MIN);
        s.send(Packet::PubRec(Ack { reason: QuotaExceeded, ..Ack::new(packet_id) }))?;
        s.expect_nothing()?;
        s.disconnect()?;
        t.connect_with(t.resume(&id))?.expect_nothing()
    }),
];
