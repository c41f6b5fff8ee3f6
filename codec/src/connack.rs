//! CONNACK (section 3.2).

use crate::property::Allowed;
use crate::wire::Reader;
use crate::{DecodeError, EncodeError, Properties, ReasonCode, Sink, Version};

const PROPERTIES: Allowed =
    Allowed::new(&[17, 18, 19, 21, 22, 26, 28, 31, 33, 34, 36, 37, 39, 40, 41, 42]);

/// The server's answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server has a session for this client.
    pub session_present: bool,
    /// Encoded as one of the five return codes in 3.1 and 3.1.1.
    pub reason: ReasonCode,
    /// 5.0 only.
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<ConnAck<'a>, DecodeError> {
        let r = &mut Reader::new(body);
        let flags = r.u8()?;
        // [MQTT-3.2.2-1]
        if flags > 1 {
            return Err(DecodeError::malformed("reserved bits of the CONNACK flags"));
        }
        let code = r.u8()?;
        let reason = if version.is_v5() { reason(code) } else { from_return_code(code) }
            .ok_or(DecodeError::malformed("unknown CONNACK reason code"))?;
        let properties = Properties::decode(r, version, PROPERTIES)?;
        if !r.is_empty() {
            return Err(DecodeError::malformed("bytes after the end of the packet"));
        }
        Ok(ConnAck { session_present: flags == 1, reason, properties })
    }

    pub(crate) fn encode_body(
        &self,
        version: Version,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        let code = if version.is_v5() { self.reason as u8 } else { to_return_code(self.reason) };
        sink.put(&[u8::from(self.session_present), code])?;
        self.properties.encode(version, sink)
    }
}

/// Success or an error of section 3.2.2.2; the codes of other packets do not belong here.
fn reason(code: u8) -> Option<ReasonCode> {
    ReasonCode::from_u8(code).filter(|reason| code == 0 || reason.is_error())
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
