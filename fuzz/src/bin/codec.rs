//! Any bytes as a stream of packets, in each version: nothing panics, and what decodes encodes to
//! an equal packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel_codec::{Frame, Packet, PacketType, Version};

fuzz_target!(|bytes: &[u8]| {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        stream(version, bytes);
    }
});

/// The connection's version, then the version of each CONNECT.
fn stream(mut version: Version, mut bytes: &[u8]) {
    while let Ok(Some(frame)) = Frame::parse(bytes, u32::MAX) {
        let Some((packet, rest)) = bytes.split_at_checked(frame.packet_len()) else {
            assert!(Packet::decode(version, &frame, bytes).is_err(), "{frame:?} of {bytes:02x?}");
            return;
        };
        let decoded = Packet::decode(version, &frame, packet);
        if frame.packet_type == PacketType::Publish {
            let publish = Packet::decode_publish(version, &frame, packet);
            assert_eq!(publish.map(Packet::Publish), decoded);
        }
        if let Ok(decoded) = decoded {
            if let Packet::Connect(connect) = decoded {
                version = connect.version;
            }
            encode(version, decoded);
        }
        bytes = rest;
    }
}

fn encode(version: Version, packet: Packet<'_>) {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).expect("what was decoded can be encoded");
    assert_eq!(packet.encoded_len(version), Ok(bytes.len()));
    let frame = Frame::parse(&bytes, u32::MAX).expect("a fixed header").expect("a whole one");
    assert_eq!(frame.packet_len(), bytes.len());
    assert_eq!(Packet::decode(version, &frame, &bytes), Ok(packet));
}
