//! Packets as bytes, for those that the codec would rightly refuse to encode.

use whimbrel_codec::Version;

/// A packet: its first byte, the remaining length as it should be, and its body in parts.
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest % 128) as u8;
        rest /= 128;
        bytes.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(&body);
    bytes
}

/// A field with its two-byte length before it; the bytes need not be UTF-8.
pub fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes(), bytes].concat()
}

/// Properties with the length before them; at most 127 bytes. Nothing before 5.0.
pub fn properties(version: Version, bytes: &[u8]) -> Vec<u8> {
    if !version.is_v5() {
        return Vec::new();
    }
    [&[bytes.len() as u8], bytes].concat()
}

/// A CONNECT with these flags and these fields after the properties (none in this one).
pub fn connect(version: Version, flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    connect_with(version, flags, &[], payload)
}

/// A CONNECT with raw properties too.
pub fn connect_with(version: Version, flags: u8, props: &[u8], payload: &[&[u8]]) -> Vec<u8> {
    let name: &[u8] = if version == Version::V3_1 { b"MQIsdp" } else { b"MQTT" };
    let head = [field(name), vec![version as u8, flags, 0, 60], properties(version, props)];
    packet(0x10, &[&head.concat(), &payload.concat()])
}

/// A QoS 0 PUBLISH with raw properties.
pub fn publish(version: Version, topic: &[u8], props: &[u8], payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&field(topic), &properties(version, props), payload])
}

/// A SUBSCRIBE of packet identifier 1 for one filter with these option bits.
pub fn subscribe(version: Version, filter: &[u8], props: &[u8], options: u8) -> Vec<u8> {
    packet(0x82, &[&[0, 1], &properties(version, props), &field(filter), &[options]])
}

/// An UNSUBSCRIBE of packet identifier 1 for one filter.
pub fn unsubscribe(version: Version, filter: &[u8]) -> Vec<u8> {
    packet(0xa2, &[&[0, 1], &properties(version, &[]), &field(filter)])
}
