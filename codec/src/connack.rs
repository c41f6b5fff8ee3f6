//! CONNACK (section 3.2).

use crate::property::Allowed;
use crate::wire::Reader;
use crate::{DecodeError, EncodeError, PacketType, Properties, ReasonCode, Sink, Version};

const PROPERTIES: Allowed =
    Allowed::new(&[17, 18, 19, 21, 22, 26, 28, 31, 33, 34, 36, 37, 39, 40, 41, 42]);

/// The server's answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server has a session for this client; not on the wire in 3.1.
    pub session_present: bool,
    /// Encoded as one of the five return codes in 3.1 and 3.1.1.
    pub reason: ReasonCode,
    /// 5.0 only.
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<ConnAck<'a>, DecodeError> {
        let r = &mut Reader::new(body);
        let flags = match (r.u8()?, version) {
            // 3.1 has no session present; its byte is not used.
            (_, Version::V3_1) => 0,
            (flags, _) => flags,
        };
        // [MQTT-3.2.2-1]
        if flags > 1 {
            return Err(DecodeError::malformed("reserved bits of the CONNACK flags"));
        }
        let code = r.u8()?;
        // [MQTT-3.2.2-8]
        let reason = if version.is_v5() {
            ReasonCode::decode(code, PacketType::ConnAck)?
        } else {
            from_return_code(code).ok_or(DecodeError::malformed("unknown CONNACK return code"))?
        };
        // [MQTT-3.2.2-6]; [MQTT-3.2.2-4] of 3.1.1
        if flags == 1 && reason.is_error() {
            return Err(DecodeError::protocol("session present in a refusal"));
        }
        let properties = Properties::decode(r, version, PROPERTIES)?;
        r.end()?;
        Ok(ConnAck { session_present: flags == 1, reason, properties })
    }

    pub(crate) fn encode_body(
        &self,
        version: Version,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        let code = if version.is_v5() { self.reason as u8 } else { to_return_code(self.reason) };
        let session_present = self.session_present && version != Version::V3_1;
        sink.put(&[u8::from(session_present), code])?;
        self.properties.encode(version, sink)
    }
}

/// The return codes of 3.1.1 (table 3.1 there).
fn from_return_code(code: u8) -> Option<ReasonCode> {
    Some(match code {
        0 => ReasonCode::Success,
        1 => ReasonCode::UnsupportedProtocolVersion,
        2 => ReasonCode::ClientIdNotValid,
        3 => ReasonCode::ServerUnavailable,
        4 => ReasonCode::BadUserNameOrPassword,
        5 => ReasonCode::NotAuthorized,
        _ => return None,
    })
}

fn to_return_code(reason: ReasonCode) -> u8 {
    match reason {
        ReasonCode::UnsupportedProtocolVersion => 1,
        ReasonCode::ClientIdNotValid => 2,
        ReasonCode::BadUserNameOrPassword => 4,
        ReasonCode::NotAuthorized | ReasonCode::Banned | ReasonCode::BadAuthenticationMethod => 5,
        reason if reason.is_error() => 3,
        _ => 0,
    }
}
