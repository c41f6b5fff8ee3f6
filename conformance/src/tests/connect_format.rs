//! CONNECT packets that break the format of section 3.1.

use super::prelude::*;

/// Opens a connection, sends the CONNECT and awaits that it is refused as malformed.
fn refused(t: &Bench<'_>, flags: u8, payload: &[&[u8]]) -> Outcome {
    let mut c = t.open()?;
    c.send_raw(&raw::connect(t.version, flags, payload));
    c.expect_malformed_connect()
}

/// The same for raw properties.
fn refused_properties(t: &Bench<'_>, props: &[u8]) -> Outcome {
    let mut c = t.open()?;
    c.send_raw(&raw::connect_with(t.version, 2, props, &[&raw::field(t.id("a"))]));
    c.expect_malformed_connect().map_err(|stop| stop.of(format!("properties {props:02x?}")))
}

/// Will properties (in 5.0), topic and payload.
fn will(t: &Bench<'_>, topic: &[u8]) -> Vec<u8> {
    [raw::properties(t.version, &[]), raw::field(topic), raw::field("gone")].concat()
}

pub const TESTS: &[Test] = &[
    both(
        "the_reserved_connect_flag_is_checked",
        &["MQTT-3.1.2-3", "MQTT-3.1.4-1"],
        &["MQTT-3.1.2-3", "MQTT-3.1.4-1"],
        |t| refused(t, 0x03, &[&raw::field(t.id("a"))]),
    ),
    both("no_will_no_will_qos", &["MQTT-3.1.2-11"], &["MQTT-3.1.2-11", "MQTT-3.1.2-13"], |t| {
        refused(t, 0x0a, &[&raw::field(t.id("a"))])
    }),
    both("no_will_no_will_retain", &["MQTT-3.1.2-13"], &["MQTT-3.1.2-11", "MQTT-3.1.2-15"], |t| {
        refused(t, 0x22, &[&raw::field(t.id("a"))])
    }),
    both("will_qos_3_is_refused", &["MQTT-3.1.2-12"], &["MQTT-3.1.2-14"], |t| {
        refused(t, 0x1e, &[&raw::field(t.id("a")), &will(t, b"a")])
    }),
    both("a_will_flag_needs_a_will", &["MQTT-3.1.2-9"], &["MQTT-3.1.2-9"], |t| {
        refused(t, 0x06, &[&raw::field(t.id("a"))])
    }),
    both("a_user_name_flag_needs_a_user_name", &["MQTT-3.1.2-17"], &["MQTT-3.1.2-19"], |t| {
        refused(t, 0x82, &[&raw::field(t.id("a"))])
    }),
    both("a_user_name_needs_its_flag", &["MQTT-3.1.2-16"], &["MQTT-3.1.2-18"], |t| {
        refused(t, 0x02, &[&raw::field(t.id("a")), &raw::field("user")])
    }),
    both("a_password_flag_needs_a_password", &["MQTT-3.1.2-19"], &["MQTT-3.1.2-21"], |t| {
        refused(t, 0xc2, &[&raw::field(t.id("a")), &raw::field("user")])
    }),
    both("a_password_needs_its_flag", &["MQTT-3.1.2-18"], &["MQTT-3.1.2-20"], |t| {
        refused(t, 0x82, &[&raw::field(t.id("a")), &raw::field("user"), &raw::field("secret")])
    }),
    v3("a_password_needs_a_user_name", &["MQTT-3.1.2-22"], |t| {
        refused(t, 0x42, &[&raw::field(t.id("a")), &raw::field("secret")])
    }),
    v5("a_password_may_come_without_a_user_name", &[], |t| {
        let id = t.id("a");
        let mut c = t.send_connect(Connect { password: Some(b"secret"), ..t.hello(&id) })?;
        c.expect_connack()?;
        let reasons = [Success, BadUserNameOrPassword, NotAuthorized];
        one_of("reason of CONNACK", c.connack.reason, &reasons)
    }),
    both("a_client_identifier_must_be_there", &["MQTT-3.1.3-3"], &["MQTT-3.1.3-3"], |t| {
        refused(t, 0x02, &[])
    }),
    both(
        "a_client_identifier_must_be_utf_8",
        &["MQTT-3.1.3-4", "MQTT-1.5.4-1"],
        &["MQTT-3.1.3-4", "MQTT-1.5.3-1"],
        |t| {
            refused(t, 0x02, &[&raw::field(b"a\xff\xfe")])?;
            // A surrogate, and an overlong slash.
            refused(t, 0x02, &[&raw::field(b"a\xed\xa0\x80")])?;
            refused(t, 0x02, &[&raw::field(b"a\xc0\xaf")])
        },
    ),
    both("a_client_identifier_must_not_contain_nul", &["MQTT-1.5.4-2"], &["MQTT-1.5.3-2"], |t| {
        refused(t, 0x02, &[&raw::field(b"a\0b")])
    }),
    both("a_will_topic_must_be_utf_8", &["MQTT-3.1.3-11"], &["MQTT-3.1.3-10"], |t| {
        refused(t, 0x06, &[&raw::field(t.id("a")), &will(t, b"a\xff")])
    }),
    both("a_user_name_must_be_utf_8", &["MQTT-3.1.3-12"], &["MQTT-3.1.3-11"], |t| {
        refused(t, 0x82, &[&raw::field(t.id("a")), &raw::field(b"u\xff")])
    }),
    both("a_will_topic_has_no_wildcard", &["MQTT-4.7.0-1"], &["MQTT-4.7.1-1"], |t| {
        let id = t.id("a");
        let will = Will {
            topic: "a/#",
            payload: b"gone",
            qos: AtMostOnce,
            retain: false,
            properties: Properties::NONE,
        };
        let mut c = t.send_connect(Connect { will: Some(will), ..t.hello(&id) })?;
        // 3.1.1 has no return code for it.
        let silent = if t.version.is_v5() {
            &[TopicNameInvalid, MalformedPacket, ProtocolError][..]
        } else {
            &[]
        };
        c.expect_refused(silent)
    }),
    both("bytes_after_the_payload_are_refused", &["MQTT-3.1.4-1"], &["MQTT-3.1.4-1"], |t| {
        refused(t, 0x02, &[&raw::field(t.id("a")), &[0]])
    }),
    both("a_connect_that_ends_early_is_refused", &["MQTT-3.1.4-1"], &["MQTT-3.1.4-1"], |t| {
        let mut c = t.open()?;
        c.send_raw(&raw::packet(0x10, &[&raw::field("MQTT"), &[t.version as u8, 2]]));
        c.expect_malformed_connect()
    }),
    v5("connect_without_property_length_is_refused", &["MQTT-2.2.2-1"], |t| {
        let mut c = t.open()?;
        let head = [raw::field("MQTT"), vec![5, 2, 0, 60]].concat();
        c.send_raw(&raw::packet(0x10, &[&head, &raw::field("abcdefgh")]));
        c.expect_malformed_connect()
    }),
    v5("connect_properties_come_once", &["MQTT-4.13.1-1"], |t| {
        refused_properties(t, &[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1])?;
        refused_properties(t, &[0x21, 0, 9, 0x21, 0, 9])?;
        refused_properties(t, &[0x27, 0, 0, 9, 9, 0x27, 0, 0, 9, 9])?;
        refused_properties(t, &[0x22, 0, 9, 0x22, 0, 9])?;
        refused_properties(t, &[0x19, 0, 0x19, 0])?;
        refused_properties(t, &[0x17, 0, 0x17, 0])
    }),
    v5("connect_properties_have_valid_values", &["MQTT-4.13.1-1"], |t| {
        // Receive Maximum 0, Maximum Packet Size 0, and flags that are neither 0 nor 1.
        refused_properties(t, &[0x21, 0, 0])?;
        refused_properties(t, &[0x27, 0, 0, 0, 0])?;
        refused_properties(t, &[0x17, 2])?;
        refused_properties(t, &[0x19, 2])
    }),
    v5("connect_has_no_properties_of_other_packets", &["MQTT-3.1.4-1"], |t| {
        // Topic Alias, Subscription Identifier, and an identifier that does not exist.
        refused_properties(t, &[0x23, 0, 1])?;
        refused_properties(t, &[0x0b, 1])?;
        refused_properties(t, &[0x7f, 0])
    }),
    v5("authentication_data_needs_a_method", &["MQTT-4.13.1-1"], |t| {
        let mut c = t.open()?;
        let props = [0x16, 0, 1, b'x'];
        c.send_raw(&raw::connect_with(t.version, 2, &props, &[&raw::field(t.id("a"))]));
        c.expect_refused(&[ProtocolError, MalformedPacket, BadAuthenticationMethod, NotAuthorized])
    }),
    v5("user_properties_are_utf_8_pairs", &["MQTT-1.5.7-1"], |t| {
        refused_properties(t, &[0x26, 0, 1, 0xff, 0, 1, b'v'])?;
        refused_properties(t, &[0x26, 0, 1, b'k', 0, 1, 0xff])
    }),
    v5("a_property_length_stays_within_the_packet", &["MQTT-3.1.4-1"], |t| {
        let mut c = t.open()?;
        let head = [raw::field("MQTT"), vec![5, 2, 0, 60, 120]].concat();
        c.send_raw(&raw::packet(0x10, &[&head, &raw::field(t.id("a"))]));
        c.expect_malformed_connect()
    }),
];
