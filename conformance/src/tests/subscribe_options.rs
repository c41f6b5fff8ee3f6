//! Subscription options and identifiers of 5.0 (sections 3.8.2 and 3.8.3.1).

use super::prelude::*;

/// Subscribes at QoS 1 with an identifier.
fn subscribe(c: &mut Client<'_>, filter: &str, id: u32) -> Outcome {
    let properties = [Property::SubscriptionIdentifier(id)];
    let codes = c.subscribe_with(&[Subscription::new(filter, AtLeastOnce)], &properties)?;
    equal("granted QoS", codes, vec![1])
}

/// Sends bytes on a connection of its own and awaits that it is closed as malformed.
fn refused(t: &Bench<'_>, bytes: &[u8]) -> Outcome {
    let mut c = t.connect()?;
    c.send_raw(bytes);
    c.expect_malformed()
}

pub const TESTS: &[Test] = &[
    v5("no_local_keeps_own_messages_away", &["MQTT-3.8.3-3"], |t| {
        let topic = t.topic("a");
        let mut c = t.connect()?;
        let subscription =
            Subscription { no_local: true, ..Subscription::new(&topic, AtLeastOnce) };
        c.subscribe_with(&[subscription], &[])?;
        c.publish(&topic, "mine", AtLeastOnce)?;
        t.publish(&topic, "theirs", AtLeastOnce)?;
        c.expect_payload("theirs")?;
        c.expect_nothing()
    }),
    v5("no_local_holds_for_a_queued_message", &["MQTT-3.8.3-3"], |t| {
        // What a client publishes goes to its own session only without No Local.
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut c = t.connect_with(t.resume(&id))?;
        let subscription =
            Subscription { no_local: true, ..Subscription::new(&topic, AtLeastOnce) };
        c.subscribe_with(&[subscription], &[])?;
        c.publish(&topic, "mine", AtLeastOnce)?;
        c.disconnect()?;
        t.connect_with(t.resume(&id))?.expect_nothing()
    }),
    v5("without_no_local_own_messages_come", &[], |t| {
        let topic = t.topic("a");
        let mut c = t.subscriber(&topic, AtLeastOnce)?;
        c.publish(&topic, "mine", AtLeastOnce)?;
        c.expect_payload("mine").map(|_| ())
    }),
    v5("no_local_on_a_shared_subscription_closes", &["MQTT-3.8.3-4"], |t| {
        let mut c = t.connect()?;
        need(c.server.shared, "shared subscriptions")?;
        c.send_raw(&raw::subscribe(t.version, b"$share/g/a", &[], 0x05));
        c.expect_closed_with(&[ProtocolError])
    }),
    v5("retain_handling_3_closes", &["MQTT-4.13.1-1"], |t| {
        refused(t, &raw::subscribe(t.version, b"a", &[], 0x30))
    }),
    v5("a_message_carries_its_subscription_identifier", &["MQTT-3.3.4-3"], |t| {
        let mut s = t.connect()?;
        for (rest, id) in [("a", 1), ("b", 127), ("c", 128), ("d", 268_435_455)] {
            let topic = t.topic(rest);
            subscribe(&mut s, &topic, id)?;
            t.publish(&topic, rest, AtLeastOnce)?;
            equal("identifiers", s.expect_payload(rest)?.subscription_ids(), vec![id])?;
        }
        Ok(())
    }),
    v5(
        "overlapping_subscriptions_give_all_identifiers",
        &["MQTT-3.3.4-3", "MQTT-3.3.4-4", "MQTT-3.3.4-5"],
        |t| {
            let mut s = t.connect()?;
            subscribe(&mut s, &t.topic("a/+"), 1)?;
            subscribe(&mut s, &t.topic("a/#"), 2)?;
            subscribe(&mut s, &t.topic("a/b"), 3)?;
            subscribe(&mut s, &t.topic("a/c"), 4)?;
            t.publish(&t.topic("a/b"), "x", AtLeastOnce)?;
            let messages = s.drain()?;
            let ids: Vec<Vec<u32>> = messages.iter().map(Message::subscription_ids).collect();
            // One copy with all identifiers, or a copy with its own for each subscription.
            let mut all: Vec<u32> = ids.concat();
            all.sort_unstable();
            equal("identifiers", all, vec![1, 2, 3])?;
            check([1, 3].contains(&ids.len()), &format!("came copies with {ids:?}"))
        },
    ),
    v5("subscriptions_may_share_an_identifier", &["MQTT-3.3.4-3"], |t| {
        let mut s = t.connect()?;
        subscribe(&mut s, &t.topic("a/+"), 7)?;
        subscribe(&mut s, &t.topic("a/b"), 7)?;
        t.publish(&t.topic("a/b"), "x", AtLeastOnce)?;
        for message in s.drain()? {
            let ids = message.subscription_ids();
            check(!ids.is_empty() && ids.iter().all(|&id| id == 7), &format!("came {ids:?}"))?;
        }
        Ok(())
    }),
    v5("replacing_a_subscription_replaces_its_identifier", &["MQTT-3.8.4-3"], |t| {
        let topic = t.topic("a");
        let mut s = t.connect()?;
        subscribe(&mut s, &topic, 1)?;
        subscribe(&mut s, &topic, 2)?;
        t.publish(&topic, "x", AtLeastOnce)?;
        equal("identifiers", s.expect_payload("x")?.subscription_ids(), vec![2])?;
        s.subscribe(&topic, AtLeastOnce)?;
        t.publish(&topic, "y", AtLeastOnce)?;
        equal("identifiers", s.expect_payload("y")?.subscription_ids(), vec![])
    }),
    v5("subscription_identifiers_are_part_of_the_session", &["MQTT-3.3.4-3"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut s = t.connect_with(t.resume(&id))?;
        subscribe(&mut s, &topic, 9)?;
        s.disconnect()?;
        t.publish(&topic, "queued", AtLeastOnce)?;
        let mut s = t.connect_with(t.resume(&id))?;
        equal("identifiers", s.expect_payload("queued")?.subscription_ids(), vec![9])?;
        t.publish(&topic, "live", AtLeastOnce)?;
        equal("identifiers", s.expect_payload("live")?.subscription_ids(), vec![9])
    }),
    v5("subscription_identifier_0_closes", &["MQTT-4.13.1-1"], |t| {
        refused(t, &raw::subscribe(t.version, b"a", &[0x0b, 0], 0))
    }),
    v5("subscribe_has_one_subscription_identifier", &["MQTT-4.13.1-1"], |t| {
        refused(t, &raw::subscribe(t.version, b"a", &[0x0b, 1, 0x0b, 2], 0))
    }),
    v5("subscribe_has_no_properties_of_other_packets", &["MQTT-4.13.1-1"], |t| {
        refused(t, &raw::subscribe(t.version, b"a", &[0x23, 0, 1], 0))?;
        refused(t, &raw::subscribe(t.version, b"a", &[0x7f, 0], 0))
    }),
];
