//! CONNECT and CONNACK (sections 3.1 and 3.2): who is accepted, and what the CONNACK says.

use super::prelude::*;

pub const TESTS: &[Test] = &[
    all(
        "a_valid_connect_is_accepted",
        &["MQTT-3.1.4-5", "MQTT-3.2.2-1", "MQTT-3.2.2-8", "MQTT-2.2.2-1"],
        &["MQTT-3.1.4-4", "MQTT-7.1.1-1"],
        |t| {
            let mut c = t.connect()?;
            equal("session present", c.connack.session_present, false)?;
            c.ping()
        },
    ),
    all("the_first_packet_must_be_connect", &["MQTT-3.1.0-1"], &["MQTT-3.1.0-1"], |t| {
        for first in [Packet::PingReq, Packet::Publish(Publish::new("a", b"b"))] {
            let mut c = t.open()?;
            c.send(first)?;
            c.expect_refused(&[])?;
        }
        Ok(())
    }),
    all(
        "a_second_connect_closes",
        &["MQTT-3.1.0-2", "MQTT-3.2.0-2", "MQTT-4.13.1-1"],
        &["MQTT-3.1.0-2", "MQTT-4.8.0-1"],
        |t| {
            let id = t.id("a");
            let mut c = t.connect_with(t.hello(&id))?;
            c.send(Packet::Connect(t.hello(&id)))?;
            c.expect_closed_with(&[ProtocolError])?;
            check(!c.has(PacketType::ConnAck), "a second CONNACK came")
        },
    ),
    both("an_unknown_protocol_name_is_refused", &["MQTT-3.1.2-1"], &["MQTT-3.1.2-1"], |t| {
        let mut c = t.open()?;
        let head = [raw::field("MQTX"), vec![t.version as u8, 2, 0, 60]].concat();
        let props = raw::properties(t.version, &[]);
        c.send_raw(&raw::packet(0x10, &[&head, &props, &raw::field(t.id("a"))]));
        let bytes = c.read_to_end()?;
        let refused = bytes.first().is_none_or(|&first| first == 0x20)
            && bytes.get(3).is_none_or(|&code| code != 0);
        check(refused, &format!("expected a refusal or nothing, came {bytes:02x?}"))
    }),
    both("an_unknown_protocol_level_is_refused", &["MQTT-3.1.2-2"], &["MQTT-3.1.2-2"], |t| {
        let mut c = t.open()?;
        let head = [raw::field("MQTT"), vec![9, 2, 0, 60, 0]].concat();
        c.send_raw(&raw::packet(0x10, &[&head, &raw::field(t.id("a"))]));
        let bytes = c.read_to_end()?;
        if t.version.is_v5() && bytes.is_empty() {
            return Ok(());
        }
        // A server that knows 5.0 may answer as 5.0 does.
        equal("packet type", bytes.first().copied(), Some(0x20))?;
        one_of("return code", bytes.get(3).copied(), &[Some(0x01), Some(0x84)])
    }),
    all("connect_may_come_byte_by_byte", &["MQTT-4.2-1"], &[], |t| {
        let mut bytes = Vec::new();
        let id = t.id("a");
        let _ = Packet::Connect(t.hello(&id)).encode(t.version, &mut bytes);
        let mut c = t.open()?;
        for byte in bytes {
            c.send_raw(&[byte]);
        }
        c.expect_accepted()?;
        c.ping()
    }),
    all("connack_comes_first", &["MQTT-3.2.0-1"], &["MQTT-3.2.0-1"], |t| {
        let (id, topic) = (t.id("a"), t.topic("a"));
        let mut bytes = Vec::new();
        let filter = [Subscription::new(&topic, AtMostOnce)];
        let subscribe = Subscribe {
            packet_id: packet_id(1),
            properties: Properties::NONE,
            filters: Filters::new(&filter),
        };
        for packet in [
            Packet::Connect(t.hello(&id)),
            Packet::Subscribe(subscribe),
            Packet::Publish(Publish::new(&topic, b"early")),
            Packet::PingReq,
        ] {
            let _ = packet.encode(t.version, &mut bytes);
        }
        let mut c = t.open()?;
        c.send_raw(&bytes);
        c.expect_accepted()?;
        c.expect_ack(PacketType::SubAck, packet_id(1))?;
        c.expect_payload("early")?;
        c.expect(PacketType::PingResp).map(|_| ())
    }),
    both(
        "nothing_after_a_refused_connect_is_processed",
        &["MQTT-3.1.4-6"],
        &["MQTT-3.1.4-5"],
        |t| {
            let topic = t.topic("a");
            let mut s = t.subscriber(&topic, AtMostOnce)?;
            let mut c = t.open()?;
            let mut bytes = raw::connect(t.version, 0x03, &[&raw::field(t.id("b"))]);
            bytes.extend(raw::publish(t.version, topic.as_bytes(), &[], b"late"));
            c.send_raw(&bytes);
            c.expect_malformed_connect()?;
            s.expect_nothing()
        },
    ),
    all(
        "client_identifiers_of_letters_and_digits_are_accepted",
        &["MQTT-3.1.3-5"],
        &["MQTT-3.1.3-5"],
        |t| {
            let long = format!("{:Z<23}", t.id("aB0"));
            t.connect_with(t.hello(&long))?.disconnect()?;
            let short = (t.version as u8).to_string();
            t.connect_with(t.hello(&short))?.disconnect()
        },
    ),
    v5(
        "an_empty_client_identifier_is_assigned",
        &["MQTT-3.1.3-6", "MQTT-3.1.3-7", "MQTT-3.2.2-16"],
        |t| {
            let mut a = t.connect_with(t.hello(""))?;
            let mut b = t.connect_with(t.hello(""))?;
            let id = a.server.client_id.clone().unwrap_or_default();
            check(!id.is_empty(), "no Assigned Client Identifier")?;
            check(Some(&id) != b.server.client_id.as_ref(), "two clients got one identifier")?;
            b.ping()?;
            // It is that client's identifier in every respect.
            t.connect_with(t.hello(&id))?.ping()?;
            a.expect_closed_with(&[SessionTakenOver])
        },
    ),
    v5("no_identifier_is_assigned_to_a_client_that_has_one", &[], |t| {
        equal("Assigned Client Identifier", t.connect()?.server.client_id, None)
    }),
    v3("an_empty_client_identifier_is_unique", &["MQTT-3.1.3-6"], |t| {
        let mut a = t.connect_with(t.hello(""))?;
        let mut b = t.connect_with(t.hello(""))?;
        b.ping()?;
        a.ping()
    }),
    v3(
        "an_empty_client_identifier_needs_clean_session",
        &["MQTT-3.1.3-8", "MQTT-3.1.3-9", "MQTT-3.2.2-4", "MQTT-3.2.2-5"],
        |t| {
            let mut c = t.send_connect(Connect { clean_start: false, ..t.hello("") })?;
            c.expect_refused(&[ClientIdNotValid])?;
            equal("reason of CONNACK", c.connack.reason, ClientIdNotValid)
        },
    ),
    v5(
        "an_unknown_authentication_method_is_refused",
        &[
            "MQTT-4.12.0-1",
            "MQTT-4.12.0-4",
            "MQTT-3.1.4-2",
            "MQTT-3.2.2-6",
            "MQTT-3.2.2-7",
            "MQTT-3.14.0-1",
            "MQTT-4.13.2-1",
        ],
        |t| {
            let id = t.id("a");
            let method = [Property::AuthenticationMethod("no-such-method")];
            let connect = Connect { properties: Properties::new(&method), ..t.hello(&id) };
            t.send_connect(connect)?.expect_refused(&[BadAuthenticationMethod, NotAuthorized])
        },
    ),
    v5("without_a_method_there_is_no_authentication", &["MQTT-4.12.0-6"], |t| {
        let c = t.connect()?;
        let method = c.connack.property(|p| match p {
            Property::AuthenticationMethod(method) => Some(method.to_owned()),
            _ => None,
        });
        equal("authentication method in CONNACK", method, None)
    }),
    v5("response_information_comes_only_on_request", &["MQTT-3.1.2-28"], |t| {
        let id = t.id("a");
        for properties in [&[][..], &[Property::RequestResponseInformation(0)]] {
            let connect = Connect { properties: Properties::new(properties), ..t.hello(&id) };
            let c = t.connect_with(connect)?;
            let came =
                c.connack.property(|p| matches!(p, Property::ResponseInformation(_)).then_some(()));
            equal("response information", came, None)?;
        }
        Ok(())
    }),
    v5("problem_information_can_be_declined", &["MQTT-3.1.2-29"], |t| {
        let id = t.id("a");
        let properties = [Property::RequestProblemInformation(0)];
        let mut c =
            t.connect_with(Connect { properties: Properties::new(&properties), ..t.hello(&id) })?;
        let none = |answer: crate::packets::Answer| {
            check(!answer.has_problem_information(), "problem information came")
        };
        c.send(Packet::PubRel(Ack::new(packet_id(77))))?;
        none(c.expect_ack(PacketType::PubComp, packet_id(77))?)?;
        c.send_raw(&raw::unsubscribe(t.version, t.topic("none").as_bytes()));
        none(c.expect_ack(PacketType::UnsubAck, packet_id(1))?)?;
        c.send_raw(&raw::packet(0x32, &[&raw::field(t.topic("none")), &[0, 2, 0]]));
        none(c.expect_ack(PacketType::PubAck, packet_id(2))?)?;
        // What a server may refuse, and would like to say why.
        let props = raw::properties(t.version, &[0x01, 1]);
        let topic = raw::field(t.topic("none"));
        c.send_raw(&raw::packet(0x32, &[&topic, &[0, 3], &props, b"\xff"]));
        if let Ok(puback) = c.expect_ack(PacketType::PubAck, packet_id(3)) {
            none(puback)?;
            c.send_raw(&raw::subscribe(t.version, b"not/a#filter", &[], 0));
            if let Ok(suback) = c.expect(PacketType::SubAck) {
                none(suback)?;
            }
        }
        Ok(())
    }),
    all(
        "a_silent_client_is_closed_after_one_and_a_half_keep_alives",
        &["MQTT-3.1.2-22", "MQTT-3.2.2-22"],
        &["MQTT-3.1.2-24"],
        |t| {
            let id = t.id("a");
            let mut c = t.connect_with(Connect { keep_alive_s: 2, ..t.hello(&id) })?;
            need(
                c.server.keep_alive_s.is_none_or(|s| s == 2),
                "keep alive of the client's choice",
            )?;
            t.advance_s(2);
            c.expect_nothing()?;
            t.advance_s(3);
            c.expect_closed_with(&[KeepAliveTimeout])
        },
    )
    .slow(),
    all("any_packet_keeps_alive", &["MQTT-3.1.2-22"], &["MQTT-3.1.2-24"], |t| {
        let id = t.id("a");
        let mut c = t.connect_with(Connect { keep_alive_s: 2, ..t.hello(&id) })?;
        for _ in 0..2 {
            t.advance_s(2);
            c.ping()?;
        }
        t.advance_s(2);
        c.publish(&t.topic("a"), "alive", AtLeastOnce)?;
        t.advance_s(2);
        c.ping()
    })
    .slow(),
    all("keep_alive_zero_never_closes", &[], &[], |t| {
        let mut c = t.connect()?;
        need(c.server.keep_alive_s.is_none_or(|s| s > 3), "clients without keep alive")?;
        t.advance_s(4);
        c.ping()
    })
    .slow(),
    v5("the_server_keep_alive_counts", &["MQTT-3.1.2-22"], |t| {
        let mut c = t.connect()?;
        let keep_alive_s = c.server.keep_alive_s.unwrap_or(u16::MAX);
        need(keep_alive_s <= 5, "Server Keep Alive that a test can wait for")?;
        t.advance_s(u64::from(keep_alive_s) * 2 + 1);
        c.expect_closed_with(&[KeepAliveTimeout])
    })
    .slow(),
    v3("protocol_name_and_level_belong_together", &["MQTT-3.1.2-1", "MQTT-3.1.2-2"], |t| {
        for (name, level) in [("MQIsdp", 4), ("MQTT", 3), ("mqtt", 4)] {
            let mut c = t.open()?;
            let head = [raw::field(name), vec![level, 2, 0, 60]].concat();
            c.send_raw(&raw::packet(0x10, &[&head, &raw::field(t.id("a"))]));
            let bytes = c.read_to_end()?;
            let refused = bytes.get(3).is_none_or(|&code| code != 0);
            check(refused, &format!("{name} {level}: came {bytes:02x?}"))?;
        }
        Ok(())
    }),
];
