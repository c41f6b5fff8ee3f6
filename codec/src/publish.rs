//! PUBLISH (section 3.3).

use crate::property::Allowed;
use crate::wire::{Reader, WILDCARD, put_binary};
use crate::{DecodeError, EncodeError, PacketId, Properties, Property, QoS, Sink, Version};

const PROPERTIES: Allowed = Allowed::new(&[1, 2, 3, 8, 9, 11, 35]).repeating(11);

/// An application message on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Perhaps sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// To keep as the topic's retained message; or, to a subscriber, a retained message.
    pub retain: bool,
    /// Empty only in 5.0 and only together with a topic alias; never with a wildcard.
    pub topic: &'a str,
    /// With QoS 1 and 2, and only then.
    pub packet_id: Option<PacketId>,
    /// 5.0 only.
    pub properties: Properties<'a>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// QoS 0, not retained, without properties.
    pub const fn new(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: Properties::NONE,
            payload,
        }
    }

    #[inline]
    pub(crate) fn decode(
        version: Version,
        flags: u8,
        body: &'a [u8],
    ) -> Result<Publish<'a>, DecodeError> {
        // [MQTT-3.3.1-4]
        let qos = QoS::from_u8(flags >> 1 & 3).ok_or(DecodeError::malformed("QoS 3"))?;
        let dup = flags & 8 != 0;
        // [MQTT-3.3.1-2]
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::malformed("DUP with QoS 0"));
        }
        let r = &mut Reader::new(body);
        // [MQTT-3.3.2-2]
        let topic = r.topic_name()?;
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(r.packet_id()?) };
        let properties = Properties::decode(r, version, PROPERTIES)?;
        if topic.is_empty() && !has_alias(version, &properties) {
            return Err(DecodeError::protocol("an empty topic name without a topic alias"));
        }
        let retain = flags & 1 != 0;
        Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload: r.rest() })
    }

    pub(crate) const fn flags(&self) -> u8 {
        (self.dup as u8) << 3 | (self.qos as u8) << 1 | self.retain as u8
    }

    pub(crate) fn encode_body(
        &self,
        version: Version,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        put_binary(sink, self.topic.as_bytes())?;
        if self.qos != QoS::AtMostOnce {
            let id = self.packet_id.ok_or(EncodeError::NoPacketId)?;
            sink.put(&id.get().to_be_bytes())?;
        }
        self.properties.encode(version, sink)?;
        sink.put(self.payload)
    }
}

fn has_wildcard(topic: &str) -> bool {
    topic.bytes().any(|byte| byte == b'+' || byte == b'#')
}

pub(crate) fn check_no_wildcard(topic: &str) -> Result<(), DecodeError> {
    if has_wildcard(topic) { Err(WILDCARD) } else { Ok(()) }
}

fn has_alias(version: Version, properties: &Properties<'_>) -> bool {
    version.is_v5() && properties.iter().any(|p| matches!(p, Property::TopicAlias(_)))
}
