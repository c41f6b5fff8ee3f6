//! Topic aliases in both directions (section 3.3.2.3.4).

use super::prelude::*;

/// A PUBLISH at QoS 1 with an alias.
fn publish(c: &mut Client<'_>, topic: &str, alias: u16, payload: &str) -> Outcome {
    let properties = [Property::TopicAlias(alias)];
    let properties = Properties::new(&properties);
    let message = Publish { properties, ..Publish::new(topic, payload.as_bytes()) };
    c.publish_with(Publish { qos: AtLeastOnce, ..message }).map(|_| ())
}

/// A client of a broker that accepts aliases.
fn publisher<'t>(t: &'t Bench<'t>) -> Outcome<Client<'t>> {
    let c = t.connect()?;
    need(c.server.topic_alias_maximum > 0, "topic aliases")?;
    Ok(c)
}

/// A client that accepts this many aliases.
fn subscriber<'t>(t: &'t Bench<'t>, maximum: u16, filter: &str) -> Outcome<Client<'t>> {
    let properties = [Property::TopicAliasMaximum(maximum)];
    let properties = Properties::new(&properties);
    let mut s = t.connect_with(Connect { properties, ..t.hello(&t.id("sub")) })?;
    s.subscribe(filter, AtLeastOnce)?;
    Ok(s)
}

fn alias(message: &Message) -> Option<u16> {
    message.property(|p| match p {
        Property::TopicAlias(alias) => Some(alias),
        _ => None,
    })
}

pub const TESTS: &[Test] = &[
    v5("every_alias_up_to_the_maximum_is_accepted", &["MQTT-3.3.2-12"], |t| {
        let mut c = publisher(t)?;
        let mut s = t.subscriber(&t.topic("#"), AtLeastOnce)?;
        for number in [1, c.server.topic_alias_maximum] {
            let topic = t.topic(&number.to_string());
            publish(&mut c, &topic, number, "first")?;
            publish(&mut c, "", number, "second")?;
            equal("topic", &s.expect_payload("first")?.topic, &topic)?;
            equal("topic", &s.expect_payload("second")?.topic, &topic)?;
        }
        Ok(())
    }),
    v5("an_alias_can_get_another_topic", &["MQTT-3.3.2-12"], |t| {
        let mut c = publisher(t)?;
        let mut s = t.subscriber(&t.topic("#"), AtLeastOnce)?;
        publish(&mut c, &t.topic("a"), 1, "a")?;
        publish(&mut c, &t.topic("b"), 1, "b")?;
        publish(&mut c, "", 1, "b again")?;
        s.expect_payload("a")?;
        s.expect_payload("b")?;
        equal("topic", s.expect_payload("b again")?.topic, t.topic("b"))
    }),
    v5("topic_alias_0_closes", &["MQTT-3.3.2-8"], |t| {
        let mut c = t.connect()?;
        c.send_raw(&raw::publish(t.version, b"a", &[0x23, 0, 0], b"x"));
        c.expect_closed_with(&[TopicAliasInvalid, ProtocolError, MalformedPacket])
    }),
    v5("a_topic_alias_above_the_maximum_closes", &["MQTT-3.3.2-9", "MQTT-3.2.2-17"], |t| {
        let mut c = t.connect()?;
        let above = c.server.topic_alias_maximum.checked_add(1);
        let Some(above) = above else {
            return need(false, "limit on topic aliases");
        };
        let [high, low] = above.to_be_bytes();
        c.send_raw(&raw::publish(t.version, b"a", &[0x23, high, low], b"x"));
        c.expect_closed_with(&[TopicAliasInvalid, ProtocolError])
    }),
    v5("an_unknown_alias_closes", &["MQTT-4.13.1-1"], |t| {
        let mut c = publisher(t)?;
        c.send_raw(&raw::publish(t.version, b"", &[0x23, 0, 1], b"x"));
        c.expect_closed_with(&[ProtocolError, TopicAliasInvalid])
    }),
    v5("aliases_end_with_their_connection", &["MQTT-3.3.2-7"], |t| {
        let id = t.id("a");
        let mut c = t.connect_with(t.resume(&id))?;
        need(c.server.topic_alias_maximum > 0, "topic aliases")?;
        publish(&mut c, &t.topic("a"), 1, "x")?;
        c.disconnect()?;
        let mut c = t.connect_with(t.resume(&id))?;
        equal("session present", c.connack.session_present, true)?;
        c.send_raw(&raw::publish(t.version, b"", &[0x23, 0, 1], b"x"));
        c.expect_closed_with(&[ProtocolError, TopicAliasInvalid])
    }),
    v5("a_publishers_alias_is_not_passed_on", &["MQTT-3.1.2-27"], |t| {
        let mut c = publisher(t)?;
        let topic = t.topic("a");
        let mut s = t.subscriber(&topic, AtLeastOnce)?;
        for _ in 0..3 {
            publish(&mut c, &topic, 1, "x")?;
            let message = s.expect_payload("x")?;
            equal("topic", &message.topic, &topic)?;
            equal("topic alias", alias(&message), None)?;
        }
        Ok(())
    }),
    v5("no_topic_alias_maximum_no_aliases", &["MQTT-3.1.2-27"], |t| {
        let topic = t.topic("a");
        let mut s = subscriber(t, 0, &topic)?;
        for _ in 0..5 {
            t.publish(&topic, "x", AtLeastOnce)?;
            equal("topic alias", alias(&s.expect_payload("x")?), None)?;
        }
        Ok(())
    }),
    v5("the_servers_aliases_stay_within_the_maximum", &["MQTT-3.1.2-26", "MQTT-3.3.2-11"], |t| {
        let mut s = subscriber(t, 2, &t.topic("#"))?;
        let mut p = t.connect()?;
        let mut known = [String::new(), String::new()];
        for round in 0..30 {
            let topic = t.topic(&(round % 5).to_string());
            p.publish(&topic, "x", AtLeastOnce)?;
            let message = s.expect_payload("x")?;
            let Some(alias) = alias(&message) else {
                equal("topic", message.topic, topic)?;
                continue;
            };
            let Some(slot) = usize::from(alias).checked_sub(1).and_then(|i| known.get_mut(i))
            else {
                return check(false, &format!("came topic alias {alias} of at most 2"));
            };
            if !message.topic.is_empty() {
                *slot = message.topic;
            }
            equal("topic behind the alias", &*slot, &topic)?;
        }
        Ok(())
    }),
    v5("the_server_saves_bytes_with_aliases", &[], |t| {
        need(t.strict, "promise to use topic aliases")?;
        let topic = t.topic("a/long/topic/name/that/is/worth/an/alias");
        let mut s = subscriber(t, 5, &topic)?;
        for _ in 0..10 {
            t.publish(&topic, "x", AtLeastOnce)?;
            if s.expect_payload("x")?.topic.is_empty() {
                return Ok(());
            }
        }
        check(false, "ten messages on one topic, and none came with its alias alone")
    }),
    v5("the_servers_aliases_end_with_their_connection", &["MQTT-3.3.2-7"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a/topic/worth/an/alias"));
        let aliases = [Property::SessionExpiryIntervalS(600), Property::TopicAliasMaximum(5)];
        let with_aliases = Connect { properties: Properties::new(&aliases), ..t.resume(&id) };
        let mut s = t.connect_with(with_aliases)?;
        s.subscribe(&topic, AtLeastOnce)?;
        let mut p = t.connect()?;
        for _ in 0..5 {
            p.publish(&topic, "x", AtLeastOnce)?;
            s.expect_payload("x")?;
        }
        p.publish(&topic, "on its way", AtLeastOnce)?;
        s.expect_publish()?;
        s.lose();
        p.publish(&topic, "queued", AtLeastOnce)?;
        // Neither what is repeated nor what is new may lean on an alias of before.
        let mut s = t.connect_with(with_aliases)?;
        equal("topic", &s.expect_publish()?.topic, &topic)?;
        s.lose();
        let mut s = t.connect_with(t.resume(&id))?;
        for text in ["on its way", "queued"] {
            let message = s.expect_payload(text)?;
            equal("topic", &message.topic, &topic)?;
            equal("topic alias", alias(&message), None)?;
        }
        Ok(())
    }),
];
