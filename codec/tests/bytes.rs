//! Bytes written down from the standard, beside what they mean: both ways, so that encoding and
//! decoding are not only tested against each other.

mod common;

use common::{decode, encode, hex};
use whimbrel_codec::Property::*;
use whimbrel_codec::Version::*;
use whimbrel_codec::*;

#[track_caller]
fn both(version: Version, text: &str, packet: Packet<'_>) {
    let bytes = hex(text);
    assert_eq!(decode(version, &bytes), Ok(packet), "decoded from {text}");
    assert_eq!(encode(version, &packet), bytes, "encoded to {text}");
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not 0")
}

#[test]
fn connect() {
    both(
        V3_1,
        "10 12 0006'MQIsdp' 03 02 003c 0004'bird'",
        Packet::Connect(Connect { keep_alive_s: 60, ..Connect::new(V3_1, "bird") }),
    );
    both(
        V3_1_1,
        "10 0c 0004'MQTT' 04 00 0000 0000",
        Packet::Connect(Connect { clean_start: false, ..Connect::new(V3_1_1, "") }),
    );
    let will_properties = [WillDelayIntervalS(5), ContentType("x")];
    let will = Will {
        topic: "t",
        payload: b"bye",
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Properties::new(&will_properties),
    };
    let properties = [SessionExpiryIntervalS(3600), ReceiveMaximum(20)];
    let connect = Connect {
        version: V5,
        clean_start: true,
        keep_alive_s: 10,
        properties: Properties::new(&properties),
        client_id: "c",
        will: Some(will),
        user_name: Some("u"),
        password: Some(&[0, 255]),
    };
    // Flags: user name, password, will retain, will QoS 1, will, clean start.
    both(
        V5,
        "10 2f 0004'MQTT' 05 ee 000a 08 11 00000e10 21 0014 0001'c'
         09 18 00000005 03 0001'x' 0001't' 0003'bye' 0001'u' 0002 00ff",
        Packet::Connect(connect),
    );
}

#[test]
fn connack() {
    let properties =
        [AssignedClientIdentifier("id"), ServerKeepAliveS(30), MaximumQos(1), TopicAliasMaximum(9)];
    both(
        V5,
        "20 10 00 00 0d 12 0002'id' 13 001e 24 01 22 0009",
        Packet::ConnAck(ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties: Properties::new(&properties),
        }),
    );
    let resumed = |reason, session_present| {
        Packet::ConnAck(ConnAck { session_present, reason, properties: Properties::NONE })
    };
    both(V3_1_1, "20 02 01 00", resumed(ReasonCode::Success, true));
    both(V3_1_1, "20 02 00 01", resumed(ReasonCode::UnsupportedProtocolVersion, false));
    both(V3_1_1, "20 02 00 02", resumed(ReasonCode::ClientIdNotValid, false));
    both(V3_1_1, "20 02 00 03", resumed(ReasonCode::ServerUnavailable, false));
    both(V3_1, "20 02 00 04", resumed(ReasonCode::BadUserNameOrPassword, false));
    both(V3_1, "20 02 00 05", resumed(ReasonCode::NotAuthorized, false));
    both(V5, "20 03 00 87 00", resumed(ReasonCode::NotAuthorized, false));
    // 3.1 has no session present.
    assert_eq!(encode(V3_1, &resumed(ReasonCode::Success, true)), hex("20 02 00 00"));
}

#[test]
fn publish() {
    both(V3_1_1, "30 07 0003'a/b' 'hi'", Packet::Publish(Publish::new("a/b", b"hi")));
    both(
        V3_1,
        "31 03 0001'a'",
        Packet::Publish(Publish { retain: true, ..Publish::new("a", b"") }),
    );
    let properties = [
        TopicAlias(3),
        SubscriptionIdentifier(128),
        SubscriptionIdentifier(268_435_455),
        UserProperty("k", "v"),
        UserProperty("k", ""),
    ];
    // DUP and QoS 2.
    both(
        V5,
        "3c 21 0001'a' 1234 18 23 0003 0b 8001 0b ffffff7f 26 0001'k' 0001'v' 26 0001'k' 0000 'end'",
        Packet::Publish(Publish {
            dup: true,
            qos: QoS::ExactlyOnce,
            packet_id: Some(id(0x1234)),
            properties: Properties::new(&properties),
            ..Publish::new("a", b"end")
        }),
    );
    // A length of two bytes.
    let payload = [0x2a; 200];
    let bytes = [hex("30 cc01 0001'a' 00").as_slice(), &payload].concat();
    assert_eq!(encode(V5, &Packet::Publish(Publish::new("a", &payload))), bytes);
    assert_eq!(decode(V5, &bytes), Ok(Packet::Publish(Publish::new("a", &payload))));
}

#[test]
fn answers_to_publish() {
    let refused = Ack { reason: ReasonCode::PacketIdNotFound, ..Ack::new(id(7)) };
    both(V3_1_1, "40 02 0007", Packet::PubAck(Ack::new(id(7))));
    both(V5, "50 02 ffff", Packet::PubRec(Ack::new(id(0xffff))));
    both(V5, "62 03 0007 92", Packet::PubRel(refused));
    both(V5, "70 03 0007 92", Packet::PubComp(refused));
    let why = [ReasonString("no")];
    let properties = Properties::new(&why);
    both(V5, "40 09 0001 00 05 1f 0002'no'", Packet::PubAck(Ack { properties, ..Ack::new(id(1)) }));
    // Success with its code and an empty list of properties is the same as without.
    assert_eq!(decode(V5, &hex("40 04 0001 00 00")), Ok(Packet::PubAck(Ack::new(id(1)))));
}

#[test]
fn subscribe() {
    let list = [
        Subscription::new("a/#", QoS::ExactlyOnce),
        Subscription {
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
            ..Subscription::new("+", QoS::AtLeastOnce)
        },
    ];
    let properties = [SubscriptionIdentifier(5)];
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: id(10),
        properties: Properties::new(&properties),
        filters: Filters::new(&list),
    });
    both(V5, "82 0f 000a 02 0b 05 0003'a/#' 02 0001'+' 2d", subscribe);
    // The options of 5.0 are reserved bits before it: [MQTT-3-8.3-4] of 3.1.1.
    assert_eq!(encode(V3_1_1, &subscribe), hex("82 0c 000a 0003'a/#' 02 0001'+' 01"));

    let codes = Codes::new(&[0, 1, 2, 0x87]);
    let suback = Packet::SubAck(SubAck { packet_id: id(10), properties: Properties::NONE, codes });
    both(V5, "90 07 000a 00 00 01 02 87", suback);
    assert_eq!(encode(V3_1_1, &suback), hex("90 06 000a 00 01 02 80"));
}

#[test]
fn unsubscribe() {
    let unsubscribe = Packet::Unsubscribe(Unsubscribe {
        packet_id: id(11),
        properties: Properties::NONE,
        filters: Topics::new(&["a/#", "b"]),
    });
    both(V3_1_1, "a2 0a 000b 0003'a/#' 0001'b'", unsubscribe);
    both(V5, "a2 0b 000b 00 0003'a/#' 0001'b'", unsubscribe);
    let codes = Codes::new(&[0, 0x11]);
    let properties = Properties::NONE;
    let unsuback = Packet::UnsubAck(UnsubAck { packet_id: id(11), properties, codes });
    both(V5, "b0 05 000b 00 00 11", unsuback);
    assert_eq!(encode(V3_1, &unsuback), hex("b0 02 000b"));
}

#[test]
fn the_rest() {
    for version in common::VERSIONS {
        both(version, "c0 00", Packet::PingReq);
        both(version, "d0 00", Packet::PingResp);
        both(version, "e0 00", Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    }
    both(V5, "e0 01 8e", Packet::Disconnect(Disconnect::new(ReasonCode::SessionTakenOver)));
    let list = [SessionExpiryIntervalS(0), ServerReference("b")];
    let properties = Properties::new(&list);
    let reason = ReasonCode::DisconnectWithWill;
    both(
        V5,
        "e0 0b 04 09 11 00000000 1c 0001'b'",
        Packet::Disconnect(Disconnect { reason, properties }),
    );
    let list = [AuthenticationMethod("m"), AuthenticationData(&[1, 2])];
    let properties = Properties::new(&list);
    let reason = ReasonCode::ContinueAuthentication;
    both(V5, "f0 0b 18 09 15 0001'm' 16 0002 0102", Packet::Auth(Auth { reason, properties }));
}

#[test]
fn what_cannot_be_encoded() {
    let fails = |version, packet: Packet<'_>, error| {
        let mut bytes = Vec::new();
        assert_eq!(packet.encode(version, &mut bytes), Err(error), "{packet:?}");
        assert_eq!(packet.encoded_len(version), Err(error));
        assert!(bytes.is_empty(), "nothing is written before all is checked");
    };
    let long = "x".repeat(65_536);
    fails(V5, Packet::Publish(Publish::new(&long, b"")), EncodeError::FieldTooLong);
    let acknowledged = Publish { qos: QoS::AtLeastOnce, ..Publish::new("t", b"") };
    fails(V5, Packet::Publish(acknowledged), EncodeError::NoPacketId);
    let reason = ReasonCode::Success;
    let auth = Auth { reason, properties: Properties::NONE };
    fails(V3_1_1, Packet::Auth(auth), EncodeError::NotInVersion);
    let connect = Connect { password: Some(b"p"), ..Connect::new(V3_1_1, "c") };
    fails(V3_1_1, Packet::Connect(connect), EncodeError::NotInVersion);
    let list = [SubscriptionIdentifier(268_435_456)];
    let publish = Publish { properties: Properties::new(&list), ..Publish::new("t", b"") };
    fails(V5, Packet::Publish(publish), EncodeError::NumberTooLarge);
    // With the topic's two bytes and one, the longest payload; never touched, so never in memory.
    let payload = vec![0; MAX_REMAINING_LENGTH as usize - 2];
    let longest = Packet::Publish(Publish::new("t", &payload[1..]));
    assert_eq!(longest.encoded_len(V3_1_1), Ok(268_435_460));
    fails(V3_1_1, Packet::Publish(Publish::new("t", &payload)), EncodeError::PacketTooLong);
    // 4,096 strings of 64 KiB are one byte too many, without being in memory 4,096 times.
    let name = &long[1..];
    let list = [UserProperty(name, name); 2048];
    let publish = Publish { properties: Properties::new(&list), ..Publish::new("t", b"") };
    fails(V5, Packet::Publish(publish), EncodeError::PacketTooLong);
}

/// Table 1-1 of 5.0.
#[test]
fn variable_byte_integers() {
    let table = [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ];
    for (value, text) in table {
        let mut bytes = Vec::new();
        assert_eq!(write_variable_byte_integer(&mut bytes, value), Ok(()));
        assert_eq!(bytes, hex(text));
        assert_eq!(variable_byte_integer_len(value), bytes.len());
    }
    let refused = write_variable_byte_integer(&mut Vec::new(), 268_435_456);
    assert_eq!(refused, Err(EncodeError::PacketTooLong));
}
