//! What the tests of the codec share: the way in, the way out, and packets of arbitrary contents.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod arbitrary;

use whimbrel_codec::{DecodeError, Frame, Packet, ReasonCode, Version};

pub const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

/// Decodes `bytes`, which must be one whole packet by its fixed header.
pub fn decode(version: Version, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    let frame = Frame::parse(bytes, u32::MAX)?.expect("a whole fixed header");
    assert_eq!(frame.packet_len(), bytes.len(), "length of {bytes:02x?}");
    Packet::decode(version, &frame, bytes)
}

/// The reason that `bytes` are refused for; none where they are a packet.
pub fn refusal(version: Version, bytes: &[u8]) -> Option<ReasonCode> {
    decode(version, bytes).err().map(|error| error.reason)
}

pub fn encode(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).expect("a packet that can be encoded");
    bytes
}

/// Bytes from hexadecimal digits; spaces part fields, and `'text'` stands for its own bytes.
pub fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend(part.bytes());
            continue;
        }
        let digits: Vec<u8> = part.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        for pair in digits.chunks(2) {
            let pair = str::from_utf8(pair).expect("ASCII");
            bytes.push(u8::from_str_radix(pair, 16).expect("two hexadecimal digits"));
        }
    }
    bytes
}

/// A packet of the first byte `first` and the body `body`, in [`hex`] notation.
pub fn packet(first: u8, body: &str) -> Vec<u8> {
    frame(first, &hex(body))
}

/// A packet of the first byte `first` and the body `body`, shorter than 128 bytes.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len()).ok().filter(|len| *len < 128).expect("a short body");
    [&[first, len], body].concat()
}
