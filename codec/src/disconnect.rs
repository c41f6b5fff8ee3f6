//! DISCONNECT and AUTH (sections 3.14 and 3.15).

use crate::property::Allowed;
use crate::wire::{LONG, Reader};
use crate::{
    DecodeError, EncodeError, PacketType, Properties, Property, ReasonCode, Sink, Version,
};

const DISCONNECT: Allowed = Allowed::new(&[17, 28, 31]);
const AUTH: Allowed = Allowed::new(&[21, 22, 31]);

/// The last packet of a connection. Before 5.0 only the client sends it, without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Success means normal disconnection.
    pub reason: ReasonCode,
    /// 5.0 only.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    /// Without properties.
    pub const fn new(reason: ReasonCode) -> Disconnect<'a> {
        Disconnect { reason, properties: Properties::NONE }
    }

    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Disconnect<'a>, DecodeError> {
        if body.is_empty() {
            return Ok(Disconnect::new(ReasonCode::Success));
        }
        if !version.is_v5() {
            return Err(LONG);
        }
        let r = &mut Reader::new(body);
        // [MQTT-3.14.2-1]
        let reason = ReasonCode::decode(r.u8()?, PacketType::Disconnect)?;
        if r.is_empty() {
            return Ok(Disconnect::new(reason));
        }
        let properties = Properties::decode(r, version, DISCONNECT)?;
        r.end()?;
        Ok(Disconnect { reason, properties })
    }

    pub(crate) fn encode_body(
        &self,
        version: Version,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        if !version.is_v5() {
            return Ok(());
        }
        encode(self.reason, &self.properties, sink)
    }
}

/// A step of enhanced authentication; 5.0 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue authentication or re-authenticate.
    pub reason: ReasonCode,
    /// With the authentication method, unless all is left out for success.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Auth<'a>, DecodeError> {
        if !version.is_v5() {
            return Err(DecodeError::malformed("packet type 15"));
        }
        if body.is_empty() {
            return Ok(Auth { reason: ReasonCode::Success, properties: Properties::NONE });
        }
        let r = &mut Reader::new(body);
        // [MQTT-3.15.2-1]
        let reason = ReasonCode::decode(r.u8()?, PacketType::Auth)?;
        let properties = Properties::decode(r, version, AUTH)?;
        r.end()?;
        // Section 3.15.2.2.2
        if !properties.iter().any(|p| matches!(p, Property::AuthenticationMethod(_))) {
            return Err(DecodeError::protocol("an AUTH without an authentication method"));
        }
        Ok(Auth { reason, properties })
    }

    pub(crate) fn encode_body(
        &self,
        version: Version,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        if !version.is_v5() {
            return Err(EncodeError::NotInVersion);
        }
        encode(self.reason, &self.properties, sink)
    }
}

/// Sections 3.14.2.1 and 3.15.2.1: reason and property length may be left out.
fn encode(
    reason: ReasonCode,
    properties: &Properties<'_>,
    sink: &mut impl Sink,
) -> Result<(), EncodeError> {
    if reason == ReasonCode::Success && properties.is_empty() {
        return Ok(());
    }
    sink.put(&[reason as u8])?;
    if properties.is_empty() {
        return Ok(());
    }
    properties.encode(Version::V5, sink)
}
