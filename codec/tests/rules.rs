//! One row for each rule that a packet can break by itself: bytes, and the reason they give.
#![allow(clippy::unwrap_used)]

mod common;

use common::{VERSIONS, arbitrary, refusal};
use whimbrel_codec::ReasonCode::{self, *};
use whimbrel_codec::Version::{self, *};
use whimbrel_codec::{Frame, Packet};

/// A rule, the version, the first byte, the body, and the reason; none where it is valid.
type Row = (&'static str, Version, u8, &'static str, Option<ReasonCode>);

#[track_caller]
fn check(rows: &[Row]) {
    for (rule, version, first, body, expected) in rows {
        let bytes = common::packet(*first, body);
        let refused = refusal(*version, &bytes);
        assert_eq!(refused, *expected, "{rule} {version:?}: {first:02x} {body}");
    }
}

const BAD: Option<ReasonCode> = Some(MalformedPacket);
const PROTOCOL: Option<ReasonCode> = Some(ProtocolError);
const TOPIC: Option<ReasonCode> = Some(TopicNameInvalid);
const VERSION: Option<ReasonCode> = Some(UnsupportedProtocolVersion);

#[test]
fn strings() {
    check(&[
        ("[MQTT-1.5.4-1] valid in four bytes", V5, 0x30, "0004 f09f90a6 00", None),
        ("[MQTT-1.5.4-1] lone continuation", V5, 0x30, "0001 80 00", BAD),
        ("[MQTT-1.5.4-1] truncated", V5, 0x30, "0002 e282 00", BAD),
        ("[MQTT-1.5.4-1] overlong", V5, 0x30, "0002 c0af 00", BAD),
        ("[MQTT-1.5.4-1] surrogate D800", V5, 0x30, "0003 eda080 00", BAD),
        ("[MQTT-1.5.4-1] surrogate DFFF", V5, 0x30, "0003 edbfbf 00", BAD),
        ("[MQTT-1.5.4-1] above 10FFFF", V5, 0x30, "0004 f4908080 00", BAD),
        ("[MQTT-1.5.3-1] of 3.1.1", V3_1_1, 0x30, "0003 eda080", BAD),
        ("[MQTT-1.5.4-2]", V5, 0x30, "0003 610062 00", BAD),
        ("[MQTT-1.5.4-2] encoded in two bytes", V5, 0x30, "0002 c080 00", BAD),
        ("[MQTT-1.5.3-2] of 3.1.1", V3_1_1, 0x30, "0001 00", BAD),
        ("[MQTT-1.5.4-3]", V5, 0x30, "0004 efbbbf 61 00", None),
        ("control and non-character", V5, 0x30, "0004 01 efbfbf 00", None),
        ("[MQTT-1.5.4-1] filter", V5, 0x82, "0001 00 0001 ff 00", BAD),
        ("[MQTT-1.5.4-2] filter", V5, 0x82, "0001 00 0001 00 00", BAD),
        ("[MQTT-3.8.3-1] longer than the packet", V5, 0x82, "0001 00 0002'a'", BAD),
        ("[MQTT-3.10.3-1] filter", V5, 0xa2, "0001 00 0001 ff", BAD),
        ("[MQTT-3.1.3-4]", V5, 0x10, "0004'MQTT' 05 02 0000 00 0001 ff", BAD),
        ("[MQTT-3.1.3-11]", V5, 0x10, "0004'MQTT' 05 06 0000 00 0000 00 0001 ff 0000", BAD),
        ("[MQTT-3.1.3-12]", V5, 0x10, "0004'MQTT' 05 82 0000 00 0000 0001 ff", BAD),
    ]);
}

/// [MQTT-1.5.4-3]: a byte order mark is a character like others.
#[test]
fn a_byte_order_mark_is_kept() {
    let bytes = common::packet(0x30, "0004 efbbbf 61 00");
    let packet = common::decode(V5, &bytes).expect("a packet");
    assert!(matches!(packet, Packet::Publish(publish) if publish.topic == "\u{feff}a"));
}

/// [MQTT-2.1.3-1]: every packet type with every value of the flags.
#[test]
fn reserved_flags() {
    let bodies = [
        (0x1, "0004'MQTT' 05 02 0000 00 0000"),
        (0x2, "00 00 00"),
        (0x4, "0001"),
        (0x5, "0001"),
        (0x6, "0001"),
        (0x7, "0001"),
        (0x8, "0001 00 0001'f' 00"),
        (0x9, "0001 00 00"),
        (0xa, "0001 00 0001'f'"),
        (0xb, "0001 00 00"),
        (0xc, ""),
        (0xd, ""),
        (0xe, ""),
        (0xf, ""),
    ];
    for (kind, body) in bodies {
        let required = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
        for flags in 0..16 {
            let bytes = common::packet(kind << 4 | flags, body);
            let expected = if flags == required { None } else { BAD };
            assert_eq!(refusal(V5, &bytes), expected, "{bytes:02x?}");
        }
    }
    // Packet type 0 is none, whatever its flags.
    assert!((0..16).all(|flags| refusal(V5, &[flags, 0]) == BAD));
}

/// 3.1 sends PUBREL, SUBSCRIBE and UNSUBSCRIBE again with DUP (its sections 3.6, 3.8 and 3.10).
#[test]
fn dup_of_3_1() {
    for (first, body) in [(0x6a, "0001"), (0x8a, "0001 0001'f' 00"), (0xaa, "0001 0001'f'")] {
        check(&[("DUP", V3_1, first, body, None), ("DUP", V3_1_1, first, body, BAD)]);
    }
    check(&[("DUP", V3_1, 0x4a, "0001", BAD), ("QoS 0", V3_1, 0x68, "0001", BAD)]);
}

#[test]
fn remaining_length() {
    let parse = |text: &str| Frame::parse(&common::hex(text), u32::MAX);
    let lens = [
        ("c0 00", 0),
        ("c0 7f", 127),
        ("c0 8001", 128),
        ("c0 ff7f", 16_383),
        ("c0 808001", 16_384),
        ("c0 ffff7f", 2_097_151),
        ("c0 80808001", 2_097_152),
        ("c0 ffffff7f", 268_435_455),
    ];
    for (text, len) in lens {
        let frame = parse(text).unwrap().unwrap();
        assert_eq!((frame.remaining_len, frame.header_len), (len, common::hex(text).len()));
    }
    for text in ["", "c0", "c0 80", "c0 8080", "c0 808080"] {
        assert_eq!(parse(text), Ok(None), "{text}");
    }
    for text in ["c0 80808080", "c0 ffffffff", "c0 ffffffff7f"] {
        assert_eq!(parse(text).unwrap_err().reason, MalformedPacket, "{text}");
    }
    // [MQTT-1.5.5-1] is new in 5.0; a 3.1.1 client may write the length in a fixed width.
    for text in ["c0 8000", "c0 808000", "c0 80808000", "40 8200 0001", "40 828000 0001"] {
        let bytes = common::hex(text);
        assert_eq!(refusal(V5, &bytes), BAD, "{text}");
        assert_eq!(refusal(V3_1_1, &bytes), None, "{text}");
        assert_eq!(refusal(V3_1, &bytes), None, "{text}");
    }
    // A CONNECT brings its version, whatever the connection's is said to be.
    let connect = |level| common::hex(&format!("10 8c00 0004'MQTT' {level} 02 0000 0000"));
    assert_eq!(refusal(V5, &connect("04")), None);
    let with_properties = common::hex("10 8d00 0004'MQTT' 05 02 0000 00 0000");
    assert_eq!(refusal(V3_1_1, &with_properties), BAD);
}

/// [MQTT-2.2.1-3] [MQTT-2.2.1-4], and 0 in answers, which answer nothing.
#[test]
fn packet_identifier_0() {
    for version in VERSIONS {
        let none = if version.is_v5() { "00" } else { "" };
        let publish = format!("0001't' 0000 {none}");
        let subscribe = format!("0000 {none} 0001'f' 00");
        let unsubscribe = format!("0000 {none} 0001'f'");
        let bodies = [
            (0x32, &*publish),
            (0x34, &publish),
            (0x40, "0000"),
            (0x50, "0000"),
            (0x62, "0000"),
            (0x70, "0000"),
            (0x82, &subscribe),
            (0xa2, &unsubscribe),
        ];
        for (first, body) in bodies {
            let refused = refusal(version, &common::packet(first, body));
            assert_eq!(refused, PROTOCOL, "{version:?} {first:02x}");
        }
    }
}

#[test]
fn connect_header() {
    check(&[
        ("[MQTT-3.1.2-1]", V5, 0x10, "0004'MQTX' 05 02 0000 00 0000", VERSION),
        ("[MQTT-3.1.2-1] case", V5, 0x10, "0004'mqtt' 05 02 0000 00 0000", VERSION),
        ("[MQTT-3.1.2-1] empty", V5, 0x10, "0000 05 02 0000 00 0000", VERSION),
        ("[MQTT-3.1.2-2] 0", V5, 0x10, "0004'MQTT' 00 02 0000 00 0000", VERSION),
        ("[MQTT-3.1.2-2] 3 with MQTT", V5, 0x10, "0004'MQTT' 03 02 0000 0000", VERSION),
        ("[MQTT-3.1.2-2] 4 with MQIsdp", V5, 0x10, "0006'MQIsdp' 04 02 0000 0000", VERSION),
        ("[MQTT-3.1.2-2] 6", V5, 0x10, "0004'MQTT' 06 02 0000 00 0000", VERSION),
        ("[MQTT-3.1.2-2] what follows is unknown", V5, 0x10, "0004'MQTT' 07", VERSION),
        ("name without level", V5, 0x10, "0004'MQTT'", BAD),
        ("empty", V5, 0x10, "", BAD),
        ("[MQTT-3.1.2-3]", V5, 0x10, "0004'MQTT' 05 03 0000 00 0000", BAD),
        ("[MQTT-3.1.2-3] of 3.1.1", V3_1_1, 0x10, "0004'MQTT' 04 03 0000 0000", BAD),
        ("[MQTT-3.1.3-3] no client identifier", V5, 0x10, "0004'MQTT' 05 02 0000 00", BAD),
        ("empty client identifier", V5, 0x10, "0004'MQTT' 05 02 0000 00 0000", None),
        ("trailing byte", V5, 0x10, "0004'MQTT' 05 02 0000 00 0000 00", BAD),
        ("trailing byte", V3_1_1, 0x10, "0004'MQTT' 04 02 0000 0000 00", BAD),
        ("trailing byte", V3_1, 0x10, "0006'MQIsdp' 03 02 0000 0001'c' 00", BAD),
    ]);
}

#[test]
fn connect_will() {
    check(&[
        ("[MQTT-3.1.2-11]", V5, 0x10, "0004'MQTT' 05 0a 0000 00 0000", BAD),
        ("[MQTT-3.1.2-11]", V5, 0x10, "0004'MQTT' 05 12 0000 00 0000", BAD),
        ("[MQTT-3.1.2-13]", V5, 0x10, "0004'MQTT' 05 22 0000 00 0000", BAD),
        ("[MQTT-3.1.2-13] of 3.1.1", V3_1_1, 0x10, "0004'MQTT' 04 0a 0000 0000", BAD),
        ("[MQTT-3.1.2-15] of 3.1.1", V3_1_1, 0x10, "0004'MQTT' 04 22 0000 0000", BAD),
        ("3.1 disregards them", V3_1, 0x10, "0006'MQIsdp' 03 3a 0000 0001'c'", None),
        ("[MQTT-3.1.2-12]", V5, 0x10, "0004'MQTT' 05 1e 0000 00 0000 00 0001't' 0000", BAD),
        ("[MQTT-3.1.2-14] of 3.1.1", V3_1_1, 0x10, "0004'MQTT' 04 1e 0000 0000 0001't' 0000", BAD),
        ("QoS 2, retained", V5, 0x10, "0004'MQTT' 05 36 0000 00 0000 00 0001't' 0000", None),
        ("[MQTT-3.1.2-9] no will", V5, 0x10, "0004'MQTT' 05 06 0000 00 0000", BAD),
        ("no payload", V5, 0x10, "0004'MQTT' 05 06 0000 00 0000 00 0001't'", BAD),
        ("wildcard", V5, 0x10, "0004'MQTT' 05 06 0000 00 0000 00 0003't/+' 0000", TOPIC),
        ("wildcard", V3_1_1, 0x10, "0004'MQTT' 04 06 0000 0000 0001'#' 0000", TOPIC),
        ("[MQTT-4.7.3-1]", V5, 0x10, "0004'MQTT' 05 06 0000 00 0000 00 0000 0000", TOPIC),
    ]);
}

#[test]
fn connect_credentials() {
    check(&[
        ("[MQTT-3.1.2-17] no user name", V5, 0x10, "0004'MQTT' 05 82 0000 00 0000", BAD),
        ("[MQTT-3.1.2-16] user name", V5, 0x10, "0004'MQTT' 05 02 0000 00 0000 0001'u'", BAD),
        ("[MQTT-3.1.2-19] no password", V5, 0x10, "0004'MQTT' 05 42 0000 00 0000", BAD),
        ("password alone", V5, 0x10, "0004'MQTT' 05 42 0000 00 0000 0001'p'", None),
        ("[MQTT-3.1.2-22] of 3.1.1", V3_1_1, 0x10, "0004'MQTT' 04 42 0000 0000 0001'p'", BAD),
        ("password alone", V3_1, 0x10, "0006'MQIsdp' 03 42 0000 0001'c' 0001'p'", BAD),
        ("flags without fields", V3_1, 0x10, "0006'MQIsdp' 03 c2 0000 0001'c'", None),
        ("no password", V3_1, 0x10, "0006'MQIsdp' 03 c2 0000 0001'c' 0001'u'", None),
        ("no password", V3_1_1, 0x10, "0004'MQTT' 04 c2 0000 0001'c' 0001'u'", BAD),
        ("half a user name", V3_1, 0x10, "0006'MQIsdp' 03 c2 0000 0001'c' 0002'u'", BAD),
    ]);
}

#[test]
fn connack() {
    check(&[
        ("[MQTT-3.2.2-1]", V5, 0x20, "02 00 00", BAD),
        ("[MQTT-3.2.2-1]", V5, 0x20, "80 00 00", BAD),
        ("[MQTT-3.2.2-1] of 3.1.1", V3_1_1, 0x20, "02 00", BAD),
        ("not used in 3.1", V3_1, 0x20, "ff 00", None),
        ("[MQTT-3.2.2-6]", V5, 0x20, "01 87 00", PROTOCOL),
        ("[MQTT-3.2.2-4] of 3.1.1", V3_1_1, 0x20, "01 05", PROTOCOL),
        ("return code 5", V3_1_1, 0x20, "00 05", None),
        ("return code 6", V3_1_1, 0x20, "00 06", BAD),
        ("trailing byte", V3_1_1, 0x20, "00 00 00", BAD),
        ("trailing byte", V5, 0x20, "00 00 00 00", BAD),
    ]);
}

#[test]
fn publish() {
    check(&[
        ("[MQTT-3.3.1-2]", V5, 0x38, "0001't' 00", BAD),
        ("[MQTT-3.3.1-2] of 3.1.1", V3_1_1, 0x38, "0001't'", BAD),
        ("[MQTT-3.3.1-4]", V5, 0x36, "0001't' 0001 00", BAD),
        ("[MQTT-3.3.1-4] of 3.1.1", V3_1_1, 0x3e, "0001't' 0001", BAD),
        ("[MQTT-3.3.2-1] no topic", V5, 0x30, "", BAD),
        ("[MQTT-3.3.2-2] +", V5, 0x30, "0003'a/+' 00", TOPIC),
        ("[MQTT-3.3.2-2] #", V5, 0x30, "0001'#' 00", TOPIC),
        ("[MQTT-3.3.2-2] inside a level", V5, 0x30, "0003'a+b' 00", TOPIC),
        ("[MQTT-3.3.2-2] of 3.1.1", V3_1_1, 0x30, "0003'a/#'", TOPIC),
        ("no topic, no alias", V5, 0x30, "0000 00", PROTOCOL),
        ("no topic, an alias", V5, 0x30, "0000 03 23 0001", None),
        ("[MQTT-4.7.3-1] of 3.1.1", V3_1_1, 0x30, "0000", PROTOCOL),
        ("[MQTT-2.2.1-2] the identifier is payload", V5, 0x30, "0001't' 00 0001", None),
        ("no packet identifier", V5, 0x32, "0001't'", BAD),
        ("half a packet identifier", V3_1_1, 0x32, "0001't' 00", BAD),
        ("no payload", V5, 0x32, "0001't' 0001 00", None),
    ]);
}

#[test]
fn subscribe_and_unsubscribe() {
    check(&[
        ("[MQTT-3.8.3-2]", V5, 0x82, "0001 00", PROTOCOL),
        ("[MQTT-3.8.3-3] of 3.1.1", V3_1_1, 0x82, "0001", PROTOCOL),
        ("no options", V5, 0x82, "0001 00 0001'f'", BAD),
        ("no options", V3_1_1, 0x82, "0001 0001'f'", BAD),
        ("second without options", V5, 0x82, "0001 00 0001'f' 01 0001'g'", BAD),
        ("[MQTT-3.8.3-4]", V5, 0x82, "0001 00 000a'$share/g/f' 04", PROTOCOL),
        ("[MQTT-3.8.3-4] not shared", V5, 0x82, "0001 00 0001'f' 04", None),
        ("[MQTT-3.8.3-5]", V5, 0x82, "0001 00 0001'f' 40", BAD),
        ("[MQTT-3.8.3-5]", V5, 0x82, "0001 00 0001'f' 80", BAD),
        ("QoS 3", V5, 0x82, "0001 00 0001'f' 03", PROTOCOL),
        ("retain handling 3", V5, 0x82, "0001 00 0001'f' 30", PROTOCOL),
        ("all options", V5, 0x82, "0001 00 0001'f' 2e", None),
        ("[MQTT-3-8.3-4] of 3.1.1, reserved", V3_1_1, 0x82, "0001 0001'f' 04", BAD),
        ("[MQTT-3-8.3-4] of 3.1.1, QoS 3", V3_1_1, 0x82, "0001 0001'f' 03", PROTOCOL),
        ("[MQTT-3.10.3-2]", V5, 0xa2, "0001 00", PROTOCOL),
        ("[MQTT-3.10.3-2] of 3.1.1", V3_1_1, 0xa2, "0001", PROTOCOL),
        ("half a filter", V5, 0xa2, "0001 00 0001'f' 0001", BAD),
    ]);
}

#[test]
fn answers() {
    check(&[
        ("no packet identifier", V5, 0x40, "", BAD),
        ("half a packet identifier", V5, 0x40, "00", BAD),
        ("reason only", V5, 0x40, "0001 10", None),
        ("trailing byte", V5, 0x40, "0001 00 00 00", BAD),
        ("reason before 5.0", V3_1_1, 0x40, "0001 00", BAD),
        ("reason before 5.0", V3_1, 0x62, "0001 00", BAD),
        ("no codes", V5, 0x90, "0001 00", BAD),
        ("no codes", V3_1_1, 0x90, "0001", BAD),
        ("[MQTT-3.9.3-2] of 3.1.1", V3_1_1, 0x90, "0001 00 01 02 80", None),
        ("[MQTT-3.9.3-2] of 3.1.1", V3_1_1, 0x90, "0001 03", BAD),
        ("[MQTT-3.9.3-2] of 3.1.1", V3_1_1, 0x90, "0001 87", BAD),
        ("no codes", V5, 0xb0, "0001 00", BAD),
        ("no body before 5.0", V3_1_1, 0xb0, "0001", None),
        ("no body before 5.0", V3_1_1, 0xb0, "0001 00", BAD),
    ]);
}

#[test]
fn ping_disconnect_and_auth() {
    for version in VERSIONS {
        check(&[
            ("PINGREQ", version, 0xc0, "", None),
            ("PINGREQ with a body", version, 0xc0, "00", BAD),
            ("PINGRESP", version, 0xd0, "", None),
            ("PINGRESP with a body", version, 0xd0, "00", BAD),
            ("DISCONNECT", version, 0xe0, "", None),
        ]);
    }
    check(&[
        ("DISCONNECT with a reason", V5, 0xe0, "04", None),
        ("DISCONNECT with a reason", V3_1_1, 0xe0, "00", BAD),
        ("DISCONNECT with a reason", V3_1, 0xe0, "00", BAD),
        ("trailing byte", V5, 0xe0, "00 00 00", BAD),
        ("AUTH, all left out", V5, 0xf0, "", None),
        ("AUTH", V5, 0xf0, "18 04 15 0001'm'", None),
        ("trailing byte", V5, 0xf0, "18 04 15 0001'm' 00", BAD),
        ("AUTH before 5.0", V3_1_1, 0xf0, "", BAD),
        ("AUTH before 5.0", V3_1, 0xf0, "", BAD),
    ]);
}

/// Every byte as the reason code of every packet: [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1]
/// [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.9.3-1] [MQTT-3.11.3-2] [MQTT-3.14.2-1] [MQTT-3.15.2-1].
#[test]
fn reason_codes() {
    let packets = [
        (0x20, "00", "00", arbitrary::CONNACK),
        (0x40, "0001", "00", arbitrary::PUBLISHED),
        (0x50, "0001", "00", arbitrary::PUBLISHED),
        (0x62, "0001", "00", arbitrary::RELEASED),
        (0x70, "0001", "00", arbitrary::RELEASED),
        (0x90, "0001 00", "", arbitrary::SUBACK),
        (0xb0, "0001 00", "", arbitrary::UNSUBACK),
        (0xe0, "", "00", arbitrary::DISCONNECT),
        (0xf0, "", "04 15 0001'm'", arbitrary::AUTH),
    ];
    for (first, before, after, codes) in packets {
        for code in 0..=255u8 {
            let bytes = common::packet(first, &format!("{before} {code:02x} {after}"));
            let expected = if codes.contains(&code) { None } else { BAD };
            assert_eq!(refusal(V5, &bytes), expected, "{first:02x} with {code:#04x}");
        }
    }
}
