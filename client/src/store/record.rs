//! A message as it stands on disk: when it expires, and then its PUBLISH packet of MQTT 5.0.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use whimbrel_codec::{Frame, Packet, PacketId, Publish, QoS, Version};

use super::OVERHEAD_BYTES;
use crate::{Message, PropertyList, PublishError};

/// Milliseconds since 1970 (UTC), little-endian.
const DEADLINE_BYTES: usize = 8;
/// It does not expire.
const NEVER: u64 = u64::MAX;

/// The bytes of a message that was published at `now`.
pub(crate) fn encode(message: &Message, now: SystemTime) -> Result<Vec<u8>, PublishError> {
    let deadline = match message.expiry_s {
        Some(expiry_s) => millis(now).saturating_add(u64::from(expiry_s) * 1000),
        None => NEVER,
    };
    let mut bytes = Vec::with_capacity(message.len_bytes() + OVERHEAD_BYTES);
    bytes.extend_from_slice(&deadline.to_le_bytes());
    // The packet identifier stands elsewhere, as it changes.
    let packet_id = (message.qos != QoS::AtMostOnce).then_some(PacketId::MIN);
    let publish = Publish {
        qos: message.qos,
        retain: message.retain,
        packet_id,
        properties: message.properties.view(),
        ..Publish::new(&message.topic, &message.payload)
    };
    let encoded = Packet::Publish(publish).encode(Version::V5, &mut bytes);
    encoded.map_err(|error| PublishError::Invalid(error.into()))?;
    Ok(bytes)
}

/// A message with the seconds that it may still live at `now`; none if these are no message's
/// bytes.
pub(crate) fn decode(bytes: Vec<u8>, now: SystemTime) -> Option<Message> {
    let (deadline, packet) = bytes.split_first_chunk::<DEADLINE_BYTES>()?;
    let deadline = u64::from_le_bytes(*deadline);
    let frame = Frame::parse(packet, u32::MAX).ok()??;
    if frame.packet_len() != packet.len() {
        return None;
    }
    let Packet::Publish(publish) = Packet::decode(Version::V5, &frame, packet).ok()? else {
        return None;
    };
    let expiry_s = (deadline != NEVER)
        .then(|| u32::try_from(deadline.saturating_sub(millis(now)) / 1000).unwrap_or(u32::MAX));
    let (topic, qos, retain) = (publish.topic.into(), publish.qos, publish.retain);
    let properties = PropertyList::copy_of(&publish.properties);
    // The payload is the end of the packet.
    let at = bytes.len() - publish.payload.len();
    let payload = Bytes::from(bytes).slice(at..);
    Some(Message { topic, payload, qos, retain, expiry_s, properties })
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(NEVER - 1)
}
