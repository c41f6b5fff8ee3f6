//! Sessions: how they begin, last, are taken over and end (sections 3.1.2.4, 3.1.2.11.2, 4.1).

use super::prelude::*;

/// Leaves a session behind that has subscribed to `filter` at QoS 1.
fn leave_session(t: &Bench<'_>, id: &str, filter: &str) -> Outcome {
    let mut c = t.connect_with(t.resume(id))?;
    c.subscribe(filter, AtLeastOnce)?;
    c.disconnect()
}

pub const TESTS: &[Test] = &[
    all(
        "clean_start_discards_the_session",
        &["MQTT-3.1.2-4", "MQTT-3.1.4-4", "MQTT-3.2.2-2"],
        &["MQTT-3.1.2-6", "MQTT-3.1.4-3", "MQTT-3.2.2-1"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            leave_session(t, &id, &topic)?;
            t.publish(&topic, "queued", AtLeastOnce)?;
            let mut c = t.connect_with(t.hello(&id))?;
            equal("session present", c.connack.session_present, false)?;
            t.publish(&topic, "live", AtLeastOnce)?;
            c.expect_nothing()
        },
    ),
    both(
        "a_session_is_resumed",
        &["MQTT-3.1.2-5", "MQTT-3.1.2-23", "MQTT-3.2.2-3", "MQTT-4.5.0-1"],
        &["MQTT-3.1.2-4", "MQTT-3.1.2-5", "MQTT-3.2.2-2", "MQTT-4.1.0-1", "MQTT-4.5.0-1"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            leave_session(t, &id, &topic)?;
            t.publish(&topic, "one", AtLeastOnce)?;
            t.publish(&topic, "two", ExactlyOnce)?;
            let mut c = t.connect_with(t.resume(&id))?;
            equal("session present", c.connack.session_present, true)?;
            c.expect_payload("one")?;
            c.expect_payload("two")?;
            t.publish(&topic, "three", AtMostOnce)?;
            c.expect_payload("three").map(|_| ())
        },
    ),
    both(
        "without_a_session_a_new_one_begins",
        &["MQTT-3.1.2-6", "MQTT-3.2.2-3"],
        &["MQTT-3.1.2-4", "MQTT-3.2.2-3"],
        |t| {
            let c = t.connect_with(t.resume(&t.id("a")))?;
            equal("session present", c.connack.session_present, false)?;
            c.disconnect()?;
            let c = t.connect_with(t.resume(&t.id("a")))?;
            equal("session present", c.connack.session_present, true)
        },
    ),
    both(
        "a_session_without_expiry_ends_with_its_connection",
        &["MQTT-4.1.0-2"],
        &["MQTT-3.1.2-6"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            let mut c = t.connect_with(t.hello(&id))?;
            c.subscribe(&topic, AtLeastOnce)?;
            c.disconnect()?;
            t.publish(&topic, "missed", AtLeastOnce)?;
            let mut c = t.connect_with(t.resume(&id))?;
            equal("session present", c.connack.session_present, false)?;
            c.expect_nothing()
        },
    ),
    v5("a_session_ends_when_its_expiry_interval_has_passed", &["MQTT-4.1.0-2"], |t| {
        let id = t.id("a");
        let properties = [Property::SessionExpiryIntervalS(1)];
        let connect = Connect { properties: Properties::new(&properties), ..t.resume(&id) };
        let c = t.connect_with(connect)?;
        need(c.server.session_expiry_s.is_none_or(|s| s <= 1), "session expiry as asked")?;
        c.disconnect()?;
        t.advance_s(4);
        let c = t.connect_with(t.resume(&id))?;
        equal("session present", c.connack.session_present, false)
    })
    .slow(),
    v5("a_session_lasts_until_its_expiry_interval_has_passed", &["MQTT-3.1.2-23"], |t| {
        let id = t.id("a");
        t.connect_with(t.resume(&id))?.lose();
        t.advance_s(3);
        let c = t.connect_with(t.resume(&id))?;
        equal("session present", c.connack.session_present, true)
    })
    .slow(),
    both("a_session_is_kept_while_connected", &["MQTT-4.1.0-1"], &["MQTT-4.1.0-2"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let properties = [Property::SessionExpiryIntervalS(1)];
        let properties =
            if t.version.is_v5() { Properties::new(&properties) } else { Properties::NONE };
        let mut c = t.connect_with(Connect { properties, ..t.resume(&id) })?;
        c.subscribe(&topic, AtLeastOnce)?;
        t.advance_s(3);
        t.publish(&topic, "still here", AtLeastOnce)?;
        c.expect_payload("still here").map(|_| ())
    })
    .slow(),
    v5("disconnect_can_end_the_session", &["MQTT-4.1.0-2"], |t| {
        let id = t.id("a");
        let c = t.connect_with(t.resume(&id))?;
        let properties = [Property::SessionExpiryIntervalS(0)];
        let properties = Properties::new(&properties);
        c.disconnect_with(Disconnect { reason: Success, properties })?;
        let c = t.connect_with(t.resume(&id))?;
        equal("session present", c.connack.session_present, false)
    }),
    v5("disconnect_can_prolong_the_session", &["MQTT-3.1.2-23"], |t| {
        let id = t.id("a");
        let first = [Property::SessionExpiryIntervalS(1)];
        let connect = Connect { properties: Properties::new(&first), ..t.resume(&id) };
        let c = t.connect_with(connect)?;
        let properties = [Property::SessionExpiryIntervalS(600)];
        let properties = Properties::new(&properties);
        c.disconnect_with(Disconnect { reason: Success, properties })?;
        t.advance_s(4);
        let c = t.connect_with(t.resume(&id))?;
        equal("session present", c.connack.session_present, true)
    })
    .slow(),
    v5("disconnect_cannot_begin_a_lasting_session", &["MQTT-4.13.1-1"], |t| {
        let mut c = t.connect()?;
        let properties = [Property::SessionExpiryIntervalS(60)];
        let properties = Properties::new(&properties);
        c.send(Packet::Disconnect(Disconnect { reason: Success, properties }))?;
        c.expect_closed_with(&[ProtocolError])
    }),
    all(
        "the_same_client_identifier_takes_over",
        &["MQTT-3.1.4-3", "MQTT-3.14.2-1"],
        &["MQTT-3.1.4-2"],
        |t| {
            let id = t.id("a");
            let mut old = t.connect_with(t.hello(&id))?;
            let mut new = t.connect_with(t.hello(&id))?;
            old.expect_closed_with(&[SessionTakenOver])?;
            new.ping()
        },
    ),
    both(
        "taking_over_resumes_the_session",
        &["MQTT-3.1.4-3", "MQTT-3.1.2-5"],
        &["MQTT-3.1.4-2", "MQTT-3.1.2-4"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            let mut old = t.connect_with(t.resume(&id))?;
            old.subscribe(&topic, AtLeastOnce)?;
            t.publish(&topic, "once", AtLeastOnce)?;
            let first = old.expect_publish()?;
            let mut new = t.connect_with(t.resume(&id))?;
            equal("session present", new.connack.session_present, true)?;
            old.expect_closed_with(&[SessionTakenOver])?;
            let again = new.expect_payload("once")?;
            equal("DUP", again.dup, true)?;
            equal("packet identifier", again.packet_id, first.packet_id)
        },
    ),
    both("clean_start_takes_over_and_discards", &["MQTT-3.1.4-3"], &["MQTT-3.1.4-2"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut old = t.connect_with(t.resume(&id))?;
        old.subscribe(&topic, AtLeastOnce)?;
        let mut new = t.connect_with(t.hello(&id))?;
        equal("session present", new.connack.session_present, false)?;
        old.expect_closed_with(&[SessionTakenOver])?;
        t.publish(&topic, "unwanted", AtLeastOnce)?;
        new.expect_nothing()
    }),
    both("client_identifiers_tell_sessions_apart", &["MQTT-3.1.3-2"], &["MQTT-3.1.3-2"], |t| {
        leave_session(t, &t.id("a"), &t.topic("a"))?;
        for other in ["A", "b", "aa"] {
            let c = t.connect_with(t.resume(&t.id(other)))?;
            equal("session present", c.connack.session_present, false)?;
        }
        let c = t.connect_with(t.resume(&t.id("a")))?;
        equal("session present", c.connack.session_present, true)
    }),
    both(
        "messages_for_a_session_queue_in_order",
        &["MQTT-4.6.0-5", "MQTT-4.5.0-1"],
        &["MQTT-4.6.0-6", "MQTT-3.1.2-5"],
        |t| {
            let (id, topic) = (t.id("a"), t.topic("a"));
            leave_session(t, &id, &topic)?;
            let mut p = t.connect()?;
            for number in 0..30 {
                p.publish(&topic, &number.to_string(), AtLeastOnce)?;
            }
            let mut c = t.connect_with(t.resume(&id))?;
            for number in 0..30 {
                c.expect_payload(&number.to_string())?;
            }
            c.expect_nothing()
        },
    ),
    v3("retained_messages_outlive_the_session", &["MQTT-3.1.2-7"], |t| {
        let topic = t.topic("a");
        t.retain(&topic, "kept", AtLeastOnce)?;
        t.connect_with(t.hello(&t.id("a")))?.disconnect()?;
        t.subscriber(&topic, AtLeastOnce)?.expect_payload("kept").map(|_| ())
    }),
    v5("the_last_connect_sets_the_expiry_interval", &["MQTT-4.1.0-2"], |t| {
        let id = t.id("a");
        t.connect_with(t.resume(&id))?.lose();
        let c = t.connect_with(Connect { clean_start: false, ..t.hello(&id) })?;
        equal("session present", c.connack.session_present, true)?;
        c.lose();
        let c = t.connect_with(t.resume(&id))?;
        equal("session present", c.connack.session_present, false)
    }),
];
