//! Shared subscriptions (section 4.8.2).

use super::prelude::*;

/// A filter shared by the group `group` of this run.
fn share(t: &Bench<'_>, group: &str, filter: &str) -> String {
    format!("$share/{}/{}", t.id(group), t.topic(filter))
}

/// Subscribes to a filter that is none, which may also be refused in the SUBACK.
fn refused_filter(t: &Bench<'_>, filter: &str) -> Outcome {
    let mut c = t.connect()?;
    need(c.server.shared, "shared subscriptions")?;
    c.send_raw(&raw::subscribe(t.version, filter.as_bytes(), &[], 1));
    let outcome = match c.expect(PacketType::SubAck) {
        Ok(suback) => check(suback.codes.iter().all(|&code| code >= 0x80), "granted"),
        Err(_) => c.expect_closed_with(&[TopicFilterInvalid, MalformedPacket, ProtocolError]),
    };
    outcome.map_err(|stop| stop.of(format!("filter {filter:?}")))
}

/// A member with a session that lasts.
fn member<'t>(t: &'t Bench<'t>, id: &str, filter: &str) -> Outcome<Client<'t>> {
    let mut c = t.connect_with(t.resume(&t.id(id)))?;
    c.subscribe(filter, ExactlyOnce)?;
    Ok(c)
}

pub const TESTS: &[Test] = &[
    v5("a_shared_message_goes_to_one_member", &["MQTT-4.8.2-1"], |t| {
        let filter = share(t, "g", "+");
        let mut members = [
            t.subscriber(&filter, AtLeastOnce)?,
            t.subscriber(&filter, AtLeastOnce)?,
            t.subscriber(&filter, AtLeastOnce)?,
        ];
        let mut p = t.connect()?;
        for number in 0..30 {
            p.publish(&t.topic("a"), &number.to_string(), AtLeastOnce)?;
        }
        let mut came = Vec::new();
        for member in &mut members {
            let messages = member.drain()?;
            // How messages are spread is the server's choice.
            check(!t.strict || (5..=15).contains(&messages.len()), "the members do not share")?;
            came.extend(messages.iter().map(Message::text));
        }
        came.sort_by_key(|text| text.parse::<u32>().ok());
        equal("messages", came, (0..30).map(|number| number.to_string()).collect())
    }),
    v5("a_group_is_a_subscriber_of_its_own", &["MQTT-4.8.2-1"], |t| {
        let topic = t.topic("a");
        let mut first = t.subscriber(&share(t, "g", "a"), AtLeastOnce)?;
        let mut second = t.subscriber(&share(t, "h", "a"), AtLeastOnce)?;
        let mut plain = t.subscriber(&topic, AtLeastOnce)?;
        t.publish(&topic, "x", AtLeastOnce)?;
        for client in [&mut first, &mut second, &mut plain] {
            client.expect_payload("x")?;
            client.expect_nothing()?;
        }
        Ok(())
    }),
    v5("a_member_may_also_subscribe_alone", &["MQTT-3.8.4-3"], |t| {
        let mut c = t.subscriber(&t.topic("a"), AtLeastOnce)?;
        c.subscribe(&share(t, "g", "a"), AtLeastOnce)?;
        t.publish(&t.topic("a"), "x", AtLeastOnce)?;
        c.expect_payload("x")?;
        c.expect_payload("x")?;
        c.expect_nothing()
    }),
    v5("a_shared_filter_has_a_share_name", &["MQTT-4.8.2-1"], |t| refused_filter(t, "$share//a")),
    v5("a_share_name_is_followed_by_a_filter", &["MQTT-4.8.2-2"], |t| {
        for filter in ["$share/g", "$share/g/", "$share/+/a", "$share/g+/a", "$share/#/a"] {
            refused_filter(t, filter)?;
        }
        refused_filter(t, "$share/g/a/#/b")
    }),
    v5("shared_delivery_respects_the_granted_qos", &["MQTT-4.8.2-3"], |t| {
        let topic = t.topic("a");
        for granted in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            let mut c = t.subscriber(&share(t, "g", "a"), granted)?;
            t.publish(&topic, "x", ExactlyOnce)?;
            equal("QoS", c.expect_payload("x")?.qos, granted)?;
            c.disconnect()?;
        }
        Ok(())
    }),
    v5("a_begun_qos_2_delivery_waits_for_its_member", &["MQTT-4.8.2-4"], |t| {
        let filter = share(t, "g", "a");
        let mut a = member(t, "a", &filter)?;
        t.publish(&t.topic("a"), "x", ExactlyOnce)?;
        let first = a.expect_publish()?;
        let mut b = member(t, "b", &filter)?;
        a.lose();
        b.expect_nothing()?;
        let mut a = t.connect_with(t.resume(&t.id("a")))?;
        let again = a.expect_payload("x")?;
        equal("packet identifier", again.packet_id, first.packet_id)?;
        b.expect_nothing()
    }),
    v5("a_begun_qos_2_delivery_ends_with_the_session", &["MQTT-4.8.2-5"], |t| {
        let filter = share(t, "g", "a");
        let mut a = member(t, "a", &filter)?;
        t.publish(&t.topic("a"), "x", ExactlyOnce)?;
        a.expect_publish()?;
        let mut b = member(t, "b", &filter)?;
        a.lose();
        t.connect_with(t.hello(&t.id("a")))?.disconnect()?;
        b.expect_nothing()
    }),
    v5("a_refused_shared_message_goes_nowhere_else", &["MQTT-4.8.2-6"], |t| {
        let filter = share(t, "g", "a");
        for qos in [AtLeastOnce, ExactlyOnce] {
            let mut a = member(t, "a", &filter)?;
            t.publish(&t.topic("a"), "x", qos)?;
            let id = a.expect_publish()?.packet_id.unwrap_or(PacketId::MIN);
            let mut b = member(t, "b", &filter)?;
            let refusal = Ack { reason: ImplementationSpecificError, ..Ack::new(id) };
            let is_qos_1 = qos == AtLeastOnce;
            a.send(if is_qos_1 { Packet::PubAck(refusal) } else { Packet::PubRec(refusal) })?;
            a.expect_nothing()?;
            b.expect_nothing()?;
            b.unsubscribe(&[&filter])?;
        }
        Ok(())
    }),
    v5("a_lost_members_qos_1_message_goes_to_another", &[], |t| {
        // The standard leaves it to the server.
        need(t.strict, "promise to pass messages of a lost member on")?;
        let filter = share(t, "g", "a");
        let mut a = t.subscriber(&filter, AtLeastOnce)?;
        t.publish(&t.topic("a"), "x", AtLeastOnce)?;
        a.expect_publish()?;
        let mut b = t.subscriber(&filter, AtLeastOnce)?;
        a.lose();
        b.expect_payload("x").map(|_| ())
    }),
    v5("an_absent_member_gets_nothing_while_another_is_there", &[], |t| {
        need(t.strict, "promise to prefer connected members")?;
        let filter = share(t, "g", "a");
        member(t, "a", &filter)?.disconnect()?;
        let mut b = member(t, "b", &filter)?;
        let mut p = t.connect()?;
        for number in 0..5 {
            p.publish(&t.topic("a"), &number.to_string(), AtLeastOnce)?;
        }
        for number in 0..5 {
            b.expect_payload(&number.to_string())?;
        }
        t.connect_with(t.resume(&t.id("a")))?.expect_nothing()
    }),
    v5("a_shared_subscription_is_part_of_the_session", &["MQTT-3.1.2-23"], |t| {
        let filter = share(t, "g", "a");
        member(t, "a", &filter)?.disconnect()?;
        t.publish(&t.topic("a"), "queued", AtLeastOnce)?;
        let mut a = t.connect_with(t.resume(&t.id("a")))?;
        a.expect_payload("queued")?;
        t.publish(&t.topic("a"), "live", AtLeastOnce)?;
        a.expect_payload("live").map(|_| ())
    }),
    v5("a_member_can_leave_the_group", &["MQTT-3.10.4-1"], |t| {
        let filter = share(t, "g", "a");
        let mut a = t.subscriber(&filter, AtLeastOnce)?;
        let mut b = t.subscriber(&filter, AtLeastOnce)?;
        equal("codes", a.unsubscribe(&[&filter])?, vec![0])?;
        let mut p = t.connect()?;
        for number in 0..4 {
            p.publish(&t.topic("a"), &number.to_string(), AtLeastOnce)?;
            b.expect_payload(&number.to_string())?;
        }
        a.expect_nothing()
    }),
    v5("a_shared_message_carries_the_subscription_identifier", &["MQTT-3.3.4-3"], |t| {
        let filter = share(t, "g", "a");
        let mut c = t.connect()?;
        let id = [Property::SubscriptionIdentifier(11)];
        c.subscribe_with(&[Subscription::new(&filter, AtLeastOnce)], &id)?;
        t.publish(&t.topic("a"), "x", AtLeastOnce)?;
        equal("identifiers", c.expect_payload("x")?.subscription_ids(), vec![11])
    }),
];
