//! What versions have in common, and the forms that packets of 5.0 may have.

use super::prelude::*;

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

/// A client of any version.
fn connect<'t>(t: &'t Bench<'t>, version: Version, name: &str) -> Outcome<Client<'t>> {
    t.connect_with(Connect::new(version, &t.id(name)))
}

pub const TESTS: &[Test] = &[
    v5("messages_go_from_any_version_to_any", &[], |t| {
        let topic = t.topic("a");
        for to in VERSIONS {
            let mut s = connect(t, to, "to")?;
            s.subscribe(&topic, ExactlyOnce)?;
            for from in VERSIONS {
                let mut p = connect(t, from, "from")?;
                for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
                    let text = format!("{from:?} to {to:?}");
                    let properties = [Property::UserProperty("k", "v")];
                    let properties = Properties::new(&properties);
                    let message = Publish { properties, ..Publish::new(&topic, text.as_bytes()) };
                    p.publish_with(Publish { qos, ..message })?;
                    let came = s.expect_payload(&text)?;
                    equal("QoS", came.qos, qos)?;
                    let expected = usize::from(from.is_v5() && to.is_v5());
                    equal("properties", came.properties().iter().count(), expected)?;
                }
            }
            s.disconnect()?;
        }
        Ok(())
    }),
    v5("retained_messages_and_wills_cross_versions", &[], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let will = Will {
            topic: &topic,
            payload: b"gone",
            qos: AtLeastOnce,
            retain: true,
            properties: Properties::NONE,
        };
        for from in VERSIONS {
            t.connect_with(Connect { will: Some(will), ..Connect::new(from, &id) })?.lose();
            for to in VERSIONS {
                let mut s = connect(t, to, "to")?;
                s.subscribe(&topic, AtLeastOnce)?;
                equal("RETAIN", s.expect_payload("gone")?.retain, true)?;
                s.disconnect()?;
            }
            t.retain(&topic, "", AtLeastOnce)?;
        }
        Ok(())
    }),
    v5("client_packets_may_carry_user_properties", &["MQTT-2.2.2-1"], |t| {
        let topic = t.topic("a");
        let user = [Property::UserProperty("k", "v"), Property::UserProperty("k", "v")];
        let mut c =
            t.connect_with(Connect { properties: Properties::new(&user), ..t.hello(&t.id("a")) })?;
        c.subscribe_with(&[Subscription::new(&topic, ExactlyOnce)], &user)?;
        let told = [Property::ReasonString("all is well"), Property::UserProperty("k", "v")];
        for qos in [AtLeastOnce, ExactlyOnce] {
            t.publish(&topic, "x", qos)?;
            let id = c.expect_publish()?.packet_id.unwrap_or(PacketId::MIN);
            let ack = Ack { properties: Properties::new(&told), ..Ack::new(id) };
            if qos == AtLeastOnce {
                c.send(Packet::PubAck(ack))?;
                continue;
            }
            c.send(Packet::PubRec(ack))?;
            c.expect_ack(PacketType::PubRel, id)?;
            c.send(Packet::PubComp(ack))?;
        }
        c.ping()?;
        let properties = Properties::new(&told);
        c.disconnect_with(Disconnect { reason: Success, properties })
    }),
    v5("acknowledgements_have_a_short_and_a_long_form", &[], |t| {
        let topic = t.topic("a");
        let mut c = t.connect_with(Connect {
            properties: Properties::new(&[Property::ReceiveMaximum(1)]),
            ..t.hello(&t.id("a"))
        })?;
        c.subscribe(&topic, AtLeastOnce)?;
        // Without reason code, with it, and with a property length of zero as well.
        for rest in [&[][..], &[0], &[0, 0]] {
            t.publish(&topic, "x", AtLeastOnce)?;
            let id = c.expect_publish()?.packet_id.unwrap_or(PacketId::MIN);
            c.send_raw(&raw::packet(0x40, &[&id.get().to_be_bytes(), rest]));
        }
        c.ping()?;
        t.publish(&topic, "next", AtLeastOnce)?;
        c.expect_payload("next").map(|_| ())
    }),
    v5("disconnect_has_a_short_and_a_long_form", &["MQTT-3.14.4-3"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        for bytes in [&[0xe0, 0][..], &[0xe0, 1, 0], &[0xe0, 2, 0, 0]] {
            let will = Will {
                topic: &topic,
                payload: b"gone",
                qos: AtLeastOnce,
                retain: false,
                properties: Properties::NONE,
            };
            let mut c = t.connect_with(Connect { will: Some(will), ..t.hello(&t.id("a")) })?;
            c.send_raw(bytes);
            c.expect_closed()?;
        }
        s.expect_nothing()
    }),
];
