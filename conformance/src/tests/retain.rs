//! Retained messages (sections 3.3.1.3 and 3.8.3.1).

use super::prelude::*;

/// Subscribes with a retain handling.
fn subscribe(c: &mut Client<'_>, filter: &str, retain_handling: RetainHandling) -> Outcome {
    let subscription = Subscription { retain_handling, ..Subscription::new(filter, AtLeastOnce) };
    c.subscribe_with(&[subscription], &[]).map(|_| ())
}

pub const TESTS: &[Test] = &[
    all(
        "a_new_subscription_gets_the_retained_message",
        &["MQTT-3.3.1-5", "MQTT-3.3.1-9"],
        &["MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-8"],
        |t| {
            for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
                let topic = t.topic(&format!("{qos:?}"));
                t.retain(&topic, "kept", qos)?;
                for _ in 0..2 {
                    let message = t.subscriber(&topic, ExactlyOnce)?.expect_payload("kept")?;
                    equal("RETAIN", message.retain, true)?;
                    equal("QoS", message.qos, qos)?;
                }
            }
            Ok(())
        },
    ),
    both(
        "a_retained_message_replaces_the_former",
        &["MQTT-3.3.1-5"],
        &["MQTT-3.3.1-5", "MQTT-3.3.1-7"],
        |t| {
            let topic = t.topic("a");
            t.retain(&topic, "old", AtLeastOnce)?;
            t.retain(&topic, "new", AtMostOnce)?;
            // QoS 0 is not acknowledged; this is, and so came after.
            t.retain(&t.topic("b"), "end", AtLeastOnce)?;
            let mut s = t.subscriber(&topic, AtLeastOnce)?;
            s.expect_payload("new")?;
            s.expect_nothing()
        },
    ),
    all(
        "an_empty_retained_message_deletes",
        &["MQTT-3.3.1-6", "MQTT-3.3.1-7"],
        &["MQTT-3.3.1-10", "MQTT-3.3.1-11"],
        |t| {
            let topic = t.topic("a");
            t.retain(&topic, "kept", AtLeastOnce)?;
            let mut s = t.subscriber(&topic, AtLeastOnce)?;
            s.expect_payload("kept")?;
            t.retain(&topic, "", AtLeastOnce)?;
            let empty = s.expect_payload("")?;
            equal("RETAIN", empty.retain, false)?;
            t.subscriber(&topic, AtLeastOnce)?.expect_nothing()
        },
    ),
    both(
        "an_empty_message_without_retain_deletes_nothing",
        &["MQTT-3.3.1-8"],
        &["MQTT-3.3.1-12"],
        |t| {
            let topic = t.topic("a");
            t.retain(&topic, "kept", AtLeastOnce)?;
            t.publish(&topic, "", AtLeastOnce)?;
            t.publish(&topic, "other", AtLeastOnce)?;
            let mut s = t.subscriber(&topic, AtLeastOnce)?;
            s.expect_payload("kept")?;
            s.expect_nothing()
        },
    ),
    both("a_message_without_retain_is_not_kept", &["MQTT-3.3.1-8"], &["MQTT-3.3.1-12"], |t| {
        let topic = t.topic("a");
        t.publish(&topic, "passing", AtLeastOnce)?;
        t.subscriber(&topic, AtLeastOnce)?.expect_nothing()
    }),
    all(
        "retain_is_cleared_for_existing_subscriptions",
        &["MQTT-3.3.1-12"],
        &["MQTT-3.3.1-9"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, AtLeastOnce)?;
            t.retain(&topic, "live", AtLeastOnce)?;
            equal("RETAIN", s.expect_payload("live")?.retain, false)
        },
    ),
    v5("retain_as_published_keeps_the_flag", &["MQTT-3.3.1-13"], |t| {
        let topic = t.topic("a");
        let mut s = t.connect()?;
        let subscription =
            Subscription { retain_as_published: true, ..Subscription::new(&topic, AtLeastOnce) };
        s.subscribe_with(&[subscription], &[])?;
        t.retain(&topic, "retained", AtLeastOnce)?;
        equal("RETAIN", s.expect_payload("retained")?.retain, true)?;
        t.publish(&topic, "not", AtLeastOnce)?;
        equal("RETAIN", s.expect_payload("not")?.retain, false)
    }),
    v5("retain_handling_0_sends_at_each_subscribe", &["MQTT-3.3.1-9", "MQTT-3.8.4-4"], |t| {
        let topic = t.topic("a");
        t.retain(&topic, "kept", AtLeastOnce)?;
        let mut s = t.connect()?;
        for _ in 0..3 {
            subscribe(&mut s, &topic, RetainHandling::Send)?;
            equal("RETAIN", s.expect_payload("kept")?.retain, true)?;
        }
        s.expect_nothing()
    }),
    v5("retain_handling_1_sends_if_the_subscription_is_new", &["MQTT-3.3.1-10"], |t| {
        let topic = t.topic("a");
        t.retain(&topic, "kept", AtLeastOnce)?;
        let mut s = t.connect()?;
        subscribe(&mut s, &topic, RetainHandling::SendIfNew)?;
        s.expect_payload("kept")?;
        subscribe(&mut s, &topic, RetainHandling::SendIfNew)?;
        s.expect_nothing()?;
        s.unsubscribe(&[&topic])?;
        subscribe(&mut s, &topic, RetainHandling::SendIfNew)?;
        s.expect_payload("kept").map(|_| ())
    }),
    v5("retain_handling_2_sends_nothing", &["MQTT-3.3.1-11"], |t| {
        let topic = t.topic("a");
        t.retain(&topic, "kept", AtLeastOnce)?;
        let mut s = t.connect()?;
        subscribe(&mut s, &topic, RetainHandling::DoNotSend)?;
        subscribe(&mut s, &topic, RetainHandling::DoNotSend)?;
        s.expect_nothing()?;
        t.publish(&topic, "live", AtLeastOnce)?;
        s.expect_payload("live").map(|_| ())
    }),
    both(
        "a_wildcard_subscription_gets_all_retained_messages",
        &["MQTT-3.3.1-9"],
        &["MQTT-3.3.1-6"],
        |t| {
            for rest in ["a/b", "a/c", "a/d/e", "b/b"] {
                t.retain(&t.topic(rest), rest, AtLeastOnce)?;
            }
            for (filter, expected) in [
                ("a/+", &["a/b", "a/c"][..]),
                ("a/#", &["a/b", "a/c", "a/d/e"]),
                ("+/b", &["a/b", "b/b"]),
                ("#", &["a/b", "a/c", "a/d/e", "b/b"]),
            ] {
                let mut s = t.subscriber(&t.topic(filter), AtLeastOnce)?;
                let mut came = Vec::new();
                for _ in expected {
                    came.push(s.receive()?.text());
                }
                came.sort();
                equal(filter, came, expected.iter().map(|&rest| rest.to_owned()).collect())?;
                s.expect_nothing()?;
            }
            Ok(())
        },
    ),
    v5("a_shared_subscription_gets_no_retained_messages", &[], |t| {
        let topic = t.topic("a");
        t.retain(&topic, "kept", AtLeastOnce)?;
        let group = format!("$share/{}/{topic}", t.id("g"));
        t.subscriber(&group, AtLeastOnce)?.expect_nothing()
    }),
    v5("a_retained_message_carries_the_subscription_identifier", &["MQTT-3.3.4-3"], |t| {
        let topic = t.topic("a");
        t.retain(&topic, "kept", AtLeastOnce)?;
        let mut s = t.connect()?;
        let id = [Property::SubscriptionIdentifier(42)];
        s.subscribe_with(&[Subscription::new(&topic, AtLeastOnce)], &id)?;
        equal("subscription identifiers", s.expect_payload("kept")?.subscription_ids(), vec![42])
    }),
];
