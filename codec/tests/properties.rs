//! Table 2-4 of 5.0: which packet may carry which property, how often, and with which values.

mod common;

use common::refusal;
use whimbrel_codec::{Properties, Property, ReasonCode, Version};

/// A property identifier, a valid value, and the packets that may carry it by table 2-4.
///
/// Letters: C CONNECT, c CONNACK, P PUBLISH, W will, a PUBACK, r PUBREC, l PUBREL, p PUBCOMP,
/// S SUBSCRIBE, s SUBACK, U UNSUBSCRIBE, u UNSUBACK, D DISCONNECT, A AUTH.
const TABLE_2_4: [(u8, &str, &str); 27] = [
    (0x01, "01", "PW"),
    (0x02, "00000e10", "PW"),
    (0x03, "0001'x'", "PW"),
    (0x08, "0001'x'", "PW"),
    (0x09, "0002 00ff", "PW"),
    (0x0b, "ffffff7f", "PS"),
    (0x11, "ffffffff", "CcD"),
    (0x12, "0001'x'", "c"),
    (0x13, "0000", "c"),
    (0x15, "0001'x'", "CcA"),
    (0x16, "0002 00ff", "CcA"),
    (0x17, "00", "C"),
    (0x18, "00000000", "W"),
    (0x19, "01", "C"),
    (0x1a, "0001'x'", "c"),
    (0x1c, "0001'x'", "cD"),
    (0x1f, "0001'x'", "carlpsuDA"),
    (0x21, "0001", "Cc"),
    (0x22, "0000", "Cc"),
    (0x23, "0001", "P"),
    (0x24, "00", "c"),
    (0x25, "00", "c"),
    (0x26, "0001'x' 0001'y'", "CcPWarlpSsUuDA"),
    (0x27, "00000001", "Cc"),
    (0x28, "00", "c"),
    (0x29, "00", "c"),
    (0x2a, "00", "c"),
];

const PACKETS: &str = "CcPWarlpSsUuDA";

/// The packet `kind` with the bytes `properties`.
fn carrying(kind: char, properties: &str) -> Vec<u8> {
    let properties = common::hex(properties);
    let (first, before, after) = match kind {
        'C' => (0x10, "0004'MQTT' 05 02 0000", "0000"),
        'W' => (0x10, "0004'MQTT' 05 06 0000 00 0000", "0001't' 0000"),
        'c' => (0x20, "00 00", ""),
        'P' => (0x30, "0001't'", ""),
        'a' => (0x40, "0001 00", ""),
        'r' => (0x50, "0001 00", ""),
        'l' => (0x62, "0001 00", ""),
        'p' => (0x70, "0001 00", ""),
        'S' => (0x82, "0001", "0001'f' 00"),
        's' => (0x90, "0001", "00"),
        'U' => (0xa2, "0001", "0001'f'"),
        'u' => (0xb0, "0001", "00"),
        'D' => (0xe0, "00", ""),
        'A' => (0xf0, "18", ""),
        _ => unreachable!("no packet {kind}"),
    };
    let len = u8::try_from(properties.len()).expect("short properties");
    let body = [common::hex(before), vec![len], properties, common::hex(after)].concat();
    common::frame(first, &body)
}

/// What `kind` needs besides the property `id` to be valid: AUTH always carries a method, and
/// authentication data never comes without one.
fn company(kind: char, id: u8) -> &'static str {
    match (kind, id) {
        ('A', 0x15) => "",
        ('A', _) | (_, 0x16) => "15 0001'm'",
        _ => "",
    }
}

/// [MQTT-2.2.2-2] and section 2.2.2.2: a property of another packet is malformed.
#[test]
fn each_packet_takes_its_own_properties_only() {
    for (id, value, packets) in TABLE_2_4 {
        for kind in PACKETS.chars() {
            // Other packets refuse the method that would accompany the data before the data.
            let with = if packets.contains(kind) { company(kind, id) } else { "" };
            let bytes = carrying(kind, &format!("{with} {id:02x} {value}"));
            let expected = (!packets.contains(kind)).then_some(ReasonCode::MalformedPacket);
            assert_eq!(refusal(Version::V5, &bytes), expected, "property {id:#x} in {kind}");
        }
    }
}

#[test]
fn only_user_properties_and_subscription_identifiers_of_publish_repeat() {
    for (id, value, packets) in TABLE_2_4 {
        for kind in packets.chars() {
            let with = company(kind, id);
            let bytes = carrying(kind, &format!("{with} {id:02x} {value} {id:02x} {value}"));
            let repeats = id == 0x26 || (id == 0x0b && kind == 'P');
            let expected = (!repeats).then_some(ReasonCode::ProtocolError);
            assert_eq!(refusal(Version::V5, &bytes), expected, "property {id:#x} twice in {kind}");
        }
    }
}

/// A property cut short, at each of its bytes, in a packet that ends there.
#[test]
fn a_property_does_not_end_early() {
    for (id, value, packets) in TABLE_2_4 {
        let whole = common::hex(value);
        for kind in packets.chars() {
            for len in 0..whole.len() {
                let cut: String = whole[..len].iter().map(|byte| format!("{byte:02x}")).collect();
                let bytes = carrying(kind, &format!("{} {id:02x} {cut}", company(kind, id)));
                let refused = refusal(Version::V5, &bytes);
                let expected = Some(ReasonCode::MalformedPacket);
                assert_eq!(refused, expected, "property {id:#x} cut to {len} in {kind}");
            }
        }
    }
}

/// Identifiers that table 2-4 does not have, and one in two bytes where one is enough.
#[test]
fn unknown_identifiers_are_malformed() {
    let known = |id: &u8| TABLE_2_4.iter().any(|(known, ..)| known == id);
    for id in (0..=255).filter(|id| !known(id)) {
        for kind in PACKETS.chars() {
            let bytes = carrying(kind, &format!("{id:02x} 00 00 00 00"));
            let refused = refusal(Version::V5, &bytes);
            assert_eq!(refused, Some(ReasonCode::MalformedPacket), "property {id:#x} in {kind}");
        }
    }
    // [MQTT-1.5.5-1]
    let overlong = carrying('P', "8100 01");
    assert_eq!(refusal(Version::V5, &overlong), Some(ReasonCode::MalformedPacket));
}

#[test]
fn values_have_their_range() {
    use ReasonCode::*;
    let table = [
        // Section 3.3.2.3.2
        ('P', "01 00", None),
        ('P', "01 02", Some(ProtocolError)),
        ('W', "01 02", Some(ProtocolError)),
        // Sections 3.1.2.11.6 and 3.1.2.11.7
        ('C', "17 02", Some(ProtocolError)),
        ('C', "19 02", Some(ProtocolError)),
        ('C', "19 ff", Some(ProtocolError)),
        // Section 3.1.2.11.3
        ('C', "21 0000", Some(ProtocolError)),
        ('C', "21 ffff", None),
        ('c', "21 0000", Some(ProtocolError)),
        // Section 3.1.2.11.4
        ('C', "27 00000000", Some(ProtocolError)),
        ('C', "27 ffffffff", None),
        ('c', "27 00000000", Some(ProtocolError)),
        // Sections 3.2.2.3.4 to 3.2.2.3.13
        ('c', "24 01", None),
        ('c', "24 02", Some(ProtocolError)),
        ('c', "25 02", Some(ProtocolError)),
        ('c', "28 02", Some(ProtocolError)),
        ('c', "29 02", Some(ProtocolError)),
        ('c', "2a 02", Some(ProtocolError)),
        // [MQTT-3.3.2-8]
        ('P', "23 0000", Some(TopicAliasInvalid)),
        ('P', "23 ffff", None),
        // Section 3.8.2.1.2
        ('S', "0b 00", Some(ProtocolError)),
        ('S', "0b 01", None),
        ('P', "0b 00", Some(ProtocolError)),
        // [MQTT-1.5.5-1]
        ('S', "0b 8100", Some(MalformedPacket)),
        ('S', "0b 80808001", None),
        ('S', "0b 8080808001", Some(MalformedPacket)),
        // [MQTT-3.3.2-14]
        ('P', "08 0003'a/+'", Some(ProtocolError)),
        ('P', "08 0001'#'", Some(ProtocolError)),
        ('P', "08 0000", Some(ProtocolError)),
        ('W', "08 0003'a/#'", Some(ProtocolError)),
        ('W', "08 0000", Some(ProtocolError)),
        // Section 3.1.2.11.10
        ('C', "16 0000", Some(ProtocolError)),
        ('c', "16 0000", Some(ProtocolError)),
        // Section 3.15.2.2.2
        ('A', "16 0000", Some(ProtocolError)),
        ('A', "1f 0000", Some(ProtocolError)),
        ('A', "", Some(ProtocolError)),
        // [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1]
        ('P', "03 0002 c0af", Some(MalformedPacket)),
        ('P', "26 0001'n' 0001 00", Some(MalformedPacket)),
        ('P', "26 0001 ff 0001'v'", Some(MalformedPacket)),
        ('P', "26 0000 0000", None),
    ];
    for (kind, properties, expected) in table {
        let bytes = carrying(kind, properties);
        assert_eq!(refusal(Version::V5, &bytes), expected, "{properties} in {kind}");
    }
}

/// [MQTT-2.2.2-1] The length is there even without properties, and it ends inside the packet.
#[test]
fn the_property_length_is_there() {
    let malformed = Some(ReasonCode::MalformedPacket);
    let table = [
        (0x20, "00 00"),
        (0x30, "0001't'"),
        (0x32, "0001't' 0001"),
        (0x82, "0001"),
        (0x90, "0001"),
        (0xa2, "0001"),
        (0xb0, "0001"),
        (0xf0, "18"),
        // Longer than the packet, by one byte.
        (0x20, "00 00 06 21 000a 24 01"),
        (0x30, "0001't' 03 01 01"),
        (0x40, "0001 00 01"),
        (0xe0, "00 06 11 00000000"),
        // Ends inside a property.
        (0x20, "00 00 04 21 000a 24 01"),
        (0xe0, "00 04 11 00000000"),
        // Overlong.
        (0x20, "00 00 8000"),
    ];
    for (first, body) in table {
        let bytes = common::packet(first, body);
        assert_eq!(refusal(Version::V5, &bytes), malformed, "{first:02x} {body}");
    }
}

#[test]
fn raw_properties_can_be_kept_and_sent_on() {
    let list = [
        Property::TopicAlias(7),
        Property::UserProperty("a", "1"),
        Property::MessageExpiryIntervalS(60),
        Property::UserProperty("b", "2"),
    ];
    let mut raw = Vec::new();
    let keep = |property: &Property<'_>| matches!(property, Property::UserProperty(..));
    assert_eq!(Properties::new(&list).write_raw(&mut raw, keep), Ok(()));
    assert_eq!(raw, common::hex("26 0001'a' 0001'1' 26 0001'b' 0001'2'"));
    let kept = Properties::from_raw(&raw);
    assert_eq!(kept, Properties::new(&[list[1], list[3]]));
    assert_eq!(kept.raw(), Some(&raw[..]));
}

/// Even where what follows would be a property again.
#[test]
fn iteration_ends_for_good_at_what_is_no_property() {
    let raw = common::hex("01 01 ff 01 01");
    let mut iter = Properties::from_raw(&raw).iter();
    assert_eq!(iter.next(), Some(Property::PayloadFormatIndicator(1)));
    assert_eq!(iter.next(), None);
    assert_eq!(iter.next(), None);
}
