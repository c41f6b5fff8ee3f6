//! Properties that hold for all packets and all bytes.
#![allow(clippy::unwrap_used)]

mod common;

use common::arbitrary::versioned;
use common::{VERSIONS, decode, encode};
use proptest::prelude::*;
use proptest::sample::Index;
use whimbrel_codec::*;

/// What decodes must encode again, to a packet that is equal.
fn assert_sound(version: Version, bytes: &[u8]) {
    let Ok(Some(frame)) = Frame::parse(bytes, u32::MAX) else { return };
    let packet = Packet::decode(version, &frame, bytes);
    if frame.packet_type == PacketType::Publish {
        let publish = Packet::decode_publish(version, &frame, bytes);
        assert_eq!(publish.map(Packet::Publish), packet, "{bytes:02x?}");
    }
    let Ok(packet) = packet else { return };
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let again = encode(version, &packet);
    assert_eq!(decode(version, &again).as_ref(), Ok(&packet), "{bytes:02x?} -> {again:02x?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn an_encoded_packet_decodes_to_itself((version, packet) in versioned()) {
        let bytes = encode(version, &packet);
        prop_assert_eq!(packet.encoded_len(version), Ok(bytes.len()));
        prop_assert_eq!(decode(version, &bytes), Ok(packet));
    }

    /// Bytes may go on behind the packet: the next packet, of which the decoder sees nothing.
    #[test]
    fn what_follows_a_packet_does_not_matter((version, packet) in versioned(), next: [u8; 3]) {
        let mut bytes = encode(version, &packet);
        let len = bytes.len();
        bytes.extend(next);
        let frame = Frame::parse(&bytes, u32::MAX).unwrap().unwrap();
        prop_assert_eq!(frame.packet_len(), len);
        prop_assert_eq!(Packet::decode(version, &frame, &bytes), Ok(packet));
    }

    #[test]
    fn a_packet_may_come_in_pieces((version, packet) in versioned()) {
        let bytes = encode(version, &packet);
        let frame = Frame::parse(&bytes, u32::MAX).unwrap().unwrap();
        for split in (0..bytes.len()).filter(|split| *split < 600 || split % 97 == 0) {
            let head = &bytes[..split];
            let parsed = Frame::parse(head, u32::MAX);
            prop_assert_eq!(parsed, Ok((split >= frame.header_len).then_some(frame)));
            prop_assert!(Packet::decode(version, &frame, head).is_err());
        }
    }

    /// A body that ends early, in a frame that says so, decodes only where what is missing may
    /// be: the payload of a PUBLISH, the list of a SUBSCRIBE, the optional end of an answer.
    #[test]
    fn a_shortened_body_is_sound((version, packet) in versioned(), cut: Index) {
        let bytes = encode(version, &packet);
        let frame = Frame::parse(&bytes, u32::MAX).unwrap().unwrap();
        let body = &bytes[frame.header_len..];
        let mut short = vec![bytes[0]];
        let len = cut.index(body.len() + 1);
        write_variable_byte_integer(&mut short, len as u32).unwrap();
        short.extend(&body[..len]);
        assert_sound(version, &short);
    }

    #[test]
    fn a_slice_too_short_has_no_room((version, packet) in versioned()) {
        let bytes = encode(version, &packet);
        let mut room = vec![0; bytes.len()];
        for len in (0..bytes.len()).filter(|len| *len < 600 || len % 97 == 0) {
            let mut sink = SliceSink::new(&mut room[..len]);
            prop_assert_eq!(packet.encode(version, &mut sink), Err(EncodeError::NoRoom));
            prop_assert!(bytes.starts_with(sink.written()));
        }
        let mut sink = SliceSink::new(&mut room);
        prop_assert_eq!(packet.encode(version, &mut sink), Ok(()));
        prop_assert_eq!(sink.written(), &bytes[..]);
    }

    #[test]
    fn a_maximum_packet_size_counts_the_fixed_header((version, packet) in versioned()) {
        let bytes = encode(version, &packet);
        let len = bytes.len() as u32;
        prop_assert!(Frame::parse(&bytes, len).unwrap().is_some());
        let refused = Frame::parse(&bytes, len - 1).unwrap_err();
        prop_assert_eq!(refused.reason, ReasonCode::PacketTooLarge);
    }

    #[test]
    fn any_bytes_are_sound(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        for version in VERSIONS {
            assert_sound(version, &bytes);
        }
    }

    /// Most random bytes fail at the fixed header; these do not.
    #[test]
    fn any_body_is_sound(kind in 1..16u8, body in proptest::collection::vec(any::<u8>(), 0..80)) {
        let flags: &[u8] = match kind {
            3 => &[0, 1, 2, 4, 10, 13],
            6 | 8 | 10 => &[2, 10],
            _ => &[0],
        };
        for flags in flags {
            let bytes = common::frame(kind << 4 | flags, &body);
            VERSIONS.into_iter().for_each(|version| assert_sound(version, &bytes));
        }
    }

    #[test]
    fn a_mutated_packet_is_sound(
        (version, packet) in versioned(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(version, &packet);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        VERSIONS.into_iter().for_each(|version| assert_sound(version, &bytes));
    }
}

/// Every byte of a few packets, replaced by every value.
#[test]
fn every_single_byte_mutation_is_sound() {
    let samples = [
        (
            0x10,
            "0004'MQTT' 05 c6 003c 05 11 00000e10 0001'c' 02 01 01 0001't' 0001'p' 0001'u' 0001'w'",
        ),
        (0x10, "0004'MQTT' 04 02 003c 0001'c'"),
        (0x10, "0006'MQIsdp' 03 c2 003c 0001'c' 0001'u' 0000"),
        (0x20, "01 00 08 21 0014 22 000a 24 01"),
        (0x32, "0003'a/b' 0007 08 02 0000003c 23 0001 'hi'"),
        (0x40, "0007 10 03 1f 0000"),
        (0x62, "0007 92 00"),
        (0x82, "0007 02 0b 05 0003'a/#' 2e"),
        (0x90, "0007 00 02 87"),
        (0xa2, "0007 00 0003'a/#'"),
        (0xb0, "0007 00 00 11"),
        (0xe0, "04 08 11 00000001 1f 0000"),
        (0xf0, "18 08 15 0001'm' 16 0001 ff"),
    ];
    for (first, body) in samples {
        let bytes = common::packet(first, body);
        let valid = VERSIONS.into_iter().any(|version| decode(version, &bytes).is_ok());
        assert!(valid, "{first:02x} {body}");
        for place in 0..bytes.len() {
            for value in 0..=255 {
                let mut mutated = bytes.clone();
                mutated[place] = value;
                VERSIONS.into_iter().for_each(|version| assert_sound(version, &mutated));
            }
        }
    }
}
