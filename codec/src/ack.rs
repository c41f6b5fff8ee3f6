//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7): one shape, four meanings.

use crate::property::Allowed;
use crate::wire::{LONG, Reader};
use crate::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, ReasonCode, Sink, Version,
};

const PROPERTIES: Allowed = Allowed::new(&[31]);

/// The body of PUBACK, PUBREC, PUBREL and PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Of the PUBLISH.
    pub packet_id: PacketId,
    /// Not on the wire before 5.0, where it is always success.
    pub reason: ReasonCode,
    /// 5.0 only.
    pub properties: Properties<'a>,
}

impl<'a> Ack<'a> {
    /// Success without properties.
    pub const fn new(packet_id: PacketId) -> Ack<'a> {
        Ack { packet_id, reason: ReasonCode::Success, properties: Properties::NONE }
    }

    #[inline]
    pub(crate) fn decode(
        version: Version,
        packet_type: PacketType,
        body: &'a [u8],
    ) -> Result<Ack<'a>, DecodeError> {
        let r = &mut Reader::new(body);
        let packet_id = r.packet_id()?;
        if r.is_empty() {
            return Ok(Ack::new(packet_id));
        }
        if !version.is_v5() {
            return Err(LONG);
        }
        // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
        let reason = ReasonCode::decode(r.u8()?, packet_type)?;
        // Section 3.4.2.2.1: a remaining length below 4 means no properties.
        if r.is_empty() {
            return Ok(Ack { packet_id, reason, properties: Properties::NONE });
        }
        let properties = Properties::decode(r, version, PROPERTIES)?;
        r.end()?;
        Ok(Ack { packet_id, reason, properties })
    }

    pub(crate) fn encode_body(
        &self,
        version: Version,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        sink.put(&self.packet_id.get().to_be_bytes())?;
        if !version.is_v5() || (self.reason == ReasonCode::Success && self.properties.is_empty()) {
            return Ok(());
        }
        sink.put(&[self.reason as u8])?;
        if self.properties.is_empty() {
            return Ok(());
        }
        self.properties.encode(version, sink)
    }
}
