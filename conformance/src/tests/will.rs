//! Will messages (sections 3.1.2.5 and 3.1.3.2).

use super::prelude::*;

fn will(topic: &str) -> Will<'_> {
    Will { topic, payload: b"gone", qos: AtLeastOnce, retain: false, properties: Properties::NONE }
}

/// A client with a will for `topic`.
fn with_will<'t>(t: &'t Bench<'t>, topic: &str) -> Outcome<Client<'t>> {
    t.connect_with(Connect { will: Some(will(topic)), ..t.hello(&t.id("will")) })
}

/// A client with a will for `topic` that is delayed, and a session that lasts.
fn with_delayed_will<'t>(t: &'t Bench<'t>, topic: &str, delay_s: u32) -> Outcome<Client<'t>> {
    let delay = [Property::WillDelayIntervalS(delay_s)];
    let will = Will { properties: Properties::new(&delay), ..will(topic) };
    t.connect_with(Connect { will: Some(will), ..t.resume(&t.id("will")) })
}

pub const TESTS: &[Test] = &[
    all(
        "a_lost_connection_publishes_the_will",
        &["MQTT-3.1.2-7", "MQTT-3.1.2-8", "MQTT-3.1.2-14"],
        &["MQTT-3.1.2-8", "MQTT-3.1.2-16"],
        |t| {
            let topic = t.topic("will");
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            let c = with_will(t, &topic)?;
            s.expect_nothing()?;
            c.lose();
            let message = s.expect_payload("gone")?;
            equal("topic", &message.topic, &topic)?;
            equal("RETAIN", message.retain, false)?;
            equal("QoS", message.qos, AtLeastOnce)?;
            // It was not retained.
            t.subscriber(&topic, AtLeastOnce)?.expect_nothing()
        },
    ),
    both("connect_fields_come_in_their_order", &["MQTT-3.1.3-1"], &["MQTT-3.1.3-1"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let mut c = t.send_connect(Connect {
            will: Some(will(&topic)),
            user_name: Some("user"),
            password: Some(b"secret"),
            ..t.hello(&t.id("will"))
        })?;
        c.expect_connack()?;
        let refused = [BadUserNameOrPassword, NotAuthorized].contains(&c.connack.reason);
        need(!refused, "access for any user")?;
        equal("reason of CONNACK", c.connack.reason, Success)?;
        c.lose();
        s.expect_payload("gone").map(|_| ())
    }),
    both("a_will_can_be_retained", &["MQTT-3.1.2-15"], &["MQTT-3.1.2-17"], |t| {
        let topic = t.topic("will");
        let will = Will { retain: true, ..will(&topic) };
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let c = t.connect_with(Connect { will: Some(will), ..t.hello(&t.id("will")) })?;
        c.lose();
        equal("RETAIN", s.expect_payload("gone")?.retain, false)?;
        let mut late = t.subscriber(&topic, AtLeastOnce)?;
        equal("RETAIN", late.expect_payload("gone")?.retain, true)?;
        // Removed again, so that nothing is left.
        t.retain(&topic, "", AtMostOnce)
    }),
    both("a_will_has_any_qos", &["MQTT-3.1.2-12"], &["MQTT-3.1.2-14"], |t| {
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            let topic = t.topic(&format!("will/{qos:?}"));
            let mut s = t.subscriber(&topic, ExactlyOnce)?;
            let will = Will { qos, ..will(&topic) };
            t.connect_with(Connect { will: Some(will), ..t.hello(&t.id("will")) })?.lose();
            equal("QoS", s.expect_payload("gone")?.qos, qos)?;
        }
        Ok(())
    }),
    all(
        "disconnect_discards_the_will",
        &["MQTT-3.14.4-3", "MQTT-3.1.2-10"],
        &["MQTT-3.14.4-3", "MQTT-3.1.2-10"],
        |t| {
            let topic = t.topic("will");
            let mut s = t.subscriber(&topic, AtLeastOnce)?;
            with_will(t, &topic)?.disconnect()?;
            s.expect_nothing()
        },
    ),
    v3("without_a_will_none_is_published", &["MQTT-3.1.2-12"], |t| {
        let topic = t.topic("#");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        t.connect()?.lose();
        s.expect_nothing()
    }),
    both("a_will_is_published_once", &["MQTT-3.1.2-10"], &["MQTT-3.1.2-10"], |t| {
        let topic = t.topic("will");
        let id = t.id("a");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        t.connect_with(Connect { will: Some(will(&topic)), ..t.resume(&id) })?.lose();
        s.expect_payload("gone")?;
        t.connect_with(t.resume(&id))?.lose();
        s.expect_nothing()
    }),
    v5("disconnect_can_ask_for_the_will", &["MQTT-3.1.2-8"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        with_will(t, &topic)?.disconnect_with(Disconnect::new(DisconnectWithWill))?;
        s.expect_payload("gone").map(|_| ())
    }),
    both("a_protocol_error_publishes_the_will", &["MQTT-3.1.2-8"], &["MQTT-3.1.2-8"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let mut c = with_will(t, &topic)?;
        c.send_raw(&[0xf0 | 0x0f, 0]);
        c.expect_malformed()?;
        s.expect_payload("gone").map(|_| ())
    }),
    both(
        "a_keep_alive_timeout_publishes_the_will",
        &["MQTT-3.1.2-8", "MQTT-3.1.2-22"],
        &["MQTT-3.1.2-8", "MQTT-3.1.2-24"],
        |t| {
            let topic = t.topic("will");
            let mut s = t.subscriber(&topic, AtLeastOnce)?;
            let connect = Connect { keep_alive_s: 1, ..t.hello("") };
            let id = t.id("will");
            let connect = Connect { will: Some(will(&topic)), client_id: &id, ..connect };
            let mut c = t.connect_with(connect)?;
            need(
                c.server.keep_alive_s.is_none_or(|s| s == 1),
                "keep alive of the client's choice",
            )?;
            t.advance_s(3);
            c.expect_closed_with(&[KeepAliveTimeout])?;
            s.expect_payload("gone").map(|_| ())
        },
    )
    .slow(),
    both(
        "taking_over_publishes_the_will",
        &["MQTT-3.1.2-8", "MQTT-3.1.4-3"],
        &["MQTT-3.1.2-8", "MQTT-3.1.4-2"],
        |t| {
            let topic = t.topic("will");
            let mut s = t.subscriber(&topic, AtLeastOnce)?;
            let id = t.id("will");
            let mut c = t.connect_with(Connect { will: Some(will(&topic)), ..t.hello(&id) })?;
            t.connect_with(t.hello(&id))?.disconnect()?;
            c.expect_closed_with(&[SessionTakenOver])?;
            s.expect_payload("gone").map(|_| ())
        },
    ),
    v5("a_will_waits_for_its_delay", &["MQTT-3.1.2-8"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        with_delayed_will(t, &topic, 2)?.lose();
        s.expect_nothing()?;
        t.advance_s(4);
        s.expect_payload("gone").map(|_| ())
    })
    .slow(),
    v5("reconnecting_within_the_delay_suppresses_the_will", &["MQTT-3.1.3-9"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        with_delayed_will(t, &topic, 2)?.lose();
        let mut c = t.connect_with(t.resume(&t.id("will")))?;
        equal("session present", c.connack.session_present, true)?;
        t.advance_s(4);
        c.ping()?;
        s.expect_nothing()
    })
    .slow(),
    v5("the_end_of_the_session_ends_the_delay", &["MQTT-3.1.2-8"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let delay = [Property::WillDelayIntervalS(600)];
        let will = Will { properties: Properties::new(&delay), ..will(&topic) };
        // Without session expiry, the session ends with its connection.
        t.connect_with(Connect { will: Some(will), ..t.hello(&t.id("will")) })?.lose();
        s.expect_payload("gone").map(|_| ())
    }),
    v5("clean_start_ends_the_delay", &[], |t| {
        // MQTT-3.1.2-8 can be read so that any new connection suppresses the will; the comment in
        // section 3.1.4 says that it is sent, because the session ends.
        need(t.strict, "promise to follow the comment in section 3.1.4")?;
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        with_delayed_will(t, &topic, 600)?.lose();
        s.expect_nothing()?;
        t.connect_with(t.hello(&t.id("will")))?.disconnect()?;
        s.expect_payload("gone").map(|_| ())
    }),
    v5("will_properties_are_published", &["MQTT-3.1.2-9", "MQTT-3.1.3-10"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let properties = [
            Property::PayloadFormatIndicator(1),
            Property::MessageExpiryIntervalS(100),
            Property::ContentType("text/plain"),
            Property::ResponseTopic("answer/here"),
            Property::CorrelationData(b"\x00\xff42"),
            Property::UserProperty("b", "1"),
            Property::UserProperty("a", "2"),
            Property::UserProperty("b", "3"),
        ];
        let will = Will { properties: Properties::new(&properties), ..will(&topic) };
        t.connect_with(Connect { will: Some(will), ..t.hello(&t.id("will")) })?.lose();
        let message = s.expect_payload("gone")?;
        let came = message.properties();
        for property in &properties {
            let is_expiry = matches!(property, Property::MessageExpiryIntervalS(_));
            let there = came.iter().any(|p| {
                p == *property || is_expiry && matches!(p, Property::MessageExpiryIntervalS(1..))
            });
            check(there, &format!("{property:?} is missing in {came:?}"))?;
        }
        let user = |p: &Property<'_>| matches!(p, Property::UserProperty(..));
        let user_properties: Vec<_> = came.iter().filter(user).collect();
        equal("user properties", &user_properties[..], properties.get(5..).unwrap_or_default())
    }),
    both("a_new_connection_brings_its_own_will", &["MQTT-3.1.2-7"], &["MQTT-3.1.2-8"], |t| {
        let topic = t.topic("will");
        let id = t.id("a");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let first = Connect { will: Some(will(&topic)), ..t.resume(&id) };
        t.connect_with(first)?.disconnect()?;
        let second = Will { payload: b"second", ..will(&topic) };
        t.connect_with(Connect { will: Some(second), ..t.resume(&id) })?.lose();
        s.expect_payload("second")?;
        s.expect_nothing()
    }),
    v5("taking_over_the_session_ends_the_delayed_will", &["MQTT-3.1.3-9"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let mut old = with_delayed_will(t, &topic, 1)?;
        let mut new = t.connect_with(t.resume(&t.id("will")))?;
        old.expect_closed_with(&[SessionTakenOver])?;
        t.advance_s(3);
        new.ping()?;
        s.expect_nothing()
    })
    .slow(),
    v5("a_delayed_will_is_published_once", &["MQTT-3.1.2-10"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        with_delayed_will(t, &topic, 1)?.lose();
        t.advance_s(3);
        s.expect_payload("gone")?;
        t.connect_with(t.resume(&t.id("will")))?.lose();
        t.connect_with(t.hello(&t.id("will")))?.disconnect()?;
        s.expect_nothing()
    })
    .slow(),
    v5("the_expiry_of_the_session_ends_the_delay", &["MQTT-3.1.2-8"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let delay = [Property::WillDelayIntervalS(600)];
        let will = Will { properties: Properties::new(&delay), ..will(&topic) };
        let expiry = [Property::SessionExpiryIntervalS(1)];
        let properties = Properties::new(&expiry);
        let id = t.id("will");
        let c = t.connect_with(Connect { will: Some(will), properties, ..t.hello(&id) })?;
        need(c.server.session_expiry_s.is_none_or(|s| s <= 1), "session expiry as asked")?;
        c.lose();
        t.advance_s(4);
        s.expect_payload("gone").map(|_| ())
    })
    .slow(),
    v5("disconnect_can_end_the_session_and_the_delay", &["MQTT-3.1.2-8"], |t| {
        let topic = t.topic("will");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        let c = with_delayed_will(t, &topic, 600)?;
        let expiry = [Property::SessionExpiryIntervalS(0)];
        let properties = Properties::new(&expiry);
        c.disconnect_with(Disconnect { reason: DisconnectWithWill, properties })?;
        s.expect_payload("gone").map(|_| ())
    }),
];
