//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7): one shape, four meanings.

use crate::property::Allowed;
use crate::wire::Reader;
use crate::{DecodeError, EncodeError, PacketId, Properties, ReasonCode, Sink, Version};

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
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Ack<'a>, DecodeError> {
        let r = &mut Reader::new(body);
        let packet_id = r.packet_id()?;
        if r.is_empty() {
            return Ok(Ack::new(packet_id));
        }
        if !version.is_v5() {
            return Err(DecodeError::malformed("bytes after the end of the packet"));
        }
        let reason = ReasonCode::from_u8(r.u8()?)
            .filter(is_of_publish)
            .ok_or(DecodeError::malformed("unknown reason code"))?;
        // Section 3.4.2.2.1: a remaining length below 4 means no properties.
        if r.is_empty() {
            return Ok(Ack { packet_id, reason, properties: Properties::NONE });
        }
        let properties = Properties::decode(r, version, PROPERTIES)?;
        if !r.is_empty() {
            return Err(DecodeError::malformed("bytes after the end of the packet"));
        }
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

/// The codes of tables 3-4 to 3-7.
fn is_of_publish(reason: &ReasonCode) -> bool {
    use ReasonCode::*;
    matches!(
        reason,
        Success
            | NoMatchingSubscribers
            | UnspecifiedError
            | ImplementationSpecificError
            | NotAuthorized
            | TopicNameInvalid
            | PacketIdInUse
            | PacketIdNotFound
            | QuotaExceeded
            | PayloadFormatInvalid
    )
}
